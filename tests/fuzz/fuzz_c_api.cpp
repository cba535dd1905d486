// Drives the C entry points with shapes, strides, dtypes, patterns and index lists drawn from the
// input, legal or not.
//
// These must hold: nothing outside a tensor or the workspace is touched (sanitizers see that);
// illegal calls fail, and legal ones succeed; a failed call explains itself and writes nothing;
// results are finite where inputs are, and attention equals the definition, computed here in
// double.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "fuzz_call.h"
#include "fuzz_input.h"
#include "fuzz_reference.h"
#include "minference/minference.h"

namespace fuzz {
namespace {

void fuzz_prefill(Input& input) {
  Call call;
  const Sizes sizes = draw_sizes(input, call);
  Inputs inputs = draw_inputs(input, sizes);
  poison_row(input, sizes, inputs);
  auto [out, lse] = draw_outputs(input, sizes);
  Tensor tiles(input, MINF_INT64, {sizes.batch, sizes.num_heads_q});
  std::vector<minf_pattern> patterns = draw_patterns(input, sizes, call);
  draw_options_of_patterns(input, call, patterns);
  Scale scale;
  draw_scale(input, sizes, call, scale);
  const minf_attention_options options{sizeof(options), scale.pointer};
  const minf_exec exec = draw_exec(input);
  call.corrupt_one(input, {&inputs.q, &inputs.k, &inputs.v, &out, &lse, &tiles}, 4);
  out.fill_canary();
  lse.fill_canary();
  tiles.fill_canary();

  const auto count = static_cast<int64_t>(patterns.size());
  const bool succeeded = check_with_workspace(
      input, call, {&out, &lse, &tiles},
      [&](std::size_t* bytes) {
        return minf_prefill_attention_workspace_bytes(inputs.q.get(), inputs.k.get(),
                                                      patterns.data(), count, &exec, bytes);
      },
      [&](void* workspace, std::size_t bytes) {
        return minf_prefill_attention(inputs.q.get(), inputs.k.get(), inputs.v.get(),
                                      patterns.data(), count, &options, out.get(), lse.get(),
                                      tiles.get(), workspace, bytes, &exec);
      });
  if (!succeeded || call.legality != Legality::kLegal) return;
  check_attention(input, sizes, patterns, inputs, IndexLists{}, scale.value, out, lse);
  if (inputs.is_finite) check_range(sizes, out, lse);
}

/// Checks that a list ascends in [0, limit), has -1 at the end only, and at least `num_forced`
/// entries.
void check_list(const Tensor& list, std::vector<int64_t> index, int64_t limit, int64_t num_forced) {
  const int last_dim = static_cast<int>(index.size());
  index.push_back(0);
  int64_t previous = -1, count = 0;
  for (int64_t n = 0; n < list.size(last_dim); ++n) {
    index.back() = n;
    const int64_t entry = index.size() == 3
                              ? list.integer<int32_t>({index[0], index[1], index[2]})
                              : list.integer<int32_t>({index[0], index[1], index[2], index[3]});
    if (entry == -1) {
      previous = limit;
      continue;
    }
    FUZZ_REQUIRE(previous < entry && entry < limit);
    previous = entry;
    ++count;
  }
  FUZZ_REQUIRE(count >= num_forced);
}

/// Runs stage 1 on both kinds of lists. Returns whether they can be used.
bool estimate_lists(Input& input, const Sizes& sizes, Inputs& inputs, Call& call,
                    const minf_exec& exec, IndexLists& lists, Tensor& slash) {
  const minf_vertical_slash_options options = draw_estimate_options(input, call);
  const auto size = [&](int64_t forced) {
    return std::min(sizes.seqlen_k, std::max<int64_t>(input.below(150), forced));
  };
  lists.vertical = Tensor(input, MINF_INT32, {sizes.batch, sizes.num_heads_q, size(options.sink)});
  slash = Tensor(input, MINF_INT32, {sizes.batch, sizes.num_heads_q, size(options.local)});
  lists.blocks = Tensor(input, MINF_INT32,
                        {sizes.batch, sizes.num_heads_q, sizes.row_blocks(), input.between(1, 5)});
  Call vertical_call = call;
  vertical_call.corrupt_one(input, {&lists.vertical, &slash}, 2);
  for (Tensor* list : {&lists.vertical, &slash, &lists.blocks}) list->fill_canary();

  const bool has_vertical = check_with_workspace(
      input, vertical_call, {&lists.vertical, &slash},
      [&](std::size_t* bytes) {
        return minf_estimate_vertical_slash_workspace_bytes(inputs.q.get(), inputs.k.get(),
                                                            &options, &exec, bytes);
      },
      [&](void* workspace, std::size_t bytes) {
        return minf_estimate_vertical_slash(inputs.q.get(), inputs.k.get(), &options,
                                            lists.vertical.get(), slash.get(), workspace, bytes,
                                            &exec);
      });

  Call block_call = call;
  minf_block_sparse_options block_options = minf_block_sparse_options_default();
  block_options.top_p = input.pick({1.0, 0.5});
  // An illegal option that only the other kind reads says nothing about this call.
  if (block_call.legality == Legality::kIllegal) block_call.legality = Legality::kUnknown;
  const bool has_blocks = check_with_workspace(
      input, block_call, {&lists.blocks},
      [&](std::size_t* bytes) {
        return minf_estimate_block_sparse_workspace_bytes(inputs.q.get(), inputs.k.get(),
                                                          &block_options, &exec, bytes);
      },
      [&](void* workspace, std::size_t bytes) {
        return minf_estimate_block_sparse(inputs.q.get(), inputs.k.get(), &block_options,
                                          lists.blocks.get(), workspace, bytes, &exec);
      });

  if (!has_vertical || !has_blocks || vertical_call.legality != Legality::kLegal) return false;
  for (int64_t b = 0; b < sizes.batch; ++b) {
    for (int64_t h = 0; h < sizes.num_heads_q; ++h) {
      check_list(lists.vertical, {b, h}, sizes.seqlen_k,
                 std::min<int64_t>(options.sink, sizes.seqlen_k));
      check_list(slash, {b, h}, sizes.seqlen_k, std::min<int64_t>(options.local, sizes.seqlen_k));
      for (int64_t r = 0; r < sizes.row_blocks(); ++r) {
        check_list(lists.blocks, {b, h, r}, (sizes.seqlen_k + kBlock - 1) / kBlock, 1);
      }
    }
  }
  return true;
}

/// Runs stage 2 and checks what it promises.
void plan_lists(Input& input, const Sizes& sizes, Tensor& slash, const minf_exec& exec,
                IndexLists& lists) {
  const int64_t max_runs = minf_max_runs(slash.size(2), sizes.seqlen_k);
  lists.runs = Tensor(input, MINF_INT32, {sizes.batch, sizes.num_heads_q, max_runs, 2},
                      /*num_packed=*/2);
  lists.run_count = Tensor(input, MINF_INT32, {sizes.batch, sizes.num_heads_q});
  FUZZ_REQUIRE(minf_plan_vertical_slash(slash.get(), sizes.seqlen_k, lists.runs.get(),
                                        lists.run_count.get(), &exec) == MINF_OK);
  for (int64_t b = 0; b < sizes.batch; ++b) {
    for (int64_t h = 0; h < sizes.num_heads_q; ++h) {
      const int64_t count = lists.run_count.integer<int32_t>({b, h});
      FUZZ_REQUIRE(0 <= count && count <= max_runs);
      int64_t previous_hi = -1, run = 0;
      for (int64_t n = 0; n < slash.size(2); ++n) {
        const int64_t distance = slash.integer<int32_t>({b, h, n});
        if (distance < 0) break;
        while (run < count && lists.runs.integer<int32_t>({b, h, run, 1}) < distance + kBlock)
          ++run;
        FUZZ_REQUIRE(run < count && lists.runs.integer<int32_t>({b, h, run, 0}) <= distance);
      }
      for (int64_t n = 0; n < count; ++n) {
        const int64_t lo = lists.runs.integer<int32_t>({b, h, n, 0});
        const int64_t hi = lists.runs.integer<int32_t>({b, h, n, 1});
        FUZZ_REQUIRE(previous_hi < lo && lo < hi && (hi - lo) % kBlock == 0);
        previous_hi = hi;
      }
    }
  }
}

/// Whether a list of stage 1 ascends in [0, limit), -1 at its end only.
bool is_legal_list(const Tensor& list, const int64_t* index, int64_t limit) {
  int64_t previous = -1;
  const int last_dim = list.view().ndim - 1;
  for (int64_t n = 0; n < list.size(last_dim); ++n) {
    const int64_t entry = last_dim == 2 ? list.integer<int32_t>({index[0], index[1], n})
                                        : list.integer<int32_t>({index[0], index[1], index[2], n});
    if (entry == -1 ? false : entry <= previous || entry >= limit) return false;
    previous = entry == -1 ? limit : entry;
  }
  return true;
}

/// Writes a random number into one of the lists, which are untrusted. Returns what is then known of
/// the call.
Legality break_list(Input& input, const Sizes& sizes, const std::vector<minf_pattern>& patterns,
                    IndexLists& lists) {
  Tensor& list = *input.pick({&lists.vertical, &lists.runs, &lists.run_count, &lists.blocks});
  const bool is_vertical = &list == &lists.vertical;
  const int64_t limit = is_vertical ? sizes.seqlen_k : (sizes.seqlen_k + kBlock - 1) / kBlock;
  int64_t index[MINF_MAX_DIMS] = {};
  for (int dim = 0; dim < list.view().ndim; ++dim) {
    if (list.size(dim) == 0) return Legality::kLegal;
    index[dim] = input.one_in(2) ? list.size(dim) - 1 : input.below(list.size(dim));
  }
  const auto value =
      input.pick<int64_t>({limit, limit - 1, -2, -1, 0, 64, INT32_MAX - 63, INT32_MAX, INT32_MIN});
  list.set_integer({index[0], index[1], index[2], index[3]}, static_cast<int32_t>(value));

  if (&list == &lists.runs || &list == &lists.run_count) return Legality::kUnknown;
  const int32_t kind = is_vertical ? MINF_VERTICAL_SLASH : MINF_BLOCK_SPARSE;
  const bool is_read = sizes.seqlen_q > 0 && pattern_of(patterns, index[1]).kind == kind;
  if (!is_read) return Legality::kUnknown;  // Nothing is promised about a list that no head reads.
  return is_legal_list(list, index, limit) ? Legality::kLegal : Legality::kIllegal;
}

void fuzz_stages(Input& input) {
  Call call;
  const Sizes sizes = draw_sizes(input, call);
  Inputs inputs = draw_inputs(input, sizes);
  const minf_exec exec = draw_exec(input);
  IndexLists lists;
  Tensor slash;
  if (!estimate_lists(input, sizes, inputs, call, exec, lists, slash)) return;
  plan_lists(input, sizes, slash, exec, lists);

  poison_row(input, sizes, inputs);
  auto [out, lse] = draw_outputs(input, sizes);
  const std::vector<minf_pattern> patterns = draw_patterns(input, sizes, call);
  Scale scale;
  draw_scale(input, sizes, call, scale);
  const minf_attention_options options{sizeof(options), scale.pointer};
  Call count_call = call;
  call.corrupt_one(input,
                   {&inputs.q, &inputs.k, &inputs.v, &out, &lse, &lists.vertical, &lists.runs,
                    &lists.run_count, &lists.blocks},
                   4);
  if (call.legality == Legality::kLegal && input.one_in(4)) {
    count_call.legality = call.legality = break_list(input, sizes, patterns, lists);
  }
  if (call.legality == Legality::kLegal) {
    poison_unattended_key(input, sizes, patterns, lists, inputs);
  }
  out.fill_canary();
  lse.fill_canary();

  const minf_sparse_index index{
      sizeof(index),         patterns.data(),   static_cast<int64_t>(patterns.size()),
      *lists.vertical.get(), *lists.runs.get(), *lists.run_count.get(),
      *lists.blocks.get()};
  const bool succeeded = check_with_workspace(
      input, call, {&out, &lse},
      [&](std::size_t* bytes) {
        return minf_sparse_attention_workspace_bytes(inputs.q.get(), inputs.k.get(), &index, &exec,
                                                     bytes);
      },
      [&](void* workspace, std::size_t bytes) {
        return minf_sparse_attention(inputs.q.get(), inputs.k.get(), inputs.v.get(), &index,
                                     &options, out.get(), lse.get(), workspace, bytes, &exec);
      });
  if (!succeeded || call.legality != Legality::kLegal) return;
  check_attention(input, sizes, patterns, inputs, lists, scale.value, out, lse);
  if (inputs.is_finite) check_range(sizes, out, lse);

  Tensor tiles(input, MINF_INT64, {sizes.batch, sizes.num_heads_q});
  tiles.fill_canary();
  if (!count_call.check(minf_count_key_tiles(sizes.batch, sizes.num_heads_q, sizes.seqlen_q,
                                             sizes.seqlen_k, &index, tiles.get(), &exec),
                        {&tiles})) {
    return;
  }
  for (int64_t b = 0; b < sizes.batch; ++b) {
    for (int64_t h = 0; h < sizes.num_heads_q; ++h)
      FUZZ_REQUIRE(tiles.integer<int64_t>({b, h}) >= 0);
  }
}

/// Runs stage 2 alone, on lists that no estimate would give.
void fuzz_plan(Input& input) {
  Call call;
  const int64_t seqlen_k = input.pick<int64_t>({0, 1, 64, 1000, 100000, INT64_C(1) << 40, -1});
  const int64_t heads = input.between(1, 3), slash_size = input.below(40);
  Tensor slash(input, MINF_INT32, {1, heads, slash_size});
  Tensor runs(input, MINF_INT32, {1, heads, input.below(41), 2}, /*num_packed=*/2);
  Tensor run_count(input, MINF_INT32, {1, heads});
  for (int64_t h = 0; h < heads; ++h) {
    int64_t distance = -1;
    for (int64_t n = 0; n < slash_size; ++n) {
      distance = input.one_in(32) ? input.below(1000) - 2 : distance + input.between(1, 120);
      slash.set_integer({0, h, n}, static_cast<int32_t>(distance));
    }
  }
  call.legality = Legality::kUnknown;
  call.corrupt_one(input, {&slash, &runs, &run_count}, 3);
  runs.fill_canary();
  run_count.fill_canary();
  const minf_exec exec = draw_exec(input);
  call.check(minf_plan_vertical_slash(slash.get(), seqlen_k, runs.get(), run_count.get(), &exec),
             {&runs, &run_count});
}

void fuzz_merge(Input& input) {
  Call call;
  const Sizes sizes = draw_sizes(input, call);
  if (call.legality == Legality::kIllegal) call.legality = Legality::kUnknown;  // No k here.
  auto [out_a, lse_a] = draw_outputs(input, sizes);
  auto [out_b, lse_b] = draw_outputs(input, sizes);
  auto [out, lse] = draw_outputs(input, sizes);
  Random random(input.below(1 << 16));
  for (Tensor* tensor : {&out_a, &out_b}) tensor->fill_random(random, 1.0f);
  for (Tensor* tensor : {&lse_a, &lse_b}) tensor->fill_random(random, input.pick({1.0f, 100.0f}));
  if (sizes.batch * sizes.seqlen_q > 0 && input.one_in(2)) {
    lse_a.set_value({0, 0, 0}, -std::numeric_limits<float>::infinity());
    if (sizes.head_dim_v > 0) {
      out_a.set_value({0, 0, 0, 0}, std::numeric_limits<float>::quiet_NaN());
    }
  }
  call.corrupt_one(input, {&out_a, &lse_a, &out_b, &lse_b, &out, &lse}, 6);
  out.fill_canary();
  lse.fill_canary();
  const minf_exec exec = draw_exec(input);
  if (call.check(minf_merge_attention(out_a.get(), lse_a.get(), out_b.get(), lse_b.get(), out.get(),
                                      lse.get(), &exec),
                 {&out, &lse}) &&
      call.legality == Legality::kLegal) {
    check_range(sizes, out, lse);
  }
}

/// Calls everything else that takes an argument.
void fuzz_info(Input& input) {
  minf_capability capability{};
  const auto index = static_cast<int32_t>(input.pick<int64_t>({0, 1, 4, 100, -1, INT32_MIN}));
  const auto check = [&](minf_status status, int32_t count) {
    FUZZ_REQUIRE((status == MINF_OK) == (index >= 0 && index < count));
    FUZZ_REQUIRE(status != MINF_OK || (capability.available != 0) == (*capability.reason == '\0'));
  };
  check(minf_backend(index, &capability), minf_backend_count());
  check(minf_cpu_isa(index, &capability), minf_cpu_isa_count());
  FUZZ_REQUIRE(minf_set_cpu_isa("abacus") != MINF_OK);
  FUZZ_REQUIRE(*minf_version() != '\0' && *minf_build_info() != '\0');
}

}  // namespace
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  fuzz::draw_isa(input);
  switch (input.below(16)) {
    case 0:
      fuzz::fuzz_info(input);
      break;
    case 1:
    case 2:
      fuzz::fuzz_plan(input);
      break;
    case 3:
      fuzz::fuzz_merge(input);
      break;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
      fuzz::fuzz_prefill(input);
      break;
    default:
      fuzz::fuzz_stages(input);
  }
  return 0;
}
