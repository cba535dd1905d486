// The table of patterns, and what follows from it: see pattern_info.h.
// SPDX-License-Identifier: Apache-2.0
#include "core/pattern_info.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <string>

#include "core/check.h"

namespace minference {
namespace {

constexpr int32_t kMost = std::numeric_limits<int32_t>::max();

constexpr PatternField size(const char* name, std::size_t offset, int32_t least = 0) {
  return {name, PatternField::Type::kSize, offset, least, kMost, /*initial=*/0};
}
constexpr PatternField option(const char* name, std::size_t offset, int32_t least, int32_t most,
                              int32_t initial) {
  return {name, PatternField::Type::kOption, offset, least, most, static_cast<double>(initial)};
}
constexpr PatternField share(const char* name, std::size_t offset) {
  return {name, PatternField::Type::kShare, offset, 0, 0, /*initial=*/1.0};
}

constexpr std::size_t kUnion = offsetof(minf_pattern, as);
constexpr PatternField kAShapeFields[] = {
    size("sink", kUnion + offsetof(minf_a_shape, sink)),
    size("window", kUnion + offsetof(minf_a_shape, window)),
};
constexpr PatternField kTriShapeFields[] = {
    size("sink", kUnion + offsetof(minf_tri_shape, sink)),
    size("window", kUnion + offsetof(minf_tri_shape, window)),
    size("last", kUnion + offsetof(minf_tri_shape, last)),
};
constexpr PatternField kVerticalSlashFields[] = {
    size("vertical_size", kUnion + offsetof(minf_vertical_slash, vertical_size)),
    size("slash_size", kUnion + offsetof(minf_vertical_slash, slash_size)),
    option("last_q", kUnion + offsetof(minf_vertical_slash, last_q), 1, kMaxLastQ,
           MINF_DEFAULT_LAST_Q),
    option("sink", kUnion + offsetof(minf_vertical_slash, sink), 0, kMost, MINF_DEFAULT_SINK),
    option("local", kUnion + offsetof(minf_vertical_slash, local), 0, kMost, MINF_DEFAULT_LOCAL),
    share("vertical_p", kUnion + offsetof(minf_vertical_slash, vertical_p)),
    share("slash_p", kUnion + offsetof(minf_vertical_slash, slash_p)),
};
constexpr PatternField kBlockSparseFields[] = {
    size("top_k", kUnion + offsetof(minf_block_sparse, top_k), /*least=*/1),
    share("top_p", kUnion + offsetof(minf_block_sparse, top_p)),
};
static_assert(sizeof(minf_pattern) == 64);

ListSizes no_lists(const minf_pattern&, const Lengths&) { return {}; }

/// Entries that are kept of a requested size: at least the forced ones, at most seqlen_k.
int32_t clamped_size(int32_t requested, int32_t forced, const Lengths& lengths) {
  return std::min(lengths.seqlen_k, std::max(requested, forced));
}

constexpr PatternInfo kInfos[] = {
    {.kind = MINF_DENSE,
     .name = "dense",
     .form = Form::kShape,
     .fields = {},
     .head_keys = [](const minf_pattern&) { return HeadKeys{.dense_rows = kAllRows}; },
     .list_sizes = no_lists,
     .is_estimated = false},
    {.kind = MINF_A_SHAPE,
     .name = "a_shape",
     .form = Form::kShape,
     .fields = kAShapeFields,
     .head_keys =
         [](const minf_pattern& pattern) {
           const minf_a_shape& shape = pattern.as.a_shape;
           return HeadKeys{.sink = shape.sink, .window = shape.window};
         },
     .list_sizes = no_lists,
     .is_estimated = false},
    {.kind = MINF_VERTICAL_SLASH,
     .name = "vertical_slash",
     .form = Form::kRuns,
     .fields = kVerticalSlashFields,
     .head_keys = [](const minf_pattern&) { return HeadKeys{.form = Form::kRuns}; },
     .list_sizes =
         [](const minf_pattern& pattern, const Lengths& lengths) {
           const minf_vertical_slash& sizes = pattern.as.vertical_slash;
           return ListSizes{.columns = clamped_size(sizes.vertical_size, sizes.sink, lengths),
                            .distances = clamped_size(sizes.slash_size, sizes.local, lengths)};
         },
     .is_estimated = true},
    {.kind = MINF_BLOCK_SPARSE,
     .name = "block_sparse",
     .form = Form::kBlocks,
     .fields = kBlockSparseFields,
     .head_keys = [](const minf_pattern&) { return HeadKeys{.form = Form::kBlocks}; },
     .list_sizes =
         [](const minf_pattern& pattern, const Lengths& lengths) {
           return ListSizes{.blocks =
                                std::min(pattern.as.block_sparse.top_k, lengths.key_blocks())};
         },
     .is_estimated = true},
    {.kind = MINF_TRI_SHAPE,
     .name = "tri_shape",
     .form = Form::kShape,
     .fields = kTriShapeFields,
     .head_keys =
         [](const minf_pattern& pattern) {
           const minf_tri_shape& shape = pattern.as.tri_shape;
           return HeadKeys{.sink = shape.sink, .window = shape.window, .dense_rows = shape.last};
         },
     .list_sizes = no_lists,
     .is_estimated = false},
};
static_assert([] {
  for (std::size_t i = 0; i < std::size(kInfos); ++i) {
    if (kInfos[i].kind != static_cast<minf_pattern_kind>(i)) return false;
  }
  return true;
}());

bool is_share(const PatternField& field) { return field.type == PatternField::Type::kShare; }

std::size_t size_of(const PatternField& field) {
  return is_share(field) ? sizeof(double) : sizeof(int32_t);
}

template <typename T>
T value_of(const minf_pattern& pattern, const PatternField& field) {
  T value;
  std::memcpy(&value, reinterpret_cast<const std::byte*>(&pattern) + field.offset, sizeof value);
  return value;
}

template <typename T>
void set_value(minf_pattern& pattern, const PatternField& field, T value) {
  std::memcpy(reinterpret_cast<std::byte*>(&pattern) + field.offset, &value, sizeof value);
}

void set_number(minf_pattern& pattern, const PatternField& field, double number) {
  if (is_share(field)) {
    set_value(pattern, field, number);
  } else {
    set_value(pattern, field, static_cast<int32_t>(number));
  }
}

bool is_int32(double number) {
  return number >= std::numeric_limits<int32_t>::min() && number <= kMost &&
         number == static_cast<double>(static_cast<int32_t>(number));
}

using Bytes = std::array<std::byte, sizeof(minf_pattern)>;

Bytes bytes_of(const minf_pattern& pattern) {
  Bytes bytes;
  std::memcpy(bytes.data(), &pattern, sizeof pattern);
  return bytes;
}

void clear(Bytes& bytes, std::size_t offset, std::size_t size) {
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), size, std::byte{0});
}

}  // namespace

