// SPDX-License-Identifier: Apache-2.0
#include "tensor_map.h"

#include <algorithm>
#include <cstring>

#include "memory.h"
#include "state.h"

namespace ptxsim {
namespace {

constexpr u64 kChunk = 16;  // The unit of swizzling.

struct ElementType {
  u32 bytes;
  u32 nan;  // The value of NaN fill; 0: not a floating-point type.
};

/// By CUtensorMapDataType: u8, u16, u32, s32, u64, s64, f16, f32, f64, bf16, f32 with ftz, tf32,
/// tf32 with ftz. Packed types of fewer than 8 bits are not known here.
constexpr ElementType kTypes[] = {{1, 0},        {2, 0},      {4, 0},        {4, 0},
                                  {8, 0},        {8, 0},      {2, 0x7fff},   {4, ~0u >> 1},
                                  {8, ~0u >> 1}, {2, 0x7fff}, {4, ~0u >> 1}, {4, ~0u >> 1},
                                  {4, ~0u >> 1}};

u64 span_of(u32 swizzle) { return u64{16} << swizzle; }

std::string number(u64 value) { return std::to_string(value); }

std::string broken_layout(const TiledTensor& tensor) {
  constexpr u64 kMostElements = u64{1} << 32;
  constexpr u64 kMostStride = u64{1} << 40;
  if (reinterpret_cast<u64>(tensor.base) % 16 != 0) return "globalAddress must be 16-byte aligned";
  for (u32 i = 0; i < tensor.rank; ++i) {
    if (tensor.sizes[i] == 0 || tensor.sizes[i] > kMostElements) {
      return "globalDim[" + number(i) + "] must be in 1..2^32, not " + number(tensor.sizes[i]);
    }
  }
  for (u32 i = 0; i + 1 < tensor.rank; ++i) {
    if (tensor.strides[i] % 16 != 0 || tensor.strides[i] >= kMostStride) {
      return "globalStrides[" + number(i) + "] must be a multiple of 16 below 2^40, not " +
             number(tensor.strides[i]);
    }
  }
  return "";
}

std::string broken_box(const TiledTensor& tensor) {
  for (u32 i = 0; i < tensor.rank; ++i) {
    if (tensor.box[i] == 0 || tensor.box[i] > 256) {
      return "boxDim[" + number(i) + "] must be in 1..256, not " + number(tensor.box[i]);
    }
    const u32 stride = tensor.element_strides[i];
    if (stride == 0 || stride > 8) {
      return "elementStrides[" + number(i) + "] must be in 1..8, not " + number(stride);
    }
    if (stride != 1) return "elementStrides other than 1 are not known here";
  }
  const u64 inner = u64{tensor.box[0]} * tensor_type_bytes(tensor.type);
  if (inner % 16 != 0) {
    return "boxDim[0] must be a multiple of 16 bytes, not " + number(inner) + " bytes";
  }
  if (tensor.swizzle != TensorMap::kNone && inner > span_of(tensor.swizzle)) {
    return "boxDim[0] must be at most the " + number(span_of(tensor.swizzle)) +
           " bytes of the swizzle, not " + number(inner);
  }
  return "";
}

std::string broken_rule(const void* map, const TiledTensor& tensor) {
  if (map == nullptr || reinterpret_cast<u64>(map) % 64 != 0) {
    return "tensorMap must be 64-byte aligned";
  }
  constexpr u32 kPackedTypes = 3;  // These come after the known ones.
  if (tensor_type_bytes(tensor.type) == 0) {
    return tensor.type < std::size(kTypes) + kPackedTypes
               ? "tensorDataType " + number(tensor.type) + " is not known here"
               : "tensorDataType is no type";
  }
  if (tensor.rank == 0 || tensor.rank > TensorMap::kMaxRank) {
    return "tensorRank must be in 1..5, not " + number(tensor.rank);
  }
  if (tensor.interleave != 0) return "interleave is not known here";
  if (tensor.swizzle > TensorMap::k128Bytes) {
    return "swizzle " + number(tensor.swizzle) + " is not known here";
  }
  if (tensor.fill > 1 || (tensor.fill == 1 && kTypes[tensor.type].nan == 0)) {
    return "oobFill NaN needs a floating-point type";
  }
  const std::string layout = broken_layout(tensor);
  return layout.empty() ? broken_box(tensor) : layout;
}

// ---- Boxes -------------------------------------------------------------------------------------

u64 swizzled(u64 address, u8 swizzle) {
  const u64 mask = (u64{1} << swizzle) - 1;
  return address ^ (address >> 7 & mask) << 4;
}

/// Calls `row(r, address, inside)` for each row of the box along the innermost dimension, with its
/// address at coordinate 0 and whether it is inside the tensor.
template <class Row>
void each_row(const Box& box, Row row) {
  const TensorMap& map = box.map;
  u64 count = 1;
  for (u32 d = 1; d < map.rank; ++d) count *= map.box[d];
  for (u64 r = 0; r < count; ++r) {
    u64 rest = r;
    u64 address = map.base;
    bool inside = true;
    for (u32 d = 1; d < map.rank; ++d) {
      const s64 i = box.at[d] + static_cast<s64>(rest % map.box[d]);
      rest /= map.box[d];
      inside = inside && i >= 0 && i < static_cast<s64>(map.sizes[d]);
      address += static_cast<u64>(i) * map.strides[d - 1];
    }
    row(r, address, inside);
  }
}

/// The part of a box's rows that lies inside the tensor, in elements of the row.
struct Columns {
  u64 first = 0, past = 0;
};
Columns inside_columns(const Box& box) {
  const s64 begin = std::max<s64>(0, -s64{box.at[0]});
  const s64 end = std::min<s64>(box.map.box[0], static_cast<s64>(box.map.sizes[0]) - box.at[0]);
  if (begin >= end) return {};
  return {static_cast<u64>(begin), static_cast<u64>(end)};
}

void fill_outside(const TensorMap& map, u8* row, u64 bytes) {
  std::memset(row, 0, bytes);
  if (!map.fills_nan) return;
  const u32 element = tensor_type_bytes(map.type);
  const u64 nan = element == 8 ? ~u64{0} >> 1 : kTypes[map.type].nan;
  for (u64 at = 0; at < bytes; at += element) std::memcpy(row + at, &nan, element);
}

}  // namespace

u32 tensor_type_bytes(u32 type) { return type < std::size(kTypes) ? kTypes[type].bytes : 0; }

u64 box_bytes(const TensorMap& map) {
  u64 bytes = tensor_type_bytes(map.type);
  for (u32 d = 0; d < map.rank; ++d) bytes *= map.box[d];
  return bytes;
}

std::string encode_tensor_map(void* map, const TiledTensor& tensor) {
  std::string broken = broken_rule(map, tensor);
  if (!broken.empty()) return broken;
  TensorMap encoded;
  encoded.magic = TensorMap::kMagic;
  encoded.base = reinterpret_cast<u64>(tensor.base);
  std::copy_n(tensor.sizes, tensor.rank, encoded.sizes);
  std::copy_n(tensor.strides, tensor.rank - 1, encoded.strides);
  std::transform(tensor.box, tensor.box + tensor.rank, encoded.box,
                 [](u32 size) { return static_cast<u16>(size); });
  encoded.rank = static_cast<u8>(tensor.rank);
  encoded.type = static_cast<u8>(tensor.type);
  encoded.swizzle = static_cast<u8>(tensor.swizzle);
  encoded.fills_nan = tensor.fill != 0;
  std::memset(map, 0, 128);
  std::memcpy(map, &encoded, sizeof encoded);
  return "";
}

const TensorMap& tensor_map_at(Warp& warp, u64 address) {
  check_aligned(warp, address, 64, "tensor map");
  const auto* const map = reinterpret_cast<const TensorMap*>(global_pointer(warp, address, 128));
  if (map->magic != TensorMap::kMagic) fail(warp, "there is no tensor map at the address");
  return *map;
}

void check_box(Warp& warp, const Box& box) {
  const u64 element = tensor_type_bytes(box.map.type);
  const Columns columns = inside_columns(box);
  if (columns.first == columns.past) return;
  const u64 skipped = static_cast<u64>(box.at[0] + static_cast<s64>(columns.first)) * element;
  each_row(box, [&](u64, u64 address, bool inside) {
    if (!inside) return;
    lane_pointer(warp, 0, Space::kGlobal, address + skipped,
                 (columns.past - columns.first) * element);
  });
}

void load_box(const Box& box, u8* shared, u64 offset) {
  const TensorMap& map = box.map;
  const u64 element = tensor_type_bytes(map.type);
  const u64 pitch = map.box[0] * element;
  const Columns columns = inside_columns(box);
  u8 row[256 * 8];
  each_row(box, [&](u64 r, u64 address, bool inside) {
    if (!inside || columns.past - columns.first != map.box[0]) fill_outside(map, row, pitch);
    if (inside && columns.first != columns.past) {
      const u64 first = static_cast<u64>(box.at[0] + static_cast<s64>(columns.first));
      std::memcpy(row + columns.first * element,
                  reinterpret_cast<const u8*>(address + first * element),
                  (columns.past - columns.first) * element);
    }
    for (u64 c = 0; c < pitch; c += kChunk) {
      const u64 to = swizzled(offset + r * pitch + c, map.swizzle);
      std::memcpy(shared + (to - offset), row + c, kChunk);
    }
  });
}

void read_box(const Box& box, const u8* shared, u64 offset, std::span<u8> bytes) {
  for (u64 c = 0; c < bytes.size(); c += kChunk) {
    const u64 from = swizzled(offset + c, box.map.swizzle);
    std::memcpy(bytes.data() + c, shared + (from - offset), kChunk);
  }
}

void write_box(const Box& box, std::span<const u8> bytes) {
  const u64 element = tensor_type_bytes(box.map.type);
  const u64 pitch = box.map.box[0] * element;
  const Columns columns = inside_columns(box);
  if (columns.first == columns.past) return;
  const u64 first = static_cast<u64>(box.at[0] + static_cast<s64>(columns.first));
  each_row(box, [&](u64 r, u64 address, bool inside) {
    if (!inside) return;
    std::memcpy(reinterpret_cast<u8*>(address + first * element),
                bytes.data() + r * pitch + columns.first * element,
                (columns.past - columns.first) * element);
  });
}

}  // namespace ptxsim
