// minf_prefill_attention and minf_sparse_attention on tensors in emulated device memory, against
// the CPU backend on the same inputs. Keys and tiles must be the same; out and lse agree within
// rounding. (Inputs are random, so estimated scores lie farther apart than either rounds.) Calling
// the stages one by one gives the same bits as the one call, and so do a run under another schedule
// and one on dirty work memory.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <iterator>
#include <limits>
#include <optional>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "api_call.h"
#include "check.h"
#include "device_place.h"
#include "extent.h"
#include "minference/minference.h"
#include "patterns.h"
#include "simt/simt.h"
#include "test_tensor.h"

namespace {

using namespace minference::test;

constexpr int64_t kBlock = 64;
std::size_t max_shared_bytes = 0;      // Per thread block of the machine's GPU.
constexpr unsigned char kDirt = 0xff;  // As float NaN, as int -1.
constexpr double kMaxValue = 2;        // The largest of TestTensor::fill_random().

using Patterns = std::vector<minf_pattern>;

/// Every kind of pattern, with lists of different lengths.
const Patterns kMixed = {dense(),
                         vertical_slash(5, 20),
                         block_sparse(1),
                         a_shape(9, 70),
                         vertical_slash(0, 0),
                         block_sparse(3),
                         tri_shape(5, 30, 20),
                         vertical_slash(60, 110)};

struct Problem {
  const char* name;
  int32_t dtype = MINF_BFLOAT16;
  Patterns patterns = kMixed;  // One per head, or one for all.
  int64_t batch = 1, seqlen_q = 130, seqlen_k = 130, heads_q = 8, heads_kv = 4;
  int64_t head_dim = 64, head_dim_v = 64;
  int32_t last_q = 64, sink = 4, local = 10;
  double share = 1;                  // Value of vertical_p and slash_p.
  std::optional<double> scale = {};  // NOLINT(*-redundant-member-init)
  RowLayout layout = RowLayout::kContiguous;
  bool wants_lse = true, wants_tiles = true;
  int num_multiprocessors = 132;  // Few: row blocks are joined. Many: keys are split.

  const minf_pattern& pattern(int64_t head) const {
    return patterns[patterns.size() == 1 ? 0 : static_cast<std::size_t>(head)];
  }
};

/// The inputs of a problem, the same in every place.
struct Inputs {
  explicit Inputs(const Problem& p)
      : q(p.dtype, p.layout, p.batch, p.seqlen_q, p.heads_q, p.head_dim),
        k(p.dtype, p.layout, p.batch, p.seqlen_k, p.heads_kv, p.head_dim),
        v(p.dtype, p.layout, p.batch, p.seqlen_k, p.heads_kv, p.head_dim_v),
        scale(p.scale),
        patterns(p.patterns) {
    std::mt19937 random(11);
    for (Rows* rows : {&q, &k, &v}) rows->fill_random(random);
    estimate.last_q = p.last_q;
    estimate.sink = p.sink;
    estimate.local = p.local;
    estimate.vertical_p = estimate.slash_p = p.share;
    for (minf_pattern& pattern : patterns) {
      if (pattern.kind != MINF_VERTICAL_SLASH) continue;
      minf_vertical_slash& fields = pattern.as.vertical_slash;
      fields.last_q = p.last_q;
      fields.sink = p.sink;
      fields.local = p.local;
      fields.vertical_p = fields.slash_p = p.share;
    }
    options.softmax_scale = scale ? &*scale : nullptr;
  }
  Inputs(const Inputs&) = delete;
  Inputs& operator=(const Inputs&) = delete;

  Rows q, k, v;
  std::optional<double> scale;
  Patterns patterns;  // With the estimator's options.
  minf_vertical_slash_options estimate = minf_vertical_slash_options_default();
  minf_attention_options options{sizeof(minf_attention_options), nullptr};
};

/// Outputs of the calls. Where rows are padded, so are heads of lse.
struct Outputs {
  explicit Outputs(const Problem& p)
      : out(p.dtype, p.layout, p.batch, p.seqlen_q, p.heads_q, p.head_dim_v),
        lse(MINF_FLOAT32,
            {p.batch, p.heads_q, p.seqlen_q + (p.layout == RowLayout::kPaddedRows ? 3 : 0)}),
        tiles(MINF_INT64, {p.batch, p.heads_q}),
        lse_view(lse.view()),
        tiles_view(tiles.view()) {
    lse_view.shape[2] = p.seqlen_q;
  }