std::span<const PatternInfo> pattern_infos() { return kInfos; }

const PatternInfo& pattern_info(int32_t kind) {
  MINF_ASSERT(kind >= 0 && static_cast<std::size_t>(kind) < std::size(kInfos));
  return kInfos[kind];
}

void check_kind(int64_t head, double kind) {
  constexpr auto kLast = static_cast<double>(std::size(kInfos) - 1);
  MINF_CHECK_ARG(kind >= 0 && kind <= kLast && is_int32(kind),
                 head == kNoHead ? "" : detail::concat("patterns[", head, "]: "),
                 "expected a kind in [0, ", kLast, "], got ", kind);
}

void check_fields(int64_t head, const minf_pattern& pattern) {
  const PatternInfo& info = pattern_info(pattern.kind);
  const auto prefix = [&] {
    return head == kNoHead ? "" : detail::concat("patterns[", head, "] (", info.name, "): ");
  };
  Bytes unused = bytes_of(pattern);
  clear(unused, offsetof(minf_pattern, kind), sizeof pattern.kind);
  for (const PatternField& field : info.fields) {
    clear(unused, field.offset, size_of(field));
    if (is_share(field)) {
      const auto value = value_of<double>(pattern, field);
      MINF_CHECK_ARG(value > 0 && value <= 1, prefix(), field.name,
                     ": expected a share in (0, 1], got ", value);
      continue;
    }
    const auto value = value_of<int32_t>(pattern, field);
    if (field.most == kMost && head != kNoHead) {
      MINF_CHECK_ARG(value >= field.least, prefix(), "expected ", field.name, " >= ", field.least,
                     ", got ", value);
    } else if (field.most == kMost) {
      MINF_CHECK_ARG(value >= field.least, field.name, ": expected >= ", field.least, ", got ",
                     value);
    } else {
      MINF_CHECK_ARG(value >= field.least && value <= field.most, prefix(), field.name,
                     ": expected ", field.least, " to ", field.most, ", got ", value);
    }
  }
  const auto stray =
      std::ranges::find_if(unused, [](std::byte byte) { return byte != std::byte{0}; });
  MINF_CHECK_ARG(stray == unused.end(), prefix(), "expected 0 in every byte that ", info.name,
                 " does not use, got ", static_cast<int>(*stray), " at offset ",
                 stray - unused.begin());
}

bool have_same_options(const minf_pattern& a, const minf_pattern& b) {
  if (a.kind != b.kind) return false;
  return std::ranges::all_of(pattern_info(a.kind).fields, [&](const PatternField& field) {
    if (field.type == PatternField::Type::kSize) return true;
    return is_share(field) ? value_of<double>(a, field) == value_of<double>(b, field)
                           : value_of<int32_t>(a, field) == value_of<int32_t>(b, field);
  });
}

minf_pattern default_pattern(int32_t kind) {
  minf_pattern pattern{};
  pattern.kind = kind;
  if (kind < 0 || static_cast<std::size_t>(kind) >= std::size(kInfos)) return pattern;
  for (const PatternField& field : pattern_info(kind).fields) {
    set_number(pattern, field, field.initial);
  }
  return pattern;
}

minf_pattern pattern_from_numbers(std::span<const double> numbers) {
  MINF_CHECK_ARG(!numbers.empty(), "expected a kind, got no number");
  check_kind(kNoHead, numbers[0]);
  const PatternInfo& info = pattern_info(static_cast<int32_t>(numbers[0]));
  minf_pattern pattern = default_pattern(info.kind);
  const std::string prefix = detail::concat("(", info.name, "): ");
  for (std::size_t i = 1; i < numbers.size(); ++i) {
    if (i > info.fields.size()) {
      MINF_CHECK_ARG(numbers[i] == 0, prefix, "expected 0 after its ", info.fields.size(),
                     " fields, got ", numbers[i]);
      continue;
    }
    const PatternField& field = info.fields[i - 1];
    MINF_CHECK_ARG(is_share(field) || is_int32(numbers[i]), prefix, field.name,
                   ": expected an int32, got ", numbers[i]);
    set_number(pattern, field, numbers[i]);
  }
  return pattern;
}

}  // namespace minference
