// torch.ops.minference.*: adapters first, the table of contents last.
//
// Shapes, dtypes and devices are checked in libminference, so that C, C++ and Python users read the
// same message; here is checked only what would not survive the conversion to minference.h. Outputs
// are contiguous, whatever the strides of the inputs. Fake kernels and autograd:
// minference/_library.py.
// SPDX-License-Identifier: Apache-2.0
#include <tuple>

#include "torch/interop.h"

namespace minference::torch_ops {
namespace {

using torch::headeronly::ScalarType;
using TensorPair = std::tuple<Tensor, Tensor>;

/// out and lse for rank-4 queries; lse is empty if not wanted.
TensorPair empty_outputs(const Tensor& q, int64_t head_dim_v, bool wants_lse = true) {
  return {empty_on(q, {q.size(0), q.size(1), q.size(2), head_dim_v}, q.scalar_type()),
          empty_on(q, {q.size(0), q.size(2), wants_lse ? q.size(1) : 0}, ScalarType::Float)};
}

/// head_dim_v of an out for `v`. A v that is wider than minference.h allows is refused only after
/// out has been allocated, so the size of out is limited here.
int64_t head_dim_of_out(const Tensor& v) {
  check_rank(v, 4, "v");
  return std::min<int64_t>(v.size(3), MINF_MAX_HEAD_DIM);
}

// ---- Stage 1 -------------------------------------------------------------------------------

TensorPair estimate_vs(const Tensor& q, const Tensor& k, int64_t vertical_size, int64_t slash_size,
                       std::optional<double> softmax_scale, int64_t last_q, int64_t sink,
                       int64_t local, double vertical_p, double slash_p) {
  const minf_tensor q_view = view_of(q, "q");
  const minf_tensor k_view = view_of(k, "k");
  const int64_t num_columns = size_argument(vertical_size, "vertical_size");
  const int64_t num_distances = size_argument(slash_size, "slash_size");
  minf_vertical_slash_options options = minf_vertical_slash_options_default();
  options.softmax_scale = pointer_or_null(softmax_scale);
  options.last_q = size_argument(last_q, "last_q");
  options.sink = size_argument(sink, "sink");
  options.local = size_argument(local, "local");
  options.vertical_p = vertical_p;
  options.slash_p = slash_p;
  const minf_exec exec = torch_exec(q);

  std::size_t bytes = 0;
  check(minf_estimate_vertical_slash_workspace_bytes(&q_view, &k_view, &options, &exec, &bytes));
  const Workspace workspace(q, bytes);
  const int64_t seqlen_k = k.size(1);
  const Tensor vertical_index = empty_on(
      q, {q.size(0), q.size(2), std::min(seqlen_k, std::max(num_columns, sink))}, ScalarType::Int);
  const Tensor slash_index =
      empty_on(q, {q.size(0), q.size(2), std::min(seqlen_k, std::max(num_distances, local))},
               ScalarType::Int);
  const minf_tensor vertical_view = mutable_view_of(vertical_index, "vertical_index");
  const minf_tensor slash_view = mutable_view_of(slash_index, "slash_index");
  check(minf_estimate_vertical_slash(&q_view, &k_view, &options, &vertical_view, &slash_view,
                                     workspace.data(), workspace.bytes(), &exec));
  return {vertical_index, slash_index};
}

Tensor estimate_blocks(const Tensor& q, const Tensor& k, int64_t top_k,
                       std::optional<double> softmax_scale, double top_p) {
  const minf_tensor q_view = view_of(q, "q");
  const minf_tensor k_view = view_of(k, "k");
  const int64_t num_blocks = size_argument(top_k, "top_k");
  minf_block_sparse_options options = minf_block_sparse_options_default();
  options.softmax_scale = pointer_or_null(softmax_scale);
  options.top_p = top_p;
  const minf_exec exec = torch_exec(q);

  std::size_t bytes = 0;
  check(minf_estimate_block_sparse_workspace_bytes(&q_view, &k_view, &options, &exec, &bytes));
  const Workspace workspace(q, bytes);
  const Tensor block_index =
      empty_on(q, {q.size(0), q.size(2), (q.size(1) + MINF_BLOCK - 1) / MINF_BLOCK, num_blocks},
               ScalarType::Int);
  const minf_tensor block_view = mutable_view_of(block_index, "block_index");
  check(minf_estimate_block_sparse(&q_view, &k_view, &options, &block_view, workspace.data(),
                                   workspace.bytes(), &exec));
  return block_index;
}

// ---- Stages 2 and 3 ------------------------------------------------------------------------

minf_sparse_index sparse_index(const minf_pattern* patterns, std::size_t num_patterns) {
  minf_sparse_index index{};
  index.struct_size = sizeof(index);
  index.patterns = patterns;
  index.num_patterns = static_cast<int64_t>(num_patterns);
  return index;
}

struct Runs {
  Tensor runs;       // int32 [batch, num_heads_q, max_runs, 2]
  Tensor run_count;  // int32 [batch, num_heads_q]

