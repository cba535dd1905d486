// The ordered list of backends, and the choice among them.
// SPDX-License-Identifier: Apache-2.0
#include "core/backend.h"

#include "core/check.h"
#include "cpu/backend.h"

namespace minference {

std::span<const Backend* const> backends() {
  static const Backend* const kBackends[] = {&cpu::backend()};
  return kBackends;
}

const Backend& select_backend(minf_device_type device_type) {
  std::string reasons;
  for (const Backend* backend : backends()) {
    if (backend->device_type != device_type) continue;
    const std::string reason = backend->unavailable_reason();
    if (reason.empty()) return *backend;
    reasons += detail::concat(" ", backend->name, ": ", reason, ";");
  }
  if (reasons.empty()) reasons = " this build has none";
  detail::throw_error(
      MINF_ERROR_UNSUPPORTED,
      detail::concat("q: no backend serves tensors on ",
                     device_type == MINF_DEVICE_CPU ? "the CPU" : "CUDA devices", ":", reasons));
}

}  // namespace minference
