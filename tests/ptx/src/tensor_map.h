// A tensor map: what cuTensorMapEncodeTiled makes of a tensor in global memory, in its 128 bytes;
// and the boxes that bulk tensor copies move (section 5.5).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <span>
#include <string>

#include "types.h"

namespace ptxsim {

struct Warp;

/// Numbers are those of the driver's enumerations.
struct TensorMap {
  static constexpr u64 kMagic = 0x50616d546d695374;
  static constexpr u32 kMaxRank = 5;
  enum Swizzle : u8 { kNone, k32Bytes, k64Bytes, k128Bytes };

  u64 magic = 0;
  u64 unused = 0;  // CUTLASS clears a bit here, against a defect of drivers.
  u64 base = 0;
  u64 sizes[kMaxRank] = {};        // Elements; the innermost dimension first.
  u64 strides[kMaxRank - 1] = {};  // Bytes, from the second dimension on.
  u16 box[kMaxRank] = {};          // Elements.
  u8 rank = 0;
  u8 type = 0;
  u8 swizzle = kNone;
  bool fills_nan = false;  // Outside of the tensor, instead of zeros.
};
static_assert(sizeof(TensorMap) <= 128);

/// The arguments of cuTensorMapEncodeTiled.
struct TiledTensor {
  u32 type = 0;
  u32 rank = 0;
  const void* base = nullptr;
  const u64* sizes = nullptr;
  const u64* strides = nullptr;
  const u32* box = nullptr;
  const u32* element_strides = nullptr;
  u32 interleave = 0;
  u32 swizzle = 0;
  u32 fill = 0;
};

/// Writes the 128 bytes at `map`. @return the rule that is broken; empty: none, and it was written.
std::string encode_tensor_map(void* map, const TiledTensor& tensor);

/// Bytes of an element; 0: not a type.
u32 tensor_type_bytes(u32 type);
u64 box_bytes(const TensorMap& map);

/// A box of a tensor, by the coordinates of its first element; they may lie outside.
struct Box {
  TensorMap map;
  std::array<s32, TensorMap::kMaxRank> at = {};
};

/// The map at a generic address; fails if there is none.
const TensorMap& tensor_map_at(Warp& warp, u64 address);
/// Fails if a part of the box inside the tensor is no memory that kernels may touch.
void check_box(Warp& warp, const Box& box);
/// Copies a box to `shared`, which lies at `offset` in its block's shared memory.
void load_box(const Box& box, u8* shared, u64 offset);
/// What a box in shared memory holds, and where it goes.
void read_box(const Box& box, const u8* shared, u64 offset, std::span<u8> bytes);
void write_box(const Box& box, std::span<const u8> bytes);

}  // namespace ptxsim
