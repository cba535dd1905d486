// Stage 3 on sm90: exact softmax attention over the tiles that each row block attends, all patterns
// and heads in one launch. The kernel sees tiles only; core/key_tiles.h decides which.
//
// Blocks are persistent: each takes items, two neighbouring row blocks of a head, longest first.
// One warpgroup loads (tma/attention_load.h); two consume, one row block each, stage by stage:
//
//     products    S = q K^T of this stage, then O += P V of the previous stage, in ping-pong: one
//                 warpgroup issues products while the other is at its softmax
//     softmax     of S, while O += P V is in flight
//     release     K once S is complete, V once O is
//
//     barrier                    threads   who                          then
//     kWarpSchedulerBarrier + w  256       w waits, the other arrives   w may issue products
//     kConsumerBarrier + w       128       all of w, before and after   its queries are read; its
//                                          it writes rows of out, and   rows of out are written
//                                          where it votes
//
// The last arrival at kWarpSchedulerBarrier has no waiter, as in FlashAttention-3.
//
// The mbarriers are tma/attention_load.h's.
//
// A warpgroup skips the tiles that its row block does not attend, so each row attends the same keys
// as on every other backend. Both warpgroups pass through all stages, and alternate equally often.
//
// Source: FlashAttention-3 (arXiv:2407.08608): warp specialisation, ping-pong, softmax beside
// products; MInference (arXiv:2407.02490), Appendix C.4, for the sparse sets.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/launch.h"
#include "cuda/arch/math.h"
#include "cuda/arch/shared.h"
#include "cuda/arch/warp_specialization.h"
#include "cuda/sm90/attention_epilogue.h"
#include "cuda/sm90/attention_mainloop.h"
#include "cuda/sm90/kernels.h"
#include "cuda/tma/attention_load.h"

namespace minference::sm90 {

/// A consumer warpgroup. All its threads call every function together.
template <typename Traits>
class Consumer {
 public:
  using Storage = typename Traits::SharedStorage;

  __device__ Consumer(Storage& storage, const AttentionParams& params, int warpgroup)
      : storage_(storage), params_(params), warpgroup_(warpgroup) {
    if (warpgroup_ == 1) warp_scheduler_barrier_arrive();  // Warpgroup 0 is first.
  }

  __device__ void attend_all() {
    for (;; query_.advance()) {
      arch::mbarrier_wait(storage_.query_full[query_.stage], query_.parity);
      const int num_row_blocks = item().num_row_blocks;
      if (device::warp_uniform(num_row_blocks == 0)) break;
      RowState<Traits> rows;
      attend(rows);
      release_query_before();
      if (device::warp_uniform(warpgroup_ < num_row_blocks)) {
        finish(rows);
      } else if (is_first()) {
        // The item's barriers come after all reads of its description.
        arch::mbarrier_arrive(storage_.query_empty[query_.stage]);
      }
    }
    if (is_first()) arch::cp_async_bulk_wait<0>();
  }

 private:
  __device__ bool is_first() const { return threadIdx.x % device::kWarpgroupThreads == 0; }
  __device__ const device::RowTile& item() const { return storage_.items[query_.stage]; }
  __device__ typename Traits::QueryTile& query() const {
    return storage_.query[query_.stage][warpgroup_];
  }
  __device__ Lengths lengths() const {
    return params_.sequences.at(item().head_idx / params_.num_heads_q).lengths;
  }
  /// The thread's first row, of the sequence.
  __device__ int32_t first_row() const {
    const int thread = static_cast<int>(threadIdx.x) % device::kWarpgroupThreads;
    return (item().row_block + warpgroup_) * kBlock + thread / 32 * 16 + thread % 32 / 4;
  }

  __device__ void warp_scheduler_barrier_sync() const {
    arch::named_barrier_sync(kWarpSchedulerBarrier + warpgroup_,
                             kConsumers * device::kWarpgroupThreads);
  }
  __device__ void warp_scheduler_barrier_arrive() const {
    arch::named_barrier_arrive(kWarpSchedulerBarrier + 1 - warpgroup_,
                               kConsumers * device::kWarpgroupThreads);
  }

  /// All lanes of the warp have finished with the buffer.
  __device__ static void release(arch::Mbarrier& empty) {
    __syncwarp();
    if (device::lane_index() == 0) arch::mbarrier_arrive(empty);
  }

  __device__ void wait_for_values() const {
    arch::mbarrier_wait(storage_.value_full[values_.stage], values_.parity);
  }
  __device__ void release_values() {
    release(storage_.value_empty[values_.stage]);
    values_.advance();
  }

