// Stage 3 with TMA: the producer warpgroup. Three tile-producer warps find the tiles of items,
// batch by batch; one thread, the loader, loads queries, keys and values with TMA.
//
// The tile producers work up to four batches ahead: they find the next item's first tiles while the
// current item's are loaded. A row tile is loaded in the order of core/key_tiles.h, two tiles to a
// stage: 64 keys from wherever they begin (TMA asks for no alignment), or 64 gathered columns. So a
// stage is any two consecutive tiles, and each consumer multiplies those that its row block
// attends. Rows outside the tensor arrive as zeros.
//
//     barrier          arrivals  by                       waited for by   then
//     batch_full[b]    1         a tile producer, after   loader          batch b can be read
//                                the producers' barrier
//     batch_empty[b]   1         loader                   tile producers  ... may be overwritten
//     query_full[i]    1, bytes  loader                   consumers       queries and items[i]
//                                                                         are there
//     query_empty[i]   2         a thread of each         loader          ... may be overwritten:
//                                consumer                                 rows of out were read
//     key_full[s]      1, bytes  loader                   consumers       keys and stage_tiles[s]
//                                                                         are there
//     key_empty[s]     8         a lane of each           loader          ... may be overwritten
//                                consumer warp
//     value_full[s]    1, bytes  loader                   consumers       values are there
//     value_empty[s]   8         a lane of each           loader          ... may be overwritten
//                                consumer warp
//
// Consumers also read values with ordinary loads (attention_mainloop.h). Those threads fence after
// the loads, because TMA writes by another proxy.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/barrier.h"
#include "cuda/arch/bulk_copy.h"
#include "cuda/common/row_tiles.h"
#include "cuda/device/tile_walk.h"
#include "cuda/tma/attention_params.h"
#include "cuda/tma/ring_position.h"

namespace minference::tma {

/// Row blocks of an item: one for each consumer warpgroup.
inline constexpr int kConsumers = 2;

/// Number of the named barrier at which the tile-producer warps meet.
inline constexpr int kTileProducerBarrier = 1;

/// The producer warpgroup's warps except the first, as a group that finds tiles.
struct TileProducerGroup {
  static constexpr int kWarps = 3;
  static constexpr int kThreads = kWarps * device::kWarpThreads;
  static constexpr int kFirstThread = device::kWarpThreads;

  __device__ static int thread() { return static_cast<int>(threadIdx.x) - kFirstThread; }
  __device__ static int warp() { return thread() / device::kWarpThreads; }
  __device__ static void sync() { arch::named_barrier_sync(kTileProducerBarrier, kThreads); }
};

/// A stage: up to kStageTiles tiles of 64 keys, each copied by itself from wherever its keys begin.
struct StageTiles {
  device::PairTile tiles[2];  // A missing tile keeps no keys.
  bool is_end;                // The item is over; the stage has no tiles.
};

/// How many batches the tile producers may be ahead of the loader; the empty batch that ends an
/// item counts too. Finding a batch of columns takes 8,000 cycles and more (device/tile_walk.h);
/// multiplying a stage takes 2,000 to 3,000. With two batches the search for an item's first batch
/// began when only three stages of the previous item were left.
inline constexpr int kTileBatches = 4;

/// What the tile producers pass to the loader: tiles [first, first + count) of the queue, by
/// number.
struct TileBatch {
  device::RowTile row_tile;  // num_row_blocks == 0: there are no more items.
  uint32_t first;
  int32_t count;  // 0: the item is over.
  bool starts_item;
};

template <typename Traits>
__device__ inline void init_barriers(typename Traits::SharedStorage& storage) {
  constexpr int kConsumerWarps = kConsumers * device::kWarpgroupThreads / device::kWarpThreads;
  const auto init = [](auto& full, auto& empty, int empty_arrivals) {
    for (auto& barrier : full) arch::mbarrier_init(barrier, /*arrivals=*/1);
    for (auto& barrier : empty) arch::mbarrier_init(barrier, empty_arrivals);
  };
  init(storage.batch_full, storage.batch_empty, 1);
  init(storage.query_full, storage.query_empty, kConsumers);
  init(storage.key_full, storage.key_empty, kConsumerWarps);
  init(storage.value_full, storage.value_empty, kConsumerWarps);
  arch::fence_mbarrier_init();
}

__device__ inline void prefetch_maps(const AttentionMaps& maps) {
  for (const CUtensorMap* map :
       {&maps.q, &maps.k, &maps.v, &maps.out, &maps.column_k, &maps.column_v}) {
    arch::prefetch_tensor_map(*map);
  }
}

// ---- Tile producers -----------------------------------------------------------------------------

template <typename Traits>
class TileProducer {
 public:
  __device__ TileProducer(typename Traits::SharedStorage& storage, const AttentionParams& params)
      : storage_(storage), params_(params) {}

