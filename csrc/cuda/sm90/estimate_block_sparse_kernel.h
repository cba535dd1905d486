// Stage 1 of block-sparse on sm90, second kernel: scores of pooled queries against pooled keys by
// wgmma, and the blocks that they select, as on sm80 (common/estimate_block_sparse_selection.h).
//
// A thread block takes 128 row blocks of one head, 64 for each of two warpgroups, with the queries
// in registers; one thread loads pooled keys by bulk copies, for both. The products of the next
// tile run while a warpgroup selects from this one. At 128 dims, 32 heads, 1M tokens:
// docs/hopper.md.
//
// There is one accumulator: small products come first, so that only the large ones decide the
// roundings.
//
// Storage is 227 KiB or less: one thread block per SM, 240 registers a consumer.
//
//     barrier    arrivals per phase  by                        waited for by   then
//     full[s]    1, and the bytes    the producing thread      consumers       stage s is there
//     empty[s]   8                   a lane of each consumer   the producing   stage s may be
//                                    warp, after its products  thread          overwritten
//     request    1                   thread 0, at each pass    the producing   num_tiles is the
//                                                              thread          next pass's
//     named 1    256                 consumers                 consumers       unsettled[] is
//                                                                              written
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/barrier.h"
#include "cuda/arch/bulk_copy.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/arch/warp_specialization.h"
#include "cuda/arch/wgmma.h"
#include "cuda/common/estimate_block_sparse_selection.h"
#include "cuda/sm90/kernels.h"
#include "cuda/tma/pool_panels.h"
#include "cuda/tma/ring_position.h"

namespace minference::sm90::block_sparse {

namespace shared = cuda::block_sparse;

using shared::BlockRow;
using shared::kGroupKeys;
using shared::LaneScores;
using shared::SelectBlocksParams;
using shared::TileLists;

// ---- Shape --------------------------------------------------------------------------------------

/// Compile-time shape of the thread block, and its shared memory.
template <int kPaddedDim_>
struct WgmmaSelectTraits {
  static constexpr int kPaddedDim = kPaddedDim_;
  static constexpr int kSteps = kPaddedDim / cuda::kGroupDims;
  using Panels = tma::KeyPanels<kPaddedDim>;

  static constexpr int kWarpgroups = 2;
  static constexpr int kBlockRows = kWarpgroups * shared::kTileRows;
  static constexpr int kConsumers = kWarpgroups * 128;
  static constexpr int kConsumerWarps = kConsumers / device::kWarpThreads;
  // Plus the producer warpgroup, of which one thread works: setmaxnreg gives the other threads'
  // registers to the consumers.
  static constexpr int kThreads = kConsumers + 128;
  static constexpr int kProducerRegisters = 24;
  static constexpr int kConsumerRegisters = 240;

  // A stage of the ring holds a part of a tile, 8 to 16 KiB. The number fills what the candidates
  // leave.
  static constexpr int kStages = kPaddedDim == 128 || kPaddedDim == 256 ? 5 : 6;

  struct Storage {
    alignas(1024) unsigned char keys[kStages][Panels::kPartBytes];
    shared::SelectionStorage selection[kWarpgroups];
    arch::Mbarrier full[kStages];
    arch::Mbarrier empty[kStages];
    arch::Mbarrier request;
    int32_t num_tiles;                     // Of the requested pass; -1: no more.
    int32_t unsettled[2][kConsumerWarps];  // By vote: [vote % 2][warp]
  };
  static_assert(sizeof(Storage) <= 227 * 1024);
  static_assert(Panels::kPartBytes % 1024 == 0, "stages start where the swizzle's pattern does");
};

// ---- Producer: one thread -----------------------------------------------------------------------

/// Loads the tiles of each pass that consumers request, and one more: the low part, then the high
/// part.
template <typename Traits>
__device__ inline void produce(typename Traits::Storage& storage, const unsigned char* keys) {
  constexpr uint32_t kPartBytes = Traits::Panels::kPartBytes;
  const arch::CachePolicy policy = arch::l2_evict_last();
  tma::RingPosition<Traits::kStages> ring;
  for (uint32_t pass = 0;; ++pass) {
    arch::mbarrier_wait(storage.request, pass & 1);
    const int32_t num_tiles = storage.num_tiles;
    if (num_tiles < 0) return;
    for (int32_t i = 0; i < 2 * num_tiles + 2; ++i) {
      // The tile after the last is multiplied as well, and may be any tile.
      const int64_t part = min(i, 2 * num_tiles - 2 + i % 2) ^ 1;
      arch::mbarrier_wait(storage.empty[ring.stage], ring.parity ^ 1);
      arch::mbarrier_arrive_expect_tx(storage.full[ring.stage], kPartBytes);
      arch::cp_async_bulk_load(storage.keys[ring.stage], keys + part * kPartBytes, kPartBytes,
                               storage.full[ring.stage], policy);
      ring.advance();
    }
  }
}

// ---- Consumers: a warpgroup each ----------------------------------------------------------------

/// Scores by wgmma: the Stream of common/estimate_block_sparse_selection.h.
template <typename Traits>
struct WgmmaStream {
  static constexpr int kTileKeys = Traits::Panels::kTileKeys;
  static constexpr int kSums = kTileKeys / 2;

