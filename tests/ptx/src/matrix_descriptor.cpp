// SPDX-License-Identifier: Apache-2.0
#include "matrix_descriptor.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>

#include "memory.h"
#include "multiply.h"
#include "proxies.h"
#include "state.h"

namespace ptxsim {
namespace {

constexpr u32 kChunkBytes = 16;
/// Swizzles repeat every 8 rows of at most 128 bytes.
constexpr u32 kPatternBytes = 1024;

/// The fields of a descriptor (section 9.7.15.5.1.2.2).
struct Fields {
  u32 start, leading, stride;  // Bytes.
  u32 base_offset;
  u32 swizzle;  // 0: none; else log2 of the chunks of a row: 1, 2, 3.
  bool has_others;

  explicit Fields(u64 bits)
      : start(bytes(bits)),
        leading(bytes(bits >> 16)),
        stride(bytes(bits >> 32)),
        base_offset(static_cast<u32>(bits >> 49 & 7)),
        swizzle(bits >> 62 == 0 ? 0 : 4 - static_cast<u32>(bits >> 62)),
        has_others((bits & kOthers) != 0) {}

 private:
  static constexpr u64 kOthers =
      ~(u64{0x3fff} | u64{0x3fff} << 16 | u64{0x3fff} << 32 | u64{7} << 49 | u64{3} << 62);
  static u32 bytes(u64 field) { return static_cast<u32>(field & 0x3fff) * kChunkBytes; }
};

/// Offset of the chunk that begins at (mn, k), whose major index is a multiple of 8.
u32 place_of_chunk(const Fields& fields, bool is_mn_major, u32 mn, u32 k) {
  const u32 row_chunks = 1u << fields.swizzle;
  const u32 row_bytes = kChunkBytes * row_chunks;
  u32 at = fields.start % kPatternBytes;
  if (!is_mn_major) {
    at += mn % 8 * row_bytes + mn / 8 * fields.stride;
    at += k / 8 * (fields.swizzle == 0 ? fields.leading : kChunkBytes);
  } else if (fields.swizzle == 0) {
    at += mn / 8 * fields.stride + k % 8 * kChunkBytes + k / 8 * fields.leading;
  } else {
    at += mn / 8 % row_chunks * kChunkBytes + mn / 8 / row_chunks * fields.leading;
    at += k % 8 * row_bytes + k / 8 * fields.stride;
  }
  // XORs address bits from 7 up into the chunk's number.
  return at ^ ((at >> 7 & (row_chunks - 1)) * kChunkBytes);
}

OperandPlaces places_of(const Fields& fields, const OperandShape& shape) {
  OperandPlaces places;
  const u32 end = shape.first_mn + shape.num_mn;
  if (shape.is_mn_major) {
    for (u32 k = 0; k < kTileK; ++k) {
      for (u32 mn = shape.first_mn; mn < end; mn += 8) {
        places.chunks.push_back(place_of_chunk(fields, true, mn, k));
      }
    }
  } else {
    for (u32 mn = shape.first_mn; mn < end; ++mn) {
      for (u32 k = 0; k < kTileK; k += 8) {
        places.chunks.push_back(place_of_chunk(fields, false, mn, k));
      }
    }
  }
  std::vector<u32> sorted = places.chunks;
  std::sort(sorted.begin(), sorted.end());
  for (const u32 begin : sorted) {
    const bool adjoins =
        !places.runs.empty() && begin <= places.runs.back().begin + places.runs.back().bytes;
    if (!adjoins) places.runs.push_back({.begin = begin});
    places.runs.back().bytes = begin + kChunkBytes - places.runs.back().begin;
  }
  return places;
}

/// All bits that the places depend on.
u64 key_of(u64 descriptor, const OperandShape& shape) {
  const u64 start = descriptor & (kPatternBytes / kChunkBytes - 1);  // 6 bits.
  const u64 leading = descriptor >> 16 & 0x3fff;
  const u64 stride = descriptor >> 32 & 0x3fff;
  const u64 mode = descriptor >> 62;
  return start | leading << 6 | stride << 20 | mode << 34 | u64{shape.is_mn_major} << 36 |
         u64{shape.first_mn / 8} << 37 | u64{shape.num_mn / 8} << 40;
}

const OperandPlaces& known_places(u64 descriptor, const OperandShape& shape) {
  static thread_local std::unordered_map<u64, OperandPlaces> known;
  const u64 key = key_of(descriptor, shape);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  return known.emplace(key, places_of(Fields(descriptor), shape)).first->second;
}

u64 load_word(const u8* from) {
  u64 word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

}  // namespace

SharedOperand::SharedOperand(Warp& warp, u64 descriptor, const OperandShape& shape) {
  const Fields fields(descriptor);
  if (fields.base_offset != 0) {
    fail(warp, "a matrix descriptor with base offset " + std::to_string(fields.base_offset) +
                   ": only 0 is modelled");
  }
  if (fields.has_others) fail(warp, "a matrix descriptor with bits outside of its fields");
  places_ = &known_places(descriptor, shape);
  const u64 origin = fields.start / kPatternBytes * kPatternBytes;
  const auto& last = places_->runs.back();
  const bool is_inside = origin + places_->runs.front().begin >= kSharedBase &&
                         origin + last.begin + last.bytes <= warp.block->shared_bytes;
  if (!is_inside) {
    // The error names the first chunk outside.
    for (const u32 chunk : places_->chunks) shared_pointer(warp, origin + chunk, kChunkBytes);
  }
  base_ = warp.block->shared + origin;
}

u64 SharedOperand::checksum() const {
  // Products of pairs, each with its own constants, are independent of each other.
  // Source: Black, Halevi, Krawczyk, Krovetz, Rogaway, UMAC (the hash NH).
  constexpr u64 kStep = 0x9e3779b97f4a7c15;
  u64 sum = 0, first = 0x243f6a8885a308d3, second = 0x13198a2e03707345;
  for (const OperandPlaces::Run& run : places_->runs) {
    const u8* const begin = base_ + run.begin;
    for (u32 i = 0; i < run.bytes; i += kChunkBytes) {
      sum += (load_word(begin + i) + first) * (load_word(begin + i + 8) + second);
      first += kStep;
      second += kStep;
    }
  }
  return sum;
}

void SharedOperand::check_proxies(Warp& warp) const {
  for (const OperandPlaces::Run& run : places_->runs) {
    check_async_read(warp, base_ + run.begin, run.bytes);
  }
}

}  // namespace ptxsim