  Rows out;
  TestTensor lse, tiles;
  minf_tensor lse_view, tiles_view;
};

bool same_bits(const Outputs& a, const Outputs& b) {
  return a.out.memory().copy() == b.out.memory().copy() && a.lse.copy() == b.lse.copy() &&
         a.tiles.copy() == b.tiles.copy();
}

/// Runs in work memory that is uninitialised, or filled with `dirt`.
Outputs prefill(const Problem& p, std::optional<unsigned char> dirt = {}) {
  const Inputs inputs(p);
  Outputs outputs(p);
  const minf_tensor &q = inputs.q.view(), &k = inputs.k.view();
  const auto num_patterns = static_cast<int64_t>(p.patterns.size());
  std::size_t bytes = 0;
  check_ok(minf_prefill_attention_workspace_bytes(&q, &k, inputs.patterns.data(), num_patterns,
                                                  nullptr, &bytes),
           p.name);
  const Workspace workspace(bytes, dirt);
  check_ok(minf_prefill_attention(&q, &k, &inputs.v.view(), inputs.patterns.data(), num_patterns,
                                  &inputs.options, &outputs.out.view(),
                                  p.wants_lse ? &outputs.lse_view : nullptr,
                                  p.wants_tiles ? &outputs.tiles_view : nullptr, workspace.data(),
                                  workspace.bytes(), nullptr),
           p.name);
  return outputs;
}

// ---- The stages one by one -------------------------------------------------------------------

/// Lists of all heads, each padded to the longest. Unwritten entries are -1.
struct Lists {
  explicit Lists(const Problem& p) {
    int64_t columns = 0, distances = 0, blocks = 0;
    for (const minf_pattern& pattern : p.patterns) {
      if (pattern.kind == MINF_VERTICAL_SLASH) {
        columns = std::max(columns, num_columns(p, pattern));
        distances = std::max(distances, num_distances(p, pattern));
      } else if (pattern.kind == MINF_BLOCK_SPARSE) {
        blocks = std::max<int64_t>(blocks, pattern.as.block_sparse.top_k);
      }
    }
    const int64_t row_blocks = (p.seqlen_q + kBlock - 1) / kBlock;
    vertical_index = TestTensor(MINF_INT32, {p.batch, p.heads_q, columns});
    slash_index = TestTensor(MINF_INT32, {p.batch, p.heads_q, distances});
    runs =
        TestTensor(MINF_INT32, {p.batch, p.heads_q, minf_max_runs(distances, p.seqlen_k) + 1, 2});
    run_count = TestTensor(MINF_INT32, {p.batch, p.heads_q});
    block_index = TestTensor(MINF_INT32, {p.batch, p.heads_q, row_blocks, blocks});
    for (TestTensor* list : {&vertical_index, &slash_index, &block_index}) {
      list->fill(std::byte{0xff});
    }
  }

  static int64_t num_columns(const Problem& p, const minf_pattern& pattern) {
    return std::min<int64_t>(p.seqlen_k, std::max(pattern.as.vertical_slash.vertical_size, p.sink));
  }
  static int64_t num_distances(const Problem& p, const minf_pattern& pattern) {
    return std::min<int64_t>(p.seqlen_k, std::max(pattern.as.vertical_slash.slash_size, p.local));
  }

