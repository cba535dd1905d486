// Stage 3 on the CPU: items of work, longest first, each a few row blocks of a few heads that
// attend the same keys, computed against tiles of 256 keys by the kernels of isa/.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <new>
#include <utility>
#include <vector>

#include "core/key_tiles.h"
#include "core/workspace.h"
#include "cpu/index_lists.h"
#include "cpu/isa/kernels.h"
#include "cpu/stages.h"
#include "cpu/tile_builder.h"

namespace minference::cpu {
namespace {

/// The most rows (of all heads) that one item computes. Their q^T and out^T, 1 KiB a row at
/// head_dim 128 in fp32, are then as large as a 1 MB L2 cache; 64 KB of values come on top.
constexpr int kMaxItemRows = 1024;

/// Floats in which a thread holds a tile's values, and q^T and out^T of an item. The size query
/// does not see v, so this serves every head_dim_v: kMaxItemRows rows at head_dim_v == head_dim, or
/// one row block at the largest, whichever is more. (From head_dim 40 on it is the former.)
std::size_t value_and_row_floats(const KernelTable& kernels, int32_t head_dim) {
  const auto floats = [&](int64_t num_rows, int32_t head_dim_v) {
    return kernels.scratch_sizes(head_dim_v).values +
           static_cast<std::size_t>(num_rows * (head_dim + head_dim_v));
  };
  return std::max(floats(kMaxItemRows, head_dim), floats(kBlock, kMaxHeadDim));
}

/// Rows of an item of this shape, a multiple of 64: fewer than kMaxItemRows if values that are
/// wider than keys leave no space for more.
int max_item_rows(const KernelTable& kernels, const Shape& shape) {
  const std::size_t row_floats = value_and_row_floats(kernels, shape.head_dim) -
                                 kernels.scratch_sizes(shape.head_dim_v).values;
  const auto num_rows =
      static_cast<int64_t>(row_floats) / (shape.head_dim + shape.head_dim_v) / kBlock * kBlock;
  return static_cast<int>(std::min<int64_t>(num_rows, kMaxItemRows));
}

/// A call with the key set of each (batch, query head). @throws Error on bad lists
struct CheckedArgs : AttentionArgs {
  explicit CheckedArgs(const AttentionArgs& args)
      : AttentionArgs(args), heads(checked_head_keys(args.index, args.patterns, args.shape)) {}

