// Stage 1 of vertical-slash, pass 2 of 2 over K: the probabilities, of which only the sums over
// columns and over diagonals are kept.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>

#include "cuda/arch/math.h"
#include "cuda/sm80/estimate_vertical_slash_traits.h"

namespace minference::sm80 {

inline constexpr int kHalfKeys = kBlock / 2;

/// Sums over one warp's rows: of a tile's 64 columns, and of 64 distances that ascend.
struct TileSums {
  float columns[kBlock];
  float distances[kBlock];
};

/// Shared memory of one head's two warps, behind the key buffers.
///
///     what          written by      read by         ordered by
///     skew[w]       warp w          warp w          __syncwarp
///     sums[p][w]    warp w, tile p  both, tile p+1  the barrier of KeyStream::wait; p = tile % 2
struct HeadSums {
  static constexpr int kPitch = kHalfKeys + 8;
  alignas(8) float skew[2][8 * kPitch];
  TileSums sums[2][2];
};

/// A block has a HeadSums per head of the wave's largest group, behind the Buffers, not for 8 heads
/// always: without GQA, at head_dim 128, an SM of sm_90 holds 3 blocks so, else 2.
template <typename Traits>
constexpr std::size_t score_sums_shared_bytes(int num_heads) {
  return sizeof(typename Traits::Keys::Buffers) +
         static_cast<std::size_t>(num_heads) * sizeof(HeadSums);
}

template <typename Traits>
__device__ inline HeadSums& head_sums(typename Traits::Keys::Buffers& buffers, int slot) {
  static_assert(sizeof(buffers) % alignof(HeadSums) == 0);
  return *(reinterpret_cast<HeadSums*>(&buffers + 1) + slot);
}

/// P from S, in place.
struct Probabilities {
  float offset[device::kThreadRows];
  bool all_present;  // Every row of the warp counts.

  __device__ explicit Probabilities(const float* row_offset) {
    bool present = true;
#pragma unroll
    for (int i = 0; i < device::kThreadRows; ++i) {
      offset[i] = row_offset[device::row_of(i)];
      present = present && offset[i] != kNoRow;
    }
    all_present = __all_sync(device::kFullWarp, present);
  }

  __device__ void take(device::ScoreTile& scores, float scale_log2) const {
#pragma unroll
    for (int i = 0; i < device::kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        scores.at(i, j) = arch::exp2_approx(fmaf(scores.at(i, j), scale_log2, -offset[i]));
      }
    }
    if (all_present) return;
    // 2^-FLT_MAX is 0, but the NaN or inf of a row that does not count would spread.
#pragma unroll
    for (int i = 0; i < device::kThreadRows; ++i) {
      if (offset[i] == kNoRow) scores.at(i, 0) = scores.at(i, 1) = 0;
    }
  }
};

/// Where a lane's column sum of a step goes.
__device__ inline int lane_column() { return device::lane_key() + device::lane_index() % 2 * 8; }

/// Adds each of the step's 16 columns over the warp's rows. `column` is the lane's, in shared
/// memory.
__device__ inline void add_columns(device::ScoreTile& p, float* column) {
  float sum[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float pair[device::kRowTiles];
#pragma unroll
    for (int n = 0; n < device::kRowTiles; ++n) pair[n] = p.at(2 * n, j) + p.at(2 * n + 1, j);
    sum[j] = (pair[0] + pair[1]) + (pair[2] + pair[3]);
  }
  // The four lanes of a key: even ones take key g, odd ones key g + 8, then the two alike add up.
  const bool odd = device::lane_index() % 2 != 0;
  const float other = __shfl_xor_sync(device::kFullWarp, odd ? sum[0] : sum[1], 1);
  float total = (odd ? sum[1] : sum[0]) + other;
  total += __shfl_xor_sync(device::kFullWarp, total, 2);
  if (device::lane_index() % 4 < 2) *column = total;
}

/// Elements (g, 2t) and (g, 2t + 1) of an 8x8 block: a thread's part.
struct alignas(8) Pair {
  float low;
  float high;
};

/// Sums of a warp's P over diagonals.
///
/// Cut S^T into 8x8 blocks, b counting key blocks and n the warp's row tiles: a score of key g of
/// block b and row c of tile n has distance 8 (n - b) + c - g from the chunk's first key to the
/// warp's first row. So blocks of equal n - b add element by element, in the registers where
/// mma.sync left them, and each key block completes one such sum. Of four of them, and the last of
/// the four before, come 32 finished distances, by way of shared memory: laid out as
/// skew[g][8 (n - b) + c], a distance x is the sum of skew[g][x + g] over g. Both accesses are free
/// of bank conflicts.
///
///     half tile h (32 keys) of the warp with rows 32 w:   distances 32 (w - h) + [0, 32)
class DiagonalBlocks {
 public:
  __device__ explicit DiagonalBlocks(float* skew)
      : pairs_(skew + device::lane_key() * HeadSums::kPitch + device::lane_row()),
        diagonal_(skew + device::lane_index()) {
    store(4, {});
  }

  /// Adds key block `b` of a half tile, the step's keys j; stores and returns the sum it completes.
  __device__ Pair add(device::ScoreTile& p, int j, int b) {
    const Pair done = {block_[2].low + p.at(6, j), block_[2].high + p.at(7, j)};
    block_[2] = {block_[1].low + p.at(4, j), block_[1].high + p.at(5, j)};
    block_[1] = {block_[0].low + p.at(2, j), block_[0].high + p.at(3, j)};
    block_[0] = {p.at(0, j), p.at(1, j)};
    store(3 - b, done);
    return done;
  }