  __device__ void find_all() {
    int64_t item = blockIdx.x;  // Used by the first thread.
    for (;;) {
      if (is_first()) {
        storage_.queue.row_tile = cuda::row_tile(params_.table, params_.sequences.max, item);
        item = gridDim.x + static_cast<int64_t>(atomicAdd(params_.next_item, 1ull));
      }
      TileProducerGroup::sync();  // The item is visible to all tile-producer warps.
      const bool exists = device::warp_uniform(storage_.queue.row_tile.num_row_blocks > 0);
      find_item(exists);
      if (!exists) return;
      TileProducerGroup::sync();  // All have finished with the item.
    }
  }

 private:
  __device__ static bool is_first() { return TileProducerGroup::thread() == 0; }

  /// Finds all batches of an item, up to and including an empty one.
  __device__ void find_item(bool exists) {
    if (!exists) {
      wait_for_room();
      return publish(/*count=*/0, /*starts_item=*/true);
    }
    const int32_t batch = storage_.queue.row_tile.head_idx / params_.num_heads_q;
    const Lengths lengths = params_.sequences.at(batch).lengths;
    device::TileWalk<TileProducerGroup, kTileBatches> walk(storage_.queue, params_.heads, lengths,
                                                           num_found_);
    bool starts_item = true;
    int32_t count = 0;
    do {
      // The batch that the next one overwrites has been loaded.
      wait_for_room();
      count = walk.find();
      publish(count, starts_item);
      starts_item = false;
    } while (device::warp_uniform(count > 0));
  }

  __device__ void wait_for_room() {
    arch::mbarrier_wait(storage_.batch_empty[batch_.stage], batch_.parity ^ 1);
  }

  __device__ void publish(int32_t count, bool starts_item) {
    TileProducerGroup::sync();  // All have seen the free batch, which may be taken now, and queued
                                // their tiles.
    if (is_first()) {
      storage_.batches[batch_.stage] = {.row_tile = storage_.queue.row_tile,
                                        .first = num_found_,
                                        .count = count,
                                        .starts_item = starts_item};
      arch::mbarrier_arrive(storage_.batch_full[batch_.stage]);
    }
    num_found_ += static_cast<uint32_t>(count);
    batch_.advance();
  }

  typename Traits::SharedStorage& storage_;
  const AttentionParams& params_;
  RingPosition<kTileBatches> batch_;
  uint32_t num_found_ = 0;
};

// ---- Loader -------------------------------------------------------------------------------------

/// One thread.
template <typename Traits>
class Loader {
 public:
  __device__ Loader(typename Traits::SharedStorage& storage, const AttentionParams& params)
      : storage_(storage), params_(params) {}

  __device__ void load_all() {
    for (RingPosition<kTileBatches> position;; position.advance()) {
      arch::mbarrier_wait(storage_.batch_full[position.stage], position.parity);
      const TileBatch& batch = storage_.batches[position.stage];
      if (batch.starts_item) start_item(batch.row_tile);
      if (batch.row_tile.num_row_blocks == 0) return;
#pragma unroll 1
      for (int32_t i = 0; i < batch.count; ++i) {
        add_tile(storage_.queue[batch.first + static_cast<uint32_t>(i)]);
      }
      if (batch.count == 0) end_item();
      arch::mbarrier_arrive(storage_.batch_empty[position.stage]);
    }
  }

 private:
  using Element = typename Traits::Element;

  __device__ void start_item(const device::RowTile& tile) {
    arch::mbarrier_wait(storage_.query_empty[query_.stage], query_.parity ^ 1);
    arch::Mbarrier& full = storage_.query_full[query_.stage];
    storage_.items[query_.stage] = tile;
    batch_ = tile.head_idx / params_.num_heads_q;
    head_q_ = tile.head_idx % params_.num_heads_q;
    head_kv_ = head_q_ / params_.group_size;
    arch::mbarrier_arrive_expect_tx(
        full, static_cast<uint32_t>(tile.num_row_blocks * sizeof(typename Traits::QueryTile)));
#pragma unroll 1
    for (int r = 0; r < tile.num_row_blocks; ++r) {
      const int32_t row = (tile.row_block + r) * kBlock;
#pragma unroll
      for (int panel = 0; panel < Traits::kPanels; ++panel) {
        arch::cp_async_bulk_tensor_load(storage_.query[query_.stage][r][panel], params_.maps.q,
                                        {panel * Traits::kPanelDims, row, head_q_, batch_}, full,
                                        arch::l2_evict_first());
      }
    }
    query_.advance();
  }

