// The host side of tests/simt over the interpreter's runtime, so that the tests in
// tests/simt/kernels build unmodified for both. Kernels run from PTX here; simt's state per byte
// does not exist.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

#include "ptxsim/runtime.h"

namespace simt {

/// Never thrown here: a launch whose kernel violates a rule returns an error instead.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Schedule { kRoundRobin, kRandom };
enum class AsyncCopies { kLate, kEager, kRandom };

/// Those of tests/simt. Every launch reads `async` and `seed`; a random schedule implies random
/// landing. PTXSIM_LANDING and PTXSIM_SEED in the environment take precedence.
struct Options {
  uint64_t seed = 0;
  Schedule schedule = Schedule::kRoundRobin;
  AsyncCopies async = AsyncCopies::kLate;
  std::size_t max_shared_bytes = 99 * 1024;
  std::size_t stack_bytes = 256 * 1024;
  bool check_memory = true;
  bool check_races = true;
  bool locate = true;
};
inline Options& options() {
  static Options kOptions;
  return kOptions;
}

using Device = ptxsim::runtime::Device;
using Machine = ptxsim::runtime::Machine;
inline Machine& machine() { return ptxsim::runtime::machine(); }

namespace detail {
inline void set_landing() {
  if (std::getenv("PTXSIM_LANDING") != nullptr) return;
  using ptxsim::Landing;
  const bool is_random =
      options().async == AsyncCopies::kRandom || options().schedule == Schedule::kRandom;
  const Landing timed = options().async == AsyncCopies::kLate ? Landing::kLate : Landing::kAtOnce;
  ptxsim::runtime::set_landing(is_random ? Landing::kRandom : timed, options().seed);
}
/// Set before main(), so that every launch of the program calls it.
inline const bool is_installed = [] {
  ptxsim::runtime::set_before_launch(&set_landing);
  return true;
}();
}  // namespace detail

inline void* device_malloc(std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) throw std::bad_alloc();
  return memory;
}
inline void device_free(void* memory) { cudaFree(memory); }
inline std::size_t num_allocations() { return ptxsim::runtime::num_allocations(); }

/// Does nothing: device memory is the host's, and who wrote it is not recorded. simt's own build
/// checks that.
inline void mark_initialized(void*, std::size_t) {}
inline std::size_t first_uninitialized(const void*, std::size_t bytes) { return bytes; }

}  // namespace simt
