// Shared by the cases of bulk tensor copies: tensors with padded rows, and a grid of boxes that
// starts before a tensor's first element and continues past its last, so that boxes extend over
// every edge and the last ones lie outside.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "cuda/arch/barrier.h"
#include "cuda/arch/shared.h"
#include "cuda/arch/tensor_map.h"
#include "hopper.h"

namespace minference::gpu_test {

/// Sizes by dimension, innermost first. They are functions, because device code cannot index host
/// constants.
struct Box2d {
  static constexpr int kRank = 2;
  MINF_HOST_DEVICE static constexpr int size(int d) { return d == 0 ? 77 : 29; }
  MINF_HOST_DEVICE static constexpr int stride(int d) { return d == 0 ? 1 : 88; }  // Elements.
  MINF_HOST_DEVICE static constexpr int outer_box(int) { return 13; }
  MINF_HOST_DEVICE static constexpr int first(int d) { return d == 0 ? -5 : -9; }
};

/// Like a model's [tokens][heads][head_dim]: dimension 2, the heads, has the smaller stride.
struct Box3d {
  static constexpr int kRank = 3;
  MINF_HOST_DEVICE static constexpr int size(int d) { return d == 0 ? 64 : d == 1 ? 21 : 3; }
  MINF_HOST_DEVICE static constexpr int stride(int d) { return d == 0 ? 1 : d == 1 ? 3 * 72 : 72; }
  MINF_HOST_DEVICE static constexpr int outer_box(int d) { return d == 1 ? 16 : 1; }
  MINF_HOST_DEVICE static constexpr int first(int d) { return d == 0 ? 0 : d == 1 ? -7 : -1; }
};

struct Box4d {
  static constexpr int kRank = 4;
  MINF_HOST_DEVICE static constexpr int size(int d) {
    return d == 0 ? 40 : d == 1 ? 5 : d == 2 ? 3 : 2;
  }
  MINF_HOST_DEVICE static constexpr int stride(int d) {
    return d == 0 ? 1 : d == 1 ? 40 : d == 2 ? 208 : 3 * 208 + 8;
  }
  MINF_HOST_DEVICE static constexpr int outer_box(int d) { return d == 1 ? 3 : 2; }
  MINF_HOST_DEVICE static constexpr int first(int d) { return d == 0 ? -3 : -1; }
};

template <typename Shape_, arch::Swizzle kSwizzle_>
struct BoxTraits : Shape_ {
  using Shape = Shape_;
  static constexpr arch::Swizzle kSwizzle = kSwizzle_;
  static constexpr int kThreads = 64;
  static constexpr int kFirstLine = 0;  // 128-byte line of the storage at which boxes begin.

  /// A swizzled box is as wide as the swizzle's row; any other is a multiple of 8 elements.
  MINF_HOST_DEVICE static constexpr int box(int d) {
    if (d > 0) return Shape::outer_box(d);
    return kSwizzle == arch::Swizzle::kNone
               ? 24
               : static_cast<int>(arch::swizzle_row_bytes(kSwizzle)) / 2;
  }
  /// Number of boxes along a dimension: the last two begin past the tensor's end, or one of them
  /// does.
  MINF_HOST_DEVICE static constexpr int num_boxes(int d) {
    return (Shape::size(d) - Shape::first(d) + box(d) - 1) / box(d) + 1;
  }
  MINF_HOST_DEVICE static constexpr int box_words() {
    int elements = 1;
    for (int d = 0; d < Shape::kRank; ++d) elements *= box(d);
    return elements / 2;
  }
  MINF_HOST_DEVICE static constexpr int num_blocks() {
    int blocks = 1;
    for (int d = 0; d < Shape::kRank; ++d) blocks *= num_boxes(d);
    return blocks;
  }
  /// From the first element to the last, including padding between rows.
  MINF_HOST_DEVICE static constexpr int tensor_words() {
    int last = 0;
    for (int d = 0; d < Shape::kRank; ++d) last += (Shape::size(d) - 1) * Shape::stride(d);
    return last / 2 + 1;
  }
  /// Coordinate of the block's box in dimension d.
  MINF_HOST_DEVICE static constexpr int coordinate(int block, int d) {
    for (int i = 0; i < d; ++i) block /= num_boxes(i);
    return Shape::first(d) + block % num_boxes(d) * box(d);
  }

  struct Storage {
    alignas(1024) uint32_t tile[2048];
    arch::Mbarrier barrier;
  };
};

/// Boxes that begin inside the swizzle's pattern, which depends on addresses.
template <typename Shape, arch::Swizzle kSwizzle>
struct ShiftedBoxTraits : BoxTraits<Shape, kSwizzle> {
  static constexpr int kFirstLine = 3;
};

template <typename Traits>
CUtensorMap map_of(const void* base) {
  arch::TensorTile<Traits::kRank> tile{.base = base, .swizzle = Traits::kSwizzle};
  for (int d = 0; d < Traits::kRank; ++d) {
    tile.sizes[d] = static_cast<uint64_t>(Traits::size(d));
    tile.stride_bytes[d] = 2 * static_cast<uint64_t>(Traits::stride(d));
    tile.box[d] = static_cast<uint32_t>(Traits::box(d));
  }
  return arch::encode_tensor_map(tile);
}

/// Calls visit(element in the block's box, element in the tensor or -1 if outside) for the whole
/// box.
template <typename Traits, typename Visit>
void for_each_element(int block, const Visit& visit) {
  for (int element = 0; element < 2 * Traits::box_words(); ++element) {
    int rest = element;
    int64_t position = 0;
    for (int d = 0; d < Traits::kRank; ++d) {
      const int coordinate = Traits::coordinate(block, d) + rest % Traits::box(d);
      rest /= Traits::box(d);
      const bool inside = 0 <= coordinate && coordinate < Traits::size(d);
      position = inside && position >= 0 ? position + int64_t{coordinate} * Traits::stride(d) : -1;
    }
    visit(static_cast<std::size_t>(element), position);
  }
}

/// The half with this number in a row of words.
inline uint32_t half_of(std::span<const uint32_t> words, std::size_t half) {
  return words[half / 2] >> (16 * (half % 2)) & 0xffff;
}
inline void set_half(uint32_t& word, std::size_t half, uint32_t value) {
  const auto shift = static_cast<uint32_t>(16 * (half % 2));
  word = (word & ~(0xffffU << shift)) | value << shift;
}

}  // namespace minference::gpu_test
