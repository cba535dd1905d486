// The last error; options, patterns, threads and work memory of a call; the public functions that
// make a pattern.
// SPDX-License-Identifier: Apache-2.0
#include "api/call.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <new>

#include "core/thread_pool.h"
#include "core/workspace.h"

namespace minference::api {
namespace {

// Casts between the C surface and core keep the number.
static_assert(static_cast<int>(DType::kFloat32) == MINF_FLOAT32);
static_assert(static_cast<int>(DType::kBFloat16) == MINF_BFLOAT16);
static_assert(static_cast<int>(DType::kFloat16) == MINF_FLOAT16);

/// A fixed buffer: reporting a failure must not fail itself. Longer messages are cut.
thread_local char last_error[1024] = "";

minf_status report(minf_status status, const char* text) noexcept {
  const std::size_t length = std::min(std::strlen(text), sizeof(last_error) - 1);
  std::memcpy(last_error, text, length);
  last_error[length] = '\0';
  return status;
}

/// Work memory grows with the threads, so an absurd number of them is an error.
constexpr int32_t kMaxThreads = 4096;

std::size_t with_slack(std::size_t counted) { return counted == 0 ? 0 : counted + kWorkspaceSlack; }

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

void check_unknown_bytes(const void* given, std::size_t known, std::size_t size, const char* name) {
  const auto* const bytes = static_cast<const unsigned char*>(given);
  for (std::size_t i = known; i < size; ++i) {
    MINF_CHECK_ARG(bytes[i] == 0, name, ": expected 0 in the bytes that version ",
                   MINF_VERSION_MAJOR, ".", MINF_VERSION_MINOR, ".", MINF_VERSION_PATCH,
                   " does not know, got ", int{bytes[i]}, " at offset ", i);
  }
}

Executor checked_executor(const minf_exec* given, const minf_tensor& tensor) {
  Executor executor;
  const minf_exec known = given == nullptr ? minf_exec{} : read_struct(*given, "exec");
  const minf_exec* const exec = given == nullptr ? nullptr : &known;
  if (exec != nullptr) {
    MINF_CHECK_ARG(exec->num_threads >= 0 && exec->num_threads <= kMaxThreads,
                   "exec: expected num_threads in [0, ", kMaxThreads, "], got ", exec->num_threads);
    MINF_CHECK_ARG(exec->reserved == 0, "exec: expected reserved = 0, got ", exec->reserved);
    executor = {.stream = exec->stream,
                .num_threads = exec->num_threads,
                .parallel_for = exec->parallel_for,
                .parallel_for_context = exec->parallel_for_context};
  }
  if (exec == nullptr || exec->num_threads == 0) {
    executor.num_threads = std::min(available_threads(), kMaxThreads);
  }
  if (executor.parallel_for == nullptr) executor.parallel_for = &pool_parallel_for;
  executor.device_index = tensor.device_index;
  return executor;
}

minf_attention_options checked_options(const minf_attention_options* options) {
  if (options == nullptr) return {.struct_size = sizeof(*options), .softmax_scale = nullptr};
  return read_struct(*options, "attention options");
}

double checked_scale(const double* softmax_scale, int32_t head_dim) {
  if (softmax_scale == nullptr) return 1.0 / std::sqrt(static_cast<double>(head_dim));
  // Kernels compute in float32: a scale beyond its range is infinite to them.
  MINF_CHECK_ARG(std::abs(*softmax_scale) <= std::numeric_limits<float>::max(),
                 "softmax_scale: expected a finite float32, got ", *softmax_scale);
  return *softmax_scale;
}

Patterns::Patterns(const minf_pattern* patterns, int64_t num_patterns, int64_t num_heads_q,
                   PatternSizes sizes) {
  MINF_CHECK_ARG(patterns != nullptr, "patterns: expected an array, got null");
  MINF_CHECK_ARG(num_patterns == 1 || num_patterns == num_heads_q,
                 "num_patterns: expected num_heads_q = ", num_heads_q, " or 1, got ", num_patterns);
  patterns_ = {patterns, static_cast<std::size_t>(num_patterns)};
  for (int64_t head = 0; head < num_patterns; ++head) {
    const minf_pattern& pattern = patterns[head];
    check_kind(head, pattern.kind);
    const bool read = sizes == PatternSizes::kRead || !pattern_info(pattern.kind).is_estimated;
    if (read) check_fields(head, pattern);
  }
}

int64_t Patterns::count(Form form, int64_t num_heads_q) const {
  const int64_t count = std::ranges::count_if(patterns_, [&](const minf_pattern& pattern) {
    return pattern_info(pattern.kind).form == form;
  });
  return size() == 1 ? count * num_heads_q : count;
}

void store_workspace_bytes(std::size_t* bytes, std::size_t counted, const char* name) {
  MINF_CHECK_ARG(bytes != nullptr, name, ": expected a pointer for the result, got null");
  *bytes = with_slack(counted);
}

Workspace checked_workspace(void* workspace, std::size_t given_bytes, std::size_t counted,
                            const char* name) {
  if (counted == 0) return {};
  const std::size_t needed_bytes = with_slack(counted);
  if (workspace == nullptr || given_bytes < needed_bytes) {
    detail::throw_error(MINF_ERROR_WORKSPACE_TOO_SMALL,
                        detail::concat(name, ": expected at least ", needed_bytes, " bytes, got ",
                                       workspace == nullptr ? "null and " : "", given_bytes));
  }
  const auto misaligned = reinterpret_cast<std::uintptr_t>(workspace) % kWorkspaceAlignment;
  const std::size_t skip = (kWorkspaceAlignment - misaligned) % kWorkspaceAlignment;
  return {static_cast<std::byte*>(workspace) + skip, counted};
}

}  // namespace minference::api

using namespace minference;
using namespace minference::api;

const char* minf_last_error(void) { return last_error; }

minf_pattern minf_pattern_default(int32_t kind) { return default_pattern(kind); }

const char* minf_pattern_name(int32_t kind) {
  const auto infos = pattern_infos();
  if (kind < 0 || static_cast<std::size_t>(kind) >= infos.size()) return nullptr;
  return infos[static_cast<std::size_t>(kind)].name;
}

minf_status minf_pattern_from_numbers(const double* numbers, int64_t num_numbers,
                                      minf_pattern* pattern) {
  return guarded([&] {
    MINF_CHECK_ARG(numbers != nullptr, "numbers: expected an array, got null");
    MINF_CHECK_ARG(num_numbers >= 1, "num_numbers: expected >= 1, got ", num_numbers);
    MINF_CHECK_ARG(pattern != nullptr, "pattern: expected a pointer for the result, got null");
    *pattern = pattern_from_numbers({numbers, static_cast<std::size_t>(num_numbers)});
  });
}