  /// Passes through all stages of the item, and the stage that ends them, whose tiles nobody
  /// attends.
  __device__ void attend(RowState<Traits>& rows) {
    Probabilities<Traits> p;
    AttendedTiles before;  // Of the previous stage, whose values are still to be added.
    bool has_before = false, is_end = false;
#pragma unroll 1
    while (!is_end) {
      arch::mbarrier_wait(storage_.key_full[keys_.stage], keys_.parity);
      const StageTiles& stage = storage_.stage_tiles[keys_.stage];
      is_end = device::warp_uniform(stage.is_end);
      const AttendedTiles attended = AttendedTiles::of<Traits>(stage, warpgroup_);
      if (has_before) prepare_values(rows, p, before);
      attend_stage(rows, p, stage, attended, before, has_before);
      before = attended;
      has_before = true;
      keys_.advance();
    }
  }

  /// Looks at the values of the previous stage if some need care; if so, adds them here.
  __device__ void prepare_values(RowState<Traits>& rows, Probabilities<Traits>& p,
                                 AttendedTiles& before) {
    if (!before.exposed) return;
    wait_for_values();
    if (!has_nonfinite<Traits>(storage_, values_.stage, before, warpgroup_)) return;
    add_nonfinite_values(rows, p, storage_, values_.stage, before);
    before = {};
  }

  /// Turns this stage's scores into P and adds the previous stage's values, side by side if both
  /// are whole. wgmma allows no branches between its issue and its end (the compiler would wait
  /// after every instruction), so all other cases run one after the other.
  __device__ void attend_stage(RowState<Traits>& rows, Probabilities<Traits>& p,
                               const StageTiles& stage, const AttendedTiles& attended,
                               const AttendedTiles& before, bool has_before) {
    constexpr int kWhole = Traits::kStageTiles;
    const bool beside = device::warp_uniform(attended.count == kWhole && before.count == kWhole);
    if (!beside && has_before) wait_for_values();
    warp_scheduler_barrier_sync();
    if (beside) return attend_beside(rows, p, stage, attended.exposed);
    // If it has no products of its own after them, it waits for the values outside the barrier.
    const bool is_last = device::warp_uniform(attended.count == 0);
    const auto pass_if_last = [&] {
      if (is_last) warp_scheduler_barrier_arrive();
    };
    if (device::warp_uniform(before.count > 0)) {
      add_values(rows, p, storage_, values_.stage, before, pass_if_last);
    } else {
      pass_if_last();
    }
    if (has_before) release_values();
    if (device::warp_uniform(attended.count == kWhole)) {
      attend_alone<kWhole>(rows, p, stage, attended);
    } else if (kWhole > 1 && !is_last) {  // Beyond 128 dims a stage is one tile: whole, or nothing.
      attend_alone<1>(rows, p, stage, attended);
    } else {
      release(storage_.key_empty[keys_.stage]);
      release_query_before();
    }
  }

  /// The softmax runs beside the product of P with the previous stage's values. It waits for those
  /// values once the product before is in flight, and releases them before the second tile's
  /// exponentials.
  __device__ void attend_beside(RowState<Traits>& rows, Probabilities<Traits>& p,
                                const StageTiles& stage, bool exposed) {
    constexpr int kTiles = Traits::kStageTiles;
    Scores<kTiles> scores;
    arch::wgmma_fence(scores.s);
    multiply_keys<Traits>(scores, query(), storage_, keys_.stage, /*first_tile=*/0);
    arch::wgmma_commit_group();
    wait_for_values();
    arch::wgmma_fence(rows.out, p.p);  // After the branches of the wait.
    multiply_values<Traits, kTiles>(rows, p, storage_, values_.stage, /*first_tile=*/0);
    arch::wgmma_commit_group();
    warp_scheduler_barrier_arrive();
    release_query_before();
    arch::wgmma_wait<1>();
    arch::keep_registers(scores.s);
    const Rescale rescale = find_maxima(rows, scores, stage, /*first_tile=*/0, exposed);
    exponentiate<Traits, 0, 1>(rows, scores, params_.scale_log2);
    arch::finish_before(fminf(rows.sum[0], rows.sum[1]));  // The sums depend on the exponentials.
    arch::wgmma_wait<0>();
    arch::keep_registers(rows.out);
    release_values();
    exponentiate<Traits, 1, kTiles>(rows, scores, params_.scale_log2);
    rows.scale_out(rescale);
    pack_probabilities(p, scores);
  }

  template <int kTiles>
  __device__ void attend_alone(RowState<Traits>& rows, Probabilities<Traits>& p,
                               const StageTiles& stage, const AttendedTiles& attended) {
    const int first_tile = kTiles == Traits::kStageTiles ? 0 : attended.first;
    Scores<kTiles> scores;
    arch::wgmma_fence(scores.s);
    multiply_keys<Traits>(scores, query(), storage_, keys_.stage, first_tile);
    arch::wgmma_commit_group();
    warp_scheduler_barrier_arrive();
    release_query_before();
    arch::wgmma_wait<0>();
    arch::keep_registers(scores.s);
    rows.scale_out(find_maxima(rows, scores, stage, first_tile, attended.exposed));
    exponentiate<Traits, 0, kTiles>(rows, scores, params_.scale_log2);
    pack_probabilities(p, scores);
  }

