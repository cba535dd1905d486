// A tensor map: the 128 bytes that cuTensorMapEncodeTiled writes for a tensor in global memory; and
// the boxes that bulk tensor copies move (section 5.5).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <span>
#include <string>

#include "types.h"

namespace ptxsim {

struct Warp;

/// Numbers are the values of the driver's enumerations.
struct TensorMap {
  static constexpr u64 kMagic = 0x50616d546d695374;
  static constexpr u32 kMaxRank = 5;
  enum Swizzle : u8 { kNone, k32Bytes, k64Bytes, k128Bytes };

  u64 magic = 0;
  u64 unused = 0;  // CUTLASS clears a bit here to work around a driver bug.
  u64 base = 0;
  u64 sizes[kMaxRank] = {};        // In elements, innermost dimension first.
  u64 strides[kMaxRank - 1] = {};  // In bytes, from the second dimension on.
  u16 box[kMaxRank] = {};          // In elements.
  u8 rank = 0;
  u8 type = 0;
  u8 swizzle = kNone;
  bool fills_nan = false;  // NaN instead of zeros outside of the tensor.
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

/// Writes the 128 bytes at `map`. @return the rule that is broken; empty if none is, and the map
/// was written.
std::string encode_tensor_map(void* map, const TiledTensor& tensor);

/// Size of an element in bytes; 0 if it is no type.
u32 tensor_type_bytes(u32 type);
u64 box_bytes(const TensorMap& map);

/// A box of a tensor, given by the coordinates of its first element, which may lie outside.
struct Box {
  TensorMap map;
  std::array<s32, TensorMap::kMaxRank> at = {};
};

/// The map at a generic address; fails if there is none.
const TensorMap& tensor_map_at(Warp& warp, u64 address);
/// Fails if a part of the box inside the tensor is memory that kernels may not touch.
void check_box(Warp& warp, const Box& box);
/// Copies a box to `shared`, which is at `offset` in its block's shared memory.
void load_box(const Box& box, u8* shared, u64 offset);
/// Read a box out of shared memory, and write it to the tensor.
void read_box(const Box& box, const u8* shared, u64 offset, std::span<u8> bytes);
void write_box(const Box& box, std::span<const u8> bytes);

}  // namespace ptxsim
