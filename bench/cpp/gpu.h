// What the benchmark needs of the CUDA runtime. gpu.cpp where there is a toolkit, else
// gpu_not_built.cpp. Failures throw std::runtime_error.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace bench::gpu {

/// Why this program can use no GPU; empty if it can. The other functions are only for then.
std::string unavailable_reason();

/// Name, multiprocessors and driver of the GPU, one line.
std::string description();

void* allocate(std::size_t bytes);
void release(void* data) noexcept;
void upload(void* device, const void* host, std::size_t bytes);
/// Waits for stream() first.
void download(void* host, const void* device, std::size_t bytes);

/// The cudaStream_t on which everything here runs.
void* stream();

/// Seconds of what `enqueue` puts on stream(), between two events, with an L2 that holds nothing of
/// its inputs.
double time_seconds(const std::function<void()>& enqueue);

}  // namespace bench::gpu
