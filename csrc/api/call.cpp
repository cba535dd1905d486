// Options, patterns, threads and work memory of a call.
// SPDX-License-Identifier: Apache-2.0
#include "api/call.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/workspace.h"
#include "cpu/backend.h"

namespace minference::api {
namespace {

/// Work memory grows with the threads: an absurd request is an error, not an absurd workspace.
constexpr int32_t kMaxThreads = 4096;

constexpr int32_t kMaxLastQ = kBlock;

void check_mass(const char* name, double p) {
  MINF_CHECK_ARG(p > 0 && p <= 1, name, ": expected a share in (0, 1], got ", p);
}

const char* kind_name(int32_t kind) {
  constexpr const char* kNames[] = {"dense", "a_shape", "vertical_slash", "block_sparse",
                                    "tri_shape"};
  return kNames[kind];
}

/// The fields a kind reads, by name; null where it reads none.
struct PatternFields {
  const char* names[3];
  int32_t least[3];
};
constexpr PatternFields kPatternFields[] = {
    {{nullptr, nullptr, nullptr}, {0, 0, 0}},
    {{"sink", "window", nullptr}, {0, 0, 0}},
    {{"vertical_size", "slash_size", nullptr}, {0, 0, 0}},
    {{"top_k", nullptr, nullptr}, {1, 0, 0}},
    {{"sink", "window", "last"}, {0, 0, 0}},
};

void check_sizes(const minf_pattern& pattern, int64_t head) {
  const PatternFields& fields = kPatternFields[pattern.kind];
  const int32_t values[3] = {pattern.a, pattern.b, pattern.c};
  for (int field = 0; field < 3; ++field) {
    const char letter = static_cast<char>('a' + field);
    if (fields.names[field] == nullptr) {
      MINF_CHECK_ARG(values[field] == 0, "patterns[", head, "] (", kind_name(pattern.kind),
                     "): expected 0 in the unused field ", letter, ", got ", values[field]);
    } else {
      MINF_CHECK_ARG(values[field] >= fields.least[field], "patterns[", head, "] (",
                     kind_name(pattern.kind), "): expected ", letter, " = ", fields.names[field],
                     " >= ", fields.least[field], ", got ", values[field]);
    }
  }
}

std::size_t with_slack(std::size_t counted) { return counted == 0 ? 0 : counted + kWorkspaceSlack; }

bool has_lists(int32_t kind) { return kind == MINF_VERTICAL_SLASH || kind == MINF_BLOCK_SPARSE; }

}  // namespace

Executor checked_executor(const minf_exec* exec, const minf_tensor& tensor) {
  Executor executor;
  if (exec != nullptr) {
    check_struct_size(*exec, "exec");
    MINF_CHECK_ARG(exec->num_threads >= 0 && exec->num_threads <= kMaxThreads,
                   "exec: expected num_threads in [0, ", kMaxThreads, "], got ", exec->num_threads);
    MINF_CHECK_ARG(exec->reserved == 0, "exec: expected reserved = 0, got ", exec->reserved);
    executor = {.stream = exec->stream,
                .num_threads = exec->num_threads,
                .parallel_for = exec->parallel_for,
                .parallel_for_context = exec->parallel_for_context};
  }
  if (exec == nullptr || exec->num_threads == 0) {
    executor.num_threads = std::min(cpu::available_threads(), kMaxThreads);
  }
  if (executor.parallel_for == nullptr) executor.parallel_for = &cpu::pool_parallel_for;
  executor.device_index = tensor.device_index;
  return executor;
}

minf_vertical_slash_options checked_options(const minf_vertical_slash_options* options) {
  if (options == nullptr) return minf_vertical_slash_options_default();
  check_struct_size(*options, "vertical_slash options");
  MINF_CHECK_ARG(options->last_q >= 1 && options->last_q <= kMaxLastQ, "last_q: expected 1 to ",
                 kMaxLastQ, ", got ", options->last_q);
  MINF_CHECK_ARG(options->sink >= 0, "sink: expected >= 0, got ", options->sink);
  MINF_CHECK_ARG(options->local >= 0, "local: expected >= 0, got ", options->local);
  MINF_CHECK_ARG(options->reserved == 0, "vertical_slash options: expected reserved = 0, got ",
                 options->reserved);
  check_mass("vertical_p", options->vertical_p);
  check_mass("slash_p", options->slash_p);
  return *options;
}

minf_block_sparse_options checked_options(const minf_block_sparse_options* options) {
  if (options == nullptr) return minf_block_sparse_options_default();
  check_struct_size(*options, "block_sparse options");
  check_mass("top_p", options->top_p);
  return *options;
}

minf_attention_options checked_options(const minf_attention_options* options) {
  if (options == nullptr) return {.struct_size = sizeof(*options), .softmax_scale = nullptr};
  check_struct_size(*options, "attention options");
  return *options;
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
    MINF_CHECK_ARG(pattern.kind >= MINF_DENSE && pattern.kind <= MINF_TRI_SHAPE, "patterns[", head,
                   "]: expected a kind in [", int{MINF_DENSE}, ", ", int{MINF_TRI_SHAPE}, "], got ",
                   pattern.kind);
    if (sizes == PatternSizes::kRead || !has_lists(pattern.kind)) check_sizes(pattern, head);
  }
}

bool Patterns::has(PatternKind kind) const {
  return std::ranges::any_of(patterns_, [&](const minf_pattern& pattern) {
    return pattern.kind == static_cast<int32_t>(kind);
  });
}

HeadKeys head_keys_of(const minf_pattern& pattern) {
  HeadKeys head{.kind = static_cast<PatternKind>(pattern.kind)};
  if (head.kind == PatternKind::kAShape || head.kind == PatternKind::kTriShape) {
    head.sink = pattern.a;
    head.window = pattern.b;
    head.last = pattern.c;
  }
  return head;
}

void store_workspace_bytes(std::size_t* bytes, std::size_t counted) {
  MINF_CHECK_ARG(bytes != nullptr, "bytes: expected where to store the result, got null");
  *bytes = with_slack(counted);
}

Workspace checked_workspace(void* workspace, std::size_t given_bytes, std::size_t counted) {
  if (counted == 0) return {};
  const std::size_t needed_bytes = with_slack(counted);
  if (workspace == nullptr || given_bytes < needed_bytes) {
    detail::throw_error(
        MINF_ERROR_WORKSPACE_TOO_SMALL,
        detail::concat("workspace: expected at least ", needed_bytes, " bytes, got ",
                       workspace == nullptr ? "null and " : "", given_bytes));
  }
  const auto misaligned = reinterpret_cast<std::uintptr_t>(workspace) % kWorkspaceAlignment;
  const std::size_t skip = (kWorkspaceAlignment - misaligned) % kWorkspaceAlignment;
  return {static_cast<std::byte*>(workspace) + skip, counted};
}

}  // namespace minference::api