  std::vector<HeadKeys> heads;
};

/// What one thread takes at a time: `num_heads` neighbouring heads with the same keys, over
/// `num_row_blocks` row blocks.
struct Item {
  int64_t tiles;  // 64 x 64 tiles: the cost.
  int32_t batch;
  int32_t head;
  int32_t first_row_block;
  int16_t num_heads;
  int16_t num_row_blocks;
};

bool attend_same_keys(const HeadKeys& a, const HeadKeys& b) {
  // Lists are each head's own.
  return a.form == Form::kShape && b.form == Form::kShape && a.sink == b.sink &&
         a.window == b.window && a.dense_rows == b.dense_rows;
}

/// How many heads, from `head` on, attend the same keys and read the same KV head.
int sharing_heads(const CheckedArgs& args, int max_rows, int32_t batch, int32_t head) {
  const HeadKeys* heads = &args.heads[static_cast<std::size_t>(batch) * args.shape.num_heads_q];
  const int32_t group_end = (head / args.shape.group_size() + 1) * args.shape.group_size();
  const int32_t limit = std::min(group_end, head + max_rows / kBlock);
  int32_t end = head + 1;
  while (end < limit && attend_same_keys(heads[head], heads[end])) ++end;
  return end - head;
}

/// How many row blocks are worth computing together: a V tile is packed or converted once for all
/// of them. A function of the input alone, so that results do not depend on the threads.
int row_blocks_per_item(const HeadKeys& head, const Lengths& lengths, int max_rows, int num_heads) {
  const int most = std::clamp(max_rows / kBlock / num_heads, 1, kMaxStreams);
  switch (head.form) {
    case Form::kBlocks:
      return 1;  // Measured 2 and 4: no faster on random blocks.
    case Form::kRuns: {
      // Together, four row blocks load a run's width plus 3 x 64 keys, and each column once. That
      // pays if it is clearly less than they load apart: with columns, or runs of 128 keys.
      int64_t apart = head.num_columns;
      for (int32_t i = 0; i < head.num_runs; ++i) apart += head.runs[i].hi - head.runs[i].lo;
      const int64_t together = apart + int64_t{head.num_runs} * (kMaxStreams - 1) * kBlock;
      return together * 10 <= apart * kMaxStreams * 7 ? most : 1;
    }
    default:
      // 256 rows of any heads amortise packing; beyond the L2 and L3 caches, 256 of each head do
      // (at 32K keys 956 instead of 878 GF/s bf16).
      return lengths.seqlen_k >= 16384 ? most : std::clamp(4 / num_heads, 1, most);
  }
}

int64_t max_items(const AttentionArgs& args) {
  return int64_t{args.shape.batch} * args.shape.num_heads_q * args.shape.lengths.row_blocks();
}

/// Writes the items, each of at most max_rows rows, longest first; returns how many.
int64_t plan_items(const CheckedArgs& args, int max_rows, const Executor& executor,
                   std::span<Item> items) {
  const Sequences sequences = args.shape.sequences();
  int64_t count = 0;
  for (int32_t batch = 0; batch < sequences.count; ++batch) {
    const Lengths lengths = sequences.at(batch).lengths;
    for (int32_t head = 0; head < args.shape.num_heads_q;) {
      const HeadKeys& keys =
          args.heads[static_cast<std::size_t>(batch) * args.shape.num_heads_q + head];
      const int num_heads = sharing_heads(args, max_rows, batch, head);
      const int step = row_blocks_per_item(keys, lengths, max_rows, num_heads);
      for (int32_t row_block = 0; row_block < lengths.row_blocks(); row_block += step) {
        const int num_row_blocks = std::min(step, lengths.row_blocks() - row_block);
        items[count++] = {0,
                          batch,
                          head,
                          row_block,
                          static_cast<int16_t>(num_heads),
                          static_cast<int16_t>(num_row_blocks)};
      }
      head += num_heads;
    }
  }
  constexpr int64_t kItemsPerTask = 64;
  parallel_for(executor, (count + kItemsPerTask - 1) / kItemsPerTask, [&](int64_t task) {
    for (int64_t i = task * kItemsPerTask; i < std::min(count, (task + 1) * kItemsPerTask); ++i) {
      Item& item = items[i];
      const HeadKeys& keys =
          args.heads[static_cast<std::size_t>(item.batch) * args.shape.num_heads_q + item.head];
      const Lengths lengths = sequences.at(item.batch).lengths;
      for (int r = 0; r < item.num_row_blocks; ++r) {
        item.tiles += item.num_heads * count_key_tiles(keys, lengths, item.first_row_block + r);
      }
    }
  });
  std::sort(items.begin(), items.begin() + count, [](const Item& a, const Item& b) {
    if (a.tiles != b.tiles) return a.tiles > b.tiles;
    if (a.batch != b.batch) return a.batch < b.batch;
    // Heads of one KV head run at about the same time: they read the same keys.
    if (a.first_row_block != b.first_row_block) return a.first_row_block > b.first_row_block;
    return a.head < b.head;
  });
  return count;
}

/// Work memory of one thread.
struct ThreadMemory {
  Scratch scratch;  // Without values.
  Tile* tiles;      // [2]: the current one and the next.
  std::span<Unit> units;
  float* values_and_rows;
};

ThreadMemory take_thread_memory(WorkspaceAllocator& memory, const KernelTable& kernels,
                                int32_t head_dim) {
  const ScratchSizes sizes = kernels.scratch_sizes(head_dim);
  ThreadMemory thread;
  thread.scratch = {.scores = memory.take<float>(sizes.scores).data(),
                    .probabilities = memory.take<float>(sizes.probabilities).data(),
                    .keys = memory.take<float>(sizes.keys).data(),
                    .values = nullptr};
  thread.tiles = memory.take<Tile>(2).data();
  thread.units = memory.take<Unit>(static_cast<std::size_t>(kMaxItemRows / kernels.rows));
  thread.values_and_rows = memory.take<float>(value_and_row_floats(kernels, head_dim)).data();
  return thread;
}

int64_t num_workers(const AttentionArgs& args, const Executor& executor) {
  return std::min<int64_t>(executor.num_threads, max_items(args));
}

/// Computes items. Each thread of a call has one.
class Worker {
 public:
  Worker(const CheckedArgs& args, const KernelTable& kernels, const ThreadMemory& memory)
      : args_(args),
        sequences_(args.shape.sequences()),
        element_bytes_(dtype_bytes(args.shape.dtype)),
        kernels_(kernels),
        memory_(memory),
        scale_(args.softmax_scale) {
    const Shape& shape = args.shape;
    memory_.scratch.values = memory_.values_and_rows;
    float* rows = memory_.values_and_rows + kernels.scratch_sizes(shape.head_dim_v).values;
    for (int u = 0; u < max_item_rows(kernels, shape) / kernels.rows; ++u) {
      Unit* unit = new (&memory_.units[static_cast<std::size_t>(u)]) Unit;
      unit->query = rows;
      unit->out = unit->query + int64_t{kernels.rows} * shape.head_dim;
      rows = unit->out + int64_t{kernels.rows} * shape.head_dim_v;
    }
    for (int t = 0; t < 2; ++t) new (&memory_.tiles[t]) Tile;
  }

