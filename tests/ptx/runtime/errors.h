// The runtime's last error, and its sticky error.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace ptxsim::runtime {

/// Records a call's error for cudaGetLastError(), and returns it.
cudaError_t failed(cudaError_t error);

/// Checks that there is a new enough driver with a device.
cudaError_t machine_error();

/// The error of a kernel that failed: every later call that touches the device returns it.
cudaError_t sticky_error();
void fail_device(cudaError_t error, const std::string& text);

}  // namespace ptxsim::runtime

/// Marks the functions that programs link to.
#define PTXSIM_API extern "C" __attribute__((visibility("default")))
