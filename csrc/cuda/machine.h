// The GPUs of this machine, or why there are none. Asked once per process, at the first call that
// needs to know, and without making a context; nothing happens when the library is loaded.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "cuda/architectures.h"
#include "minference/minference.h"

namespace minference::cuda {

struct Machine {
  minf_status status = MINF_OK;  // Else what a call fails with that needs a GPU,
  std::string reason;            // and why.
  std::vector<Architecture> gpus;
};

const Machine& machine();

/// Multiprocessors of a GPU. @throws Error{MINF_ERROR_CUDA}
int num_multiprocessors(int device_index);

/// Of a GPU; 0 if there is none of that index.
Architecture architecture_of(const Machine& machine, int device_index);

/// "GPU 1 is sm_75"
std::string describe_gpu(const Machine& machine, int device_index);

/// "GPU 0 is sm_70, GPU 1 is sm_75"
std::string describe_gpus(const Machine& machine);

}  // namespace minference::cuda