  TestTensor vertical_index, slash_index, runs, run_count, block_index;
};

/// One head of `tensor`, whose dimension `dim` is the head; if it is a list, its first `size`
/// entries.
minf_tensor head_of(minf_tensor tensor, int dim, int64_t head, int64_t size = -1) {
  if (tensor.data != nullptr) {
    const auto bytes = static_cast<int64_t>(dtype_bytes(tensor.dtype));
    tensor.data = static_cast<std::byte*>(tensor.data) + head * tensor.stride[dim] * bytes;
  }
  tensor.shape[dim] = 1;
  if (size >= 0) tensor.shape[tensor.ndim - 1] = size;
  return tensor;
}

void estimate_head(const Problem& p, const Inputs& inputs, const Lists& lists, int64_t head) {
  const minf_pattern& pattern = p.pattern(head);
  const minf_tensor q = head_of(inputs.q.view(), 2, head);
  const minf_tensor k = head_of(inputs.k.view(), 2, head / (p.heads_q / p.heads_kv));
  std::size_t bytes = 0;
  if (pattern.kind == MINF_VERTICAL_SLASH) {
    minf_vertical_slash_options options = inputs.estimate;
    options.softmax_scale = inputs.options.softmax_scale;
    const minf_tensor columns =
        head_of(lists.vertical_index.view(), 1, head, Lists::num_columns(p, pattern));
    const minf_tensor distances =
        head_of(lists.slash_index.view(), 1, head, Lists::num_distances(p, pattern));
    check_ok(minf_estimate_vertical_slash_workspace_bytes(&q, &k, &options, nullptr, &bytes),
             p.name);
    const Workspace workspace(bytes);
    check_ok(minf_estimate_vertical_slash(&q, &k, &options, &columns, &distances, workspace.data(),
                                          bytes, nullptr),
             p.name);
  } else if (pattern.kind == MINF_BLOCK_SPARSE) {
    const minf_tensor blocks =
        head_of(lists.block_index.view(), 1, head, pattern.as.block_sparse.top_k);
    check_ok(minf_estimate_block_sparse_workspace_bytes(&q, &k, nullptr, nullptr, &bytes), p.name);
    const Workspace workspace(bytes);
    check_ok(minf_estimate_block_sparse(&q, &k, nullptr, &blocks, workspace.data(), bytes, nullptr),
             p.name);
  }
}

/// Does what prefill() does in one call. Tensors that no head needs are absent.
Outputs stages(const Problem& p) {
  const Inputs inputs(p);
  const Lists lists(p);
  Outputs outputs(p);
  for (int64_t head = 0; head < p.heads_q; ++head) estimate_head(p, inputs, lists, head);
  minf_sparse_index index{};
  index.struct_size = sizeof index;
  index.patterns = p.patterns.data();
  index.num_patterns = static_cast<int64_t>(p.patterns.size());
  if (std::ranges::any_of(p.patterns, [](auto& x) { return x.kind == MINF_VERTICAL_SLASH; })) {
    index.vertical_index = lists.vertical_index.view();
    index.runs = lists.runs.view();
    index.run_count = lists.run_count.view();
    const minf_tensor distances = lists.slash_index.view();
    check_ok(
        minf_plan_vertical_slash(&distances, p.seqlen_k, &index.runs, &index.run_count, nullptr),
        p.name);
  }
  if (std::ranges::any_of(p.patterns, [](auto& x) { return x.kind == MINF_BLOCK_SPARSE; })) {
    index.block_index = lists.block_index.view();
  }

  std::size_t bytes = 0;
  const minf_tensor &q = inputs.q.view(), &k = inputs.k.view();
  check_ok(minf_sparse_attention_workspace_bytes(&q, &k, &index, nullptr, &bytes), p.name);
  const Workspace workspace(bytes);
  const minf_tensor absent{};
  check_ok(minf_sparse_attention(&q, &k, &inputs.v.view(), &index, &inputs.options,
                                 &outputs.out.view(), p.wants_lse ? &outputs.lse_view : &absent,
                                 workspace.data(), bytes, nullptr),
           p.name);
  if (p.wants_tiles) {
    check_ok(minf_count_key_tiles(p.batch, p.heads_q, p.seqlen_q, p.seqlen_k, &index,
                                  &outputs.tiles_view, nullptr),
             p.name);
  }
  return outputs;
}

// ---- Comparison ------------------------------------------------------------------------------

/// The largest distance between elements of two tensors, gaps between rows included: their filler
/// is far from any result. The distance of an infinite or NaN element is 0 only from the same
/// value.
double distance(const TestTensor& a, const TestTensor& b) {
  const minf_tensor view = a.view();
  const auto size = [&](int dim) { return dim < view.ndim ? view.shape[dim] : 1; };
  double largest = 0;
  for (int64_t i = 0; i < size(0); ++i) {
    for (int64_t j = 0; j < size(1); ++j) {
      for (int64_t l = 0; l < size(2); ++l) {
        for (int64_t d = 0; d < size(3); ++d) {
          const double x = a.get({i, j, l, d}), y = b.get({i, j, l, d});
          if (x == y) continue;
          const double apart = std::abs(x - y);
          if (!(apart <= largest)) largest = apart;
          if (std::isnan(apart)) return std::numeric_limits<double>::infinity();
        }
      }
    }
  }
  return largest;
}

/// Each side errs by at most 2 eps of sum_j p_j |v_j| <= max |v|; lse errs by its float32 sums.
void check_close(const Problem& p, const Outputs& got, const Outputs& want) {
  const double out_bound = 2 * (2 * epsilon(p.dtype) * kMaxValue);
  const double out_error = distance(got.out.memory(), want.out.memory());
  const double lse_error = distance(got.lse, want.lse);
  CHECK(out_error <= out_bound, p.name, "out differs by", out_error, "allowed", out_bound);
  CHECK(lse_error <= 2e-5, p.name, "lse differs by", lse_error);
  CHECK(got.tiles.copy() == want.tiles.copy(), p.name, "tiles");
}

void compare(const Problem& p) {
  simt::Device& gpu = simt::machine().devices[0];
  gpu.num_multiprocessors = p.num_multiprocessors;
  // Few enough that Hopper's kernel takes every call of several row blocks.
  if (gpu.major == 9) gpu.num_multiprocessors = std::min(gpu.num_multiprocessors, 2);
  place = Place{};
  const Outputs want = prefill(p);
  CHECK(same_bits(stages(p), want), p.name, "the CPU's stages one by one");

  place = kDevicePlace;
  const Outputs got = prefill(p);
  check_close(p, got, want);
  CHECK(same_bits(stages(p), got), p.name, "the stages one by one");
  simt::options().schedule = simt::Schedule::kRandom;
  simt::options().async = simt::AsyncCopies::kRandom;
  CHECK(same_bits(prefill(p), got), p.name, "a second run");
  simt::options() = {};
  simt::options().max_shared_bytes = max_shared_bytes;
  CHECK(same_bits(prefill(p, kDirt), got), p.name, "dirty work memory");
}

/// Repeats kMixed over the heads.
Patterns mixed(std::size_t heads) {
  Patterns patterns;
  while (patterns.size() < heads) patterns.push_back(kMixed[patterns.size() % kMixed.size()]);
  return patterns;
}

const Problem kProblems[] = {
    {.name = "mixed"},
    {.name = "dense", .patterns = {dense()}, .heads_q = 3, .heads_kv = 1},
    {.name = "a_shape", .patterns = {a_shape(70, 9)}, .heads_q = 3, .heads_kv = 1},
    {.name = "vertical_slash", .patterns = {vertical_slash(30, 40)}, .heads_q = 3, .heads_kv = 1},
    {.name = "block_sparse", .patterns = {block_sparse(2)}, .heads_q = 3, .heads_kv = 1},
    {.name = "tri_shape", .patterns = {tri_shape(0, 64, 65)}, .heads_q = 3, .heads_kv = 1},
    {.name = "one tile", .seqlen_q = 64, .seqlen_k = 64},
    {.name = "one row", .seqlen_q = 1, .seqlen_k = 200},
    {.name = "one key", .seqlen_q = 1, .seqlen_k = 1},
    {.name = "a chunk", .seqlen_q = 70, .seqlen_k = 333},
    {.name = "batch", .batch = 3, .seqlen_q = 65, .seqlen_k = 127},
    {.name = "one pattern, batch", .patterns = {vertical_slash(9, 99)}, .batch = 2, .heads_q = 4},
    {.name = "no sharing of keys", .heads_kv = 8},
    {.name = "one KV head", .heads_kv = 1},
    {.name = "many heads",
     .patterns = mixed(161),
     .seqlen_q = 9,
     .seqlen_k = 70,
     .heads_q = 161,
     .heads_kv = 7},
    {.name = "float16", .dtype = MINF_FLOAT16, .seqlen_q = 129, .seqlen_k = 190},
    {.name = "float16, 128", .dtype = MINF_FLOAT16, .head_dim = 128, .head_dim_v = 128},
    {.name = "float16, 256", .dtype = MINF_FLOAT16, .head_dim = 256, .head_dim_v = 256},
    {.name = "head_dim 8", .head_dim = 8, .head_dim_v = 8},
    {.name = "head_dim 80", .head_dim = 80, .head_dim_v = 80},
    {.name = "head_dim 128", .head_dim = 128, .head_dim_v = 128},
    {.name = "head_dim 256", .head_dim = 256, .head_dim_v = 256},
    {.name = "head_dim 192 of 128", .head_dim = 192, .head_dim_v = 128},
    {.name = "head_dim 64 of 256", .head_dim = 64, .head_dim_v = 256},
    {.name = "head_dim 128 of 40", .dtype = MINF_FLOAT16, .head_dim = 128, .head_dim_v = 40},
    {.name = "heads first in memory",
     .batch = 2,
     .head_dim_v = 80,
     .layout = RowLayout::kHeadsFirst},
    {.name = "padded rows", .batch = 2, .head_dim = 80, .layout = RowLayout::kPaddedRows},
    {.name = "no lse", .wants_lse = false},
    {.name = "no tiles", .wants_tiles = false},
    {.name = "out alone", .wants_lse = false, .wants_tiles = false},
    {.name = "joined row blocks", .seqlen_q = 200, .seqlen_k = 260, .num_multiprocessors = 1},
    {.name = "joined row blocks, 128",
     .batch = 2,
     .seqlen_q = 140,
     .seqlen_k = 140,
     .head_dim = 128,
     .head_dim_v = 128,
     .num_multiprocessors = 2},
    {.name = "split keys", .seqlen_q = 40, .seqlen_k = 600},
    {.name = "split keys, dims that differ",
     .seqlen_q = 70,
     .seqlen_k = 800,
     .head_dim = 40,
     .head_dim_v = 248,
     .layout = RowLayout::kPaddedRows},
    {.name = "split keys, no lse", .seqlen_q = 1, .seqlen_k = 1100, .wants_lse = false},
    {.name = "few last rows", .last_q = 5, .sink = 0, .local = 0},
    {.name = "shares of the mass", .seqlen_k = 300, .share = 0.4},
    {.name = "a scale", .scale = 0.03},
    {.name = "a negative scale", .scale = -0.2},
    {.name = "more blocks than there are", .patterns = {block_sparse(100)}, .heads_q = 4},
    {.name = "nothing attended", .patterns = {a_shape(3, 0)}, .heads_q = 4},
    {.name = "no rows", .batch = 2, .seqlen_q = 0},
    {.name = "no rows, one pattern", .patterns = {vertical_slash(9, 9)}, .seqlen_q = 0},
    {.name = "no rows and no keys", .seqlen_q = 0, .seqlen_k = 0},
    {.name = "no batch", .batch = 0},
};

}  // namespace

int main(int argc, char** argv) {
  const std::string_view backend = argc > 1 ? argv[1] : "";
  if (backend != "sm80" && backend != "sm90") {
    std::cerr << "expected the backend that is to compute: sm80 or sm90\n";
    return 2;
  }
  simt::machine().devices = {simt::Device{.major = backend == "sm90" ? 9 : 8}};
  max_shared_bytes = (backend == "sm90" ? 227 : 99) * std::size_t{1024};
  simt::options().max_shared_bytes = max_shared_bytes;
  minf_capability first{};
  CHECK(minf_backend(0, &first) == MINF_OK && first.name == std::string_view("sm90"));
  CHECK(first.selected == (backend == "sm90" ? 1 : 0));
  const Extent extent = extent_of(argc, argv, /*index=*/2);
  for (std::size_t i = 0; i < std::size(kProblems); ++i) {
    if (is_checked(extent, i)) compare(kProblems[i]);
  }
  CHECK(simt::num_allocations() == 0, simt::num_allocations());
  return finish();
}
