// What launches and the runtime's functions share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

namespace simt::engine {

/// Remembers an error for cudaGetLastError(), and returns it.
cudaError_t set_last_error(cudaError_t error);

/// cudaSuccess if the machine can run something on this stream now.
cudaError_t stream_error(cudaStream_t stream);

}  // namespace simt::engine
