// minference.hpp as its user meets it: views, defaults, errors, and that the stages called one by
// one give the result of prefill_attention.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "minference/minference.hpp"

namespace {

namespace mi = minference;

constexpr int64_t kBatch = 2, kSeqlenQ = 130, kSeqlenK = 200, kHeadsQ = 4, kHeadsKv = 2, kDim = 16;

std::vector<float> random_floats(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  std::generate(values.begin(), values.end(), [&] { return normal(generator); });
  return values;
}

/// Inputs of one call, and memory for its outputs.
struct Problem {
  std::vector<float> q_data = random_floats(kBatch * kSeqlenQ * kHeadsQ * kDim, 1);
  std::vector<float> k_data = random_floats(kBatch * kSeqlenK * kHeadsKv * kDim, 2);
  std::vector<float> v_data = random_floats(kBatch * kSeqlenK * kHeadsKv * kDim, 3);
  std::vector<float> out_data = std::vector<float>(q_data.size(), -7.0f);
  std::vector<float> lse_data = std::vector<float>(kBatch * kHeadsQ * kSeqlenQ, -7.0f);
  std::vector<int64_t> tiles_data = std::vector<int64_t>(kBatch * kHeadsQ);

  mi::ConstTensorView q{q_data.data(), {kBatch, kSeqlenQ, kHeadsQ, kDim}};
  mi::ConstTensorView k{k_data.data(), {kBatch, kSeqlenK, kHeadsKv, kDim}};
  mi::ConstTensorView v{v_data.data(), {kBatch, kSeqlenK, kHeadsKv, kDim}};
  mi::TensorView out{out_data.data(), {kBatch, kSeqlenQ, kHeadsQ, kDim}};
  mi::TensorView lse{lse_data.data(), {kBatch, kHeadsQ, kSeqlenQ}};
  mi::TensorView tiles{tiles_data.data(), {kBatch, kHeadsQ}};
};

template <typename Call>
void check_throws(std::optional<mi::ErrorCode> code, const std::string& text, const Call& call) {
  try {
    call();
    CHECK(false && "expected an Error");
  } catch (const mi::Error& error) {
    CHECK(!code || error.code() == *code);
    CHECK(std::string(error.what()).find(text) != std::string::npos);
  }
}

void test_views() {
  float data[24] = {};
  const mi::TensorView contiguous(data, {2, 3, 4});
  CHECK(contiguous.ndim() == 3 && contiguous.dtype() == mi::DType::kFloat32);
  CHECK(contiguous.stride(0) == 12 && contiguous.stride(1) == 4 && contiguous.stride(2) == 1);
  CHECK(contiguous.c_tensor().data == data && !contiguous.absent());

  const mi::ConstTensorView empty(data, {2, 0, 4});  // Strides as if the empty dimension were 1.
  CHECK(empty.stride(0) == 4 && empty.stride(1) == 4);

  const mi::TensorView strided(data, mi::DType::kBFloat16, {2, 3}, {1, 2});
  CHECK(strided.stride(0) == 1 && strided.stride(1) == 2);
  CHECK(strided.dtype() == mi::DType::kBFloat16);

  CHECK(mi::TensorView().absent());
  check_throws(mi::ErrorCode::kInvalidArgument, "one stride per dimension",
               [&] { const mi::TensorView view(data, {2, 3}, {1, 2, 3}); });
  check_throws(mi::ErrorCode::kInvalidArgument, "1 to 4 dimensions",
               [&] { const mi::TensorView view(data, {1, 2, 3, 4, 5}); });
  // Sizes that overflow must reach the library and be refused there.
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  Problem p;
  check_throws(mi::ErrorCode::kInvalidArgument, "q", [&] {
    mi::prefill_attention({data, {kHuge, kHuge, kHuge, kDim}}, p.k, p.v, {mi::dense()}, p.out);
  });
}

/// Dense attention by its definition, for one row.
void check_dense_row(const Problem& p, int64_t batch, int64_t head, int64_t row) {
  const auto at = [](const std::vector<float>& data, int64_t seqlen, int64_t heads, int64_t b,
                     int64_t s, int64_t h) {
    return &data[static_cast<std::size_t>(((b * seqlen + s) * heads + h) * kDim)];
  };
  const int64_t head_kv = head / (kHeadsQ / kHeadsKv);
  const float* q = at(p.q_data, kSeqlenQ, kHeadsQ, batch, row, head);
  std::array<double, kDim> want{};
  double row_sum = 0;
  for (int64_t j = 0; j <= row + kSeqlenK - kSeqlenQ; ++j) {
    const float* k = at(p.k_data, kSeqlenK, kHeadsKv, batch, j, head_kv);
    const float* v = at(p.v_data, kSeqlenK, kHeadsKv, batch, j, head_kv);
    double score = 0;
    for (int64_t d = 0; d < kDim; ++d) score += double{q[d]} * double{k[d]};
    const double weight = std::exp(score / std::sqrt(double{kDim}));
    row_sum += weight;
    for (std::size_t d = 0; d < kDim; ++d) want[d] += weight * double{v[d]};
  }
  const float* out = at(p.out_data, kSeqlenQ, kHeadsQ, batch, row, head);
  for (std::size_t d = 0; d < kDim; ++d) {
    // float32 parts err by some 1e-6 of values around 1.
    CHECK(std::fabs(double{out[d]} - want[d] / row_sum) < 1e-5);
  }
  const auto lse_index = static_cast<std::size_t>((batch * kHeadsQ + head) * kSeqlenQ + row);
  CHECK(std::fabs(double{p.lse_data[lse_index]} - std::log(row_sum)) < 1e-5);
}

void test_prefill() {
  Problem p;
  mi::PrefillOptions options;
  options.lse = p.lse;
  options.tiles = p.tiles;
  mi::prefill_attention(p.q, p.k, p.v, {mi::dense()}, p.out, options);
  for (const int64_t row : {0, 63, 64, 129}) {
    check_dense_row(p, /*batch=*/0, /*head=*/0, row);
    check_dense_row(p, /*batch=*/1, /*head=*/3, row);
  }
  // Row blocks end at keys 134, 198 and 200: 3, 4 and 4 tiles.
  CHECK(p.tiles_data == std::vector<int64_t>(kBatch * kHeadsQ, 3 + 4 + 4));

  // The same with the caller's workspace, and without the optional outputs.
  const std::vector<float> want = p.out_data;
  std::vector<std::byte> memory(mi::prefill_attention_workspace_bytes(p.q, p.k, {mi::dense()}));
  mi::Exec exec;
  exec.workspace = {memory.data(), memory.size()};
  std::fill(p.out_data.begin(), p.out_data.end(), -7.0f);
  mi::prefill_attention(p.q, p.k, p.v, {mi::dense()}, p.out, {}, exec);
  CHECK(p.out_data == want);

  exec.workspace.bytes -= 1;
  check_throws(mi::ErrorCode::kWorkspaceTooSmall, "workspace",
               [&] { mi::prefill_attention(p.q, p.k, p.v, {mi::dense()}, p.out, {}, exec); });
}

void test_stages_equal_prefill() {
  Problem p;
  const std::vector<mi::Pattern> patterns = {
      mi::vertical_slash(/*vertical_size=*/40, /*slash_size=*/120), mi::block_sparse(/*top_k=*/2),
      mi::a_shape(/*sink=*/5, /*window=*/20), mi::tri_shape(/*sink=*/5, /*window=*/20, /*last=*/7)};
  mi::PrefillOptions options;
  options.lse = p.lse;
  options.tiles = p.tiles;
  mi::prefill_attention(p.q, p.k, p.v, patterns, p.out, options);
  const std::vector<float> want_out = p.out_data, want_lse = p.lse_data;
  const std::vector<int64_t> want_tiles = p.tiles_data;

  constexpr int64_t kVertical = 40, kSlash = 120, kTopK = 2, kRowBlocks = 3;
  const int64_t num_runs = mi::max_runs(kSlash, kSeqlenK);
  const auto make = [](int64_t count) {
    return std::vector<int32_t>(static_cast<std::size_t>(count));
  };
  std::vector<int32_t> vertical = make(kBatch * kHeadsQ * kVertical);
  std::vector<int32_t> slash = make(kBatch * kHeadsQ * kSlash);
  std::vector<int32_t> runs = make(kBatch * kHeadsQ * num_runs * 2);
  std::vector<int32_t> run_count = make(kBatch * kHeadsQ);
  std::vector<int32_t> blocks = make(kBatch * kHeadsQ * kRowBlocks * kTopK);
  const mi::TensorView vertical_view(vertical.data(), {kBatch, kHeadsQ, kVertical});
  const mi::TensorView slash_view(slash.data(), {kBatch, kHeadsQ, kSlash});
  const mi::TensorView runs_view(runs.data(), {kBatch, kHeadsQ, num_runs, 2});
  const mi::TensorView run_count_view(run_count.data(), {kBatch, kHeadsQ});
  const mi::TensorView blocks_view(blocks.data(), {kBatch, kHeadsQ, kRowBlocks, kTopK});

  mi::estimate_vertical_slash(p.q, p.k, vertical_view, slash_view);
  mi::estimate_block_sparse(p.q, p.k, blocks_view);
  mi::plan_vertical_slash(slash_view, kSeqlenK, runs_view, run_count_view);
  const mi::SparseIndex index{patterns, vertical_view, runs_view, run_count_view, blocks_view};
  mi::sparse_attention(p.q, p.k, p.v, index, p.out, p.lse);
  mi::count_key_tiles(kBatch, kHeadsQ, kSeqlenQ, kSeqlenK, index, p.tiles);
  CHECK(p.out_data == want_out);
  CHECK(p.lse_data == want_lse);
  CHECK(p.tiles_data == want_tiles);
}

void test_merge() {
  Problem p, other;
  mi::PrefillOptions options;
  options.lse = p.lse;
  mi::prefill_attention(p.q, p.k, p.v, {mi::dense()}, p.out, options);
  // Merging with nothing leaves attention unchanged.
  const std::vector<float> want = p.out_data;
  std::fill(other.lse_data.begin(), other.lse_data.end(), -std::numeric_limits<float>::infinity());
  std::fill(other.out_data.begin(), other.out_data.end(), std::nanf(""));
  mi::merge_attention(p.out, p.lse, other.out, other.lse, p.out, p.lse);
  CHECK(p.out_data == want);
}

void test_errors() {
  Problem p;
  check_throws(mi::ErrorCode::kInvalidArgument, "seqlen_q", [&] {
    mi::prefill_attention(p.k, {p.q_data.data(), {kBatch, kSeqlenQ, kHeadsKv, kDim}}, p.v,
                          {mi::dense()}, p.out);
  });
  check_throws(mi::ErrorCode::kInvalidArgument, "patterns",
               [&] { mi::prefill_attention(p.q, p.k, p.v, {mi::dense(), mi::dense()}, p.out); });
  // Without a GPU this fails for that reason; with one, because of the dtype.
  const std::vector<mi::Capability> backends = mi::backends();
  const mi::Capability sm80 = backends[backends.size() - 2];
  CHECK(sm80.name == "sm80");
  check_throws(
      std::nullopt, sm80.available ? "bfloat16 or float16 on CUDA devices" : sm80.reason, [&] {
        const mi::Device cuda{mi::DeviceType::kCuda, 0};
        mi::prefill_attention({p.q_data.data(), {kBatch, kSeqlenQ, kHeadsQ, kDim}, cuda},
                              {p.k_data.data(), {kBatch, kSeqlenK, kHeadsKv, kDim}, cuda},
                              {p.v_data.data(), {kBatch, kSeqlenK, kHeadsKv, kDim}, cuda},
                              {mi::dense()},
                              {p.out_data.data(), {kBatch, kSeqlenQ, kHeadsQ, kDim}, cuda});
      });
  CHECK(std::all_of(p.out_data.begin(), p.out_data.end(), [](float x) { return x == -7.0f; }));
}

void test_capabilities() {
  CHECK(mi::version() == std::to_string(MINF_VERSION_MAJOR) + "." +
                             std::to_string(MINF_VERSION_MINOR) + "." +
                             std::to_string(MINF_VERSION_PATCH));
  CHECK(!mi::build_info().empty());
  const auto selected = [](const std::vector<mi::Capability>& capabilities) {
    std::vector<std::string> names;
    for (const mi::Capability& c : capabilities) {
      CHECK(c.available == c.reason.empty());
      if (c.selected) names.push_back(c.name);
    }
    return names;
  };
  const std::vector<std::string> backends = selected(mi::backends());
  CHECK(!backends.empty() && backends.back() == "cpu");
  CHECK(mi::cpu_isas().back().name == "portable" && mi::cpu_isas().back().available);

  const std::vector<std::string> best = selected(mi::cpu_isas());
  mi::set_cpu_isa("portable");
  CHECK(selected(mi::cpu_isas()) == std::vector<std::string>{"portable"});
  mi::set_cpu_isa(nullptr);
  CHECK(selected(mi::cpu_isas()) == best && best.size() == 1);
  check_throws(mi::ErrorCode::kInvalidArgument, "abacus", [] { mi::set_cpu_isa("abacus"); });
}

void test_backends() {
  for (const mi::Capability& backend : mi::backends()) {
    if (backend.available) {
      mi::set_backend(backend.name.c_str());
    } else {
      check_throws(std::nullopt, backend.reason, [&] { mi::set_backend(backend.name.c_str()); });
    }
    mi::set_backend(nullptr);
  }
  check_throws(mi::ErrorCode::kInvalidArgument,
               "backend: expected one of sm90, sm80, cpu, got abacus",
               [] { mi::set_backend("abacus"); });
  CHECK(mi::min_sparse_seqlen() > 0);
}

}  // namespace

int main() {
  test_views();
  test_prefill();
  test_stages_equal_prefill();
  test_merge();
  test_errors();
  test_capabilities();
  test_backends();
  return minference::test::finish();
}
