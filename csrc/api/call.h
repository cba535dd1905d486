// Checks of what comes with the tensors: options, patterns, threads, work memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/backend.h"
#include "core/check.h"
#include "core/pattern_info.h"
#include "minference/minference.h"

namespace minference::api {

/// Checks a struct that grows at its end: shorter than its first published form is an error, longer
/// (a caller newer than this library) is not.
template <typename Options>
void check_struct_size(const Options& options, const char* name) {
  MINF_CHECK_ARG(options.struct_size >= sizeof(Options), name,
                 ": expected struct_size >= ", sizeof(Options), ", got ", options.struct_size);
}

/// The executor of a call whose tensors are on the device of `tensor`. A null pointer gives the
/// defaults, here and below.
Executor checked_executor(const minf_exec* exec, const minf_tensor& tensor);
minf_attention_options checked_options(const minf_attention_options* options);

/// head_dim ** -0.5 for null.
double checked_scale(const double* softmax_scale, int32_t head_dim);

/// Whether a pattern's sizes mean anything: not where index tensors say which keys.
enum class PatternSizes { kRead, kIgnoredWithIndex };

/// One pattern per query head, or one for all.
class Patterns {
 public:
  /// Checks that there are num_heads_q patterns, or 1, each of a known kind with legal sizes.
  Patterns(const minf_pattern* patterns, int64_t num_patterns, int64_t num_heads_q,
           PatternSizes sizes);

  const minf_pattern& operator[](int64_t head) const {
    return patterns_[patterns_.size() == 1 ? 0 : static_cast<std::size_t>(head)];
  }
  int64_t size() const { return static_cast<int64_t>(patterns_.size()); }
  /// Query heads whose key set has this form, if there is a pattern for each; else all or none of
  /// `num_heads_q`.
  int64_t count(Form form, int64_t num_heads_q) const;

 private:
  std::span<const minf_pattern> patterns_;
};

/// Stores the answer of a *_workspace_bytes function: what a block of any alignment must have so
/// that `counted` aligned bytes fit.
void store_workspace_bytes(std::size_t* bytes, std::size_t counted, const char* name = "bytes");

/// The aligned `counted` bytes inside the caller's block.
/// @throws Error{MINF_ERROR_WORKSPACE_TOO_SMALL} with the bytes needed and given.
Workspace checked_workspace(void* workspace, std::size_t given_bytes, std::size_t counted,
                            const char* name = "workspace");

}  // namespace minference::api