  typename Traits::Storage& storage;
  float multiplier;
  shared::QueryFragments<Traits> queries;
  tma::RingPosition<Traits::kStages> ring;
  int votes = 0;

  /// The producer has taken the previous request: tiles that it asked for have arrived.
  __device__ void request(int32_t num_tiles) {
    if (threadIdx.x != 0) return;
    storage.num_tiles = num_tiles;
    arch::mbarrier_arrive(storage.request);
  }

  /// d (+)= a times the stage's panels.
  __device__ void multiply(float (&d)[kSums], const uint32_t (&a)[Traits::kSteps][4], int stage,
                           bool accumulate) {
    using Panels = typename Traits::Panels;
    const auto panel = arch::k_major_descriptor(storage.keys[stage], Panels::kSwizzle);
    constexpr int kPanelSteps = Panels::kPanelDims / cuda::kGroupDims;
#pragma unroll
    for (int step = 0; step < Traits::kSteps; ++step) {
      const uint32_t offset = static_cast<uint32_t>(step / kPanelSteps) * Panels::kPanelBytes +
                              static_cast<uint32_t>(step % kPanelSteps) * 32;
      arch::wgmma<arch::BFloat16, arch::Major::kK>(d, a[step], arch::advance(panel, offset),
                                                   accumulate || step > 0);
    }
  }

  /// Starts the products of the next tile.
  __device__ void start(float (&d)[kSums]) {
    tma::RingPosition<Traits::kStages> high = ring;
    high.advance();
    arch::mbarrier_wait(storage.full[ring.stage], ring.parity);
    arch::mbarrier_wait(storage.full[high.stage], high.parity);
    arch::wgmma_fence(d, queries.high, queries.low);
    multiply(d, queries.high, ring.stage, /*accumulate=*/false);
    multiply(d, queries.low, high.stage, /*accumulate=*/true);
    multiply(d, queries.high, high.stage, /*accumulate=*/true);
    arch::wgmma_commit_group();
  }

  /// Waits for them and releases the tile's two stages.
  __device__ void finish(float (&d)[kSums]) {
    arch::wgmma_wait<0>();
    arch::keep_registers(d);
    __syncwarp();  // All lanes have waited.
    for (int part = 0; part < 2; ++part) {
      if (device::lane_index() == 0) arch::mbarrier_arrive(storage.empty[ring.stage]);
      ring.advance();
    }
  }

  template <typename Consume>
  __device__ void pass(int32_t num_blocks, Consume&& consume) {
    const int32_t num_tiles = (num_blocks + kTileKeys - 1) / kTileKeys;
    if (device::warp_uniform(num_tiles == 0)) return;
    request(num_tiles);
    float d[kSums];
    start(d);
#pragma unroll 1
    for (int32_t tile = 0; device::warp_uniform(tile < num_tiles); ++tile) {
      finish(d);
      float scores[kSums];
#pragma unroll
      for (int i = 0; i < kSums; ++i) scores[i] = shared::score_of_sum(d[i], multiplier);
      // After the last tile too: behind a condition, the compiler waits for each product.
      start(d);
#pragma unroll 1
      for (int group = 0; group < kTileKeys / kGroupKeys; ++group) {
        LaneScores lane;
#pragma unroll
        for (int i = 0; i < 8; ++i) lane.of[i / 2 % 2][i / 4 * 2 + i % 2] = scores[i];
        // Moves the next group's scores to the front: registers cannot be indexed, and four copies
        // of the selection would be too much code.
#pragma unroll
        for (int i = 0; i + 8 < kSums; ++i) scores[i] = scores[i + 8];
        consume(tile * kTileKeys + group * kGroupKeys, lane);
      }
    }
    finish(d);  // The tile after the last, which nobody looks at.
  }

