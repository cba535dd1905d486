// Stage 2 on the CPU: each head's distances to runs, and tile counts of whole calls. Index lists
// are untrusted: a bad entry is an error, and is found before anything is written.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <span>

#include "core/runs.h"
#include "cpu/index_lists.h"
#include "cpu/stages.h"

namespace minference::cpu {
namespace {

std::span<const int32_t> distances_of(const PlanArgs& args, int64_t batch, int64_t head) {
  return {args.slash_index.at(batch, head), static_cast<std::size_t>(args.slash_index.size)};
}

void plan_head(const PlanArgs& args, int64_t batch, int64_t head) {
  const auto distances = distances_of(args, batch, head);
  const std::span runs(args.runs.at(batch, head), static_cast<std::size_t>(args.runs.size));
  const int32_t count =
      plan_runs(distances.data(), static_cast<int64_t>(distances.size()), runs.data());
  std::ranges::fill(runs.subspan(static_cast<std::size_t>(count)), Run{0, 0});
  *args.run_count.at(batch, head) = count;
}

}  // namespace

void plan_vertical_slash(const PlanArgs& args, const Executor& executor) {
  const int64_t heads = args.num_heads_q;
  const int64_t count = args.batch * heads;
  for (int64_t i = 0; i < count; ++i) {
    checked_count({"slash_index", i / heads, i % heads}, distances_of(args, i / heads, i % heads),
                  args.seqlen_k);
  }
  parallel_interleaved(executor, count, [&](int64_t i) { plan_head(args, i / heads, i % heads); });
}

void count_key_tiles(const CountTilesArgs& args, const Executor& executor) {
  write_tiles(checked_head_keys(args.index, args.patterns, args.shape), args.shape, args.tiles,
              executor);
}

}  // namespace minference::cpu