  /// `next` is the item that follows, or null; its queries are prefetched.
  void compute(const Item& item, const Item* next) {
    const int64_t first_head = int64_t{item.batch} * args_.shape.num_heads_q;
    const HeadKeys& keys = args_.heads[static_cast<std::size_t>(first_head + item.head)];
    const int32_t head_dim = args_.shape.head_dim, head_dim_v = args_.shape.head_dim_v;
    const Sequence sequence = sequences_.at(item.batch);
    const int num_units = set_up_units(item, sequence);

    AttendArgs attend{.visibility = visibility_of(keys, sequence.lengths),
                      .scale_log2 = scale_.log2,
                      .head_dim = head_dim,
                      .head_dim_v = head_dim_v};
    const int32_t kv_head = args_.shape.kv_head(item.head);
    TileBuilder builder(keys, sequence.lengths, item.first_row_block, item.num_row_blocks,
                        args_.k.head<std::byte>(sequence, kv_head, element_bytes_),
                        args_.v.head<std::byte>(sequence, kv_head, element_bytes_), element_bytes_);
    Tile* tile = &memory_.tiles[0];
    Tile* ahead = &memory_.tiles[1];
    for (bool more = builder.next(*tile); more; std::swap(tile, ahead)) {
      more = builder.next(*ahead);
      if (!more) point_at_next_rows(*ahead, num_units, next);
      kernels_.load_keys(*tile, memory_.scratch, head_dim);
      kernels_.load_values(*tile, memory_.scratch, head_dim_v);
      attend.tile = tile;
      attend.ahead = ahead;
      for (int u = 0; u < num_units; ++u) {
        kernels_.attend(memory_.units[u], attend, memory_.scratch);
        attend.ahead = nullptr;  // Once is enough.
      }
    }
    for (int u = 0; u < num_units; ++u) kernels_.finish(memory_.units[u], head_dim_v);
  }

 private:
  static Visibility visibility_of(const HeadKeys& keys, const Lengths& lengths) {
    if (keys.form != Form::kShape || is_dense(keys, lengths)) return {};
    return {keys.sink, keys.window, dense_from(keys, lengths)};
  }

  /// After the last tile, attend prefetches the rows of out and the queries of the next item in
  /// place of keys and values.
  void point_at_next_rows(Tile& ahead, int num_units, const Item* next) const {
    int rows = 0;
    for (int u = 0; u < num_units; ++u) {
      const Unit& unit = memory_.units[u];
      for (int lane = 0; lane < unit.num_rows && rows < kTileKeys; ++lane, ++rows) {
        ahead.key_row[rows] = ahead.value_row[rows] = unit.out_row[lane];
      }
    }
    if (next != nullptr) {
      const Sequence sequence = sequences_.at(next->batch);
      const int32_t first_row = next->first_row_block * kBlock;
      const int32_t num_rows =
          std::min(next->num_row_blocks * kBlock, sequence.lengths.seqlen_q - first_row);
      for (int i = 0; i < std::min(rows, next->num_heads * num_rows); ++i) {
        ahead.value_row[i] =
            queries(sequence, next->head + i / num_rows).row(first_row + i % num_rows);
      }
    }
    ahead.num_slots = (rows + kBlock - 1) / kBlock;
    for (int s = 0; s < ahead.num_slots; ++s) {
      ahead.slots[s].count = std::min(kBlock, rows - s * kBlock);
    }
  }

  HeadRows<std::byte> queries(const Sequence& sequence, int32_t head) const {
    return query_rows<std::byte>(args_.q, sequence, head, element_bytes_);
  }

