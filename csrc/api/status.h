// The C boundary: an exception becomes a status and the calling thread's last error.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "minference/minference.h"

namespace minference::api {

/// Status of the exception being handled; its text becomes minf_last_error(). Call in a handler
/// only.
minf_status report_current_exception() noexcept;

/// Runs the body of a public function.
template <typename Body>
minf_status guarded(const Body& body) noexcept {
  try {
    body();
    return MINF_OK;
  } catch (...) {
    return report_current_exception();
  }
}

}  // namespace minference::api
