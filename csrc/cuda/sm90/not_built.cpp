// The sm90 backend of a build without its kernels: listed, so that a program can say why.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/backend.h"
#include "cuda/sm90/backend.h"

#ifndef MINF_NOT_BUILT_REASON
#define MINF_NOT_BUILT_REASON "built without CUDA"
#endif

namespace minference::sm90 {

const Backend& backend() {
  static const Backend kBackend = [] {
    Backend backend = sm80::backend();
    backend.name = "sm90";
    backend.availability = [] {
      return Availability{MINF_ERROR_UNSUPPORTED, "not built (" MINF_NOT_BUILT_REASON ")"};
    };
    return backend;
  }();
  return kBackend;
}

}  // namespace minference::sm90