  /// Deals the item's rows to units: row block by row block, head by head. Full row blocks give
  /// units of one head; few rows (a ragged end, a decode step) of several heads share one.
  int set_up_units(const Item& item, const Sequence& sequence) {
    const Lengths& lengths = sequence.lengths;
    int num_units = 0;
    for (int32_t stream = 0; stream < item.num_row_blocks; ++stream) {
      const int32_t first_row = (item.first_row_block + stream) * kBlock;
      const int32_t num_rows = std::min(kBlock, lengths.seqlen_q - first_row);
      Unit* unit = nullptr;
      for (int32_t head = item.head; head < item.head + item.num_heads; ++head) {
        for (int32_t row = first_row; row < first_row + num_rows; ++row) {
          if (unit == nullptr || unit->num_rows == kernels_.rows) {
            unit = &memory_.units[num_units++];
            unit->num_rows = 0;
            unit->stream = stream;
            unit->min_position = INT32_MAX;
            unit->max_position = 0;
          }
          add_row(*unit, sequence, head, row);
        }
      }
    }
    for (int u = 0; u < num_units; ++u) {
      Unit& unit = memory_.units[u];
      for (int lane = unit.num_rows; lane < kernels_.rows; ++lane) {
        unit.query_row[lane] = kZeroRow;
        unit.position[lane] = unit.min_position;
      }
      kernels_.pack_query(unit, args_.shape.head_dim, scale_.sign);
    }
    return num_units;
  }

  void add_row(Unit& unit, const Sequence& sequence, int32_t head, int32_t row) const {
    const Tokens& out = args_.out;
    const RowValues& lse = args_.lse;
    const int lane = unit.num_rows++;
    const int32_t position = row + sequence.lengths.offset();
    const int64_t batch = sequence.index, out_row = sequence.first_row + row;
    unit.position[lane] = position;
    unit.min_position = std::min(unit.min_position, position);
    unit.max_position = std::max(unit.max_position, position);
    unit.query_row[lane] = queries(sequence, head).row(row);
    unit.out_row[lane] =
        static_cast<std::byte*>(out.data) +
        (batch * out.batch_stride + out_row * out.token_stride + head * out.head_stride) *
            element_bytes_;
    unit.lse[lane] = lse.data == nullptr ? nullptr
                                         : lse.data + batch * lse.batch_stride +
                                               head * lse.head_stride + out_row * lse.row_stride;
  }

  const CheckedArgs& args_;
  const Sequences sequences_;
  const int64_t element_bytes_;
  const KernelTable& kernels_;
  ThreadMemory memory_;
  QueryScale scale_;
};

}  // namespace

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor) {
  WorkspaceAllocator memory;
  memory.take<Item>(static_cast<std::size_t>(max_items(args)));
  memory.take<ThreadMemory>(static_cast<std::size_t>(num_workers(args, executor)));
  for (int64_t t = 0; t < num_workers(args, executor); ++t) {
    take_thread_memory(memory, kernels_for(args.shape.dtype), args.shape.head_dim);
  }
  return memory.bytes();
}

void attention(const AttentionArgs& unchecked, Workspace workspace, const Executor& executor) {
  const CheckedArgs args(unchecked);
  const KernelTable& kernels = kernels_for(args.shape.dtype);
  WorkspaceAllocator memory(workspace);
  const std::span<Item> items = memory.take<Item>(static_cast<std::size_t>(max_items(args)));
  const int64_t num_items = plan_items(args, max_item_rows(kernels, args.shape), executor, items);

  const int64_t workers = num_workers(args, executor);
  const std::span<ThreadMemory> threads =
      memory.take<ThreadMemory>(static_cast<std::size_t>(workers));
  for (ThreadMemory& thread : threads) {
    thread = take_thread_memory(memory, kernels, args.shape.head_dim);
  }
  std::atomic<int64_t> next{0};
  parallel_for(executor, workers, [&](int64_t t) {
    Worker worker(args, kernels, threads[static_cast<std::size_t>(t)]);
    // Each worker takes an item ahead, to know which queries to prefetch. The last items are the
    // smallest, so the threads still end at about the same time.
    const auto take = [&] { return next.fetch_add(1, std::memory_order_relaxed); };
    for (int64_t i = take(), following; i < num_items; i = following) {
      following = take();
      worker.compute(items[i], following < num_items ? &items[following] : nullptr);
    }
  });
}

}  // namespace minference::cpu