  void add_to(minf_sparse_index& index) const {
    index.runs = view_of(runs, "runs");
    index.run_count = view_of(run_count, "run_count");
  }
};

Runs plan_runs(const Tensor& slash_index, int64_t seqlen_k) {
  check_rank(slash_index, 3, "slash_index");
  const int64_t batch = slash_index.size(0);
  const int64_t num_heads_q = slash_index.size(1);
  const int64_t max_runs = minf_max_runs(slash_index.size(2), seqlen_k);
  const Runs plan{empty_on(slash_index, {batch, num_heads_q, max_runs, 2}, ScalarType::Int),
                  empty_on(slash_index, {batch, num_heads_q}, ScalarType::Int)};

  const minf_tensor slash_view = view_of(slash_index, "slash_index");
  const minf_tensor runs_view = mutable_view_of(plan.runs, "runs");
  const minf_tensor run_count_view = mutable_view_of(plan.run_count, "run_count");
  const minf_exec exec = torch_exec(slash_index);
  check(minf_plan_vertical_slash(&slash_view, seqlen_k, &runs_view, &run_count_view, &exec));
  return plan;
}

TensorPair sparse_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                            const minf_sparse_index& index,
                            const std::optional<double>& softmax_scale) {
  const minf_tensor q_view = view_of(q, "q");
  const minf_tensor k_view = view_of(k, "k");
  const minf_tensor v_view = view_of(v, "v");
  const minf_attention_options options = attention_options(softmax_scale);
  const minf_exec exec = torch_exec(q);

  std::size_t bytes = 0;
  check(minf_sparse_attention_workspace_bytes(&q_view, &k_view, &index, &exec, &bytes));
  const Workspace workspace(q, bytes);
  const auto [out, lse] = empty_outputs(q, head_dim_of_out(v));
  const minf_tensor out_view = mutable_view_of(out, "out");
  const minf_tensor lse_view = mutable_view_of(lse, "lse");
  check(minf_sparse_attention(&q_view, &k_view, &v_view, &index, &options, &out_view, &lse_view,
                              workspace.data(), workspace.bytes(), &exec));
  return {out, lse};
}

TensorPair vs_sparse_attn(const Tensor& q, const Tensor& k, const Tensor& v,
                          const Tensor& vertical_index, const Tensor& slash_index,
                          std::optional<double> softmax_scale) {
  check_rank(k, 4, "k");
  const minf_pattern pattern = minf_pattern_default(MINF_VERTICAL_SLASH);
  minf_sparse_index index = sparse_index(&pattern, /*num_patterns=*/1);
  index.vertical_index = view_of(vertical_index, "vertical_index");
  const Runs plan = plan_runs(slash_index, k.size(1));
  plan.add_to(index);
  return sparse_attention(q, k, v, index, softmax_scale);
}

TensorPair block_index_attn(const Tensor& q, const Tensor& k, const Tensor& v,
                            const Tensor& block_index, std::optional<double> softmax_scale) {
  const minf_pattern pattern = minf_pattern_default(MINF_BLOCK_SPARSE);
  minf_sparse_index index = sparse_index(&pattern, /*num_patterns=*/1);
  index.block_index = view_of(block_index, "block_index");
  return sparse_attention(q, k, v, index, softmax_scale);
}

TensorPair merge_attn(const Tensor& out_a, const Tensor& lse_a, const Tensor& out_b,
                      const Tensor& lse_b) {
  check_rank(out_a, 4, "out_a");
  const minf_tensor out_a_view = view_of(out_a, "out_a");
  const minf_tensor lse_a_view = view_of(lse_a, "lse_a");
  const minf_tensor out_b_view = view_of(out_b, "out_b");
  const minf_tensor lse_b_view = view_of(lse_b, "lse_b");
  const auto [out, lse] = empty_outputs(out_a, out_a.size(3));
  const minf_tensor out_view = mutable_view_of(out, "out");
  const minf_tensor lse_view = mutable_view_of(lse, "lse");
  const minf_exec exec = torch_exec(out_a);
  check(minf_merge_attention(&out_a_view, &lse_a_view, &out_b_view, &lse_b_view, &out_view,
                             &lse_view, &exec));
  return {out, lse};
}

// ---- All stages ----------------------------------------------------------------------------

TensorPair prefill(const Tensor& q, const Tensor& k, const Tensor& v,
                   const std::vector<minf_pattern>& patterns,
                   const std::optional<double>& softmax_scale, bool wants_lse) {
  const minf_tensor q_view = view_of(q, "q");
  const minf_tensor k_view = view_of(k, "k");
  const minf_tensor v_view = view_of(v, "v");
  const auto num_patterns = static_cast<int64_t>(patterns.size());
  const minf_attention_options options = attention_options(softmax_scale);
  const minf_exec exec = torch_exec(q);

  std::size_t bytes = 0;
  check(minf_prefill_attention_workspace_bytes(&q_view, &k_view, patterns.data(), num_patterns,
                                               &exec, &bytes));
  const Workspace workspace(q, bytes);
  const auto [out, lse] = empty_outputs(q, head_dim_of_out(v), wants_lse);
  const minf_tensor out_view = mutable_view_of(out, "out");
  const minf_tensor lse_view = wants_lse ? mutable_view_of(lse, "lse") : minf_tensor{};
  check(minf_prefill_attention(&q_view, &k_view, &v_view, patterns.data(), num_patterns, &options,
                               &out_view, &lse_view, /*tiles=*/nullptr, workspace.data(),
                               workspace.bytes(), &exec));
  return {out, lse};
}

/// Sets an option of all vertical-slash heads, if it is given.
void set_option(std::vector<minf_pattern>& patterns, int32_t minf_vertical_slash::* option,
                const std::optional<int64_t>& value, const char* name) {
  if (!value) return;
  for (minf_pattern& pattern : patterns) {
    if (pattern.kind != MINF_VERTICAL_SLASH) continue;
    pattern.as.vertical_slash.*option = size_argument(*value, name);
  }
}

TensorPair prefill_attn(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& patterns,
                        std::optional<double> softmax_scale, std::optional<int64_t> last_q,
                        std::optional<int64_t> sink, std::optional<int64_t> local) {
  std::vector<minf_pattern> heads = patterns_of(patterns);
  set_option(heads, &minf_vertical_slash::last_q, last_q, "last_q");
  set_option(heads, &minf_vertical_slash::sink, sink, "sink");
  set_option(heads, &minf_vertical_slash::local, local, "local");
  return prefill(q, k, v, heads, softmax_scale, /*wants_lse=*/true);
}

Tensor vs_attn(const Tensor& q, const Tensor& k, const Tensor& v, int64_t vertical_size,
               int64_t slash_size, std::optional<double> softmax_scale, int64_t last_q,
               int64_t sink, int64_t local) {
  minf_pattern pattern = minf_pattern_default(MINF_VERTICAL_SLASH);
  minf_vertical_slash& fields = pattern.as.vertical_slash;
  fields.vertical_size = size_argument(vertical_size, "vertical_size");
  fields.slash_size = size_argument(slash_size, "slash_size");
  fields.last_q = size_argument(last_q, "last_q");
  fields.sink = size_argument(sink, "sink");
  fields.local = size_argument(local, "local");
  return std::get<0>(prefill(q, k, v, {pattern}, softmax_scale, /*wants_lse=*/false));
}

Tensor a_shape_attn(const Tensor& q, const Tensor& k, const Tensor& v, int64_t sink, int64_t window,
                    std::optional<double> softmax_scale) {
  minf_pattern pattern = minf_pattern_default(MINF_A_SHAPE);
  pattern.as.a_shape.sink = size_argument(sink, "sink");
  pattern.as.a_shape.window = size_argument(window, "window");
  return std::get<0>(prefill(q, k, v, {pattern}, softmax_scale, /*wants_lse=*/false));
}

Tensor block_sparse_attn(const Tensor& q, const Tensor& k, const Tensor& v, int64_t top_k,
                         std::optional<double> softmax_scale) {
  minf_pattern pattern = minf_pattern_default(MINF_BLOCK_SPARSE);
  pattern.as.block_sparse.top_k = size_argument(top_k, "top_k");
  return std::get<0>(prefill(q, k, v, {pattern}, softmax_scale, /*wants_lse=*/false));
}

// ---- Work ----------------------------------------------------------------------------------

/// Checks q, k and the patterns together, by a query that reads no memory. The CPU backend answers
/// it, because counting does not need the dtypes and alignment that a GPU demands.
void check_together(const Tensor& q, const Tensor& k, const std::vector<minf_pattern>& patterns) {
  minf_tensor q_view = view_of(q, "q");
  minf_tensor k_view = view_of(k, "k");
  if (q.device() == k.device()) q_view.device_type = k_view.device_type = MINF_DEVICE_CPU;
  std::size_t bytes = 0;
  check(minf_prefill_attention_workspace_bytes(&q_view, &k_view, patterns.data(),
                                               static_cast<int64_t>(patterns.size()),
                                               /*exec=*/nullptr, &bytes));
}

/// Fills `index`, whose lists lie in the result.
Workspace build_index(const Tensor& q, const Tensor& k, const std::vector<minf_pattern>& patterns,
                      const std::optional<double>& softmax_scale, minf_sparse_index& index) {
  const minf_tensor q_view = view_of(q, "q");
  const minf_tensor k_view = view_of(k, "k");
  const auto num_patterns = static_cast<int64_t>(patterns.size());
  const minf_attention_options options = attention_options(softmax_scale);
  const minf_exec exec = torch_exec(q);
  std::size_t index_bytes = 0, workspace_bytes = 0;
  check(minf_build_index_bytes(&q_view, &k_view, patterns.data(), num_patterns, &exec, &index_bytes,
                               &workspace_bytes));
  Workspace lists(q, index_bytes);
  const Workspace workspace(q, workspace_bytes);
  check(minf_build_index(&q_view, &k_view, patterns.data(), num_patterns, &options, &index,
                         lists.data(), lists.bytes(), workspace.data(), workspace.bytes(), &exec));
  return lists;
}

Tensor count_key_tiles(const Tensor& q, const Tensor& k, const Tensor& patterns,
                       std::optional<double> softmax_scale) {
  const std::vector<minf_pattern> heads = patterns_of(patterns);
  check_together(q, k, heads);
  const minf_exec exec = torch_exec(q);
  const Tensor tiles = empty_on(q, {q.size(0), q.size(2)}, ScalarType::Long);
  const minf_tensor tiles_view = mutable_view_of(tiles, "tiles");
  minf_sparse_index index = sparse_index(heads.data(), heads.size());
  const bool estimated = std::any_of(heads.begin(), heads.end(), [](const minf_pattern& pattern) {
    return pattern.kind == MINF_VERTICAL_SLASH || pattern.kind == MINF_BLOCK_SPARSE;
  });
  std::optional<Workspace> lists;
  if (estimated) lists = build_index(q, k, heads, softmax_scale, index);
  check(
      minf_count_key_tiles(q.size(0), q.size(2), q.size(1), k.size(1), &index, &tiles_view, &exec));
  return tiles;
}

}  // namespace

