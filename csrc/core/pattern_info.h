// The one table of patterns: what each kind is called, which fields it has, which form its key set
// takes, and how long its lists are.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/pattern.h"
#include "minference/minference.h"

namespace minference {

/// The most rows that may estimate a vertical-slash head.
inline constexpr int32_t kMaxLastQ = kBlock;

/// Entries that stage 1 writes for a head; 0 where its pattern has no such list.
struct ListSizes {
  int32_t columns = 0;
  int32_t distances = 0;
  int32_t blocks = 0;  // Of each row block.
};

/// A field of a pattern's struct.
struct PatternField {
  enum class Type {
    kSize,  // An int32 in [least, most], which may differ among heads that are estimated together.
    kOption,  // An int32 in [least, most], the same for all of them.
    kShare,   // A double in (0, 1], the same for all of them.
  };

  const char* name;
  Type type;
  std::size_t offset;  // In minf_pattern.
  int32_t least;
  int32_t most;
  double initial;  // What minf_pattern_default() gives.
};

struct PatternInfo {
  minf_pattern_kind kind;
  const char* name;
  Form form;
  std::span<const PatternField> fields;  // In the order of the struct.
  /// The key set of such a head, without lists.
  HeadKeys (*head_keys)(const minf_pattern&);
  /// The lists that stage 1 writes for such a head, clamped to what there is.
  ListSizes (*list_sizes)(const minf_pattern&, const Lengths&);
  bool is_estimated;  // Whether the kind has an estimator, and so lists.
};

/// In the order of their kinds.
std::span<const PatternInfo> pattern_infos();

/// `kind` must be known: see check_kind().
const PatternInfo& pattern_info(int32_t kind);

/// A value of `head`: the pattern is not one of a call's, so messages do not say which one it is.
inline constexpr int64_t kNoHead = -1;

/// @throws Error{MINF_ERROR_INVALID_ARGUMENT} if there is no such kind.
void check_kind(int64_t head, double kind);

/// Checks each field, and that all other bytes are 0. @throws Error{MINF_ERROR_INVALID_ARGUMENT}
void check_fields(int64_t head, const minf_pattern& pattern);

/// Whether two patterns of one kind have the same estimator options, whatever their sizes.
bool have_same_options(const minf_pattern& a, const minf_pattern& b);

/// See minf_pattern_default() and minf_pattern_from_numbers(). @throws Error{INVALID_ARGUMENT}
minf_pattern default_pattern(int32_t kind);
minf_pattern pattern_from_numbers(std::span<const double> numbers);

}  // namespace minference