  /// After four key blocks, the last of which completed `done`: the finished distance of this lane.
  __device__ float finish_half(Pair done) {
    __syncwarp();  // The blocks are stored.
    float sum = diagonal_[0];
#pragma unroll
    for (int g = 1; g < 8; ++g) sum += diagonal_[g * (HeadSums::kPitch + 1)];
    __syncwarp();  // The blocks are read.
    store(4, done);
    return sum;
  }

  /// finish_half() of a half tile of zeros.
  __device__ float finish_zeros() {
#pragma unroll
    for (int b = 0; b < 3; ++b) store(3 - b, block_[2 - b]);
    store(0, {});
    return finish_half({});
  }

 private:
  __device__ void store(int place, Pair pair) {
    *reinterpret_cast<Pair*>(pairs_ + 8 * place) = pair;
  }

  float* pairs_;
  const float* diagonal_;
  Pair block_[3] = {};
};

/// One warp's sums of P, tile after tile. Half h of the upper rows' warp is of the same distances
/// as half h - 1 of the lower rows'; each tile finishes 64 of a head.
class WarpSums {
 public:
  __device__ WarpSums(const ScoreArgs& args, const ScoreWarp& warp, HeadSums& head)
      : p_(args.row_offset + int64_t{warp.target} * kBlock + warp.first_row),
        blocks_(head.skew[warp.first_row / kHalfKeys]),
        upper_(warp.first_row != 0) {}

  /// Half a tile of 64 keys. `ahead`: as mask_causal() has it.
  template <typename Traits>
  __device__ void add(const typename Traits::Keys::Tile& keys, const typename Traits::Query& query,
                      int half, int32_t ahead, float scale_log2, TileSums& sums) {
    Pair done;
#pragma unroll 1
    for (int step = 0; step < 2; ++step) {
      const int first = half * kHalfKeys + step * device::kStepKeys;
      device::ScoreTile scores = device::score_keys(keys, first, query);
      if (ahead + kBlock > 1) device::mask_causal(scores, ahead + first);
      p_.take(scores, scale_log2);
      add_columns(scores, sums.columns + first + lane_column());
      blocks_.add(scores, 0, 2 * step);
      done = blocks_.add(scores, 1, 2 * step + 1);
    }
    store_half(half, blocks_.finish_half(done), sums);
  }

  /// The tile of zeros that ends a chunk.
  __device__ void finish(TileSums& sums) {
    store_half(0, blocks_.finish_zeros(), sums);
    store_half(1, 0, sums);
  }

 private:
  /// Lower rows hand out their sums one half later: then both warps' are of the same distances.
  __device__ void store_half(int half, float sum, TileSums& sums) {
    sums.distances[(1 - half) * kHalfKeys + device::lane_index()] = upper_ ? sum : before_;
    before_ = sum;
  }

  Probabilities p_;
  DiagonalBlocks blocks_;
  bool upper_;
  float before_ = 0;  // The half before.
};

/// What both warps of a head have summed up of tile `tile`. One past the last is what the chunk's
/// end left over: distances that belong to the next chunk too.
__device__ inline void store_sums(const ScoreArgs& args, const ScoreBlock& block,
                                  const ScoreWarp& warp, const HeadSums& head, int32_t tile) {
  const TileSums& lower = head.sums[tile % 2][0];
  const TileSums& upper = head.sums[tile % 2][1];
  const int32_t i = static_cast<int32_t>(threadIdx.x) % kBlock;
  const float distance_sum = lower.distances[i] + upper.distances[i];
  if (tile == block.num_tiles && block.chunk + 1 < args.num_chunks) {
    args.overlap[args.chunk_rows(warp.target, block.chunk) + i] = distance_sum;
    return;
  }
  const int64_t row = int64_t{warp.target} * args.seqlen_k;
  if (tile < block.num_tiles) {
    const int32_t key = block.first_key + tile * kBlock;
    if (i < args.seqlen_k - key) args.vertical[row + key + i] = lower.columns[i] + upper.columns[i];
  }
  const int32_t distance = args.first_position() - block.first_key - tile * kBlock + i;
  if (distance >= 0 && distance < args.seqlen_k) args.slash[row + distance] = distance_sum;
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::kMaxThreads)
    score_sums_kernel(const __grid_constant__ ScoreArgs args) {
  auto& buffers = arch::shared_storage<typename Traits::Keys::Buffers>();
  const ScoreGroup& group = args.groups[blockIdx.y];
  const ScoreBlock block(args);
  const ScoreWarp warp(group);

  typename Traits::Keys keys(buffers, key_head<Traits>(args, group), block.first_key,
                             block.num_tiles);
  if (!warp.active) {
    for (int32_t tile = 0; tile <= block.num_tiles + 1; ++tile) keys.wait(tile);
    return;
  }
  typename Traits::Query query;
  load_queries<Traits>(query, args, group, warp);
  HeadSums& head = head_sums<Traits>(buffers, warp.slot);
  WarpSums warp_sums(args, warp, head);

  for (int32_t tile = 0; tile < block.num_tiles; ++tile) {
    const auto& key_tile = keys.wait(tile);
    if (tile > 0) store_sums(args, block, warp, head, tile - 1);
    TileSums& sums = head.sums[tile % 2][warp.first_row / kHalfKeys];
    const int32_t ahead =
        block.first_key + tile * kBlock - (args.first_position() + warp.first_row);
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      warp_sums.template add<Traits>(key_tile, query, half, ahead, args.scale_log2, sums);
    }
  }

  keys.wait(block.num_tiles);
  store_sums(args, block, warp, head, block.num_tiles - 1);
  warp_sums.finish(head.sums[block.num_tiles % 2][warp.first_row / kHalfKeys]);
  keys.wait(block.num_tiles + 1);
  store_sums(args, block, warp, head, block.num_tiles);
}

}  // namespace minference::sm80