// Each op has one function for all devices: libminference selects the backend by the tensors, or
// says why none serves them.
void register_ops(torch::stable::detail::StableLibrary& m) {
  m.impl("vs_attn", TORCH_BOX(&vs_attn));
  m.impl("a_shape_attn", TORCH_BOX(&a_shape_attn));
  m.impl("block_sparse_attn", TORCH_BOX(&block_sparse_attn));
  m.impl("prefill_attn", TORCH_BOX(&prefill_attn));
  m.impl("estimate_vs", TORCH_BOX(&estimate_vs));
  m.impl("estimate_blocks", TORCH_BOX(&estimate_blocks));
  m.impl("vs_sparse_attn", TORCH_BOX(&vs_sparse_attn));
  m.impl("block_index_attn", TORCH_BOX(&block_index_attn));
  m.impl("merge_attn", TORCH_BOX(&merge_attn));
  m.impl("count_key_tiles", TORCH_BOX(&count_key_tiles));
}

}  // namespace minference::torch_ops

#define STRING(x) #x
#define DEFAULT(x) STRING(x)
#define LIST_OPTIONS                                                      \
  "SymInt last_q=" DEFAULT(MINF_DEFAULT_LAST_Q) ", SymInt sink=" DEFAULT( \
      MINF_DEFAULT_SINK) ", SymInt local=" DEFAULT(MINF_DEFAULT_LOCAL)

