// Stage 1 of vertical-slash on sm90: what its two kernels share. Tile shape, shared memory,
// barriers, who works on which keys; and scores, tile after tile: TMA brings keys into a ring of
// stages, wgmma multiplies them with queries.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/host_device.h"
#include "cuda/arch/barrier.h"
#include "cuda/arch/bulk_copy.h"
#include "cuda/arch/warp_specialization.h"
#include "cuda/arch/wgmma.h"
#include "cuda/common/estimate_vertical_slash.h"
#include "cuda/device/rows.h"
#include "cuda/device/score_statistics.h"
#include "cuda/tma/ring_position.h"

namespace minference::sm90::vertical_slash {

// ---- Traits -------------------------------------------------------------------------------------

inline constexpr int kWarpgroupWarps = 4;
inline constexpr int kWarpgroupHeads = 2;
inline constexpr int kPanelDims = 64;                     // A swizzled row of 128 bytes.
inline constexpr int kStepKeys = device::kStepKeys;       // Of one warp in one product.
inline constexpr int kRangeKeys = 2 * device::kHalfKeys;  // Ranges are multiples of it.

/// Rows of keys or queries as wgmma reads them: K-major panels of 64 dims, 128-byte swizzle.
template <typename Element, int kRows, int kPanels>
struct OperandTile {
  alignas(1024) Element rows[kPanels][kRows][kPanelDims];
};

/// A block is one warpgroup for every two query heads of a KV head and, after them, one that loads
/// keys for all. S^T = K q^T: 64 keys are wgmma's rows, two heads' 128 queries its columns, so that
/// a thread has few keys and many rows, as with mma.sync on sm80: sums over rows and over diagonals
/// are mostly the thread's own. Not queries as rows: the sums would take four times the shuffles
/// and shared memory. Not one head: keys would come from shared memory once per head, 128 bytes a
/// cycle.
///
/// A warp's 16 of a product's 64 keys directly follow those of its previous product: the block's
/// keys are four ranges, one per warp of each warpgroup, and a stage of the ring holds 16 keys of
/// each. A warp has all rows of its keys and meets the other warps only at the ends of ranges.
///
///     barrier    arrivals per phase    by                     waited for by    then
///     full[s]    1, and the bytes      the producing thread   consumers        stage s is there
///     empty[s]   4 a consumer          a lane of each         the producing    stage s may be
///                warpgroup             consumer warp, after   thread           overwritten
///                                      its product
///     1 + w      128                   consumer warpgroup w   itself           its queries can be
///     (named)                                                                  read; at the end,
///                                                                              its warps' sums
///
/// Registers: two products' accumulators take 128, one running while the other is worked on; what a
/// thread sums up takes 64 (pass 1) or 60 (pass 2). So four heads a block; eight are two groups,
/// whose blocks read the same keys at about the same time, the second from L2.
template <typename Element_, int kHeadDim_>
struct VerticalSlashTraits {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static_assert(kHeadDim % 16 == 0);
  static constexpr int kSteps = kHeadDim / 16;
  static constexpr int kPanels = (kHeadDim - 1) / kPanelDims + 1;

  static constexpr int kGroupHeads = 4;
  static constexpr int kThreads = (kGroupHeads / kWarpgroupHeads + 1) * device::kWarpgroupThreads;
  static constexpr int kProducerRegisters = 24;
  static constexpr int kConsumerRegisters = 240;

  // 8 KiB a panel: 64 KiB in flight at 64 and 256 dims, 96 KiB at others. Two products need at
  // least two stages; at 256 dims, four heads' queries leave no space for a third.
  static constexpr int kStages = kPanels == 1 ? 8 : kPanels == 2 ? 6 : kPanels == 3 ? 4 : 2;

  using Keys = OperandTile<Element, kBlock, kPanels>;
  using Queries = OperandTile<Element, kWarpgroupHeads * kBlock, kPanels>;

