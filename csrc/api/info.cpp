// What this build is, and what it can use on this machine.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>
#include <string_view>

#include "api/backends.h"
#include "api/call.h"
#include "core/backend.h"
#include "core/check.h"
#include "cpu/backend.h"
#include "minference/minference.h"

#ifndef MINF_BUILD_TYPE
#define MINF_BUILD_TYPE "unknown build type"
#endif
#ifndef MINF_BUILD_FLAGS
#define MINF_BUILD_FLAGS "unknown flags"
#endif
#ifndef MINF_CUDA_BUILD
#define MINF_CUDA_BUILD "unknown"
#endif

namespace {

using namespace minference;

constexpr const char* kCompiler =
#if defined(__clang__)
    "clang " __clang_version__;
#elif defined(__GNUC__)
    "gcc " __VERSION__;
#else
    "unknown compiler";
#endif

void check_index(const char* what, int32_t index, int64_t count) {
  MINF_CHECK_ARG(index >= 0 && index < count, what, ": expected an index in [0, ", count, "), got ",
                 index);
}

/// Whether calls on the first device of the backend's type that it serves go to it.
bool is_selected(const Backend& backend) {
  constexpr int32_t kMaxDevices = 1024;
  for (int32_t device = 0; device < kMaxDevices; ++device) {
    if (!backend.serves_device(device)) continue;
    return &select_backend(backend.device_type, device) == &backend;
  }
  return false;
}

void check_capability(const minf_capability* capability) {
  MINF_CHECK_ARG(capability != nullptr, "capability: expected a struct to fill, got null");
}

}  // namespace

const char* minf_version(void) {
  static const std::string version =
      detail::concat(MINF_VERSION_MAJOR, ".", MINF_VERSION_MINOR, ".", MINF_VERSION_PATCH);
  return version.c_str();
}

const char* minf_build_info(void) {
  static const std::string info = detail::concat(
      kCompiler, ", ", MINF_BUILD_TYPE, ", flags: ", MINF_BUILD_FLAGS, ", CUDA: ", MINF_CUDA_BUILD);
  return info.c_str();
}

int32_t minf_backend_count(void) { return static_cast<int32_t>(backends().size()); }

minf_status minf_backend(int32_t backend, minf_capability* capability) {
  return api::guarded([&] {
    check_index("backend", backend, minf_backend_count());
    check_capability(capability);
    const Backend& entry = *backends()[static_cast<std::size_t>(backend)];
    const Availability availability = entry.availability();
    const bool available = availability.status == MINF_OK;
    const bool selected = available && is_selected(entry);
    *capability = {entry.name, available, selected, availability.reason};
  });
}

minf_status minf_set_backend(const char* name) {
  return api::guarded([&] { force_backend(name == nullptr ? std::string_view() : name); });
}

minf_status minf_min_sparse_seqlen(int32_t device_type, int32_t device_index, int32_t* seqlen) {
  return api::guarded([&] {
    MINF_CHECK_ARG(device_type == MINF_DEVICE_CPU || device_type == MINF_DEVICE_CUDA,
                   "device_type: expected MINF_DEVICE_CPU or MINF_DEVICE_CUDA, got ", device_type);
    MINF_CHECK_ARG(seqlen != nullptr, "seqlen: expected a pointer for the result, got null");
    *seqlen =
        select_backend(static_cast<minf_device_type>(device_type), device_index).min_sparse_seqlen;
  });
}

int32_t minf_cpu_isa_count(void) { return cpu::isa_count(); }

minf_status minf_cpu_isa(int32_t isa, minf_capability* capability) {
  return api::guarded([&] {
    check_index("isa", isa, minf_cpu_isa_count());
    check_capability(capability);
    const cpu::IsaInfo info = cpu::isa_info(isa);
    const bool available = *info.unavailable_reason == '\0';
    *capability = {info.name, available, info.selected, info.unavailable_reason};
  });
}

minf_status minf_set_cpu_isa(const char* name) {
  return api::guarded([&] { cpu::force_isa(name == nullptr ? std::string_view() : name); });
}