  /// Takes complete scores: applies sign and mask, takes their maxima, and releases the keys.
  template <int kTiles>
  __device__ Rescale find_maxima(RowState<Traits>& rows, Scores<kTiles>& scores,
                                 const StageTiles& stage, int first_tile, bool exposed) {
    if (params_.score_sign != 1) {
#pragma unroll
      for (float& score : scores.s) score *= params_.score_sign;
    }
    // What the tiles say about it is in a register. Reading it again would be four dependent loads,
    // with nothing else to do.
    if (device::warp_uniform(exposed)) {
      mask_scores(scores, lengths(), params_.heads[item().head_idx], stage, first_tile, warpgroup_,
                  first_row() + lengths().offset());
    }
    release(storage_.key_empty[keys_.stage]);
    return raise_maxima(rows, scores, params_.scale_log2);
  }

  /// Stores rows of out.
  __device__ void finish(RowState<Traits>& rows) {
    const device::RowTile& tile = item();
    rows.complete_sums();
    const int32_t batch = tile.head_idx / params_.num_heads_q;
    const int32_t head = tile.head_idx % params_.num_heads_q;
    const int32_t row = first_row();
    auto& out = reinterpret_cast<typename Traits::OutTile&>(query());
    const int barrier = kConsumerBarrier + warpgroup_;
    const int32_t block_row = (tile.row_block + warpgroup_) * kBlock;
    arch::named_barrier_sync(barrier,
                             device::kWarpgroupThreads);  // All have finished with the queries.
    stage_out<Traits>(out, rows);
    arch::fence_proxy_async();  // Before the stores of lse, for which it would wait.
    arch::named_barrier_sync(barrier, device::kWarpgroupThreads);  // The rows of out are complete.
    if (is_first()) store_out<Traits>(params_, out, batch, head, block_row);
    store_lse(params_, rows, batch, head, row);
    if (!is_first()) return;
    query_before_ = query_.stage;
    if (Traits::kQueryStages == 1) release_query_before();
  }

  /// Releases the previous item's query buffer to the loader once its rows of out have been read.
  /// This happens after the first products of the next item, which has a buffer of its own, so
  /// nobody waits for the reading.
  __device__ void release_query_before() {
    if (query_before_ < 0) return;  // True in all threads but the first.
    arch::cp_async_bulk_wait_read<0>();
    arch::mbarrier_arrive(storage_.query_empty[query_before_]);
    query_before_ = -1;
  }

  Storage& storage_;
  const AttentionParams& params_;
  const int warpgroup_;
  tma::RingPosition<Traits::kQueryStages> query_;
  tma::RingPosition<Traits::kKeyStages> keys_;
  tma::RingPosition<Traits::kValueStages> values_;
  int query_before_ = -1;
};

/// Grid: as many blocks as run at a time.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    attention_kernel(const __grid_constant__ AttentionParams params) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const int warp =
      __shfl_sync(device::kFullWarp, static_cast<int>(threadIdx.x) / device::kWarpThreads, 0);
  if (threadIdx.x == 0) {
    tma::init_barriers<Traits>(storage);
    tma::prefetch_maps(params.maps);
  }
  __syncthreads();  // The mbarriers are initialised.
  if (warp < device::kWarpgroupThreads / device::kWarpThreads) {
    arch::setmaxnreg_dec<Traits::kProducerRegisters>();
    if (warp > 0) {
      tma::TileProducer<Traits>(storage, params).find_all();
    } else if (arch::elect_one()) {
      tma::Loader<Traits>(storage, params).load_all();
    }
  } else {
    arch::setmaxnreg_inc<Traits::kConsumerRegisters>();
    Consumer<Traits>(storage, params, warp / 4 - 1).attend_all();
  }
}

// ---- Host ---------------------------------------------------------------------------------------

template <typename Traits>
void launch_attention(const AttentionParams& params, int32_t num_blocks, cudaStream_t stream) {
  arch::launch("attention", &attention_kernel<Traits>,
               {dim3(static_cast<unsigned>(num_blocks)), dim3(Traits::kThreads),
                sizeof(typename Traits::SharedStorage)},
               stream, params);
}

template <typename Element, int kDim, int kDimV>
AttentionInstance attention_instance() {
  using Traits = AttentionTraits<Element, kDim, kDimV>;
  return {{Traits::kPanelDims, Traits::kSwizzle}, &launch_attention<Traits>};
}

}  // namespace minference::sm90
