// Stage 1 of vertical-slash on sm90: scores, tile after tile: TMA brings keys into a ring of
// stages, wgmma multiplies them with queries. See estimate_vertical_slash_traits.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/bulk_copy.h"
#include "cuda/arch/elect.h"
#include "cuda/arch/named_barrier.h"
#include "cuda/arch/proxy_fence.h"
#include "cuda/arch/register_allocation.h"
#include "cuda/arch/wgmma.h"
#include "cuda/device/row_piece.h"
#include "cuda/sm90/estimate_vertical_slash_traits.h"

namespace minference::sm90::vertical_slash {

/// A warp's 16 keys against 64 rows of one head: what device::ScoreTile is for 32 rows.
struct HeadScores {
  static constexpr int kRowTiles = kBlock / 8;
  static constexpr int kThreadRows = 2 * kRowTiles;
  static constexpr int kRegisters = 4 * kRowTiles;
  float* d;

  /// The thread's row i against its key j (0: g, 1: g + 8).
  __device__ float& at(int i, int j) { return d[i / 2 * 4 + i % 2 + 2 * j]; }
};

/// The same of a warpgroup's heads, as wgmma leaves them.
struct WarpScores {
  float d[kWarpgroupHeads * HeadScores::kRegisters];

  __device__ HeadScores of(int head) { return {d + head * HeadScores::kRegisters}; }
};

/// All threads. Warpgroups past the group's heads do not use the ring.
template <typename Traits>
__device__ inline void initialize_ring(typename Traits::Buffers& buffers, int num_heads) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Traits::kStages; ++stage) {
      arch::mbarrier_init(buffers.full[stage], /*arrivals=*/1);
      arch::mbarrier_init(buffers.empty[stage], kWarpgroupWarps * num_warpgroups(num_heads));
    }
    arch::fence_mbarrier_init();
  }
  __syncthreads();  // The barriers are there.
}

// ---- Producer -----------------------------------------------------------------------------------

/// Whether the thread belongs to the block's last warpgroup.
__device__ inline bool is_producer() {
  return threadIdx.x / device::kWarpgroupThreads == blockDim.x / device::kWarpgroupThreads - 1;
}

/// The last warpgroup, of which one thread works. The map's dimensions are dim, key, KV head,
/// batch; what lies outside is 0.
template <typename Traits>
__device__ inline void produce_keys(typename Traits::Buffers& buffers, const CUtensorMap& map,
                                    const cuda::ScoreArgs& args, const cuda::ScoreGroup& group,
                                    const KeyRanges& ranges) {
  arch::setmaxnreg_dec<Traits::kProducerRegisters>();
  if (threadIdx.x % device::kWarpgroupThreads >= device::kWarpThreads || !arch::elect_one()) return;
  const int32_t kv_head = group.heads[0] / args.heads_per_kv_head;
  tma::RingPosition<Traits::kStages> ring;
  for (int32_t tile = 0; tile < ranges.num_tiles; ++tile) {
    arch::mbarrier_wait(buffers.empty[ring.stage], ring.parity ^ 1);
    arch::Mbarrier& full = buffers.full[ring.stage];
    arch::mbarrier_arrive_expect_tx(full, sizeof(typename Traits::Keys));
#pragma unroll 1
    for (int warp = 0; warp < kWarpgroupWarps; ++warp) {
      const int32_t key = ranges.first_of(warp) + tile * kStepKeys;
#pragma unroll
      for (int panel = 0; panel < Traits::kPanels; ++panel) {
        arch::cp_async_bulk_tensor_load(buffers.keys[ring.stage].rows[panel][warp * kStepKeys], map,
                                        {panel * kPanelDims, key, kv_head, group.batch}, full);
      }
    }
    ring.advance();
  }
}

// ---- Consumers ----------------------------------------------------------------------------------

