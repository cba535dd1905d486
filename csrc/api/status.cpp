// Last error text, per thread.
// SPDX-License-Identifier: Apache-2.0
#include "api/status.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include "core/check.h"

namespace minference::api {
namespace {

/// A fixed buffer: reporting a failure must not fail itself. Longer messages are cut.
thread_local char last_error[1024] = "";

minf_status report(minf_status status, const char* text) noexcept {
  const std::size_t length = std::min(std::strlen(text), sizeof(last_error) - 1);
  std::memcpy(last_error, text, length);
  last_error[length] = '\0';
  return status;
}

}  // namespace

minf_status report_current_exception() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return report(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return report(MINF_ERROR_OUT_OF_MEMORY, "a host allocation failed");
  } catch (const std::exception& error) {
    return report(MINF_ERROR_INTERNAL, error.what());
  } catch (...) {
    return report(MINF_ERROR_INTERNAL, "internal error (please report): unknown exception");
  }
}

}  // namespace minference::api

const char* minf_last_error(void) { return minference::api::last_error; }
