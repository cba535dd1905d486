// What every public function needs: the C boundary, where an exception becomes a status, and the
// checks of what comes with the tensors: options, patterns, threads, work memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "core/backend.h"
#include "core/check.h"
#include "core/pattern_info.h"
#include "minference/minference.h"

namespace minference::api {

/// The status of the exception being handled; its text becomes minf_last_error(). Call it only in a
/// handler.
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

/// Bytes of a struct as it was first published, in 0.2.0. These numbers never change: a program
/// that was built against that header passes them as struct_size, and is served.
template <typename Struct>
inline constexpr std::size_t kFirstSize = 0;
template <>
inline constexpr std::size_t kFirstSize<minf_exec> = 40;
template <>
inline constexpr std::size_t kFirstSize<minf_vertical_slash_options> = 48;
template <>
inline constexpr std::size_t kFirstSize<minf_block_sparse_options> = 24;
template <>
inline constexpr std::size_t kFirstSize<minf_attention_options> = 16;
template <>
inline constexpr std::size_t kFirstSize<minf_sparse_index> = 24 + 4 * sizeof(minf_tensor);

/// Checks that `size` bytes from `known` on, which this library does not know, are 0.
void check_unknown_bytes(const void* given, std::size_t known, std::size_t size, const char* name);

/// A caller's struct, whose first field is struct_size, as this library knows it. Fields that an
/// older caller does not have become 0. Bytes that a newer caller has beyond must be 0: others ask
/// for something that this library does not know.
template <typename Struct>
Struct read_struct(const Struct& given, const char* name) {
  static_assert(kFirstSize<Struct> > 0 && kFirstSize<Struct> <= sizeof(Struct));
  MINF_CHECK_ARG(given.struct_size >= kFirstSize<Struct>, name,
                 ": expected struct_size >= ", kFirstSize<Struct>, ", got ", given.struct_size);
  check_unknown_bytes(&given, sizeof(Struct), given.struct_size, name);
  Struct known{};
  std::memcpy(&known, &given, std::min(given.struct_size, sizeof(Struct)));
  return known;
}

/// The executor of a call whose tensors are on the device of `tensor`. Null means the defaults,
/// here and below.
Executor checked_executor(const minf_exec* given, const minf_tensor& tensor);
minf_attention_options checked_options(const minf_attention_options* options);

/// head_dim ** -0.5 for null.
double checked_scale(const double* softmax_scale, int32_t head_dim);

/// Whether a pattern's sizes are read. Where index tensors name the keys, they are not.
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
  /// The number of query heads whose key set has this form. One pattern for all heads counts as
  /// `num_heads_q`.
  int64_t count(Form form, int64_t num_heads_q) const;

 private:
  std::span<const minf_pattern> patterns_;
};

/// Stores the answer of a *_workspace_bytes function: the size that a block of any alignment needs
/// so that `counted` aligned bytes fit.
void store_workspace_bytes(std::size_t* bytes, std::size_t counted, const char* name = "bytes");

/// The aligned `counted` bytes inside the caller's block.
/// @throws Error{MINF_ERROR_WORKSPACE_TOO_SMALL} with the bytes needed and given.
Workspace checked_workspace(void* workspace, std::size_t given_bytes, std::size_t counted,
                            const char* name = "workspace");

}  // namespace minference::api
