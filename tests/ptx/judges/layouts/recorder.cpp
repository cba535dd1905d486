// See recorder.h.
// SPDX-License-Identifier: Apache-2.0
#include "recorder.h"

#include <vector_types.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "simt/device.h"
#include "simt/hopper.h"

// Writable storage behind the constants that kernels see.
uint3 current_thread __asm__("threadIdx") = {0, 0, 0};
uint3 current_block __asm__("blockIdx") = {0, 0, 0};

namespace judges {
namespace {

constexpr uint32_t kWindowStart = 1024;
constexpr std::size_t kArenaBytes = std::size_t{1} << 20;

std::byte* arena() {
  static auto* const bytes = static_cast<std::byte*>(std::aligned_alloc(kArenaBytes, kArenaBytes));
  return bytes;
}

std::vector<Product> products;
std::vector<LaneProduct> lane_products;

/// The row addresses that the 32 lanes pass to one ldmatrix or stmatrix.
struct MatrixRows {
  const std::byte* of_lane[32];
};

/// The values that the 32 lanes pass to one shuffle.
struct LaneValues {
  uint64_t of_lane[32];
};

/// The running warp.
struct Warp {
  std::vector<MatrixRows> accesses;
  std::vector<LaneValues> shuffles;
  bool takes_notes = false;  // True in the first run.
  std::size_t next_access = 0;
  std::size_t next_shuffle = 0;
  int lane = 0;
};
Warp warp;

/// The access that the lane makes now; records its address in the first run.
const MatrixRows& next_access(const void* row) {
  if (warp.next_access == warp.accesses.size()) warp.accesses.emplace_back();
  MatrixRows& access = warp.accesses[warp.next_access++];
  if (warp.takes_notes) access.of_lane[warp.lane] = static_cast<const std::byte*>(row);
  return access;
}

/// The values of the shuffle that the lane makes now; records its own value in the first run.
const LaneValues& next_shuffle(uint64_t value) {
  if (warp.next_shuffle == warp.shuffles.size()) warp.shuffles.emplace_back();
  LaneValues& values = warp.shuffles[warp.next_shuffle++];
  if (warp.takes_notes) values.of_lane[warp.lane] = value;
  return values;
}

}  // namespace

std::byte* shared_memory() { return arena() + kWindowStart; }
std::size_t shared_memory_bytes() { return kArenaBytes - kWindowStart; }

uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const std::byte*>(pointer) - arena());
}

std::vector<Product> take_products() { return std::exchange(products, {}); }
std::vector<LaneProduct> take_lane_products() { return std::exchange(lane_products, {}); }

void run_thread(int thread, const std::function<void()>& body) {
  current_thread.x = static_cast<unsigned>(thread);
  body();
}

void run_warp(int index, const std::function<void(int lane)>& body) {
  warp.accesses.clear();
  warp.shuffles.clear();
  for (const bool takes_notes : {true, false}) {
    warp.takes_notes = takes_notes;
    for (int lane = 0; lane < 32; ++lane) {
      warp.lane = lane;
      warp.next_access = 0;
      warp.next_shuffle = 0;
      run_thread(32 * index + lane, [&] { body(lane); });
    }
    if (takes_notes) lane_products.clear();
  }
}

}  // namespace judges

// ---- The interface of tests/simt ----------------------------------------------------------------

namespace simt {

uint32_t shared_address(const void* pointer) { return judges::shared_address(pointer); }
void* shared_pointer(uint32_t address) { return judges::arena() + address; }

/// Lane 4 g + t receives elements 2 t and 2 t + 1 of row g of each matrix, whose rows 8 lanes point
/// to; transposed, elements g of rows 2 t and 2 t + 1.
void warp_ldmatrix(uint32_t* fragment, int count, bool transposed, const void* row) {
  const judges::MatrixRows& rows = judges::next_access(row);
  const int g = judges::warp.lane / 4;
  const int t = judges::warp.lane % 4;
  for (int matrix = 0; matrix < count; ++matrix) {
    fragment[matrix] = 0;
    if (judges::warp.takes_notes) continue;
    for (int half = 0; half < 2; ++half) {
      const int matrix_row = transposed ? 2 * t + half : g;
      const int column = transposed ? g : 2 * t + half;
      uint16_t element = 0;
      std::memcpy(&element, rows.of_lane[8 * matrix + matrix_row] + 2 * column, sizeof element);
      fragment[matrix] |= uint32_t{element} << (16 * half);
    }
  }
}

void warp_stmatrix(void* row, const uint32_t* fragment, int count, bool transposed) {
  const judges::MatrixRows& rows = judges::next_access(row);
  if (transposed) std::abort();  // No kernel uses it.
  if (judges::warp.takes_notes) return;
  const int g = judges::warp.lane / 4;
  const int t = judges::warp.lane % 4;
  for (int matrix = 0; matrix < count; ++matrix) {
    auto* const target = const_cast<std::byte*>(rows.of_lane[8 * matrix + g]);
    std::memcpy(target + 4 * t, &fragment[matrix], sizeof fragment[matrix]);
  }
}

void warp_mma_m16n8k16(float*, const uint32_t* a, const uint32_t* b, bool) {
  judges::lane_products.push_back({{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
}

void wgmma_shared(float*, int n, uint64_t a, uint64_t b, bool accumulate, bool transposed_b, bool) {
  judges::products.push_back({n, a, b, false, accumulate, transposed_b});
}

void wgmma_registers(float*, int n, const uint32_t*, uint64_t b, bool accumulate, bool transposed_b,
                     bool) {
  judges::products.push_back({n, 0, b, true, accumulate, transposed_b});
}

// The tests number the elements. Packing keeps the numbers, at most 65535, and rounds nothing. 2^x
// returns -x, so that scores that are negative numbers give these numbers as probabilities.
uint32_t pack_bf16x2(float low, float high) {
  return static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16;
}
float exp2_flushed(float x) { return -x; }
float float_from_bits(uint32_t bits) {
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

bool mbarrier_try_wait(const void*, uint32_t) { return true; }
void wgmma_fence() {}
void wgmma_commit_group() {}
void keep_registers(float*, int) {}
void fence_proxy_async() {}
void named_barrier_sync(int, int) {}
void warp_barrier(uint32_t) {}

// All lanes vote alike.
uint32_t warp_vote(WarpVote, uint32_t, uint64_t value) { return value != 0; }

uint64_t warp_shuffle(Shuffle kind, uint32_t, uint64_t value, int operand, int) {
  const judges::LaneValues& values = judges::next_shuffle(value);
  if (kind == Shuffle::kIndex) return value;  // All lanes have the same value.
  if (kind != Shuffle::kXor) std::abort();
  return values.of_lane[judges::warp.lane ^ operand];
}

}  // namespace simt
