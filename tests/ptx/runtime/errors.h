// The runtime's last error, and the one that stays.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace ptxsim::runtime {

/// Notes the error of a call for cudaGetLastError(), and returns it.
cudaError_t failed(cudaError_t error);

/// Is there a driver, new enough, with a device?
cudaError_t machine_error();

/// A kernel that failed: every later call that touches the device returns this.
cudaError_t sticky_error();
void fail_device(cudaError_t error, const std::string& text);

}  // namespace ptxsim::runtime

/// The functions that programs link.
#define PTXSIM_API extern "C" __attribute__((visibility("default")))