  struct Buffers {
    Keys keys[kStages];
    arch::Mbarrier full[kStages];
    arch::Mbarrier empty[kStages];
  };
};

MINF_HOST_DEVICE constexpr int num_warpgroups(int num_heads) {
  return (num_heads - 1) / kWarpgroupHeads + 1;
}

/// Shared memory of a block: Buffers, then what each consumer warpgroup has for itself.
template <typename Traits, typename Own>
constexpr std::size_t score_shared_bytes(int num_heads) {
  using Buffers = typename Traits::Buffers;
  static_assert(sizeof(Buffers) % alignof(Own) == 0);
  static_assert(sizeof(Buffers) + num_warpgroups(Traits::kGroupHeads) * sizeof(Own) <= 227 * 1024);
  return sizeof(Buffers) + static_cast<std::size_t>(num_warpgroups(num_heads)) * sizeof(Own);
}

template <typename Own, typename Buffers>
__device__ inline Own& own_storage(Buffers& buffers, int warpgroup) {
  return *(reinterpret_cast<Own*>(&buffers + 1) + warpgroup);
}

/// The four ranges of a chunk's keys. In the last chunk they pass the sequence's end: zeros,
/// masked.
struct KeyRanges {
  int32_t chunk;
  int32_t first_key;
  int32_t num_keys;   // Of each range.
  int32_t num_tiles;  // A multiple of 4.

  static constexpr int32_t kChunkStep = kWarpgroupWarps * kRangeKeys;

  __device__ explicit KeyRanges(const cuda::ScoreArgs& args)
      : chunk(static_cast<int32_t>(blockIdx.x)), first_key(chunk * args.chunk_keys) {
    const int32_t left = args.seqlen_k - first_key;
    const int32_t all_keys = left < args.chunk_keys ? left : args.chunk_keys;
    num_keys = ((all_keys - 1) / kChunkStep + 1) * kRangeKeys;
    num_tiles = num_keys / kStepKeys;
  }

  __device__ int32_t first_of(int warp) const { return first_key + warp * num_keys; }
};

/// Uses a shuffle, so that the compiler sees that all lanes have the same value: operand
/// descriptors then take uniform registers, not those of the accumulators.
__device__ inline int warpgroup_index() {
  return __shfl_sync(device::kFullWarp, static_cast<int>(threadIdx.x) / device::kWarpgroupThreads,
                     0);
}

/// What a consumer thread works on: rows of its warpgroup's heads, against its warp's range of
/// keys.
struct Consumer {
  int warpgroup;
  int thread;     // Of the warpgroup.
  int warp;       // Of the warpgroup.
  int num_heads;  // Of the warpgroup: 2, or 1; 0 or less past the group's heads.

  __device__ explicit Consumer(const cuda::ScoreGroup& group)
      : warpgroup(warpgroup_index()),
        thread(static_cast<int>(threadIdx.x) % device::kWarpgroupThreads),
        warp(thread / device::kWarpThreads),
        num_heads(group.num_heads - warpgroup * kWarpgroupHeads) {
    if (num_heads > kWarpgroupHeads) num_heads = kWarpgroupHeads;
  }

  /// The warpgroup's i-th head, as a head of the group. If there is no second one: the first.
  __device__ int slot_of(int i) const {
    return warpgroup * kWarpgroupHeads + (i < num_heads ? i : 0);
  }
};

// ---- Scores -------------------------------------------------------------------------------------

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
  __syncthreads();  // The barriers are initialised.
}

// ---- Producer -----------------------------------------------------------------------------------

/// Whether the thread belongs to the block's last warpgroup.
__device__ inline bool is_producer() {
  return threadIdx.x / device::kWarpgroupThreads == blockDim.x / device::kWarpgroupThreads - 1;
}

/// The last warpgroup, of which one thread works. The map's dimensions are dim, key, KV head,
/// batch; elements outside are 0.
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

/// Copies the last rows of a warpgroup's heads to shared memory, by the warpgroup. Rows past
/// last_q, dims past head_dim and the rows of a missing head are 0. Rows are 16-byte aligned.
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
      const auto rows = query_rows<typename Traits::Element>(args.q, sequence,
                                                             group.heads[consumer.slot_of(head)]);
      piece = *reinterpret_cast<const device::RowPiece*>(rows.row(first_row + row) + dim);
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

  /// Waits for the oldest product, after which kRunning were started, and releases its keys.
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
/// number. The second tile's product runs while the first is taken; while the second is taken, the
/// other warpgroup's products run. None continues into the next iteration of the loop: the compiler
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
