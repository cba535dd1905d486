// The CUDA runtime over the interpreter: what a program on it may set, and ask. Everything else it
// does through CUDA's own functions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ptxsim/landing.h"

namespace ptxsim::runtime {

struct Device {
  int major = 9;
  int minor = 0;
  int num_multiprocessors = 132;
  int shared_bytes_per_multiprocessor = 0;  // 0: as its architecture has.
};

/// What the runtime's functions see. Every device is the interpreter; memory and streams know
/// theirs.
struct Machine {
  std::vector<Device> devices = {Device{}};
  int current_device = 0;
  int driver_version = CUDART_VERSION;  // 0: no driver. Below the runtime's major: too old.
  cudaError_t next_launch_error =
      cudaSuccess;                    // What the next launch returns, in place of running.
  bool kernel_image_missing = false;  // No kernel is built for the device.
};
Machine& machine();

/// Called before each launch: a program's way to choose landing and seed launch by launch.
void set_before_launch(void (*hook)());

/// `seed`: of Landing::kRandom.
void set_landing(Landing landing, std::uint64_t seed);

/// Allocations of device memory that were not freed.
std::size_t num_allocations();

/// What a kernel did that it may not: the text behind cudaErrorLaunchFailure, which stays for the
/// process as on a GPU. Empty: nothing yet.
std::string failure_text();

}  // namespace ptxsim::runtime
