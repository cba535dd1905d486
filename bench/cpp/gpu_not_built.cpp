// A benchmark that was built without the CUDA toolkit: it says so where it is asked for a GPU.
// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>

#include "gpu.h"

namespace bench::gpu {
namespace {

[[noreturn]] void fail() { throw std::runtime_error(unavailable_reason()); }

}  // namespace

std::string unavailable_reason() { return "minference_bench was built without the CUDA toolkit"; }
std::string description() { fail(); }
void* allocate(std::size_t) { fail(); }
void release(void*) noexcept {}
void upload(void*, const void*, std::size_t) { fail(); }
void download(void*, const void*, std::size_t) { fail(); }
void* stream() { fail(); }
double time_seconds(const std::function<void()>&) { fail(); }

}  // namespace bench::gpu
