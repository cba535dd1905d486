// Emulated CUDA threads, host side: options, violations, device memory, and the machine that the
// runtime reports. What kernels call is in device.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace simt {

/// A kernel did something that no correct kernel does. what() names kernel, block, thread and
/// action.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Which of the runnable threads runs next, and in which order blocks run.
enum class Schedule {
  kRoundRobin,  // Ascending, each thread until it must wait.
  kRandom,      // By options().seed; also switches threads that need not wait.
};

/// When asynchronous copies (cp.async, and other work that runs beside the threads) take effect.
enum class AsyncCopies {
  kLate,    // Not before something waits for them: a missing wait always shows.
  kEager,   // At once.
  kRandom,  // By options().seed, in any order that the instructions allow.
};

struct Options {
  uint64_t seed = 0;
  Schedule schedule = Schedule::kRoundRobin;
  AsyncCopies async = AsyncCopies::kLate;
  std::size_t max_shared_bytes = 99 * 1024;  // Per block: 8.6, 8.9; 163 KiB on 8.0, 227 on 9.0.
  std::size_t stack_bytes = 256 * 1024;      // Per thread.
  bool check_memory = true;                  // Bounds, initialisation, pending copies.
  bool check_races = true;                   // In shared memory.
  bool locate = true;                        // Violations name source lines (needs addr2line).
};

/// Each launch reads them when it starts; no other thread may change them then.
Options& options();

/// Allocates memory for kernels, 256-byte aligned; host code may read and write it too. It counts
/// as uninitialised until a kernel, cudaMemcpy or cudaMemset writes it. Kernels may touch the
/// `bytes` asked for and not one more. Null if `bytes` is 0. @throws std::bad_alloc
void* device_malloc(std::size_t bytes);

/// @throws std::invalid_argument unless `pointer` came from device_malloc() or is null.
void device_free(void* pointer);

/// Announces that host code wrote these bytes. @throws std::invalid_argument if they are not all
/// inside one allocation.
void mark_initialized(void* pointer, std::size_t bytes);

/// Offset of the first byte that nobody has written; `bytes` if there is none.
std::size_t first_uninitialized(const void* pointer, std::size_t bytes);

/// Number of live allocations, by which a test sees a leak.
std::size_t num_allocations();

struct Device {
  int major = 9;
  int minor = 0;
  int num_multiprocessors = 132;
  int shared_bytes_per_multiprocessor = 0;  // 0: the architecture's value; 228 KiB on 9.0.
};

/// The machine that the emulated runtime sees. Assign machine() = {} to be back at the default.
struct Machine {
  int driver_version = 13000;   // 0: no driver. Below the runtime's major version: too old.
  int runtime_version = 13000;  // Encoded like CUDART_VERSION.
  std::vector<Device> devices = {Device{}};
  int current_device = 0;
  cudaError_t next_launch_error = cudaSuccess;  // Returned by the next launch, once.
  bool kernel_image_missing = false;            // No kernel is built for the device.
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
};

Machine& machine();

}  // namespace simt
