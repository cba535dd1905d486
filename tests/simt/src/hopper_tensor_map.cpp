// Tensor maps: encoded with the driver's checks, decoded; see hopper_tensor_map.h.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_tensor_map.h"

#include <algorithm>
#include <cstring>

namespace simt::engine {
namespace {

constexpr uint64_t kTag = 0x70616d726f736e74;  // "tnsormap"
constexpr uint64_t kMaxSize = uint64_t{1} << 32;
constexpr uint64_t kMaxStrideBytes = uint64_t{1} << 40;
constexpr uint32_t kMaxBox = 256;
constexpr uint32_t kMaxElementStride = 8;

uint8_t element_bytes_of(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
      return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return 8;
  }
  return 0;
}

/// The driver's rules for one dimension (documentation of cuTensorMapEncodeTiled).
bool dimension_is_valid(const cuuint64_t* sizes, const cuuint64_t* stride_bytes,
                        const cuuint32_t* box, const cuuint32_t* element_strides,
                        cuuint32_t dimension) {
  if (sizes[dimension] == 0 || sizes[dimension] > kMaxSize) return false;
  if (box[dimension] == 0 || box[dimension] > kMaxBox) return false;
  if (element_strides[dimension] == 0 || element_strides[dimension] > kMaxElementStride) {
    return false;
  }
  if (dimension == 0) return true;
  const cuuint64_t stride = stride_bytes[dimension - 1];
  return stride % 16 == 0 && stride < kMaxStrideBytes;
}

}  // namespace

uint32_t TensorMap::box_bytes() const {
  uint32_t bytes = element_bytes;
  for (int dimension = 0; dimension < rank; ++dimension) bytes *= box(dimension);
  return bytes;
}

uint64_t TensorMap::computed_checksum() const {
  uint64_t sum = 0xcbf29ce484222325;  // FNV-1a.
  const auto mix = [&](uint64_t value) { sum = (sum ^ value) * 0x100000001b3; };
  mix(base);
  for (const uint64_t stride : stride_bytes) mix(stride);
  for (const uint32_t size : last) mix(size);
  for (const uint8_t size : box_last) mix(size);
  mix(rank);
  mix(element_bytes);
  mix(swizzle);
  return sum;
}

bool decode_tensor_map(const CUtensorMap& bytes, TensorMap& map) {
  std::memcpy(static_cast<void*>(&map), &bytes, sizeof map);
  return map.tag == kTag && map.checksum == map.computed_checksum();
}

namespace {

/// One row of a box: where it begins in the unswizzled box, and where it would begin in global
/// memory were all of it inside the tensor; bytes [first, first + count) are inside.
struct BoxRow {
  std::size_t offset;
  uint64_t address;
  uint32_t first;
  uint32_t count;
};

BoxRow row_of(const TensorMap& map, const int32_t* coordinates, uint32_t row) {
  const int64_t size = int64_t{map.last[0]} + 1;
  const int64_t low = std::clamp<int64_t>(-int64_t{coordinates[0]}, 0, map.box(0));
  const int64_t high = std::clamp<int64_t>(size - coordinates[0], low, map.box(0));
  BoxRow result{row * map.row_bytes(), map.base, static_cast<uint32_t>(low * map.element_bytes),
                static_cast<uint32_t>((high - low) * map.element_bytes)};
  // Unsigned, because the address may be anything before it is known to be inside.
  result.address += static_cast<uint64_t>(int64_t{coordinates[0]}) * map.element_bytes;
  for (int dimension = 1; dimension < map.rank; ++dimension) {
    const auto i = static_cast<std::size_t>(dimension);
    const int64_t coordinate = int64_t{coordinates[dimension]} + row % map.box(dimension);
    row /= map.box(dimension);
    if (coordinate < 0 || coordinate > int64_t{map.last[i]}) result.count = 0;
    result.address += static_cast<uint64_t>(coordinate) * map.stride_bytes[i - 1];
  }
  return result;
}

}  // namespace

void append_pieces(const TensorMap& map, const int32_t* coordinates, std::size_t shared_offset,
                   std::vector<Piece>& pieces) {
  const uint32_t num_rows = map.box_bytes() / map.row_bytes();
  for (uint32_t index = 0; index < num_rows; ++index) {
    const BoxRow row = row_of(map, coordinates, index);
    const uint32_t end = row.first + row.count;
    for (uint32_t chunk = 0; chunk < map.row_bytes(); chunk += 16) {
      const std::size_t shared = map.swizzled(shared_offset + row.offset + chunk);
      const uint32_t low = std::clamp(row.first, chunk, chunk + 16) - chunk;
      const uint32_t high = std::clamp(end, chunk + low, chunk + 16) - chunk;
      if (low > 0) pieces.push_back({shared, 0, low});
      if (high > low) pieces.push_back({shared + low, row.address + chunk + low, high - low});
      if (high < 16) pieces.push_back({shared + high, 0, 16 - high});
    }
  }
}

}  // namespace simt::engine

extern "C" CUresult cuTensorMapEncodeTiled(
    CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* base,
    const cuuint64_t* sizes, const cuuint64_t* stride_bytes, const cuuint32_t* box,
    const cuuint32_t* element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
    CUtensorMapL2promotion l2_promotion, CUtensorMapFloatOOBfill fill) {
  using simt::engine::TensorMap;
  const uint8_t element_bytes = simt::engine::element_bytes_of(type);
  if (map == nullptr || reinterpret_cast<uintptr_t>(map) % 64 != 0 || element_bytes == 0 ||
      rank == 0 || rank > simt::engine::kMaxTensorRank || base == nullptr ||
      reinterpret_cast<uintptr_t>(base) % 16 != 0 || swizzle > CU_TENSOR_MAP_SWIZZLE_128B ||
      l2_promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  TensorMap encoded;
  encoded.base = reinterpret_cast<uintptr_t>(base);
  encoded.rank = static_cast<uint8_t>(rank);
  encoded.element_bytes = element_bytes;
  encoded.swizzle = static_cast<uint8_t>(swizzle);
  for (cuuint32_t dimension = 0; dimension < rank; ++dimension) {
    if (!simt::engine::dimension_is_valid(sizes, stride_bytes, box, element_strides, dimension)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (dimension > 0 && element_strides[dimension] != 1) return CUDA_ERROR_NOT_SUPPORTED;
    encoded.last[dimension] = static_cast<uint32_t>(sizes[dimension] - 1);
    encoded.box_last[dimension] = static_cast<uint8_t>(box[dimension] - 1);
    if (dimension > 0) encoded.stride_bytes[dimension - 1] = stride_bytes[dimension - 1];
  }
  const uint32_t row_bytes = encoded.row_bytes();
  if (row_bytes % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
  if (swizzle != CU_TENSOR_MAP_SWIZZLE_NONE && row_bytes > encoded.swizzle_bytes()) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  encoded.tag = simt::engine::kTag;
  encoded.checksum = encoded.computed_checksum();
  *map = {};
  std::memcpy(static_cast<void*>(map), &encoded, sizeof encoded);
  return CUDA_SUCCESS;
}