/// The last rows of a warpgroup's heads to shared memory, by the warpgroup: rows past last_q, dims
/// past head_dim and the rows of a head that is not there are 0. Rows are 16-byte aligned.
template <typename Traits>
__device__ inline void load_queries(typename Traits::Queries& tile, const cuda::ScoreArgs& args,
                                    const cuda::ScoreGroup& group, const Consumer& consumer) {
  constexpr int kPieces = Traits::kHeadDim / device::kPieceElements;
  const Sequence sequence = args.sequences.at(group.batch);
  const int32_t first_row = sequence.lengths.seqlen_q - args.last_q;
#pragma unroll 8
  for (int i = consumer.thread; i < kWarpgroupHeads * kBlock * kPieces;
       i += device::kWarpgroupThreads) {
    const int tile_row = i / kPieces;
    const int head = tile_row / kBlock;
    const int row = tile_row % kBlock;
    const int dim = i % kPieces * device::kPieceElements;
    device::RowPiece piece = {};
    if (head < consumer.num_heads && row < args.last_q && dim < args.head_dim) {
      const HeadRows rows = query_rows(args.q, sequence, group.heads[consumer.slot_of(head)],
                                       sizeof(typename Traits::Element));
      piece = *reinterpret_cast<const device::RowPiece*>(
          rows.row(first_row + row) + dim * static_cast<int>(sizeof(typename Traits::Element)));
    }
#pragma unroll
    for (uint32_t& word : piece.words) {
      word = (word & args.query_bits.keep) ^ args.query_bits.flip;
    }
    const auto offset = static_cast<uint32_t>((tile_row * kPanelDims + dim % kPanelDims) * 2);
    auto* panel = reinterpret_cast<unsigned char*>(tile.rows[dim / kPanelDims]);
    *reinterpret_cast<device::RowPiece*>(
        panel + arch::swizzle_offset(arch::Swizzle::k128B, offset)) = piece;
  }
  arch::fence_proxy_async();
  arch::named_barrier_sync(1 + consumer.warpgroup, device::kWarpgroupThreads);
}

/// One warpgroup's products: at most two are running.
template <typename Traits>
class ScoreStream {
 public:
  __device__ ScoreStream(typename Traits::Buffers& buffers, const typename Traits::Queries& queries)
      : buffers_(buffers), queries_(queries) {}

  /// Waits for the next tile of keys and starts its product.
  __device__ void start(WarpScores& scores) {
    using arch::Swizzle;
    arch::mbarrier_wait(buffers_.full[ring_.stage], ring_.parity);
    arch::wgmma_fence(scores.d);
#pragma unroll
    for (int step = 0; step < Traits::kSteps; ++step) {
      const int panel = step / 4;
      const auto keys =
          arch::k_major_descriptor(buffers_.keys[ring_.stage].rows[panel], Swizzle::k128B);
      const auto queries = arch::k_major_descriptor(queries_.rows[panel], Swizzle::k128B);
      const auto bytes = static_cast<uint32_t>(step % 4 * 32);
      arch::wgmma<typename Traits::Element, arch::Major::kK>(
          scores.d, arch::advance(keys, bytes), arch::advance(queries, bytes), step > 0);
    }
    arch::wgmma_commit_group();
    ring_.advance();
  }

  /// Waits for the oldest product, after which kRunning were started, and gives its keys back.
  template <int kRunning>
  __device__ void finish(WarpScores& scores) {
    arch::wgmma_wait<kRunning>();
    arch::keep_registers(scores.d);
    if (device::lane_index() == 0) arch::mbarrier_arrive(buffers_.empty[done_.stage]);
    done_.advance();
  }

 private:
  typename Traits::Buffers& buffers_;
  const typename Traits::Queries& queries_;
  tma::RingPosition<Traits::kStages> ring_;
  tma::RingPosition<Traits::kStages> done_;
};

/// Calls take(scores, tile, step) with step = tile % 2 for each of `num_tiles` tiles, an even
/// number. Of two tiles, the second one's product runs while the first is taken; while the second
/// is taken, the other warpgroup's do. None runs on into the next round of the loop: the compiler
/// would move its accumulators, and wait for it first.
template <typename Traits, typename Take>
__device__ inline void take_scores(ScoreStream<Traits>& stream, int32_t num_tiles,
                                   const Take& take) {
#pragma unroll 1
  for (int32_t tile = 0; tile < num_tiles; tile += 2) {
    WarpScores even, odd;
    stream.start(even);
    stream.start(odd);
    stream.template finish<1>(even);
    take(even, tile, /*step=*/0);
    stream.template finish<0>(odd);
    take(odd, tile + 1, /*step=*/1);
  }
}

}  // namespace minference::sm90::vertical_slash