  /// Adds the stage's next tile: loads its keys now, its values once the next stage is complete.
  __device__ void add_tile(const device::PairTile& tile) {
    if (num_tiles_ == 0) wait_for_stage();
    storage_.stage_tiles[keys_.stage].tiles[num_tiles_] = tile;
    load_rows(storage_.keys[keys_.stage], num_tiles_, tile, params_.maps.k, params_.maps.column_k,
              storage_.key_full[keys_.stage]);
    if (++num_tiles_ == Traits::kStageTiles) complete_stage();
  }

  __device__ void end_item() {
    if (num_tiles_ > 0) complete_stage();
    load_held_values();
    wait_for_stage();
    storage_.stage_tiles[keys_.stage] = {.tiles = {}, .is_end = true};
    arch::mbarrier_arrive(storage_.key_full[keys_.stage]);
    keys_.advance();
  }

  __device__ void wait_for_stage() {
    arch::mbarrier_wait(storage_.key_empty[keys_.stage], keys_.parity ^ 1);
  }

  /// Values are loaded after the keys of the next stage, which are needed first: waiting for a free
  /// value buffer must not hold keys back.
  __device__ void complete_stage() {
    StageTiles& stage = storage_.stage_tiles[keys_.stage];
    if (num_tiles_ < Traits::kStageTiles) stage.tiles[Traits::kStageTiles - 1] = {};
    stage.is_end = false;
    // Copies may have landed already: the phase still lacks this arrival. (DeepGEMM announces last,
    // too.)
    arch::mbarrier_arrive_expect_tx(
        storage_.key_full[keys_.stage],
        static_cast<uint32_t>(num_tiles_ * kBlock * Traits::kDim) * sizeof(Element));
    load_held_values();
    held_stage_ = keys_.stage;
    num_held_ = num_tiles_;
    num_tiles_ = 0;
    keys_.advance();
  }

  /// Loads the values of the previous stage, whose description is still valid.
  __device__ void load_held_values() {
    if (num_held_ == 0) return;
    arch::mbarrier_wait(storage_.value_empty[values_.stage], values_.parity ^ 1);
    arch::mbarrier_arrive_expect_tx(
        storage_.value_full[values_.stage],
        static_cast<uint32_t>(num_held_ * kBlock * Traits::kDimV) * sizeof(Element));
#pragma unroll 1
    for (int i = 0; i < num_held_; ++i) {
      load_rows(storage_.values[values_.stage], i, storage_.stage_tiles[held_stage_].tiles[i],
                params_.maps.v, params_.maps.column_v, storage_.value_full[values_.stage]);
    }
    num_held_ = 0;
    values_.advance();
  }

  /// Loads a tile's rows of K or of V to the place of tile number `place` of the stage.
  template <int kNumPanels>
  __device__ void load_rows(Element (&to)[kNumPanels][Traits::kStageKeys][Traits::kPanelDims],
                            int place, device::PairTile tile, const CUtensorMap& map,
                            const CUtensorMap& column_map, arch::Mbarrier& full) {
    const bool gathered = tile.columns != 0;
#pragma unroll
    for (int panel = 0; panel < kNumPanels; ++panel) {
      arch::cp_async_bulk_tensor_load(
          to[panel][place * kBlock], gathered ? column_map : map,
          {panel * Traits::kPanelDims, tile.begin, gathered ? head_q_ : head_kv_, batch_}, full);
    }
  }

  typename Traits::SharedStorage& storage_;
  const AttentionParams& params_;
  RingPosition<Traits::kQueryStages> query_;
  RingPosition<Traits::kKeyStages> keys_;
  RingPosition<Traits::kValueStages> values_;
  int num_tiles_ = 0;   // Of the stage that is being loaded.
  int num_held_ = 0;    // Of the previous stage: its values are still to be loaded.
  int held_stage_ = 0;  // Index of that stage.
  int32_t batch_ = 0, head_q_ = 0, head_kv_ = 0;
};

}  // namespace minference::tma
