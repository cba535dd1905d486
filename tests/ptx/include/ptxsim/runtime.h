// The CUDA runtime over the interpreter: what a program on it may set and query. For everything
// else it calls CUDA's own functions.
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
  int shared_bytes_per_multiprocessor = 0;  // 0: the architecture's value.
};

/// The machine that the runtime's functions report. Every device is the interpreter; memory and
/// streams remember their device.
struct Machine {
  std::vector<Device> devices = {Device{}};
  int current_device = 0;
  int driver_version = CUDART_VERSION;          // 0: no driver. Below the runtime's major: too old.
  cudaError_t next_launch_error = cudaSuccess;  // The next launch returns it, and does not run.
  bool kernel_image_missing = false;            // No kernel is built for the device.
};
Machine& machine();

/// Called before each launch, so that a program can choose landing and seed for each.
void set_before_launch(void (*hook)());

/// `seed` is for Landing::kRandom.
void set_landing(Landing landing, std::uint64_t seed);

/// Number of live allocations of device memory.
std::size_t num_allocations();

/// What a kernel did wrong: the text behind cudaErrorLaunchFailure, which stays until the process
/// ends, as on a GPU. Empty: nothing yet.
std::string failure_text();

}  // namespace ptxsim::runtime