  /// Two rows of flags alternate: a warp writes one again only after a vote that all warps reached
  /// after reading it.
  __device__ bool any(bool condition) {
    int32_t(&unsettled)[Traits::kConsumerWarps] = storage.unsettled[votes++ % 2];
    const bool in_warp = __any_sync(device::kFullWarp, condition) != 0;
    if (device::lane_index() == 0) {
      unsettled[threadIdx.x / device::kWarpThreads] = in_warp ? 1 : 0;
    }
    arch::named_barrier_sync(/*id=*/1, Traits::kConsumers);
    bool result = false;
    for (int warp = 0; warp < Traits::kConsumerWarps; ++warp) result |= unsettled[warp] != 0;
    return result;
  }
};

// ---- The kernel ---------------------------------------------------------------------------------

template <typename Traits>
__device__ inline void initialize(typename Traits::Storage& storage) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Traits::kStages; ++stage) {
      arch::mbarrier_init(storage.full[stage], /*arrivals=*/1);
      arch::mbarrier_init(storage.empty[stage], Traits::kConsumerWarps);
    }
    arch::mbarrier_init(storage.request, /*arrivals=*/1);
    arch::fence_mbarrier_init();
  }
  __syncthreads();  // The barriers are initialised.
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    select_blocks_wgmma_kernel(const __grid_constant__ SelectBlocksParams params) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();

  // 1. Which head and row blocks: late ones first, because they see most.
  const auto num_tiles = static_cast<int32_t>(
      (int64_t{params.lengths.row_blocks()} + Traits::kBlockRows - 1) / Traits::kBlockRows);
  const auto slot = static_cast<int32_t>(blockIdx.x % static_cast<unsigned>(params.num_targets));
  const int32_t tile =
      num_tiles - 1 - static_cast<int32_t>(blockIdx.x / static_cast<unsigned>(params.num_targets));
  const int32_t first_row = tile * Traits::kBlockRows;
  const auto warpgroup = static_cast<int32_t>(threadIdx.x) / 128;  // The producer's is 2.
  const TileLists lists{.target = params.targets[slot],
                        .lengths = params.lengths,
                        .first_row = first_row + warpgroup * shared::kTileRows};
  const BlockRow last = shared::block_row_of(
      params.lengths, min(first_row + Traits::kBlockRows, params.lengths.row_blocks()) - 1,
      lists.target.top_k);
  const bool producer = warpgroup == Traits::kWarpgroups;
  if (params.share >= 1 && last.allowed <= lists.target.top_k) {
    if (!producer) shared::write_all(lists);
    return;
  }
  initialize<Traits>(storage);

  // 2. Producer: stream pooled keys.
  if (device::warp_uniform(producer)) {
    arch::setmaxnreg_dec<Traits::kProducerRegisters>();
    if (threadIdx.x < Traits::kConsumers + device::kWarpThreads && arch::elect_one()) {
      produce<Traits>(storage, reinterpret_cast<const unsigned char*>(
                                   params.keys + lists.target.key_head * params.key_fragments));
    }
    return;
  }
  // 3. Consumers: score and select.
  arch::setmaxnreg_inc<Traits::kConsumerRegisters>();
  WgmmaStream<Traits> stream{storage, params.multiplier, {}, {}};
  shared::load_queries(stream.queries,
                       params.queries + slot * params.query_fragments +
                           cuda::num_fragments(lists.first_row, Traits::kPaddedDim));
  shared::select_rows(storage.selection[warpgroup], params, lists, last, stream);
  stream.request(-1);
}

template <typename Traits>
void launch_select_blocks(const SelectBlocksParams& params, cudaStream_t stream) {
  const int64_t tiles =
      (int64_t{params.lengths.row_blocks()} + Traits::kBlockRows - 1) / Traits::kBlockRows;
  arch::launch("select_blocks_wgmma", &select_blocks_wgmma_kernel<Traits>,
               {dim3(static_cast<unsigned>(tiles * params.num_targets)), dim3(Traits::kThreads),
                sizeof(typename Traits::Storage)},
               stream, params);
}

}  // namespace minference::sm90::block_sparse

namespace minference::sm90 {

template <int kPaddedDim>
cuda::block_sparse::Kernels block_sparse_kernels() {
  return {kPaddedDim, 2 * cuda::block_sparse::kTileRows,
          &cuda::launch_pool_rows<tma::PoolPanelTraits<arch::BFloat16, kPaddedDim>>,
          &cuda::launch_pool_rows<tma::PoolPanelTraits<arch::Float16, kPaddedDim>>,
          &block_sparse::launch_select_blocks<block_sparse::WgmmaSelectTraits<kPaddedDim>>};
}

}  // namespace minference::sm90