// q [batch, seqlen_q, num_heads_q, head_dim]; k [batch, seqlen_k, num_heads_kv, head_dim]; v and
// out likewise, with head_dim_v; lse [batch, num_heads_q, seqlen_q] float32; indices int32, tiles
// int64 [batch, num_heads_q].
STABLE_TORCH_LIBRARY(minference, m) {
  m.def(
      "vs_attn(Tensor q, Tensor k, Tensor v, SymInt vertical_size, SymInt slash_size, *, "
      "float? softmax_scale=None, " LIST_OPTIONS ") -> Tensor");
  m.def(
      "a_shape_attn(Tensor q, Tensor k, Tensor v, SymInt sink, SymInt window, *, "
      "float? softmax_scale=None) -> Tensor");
  m.def(
      "block_sparse_attn(Tensor q, Tensor k, Tensor v, SymInt top_k, *, "
      "float? softmax_scale=None) -> Tensor");
  // patterns: float64 [num_heads_q or 1, 8] on the CPU, rows of minf_pattern_from_numbers(); or
  // int32 [.., 4] with the first 4 of their numbers. last_q, sink and local replace the patterns'.
  m.def(
      "prefill_attn(Tensor q, Tensor k, Tensor v, Tensor patterns, *, "
      "float? softmax_scale=None, SymInt? last_q=None, SymInt? sink=None, SymInt? local=None) "
      "-> (Tensor out, Tensor lse)");
  m.def(
      "estimate_vs(Tensor q, Tensor k, SymInt vertical_size, SymInt slash_size, *, "
      "float? softmax_scale=None, " LIST_OPTIONS
      ", "
      "float vertical_p=1.0, float slash_p=1.0) -> (Tensor vertical_index, Tensor slash_index)");
  m.def(
      "estimate_blocks(Tensor q, Tensor k, SymInt top_k, *, float? softmax_scale=None, "
      "float top_p=1.0) -> Tensor");
  m.def(
      "vs_sparse_attn(Tensor q, Tensor k, Tensor v, Tensor vertical_index, Tensor slash_index, "
      "*, float? softmax_scale=None) -> (Tensor out, Tensor lse)");
  m.def(
      "block_index_attn(Tensor q, Tensor k, Tensor v, Tensor block_index, *, "
      "float? softmax_scale=None) -> (Tensor out, Tensor lse)");
  m.def(
      "merge_attn(Tensor out_a, Tensor lse_a, Tensor out_b, Tensor lse_b) "
      "-> (Tensor out, Tensor lse)");
  m.def(
      "count_key_tiles(Tensor q, Tensor k, Tensor patterns, *, float? softmax_scale=None) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(minference, CPU, m) { minference::torch_ops::register_ops(m); }
STABLE_TORCH_LIBRARY_IMPL(minference, CUDA, m) { minference::torch_ops::register_ops(m); }
