// The C++17 surface of minference: minference.h with typed views, defaults and exceptions.
//
// Header only, over the C functions, so that libminference keeps one binary boundary. Semantics,
// conventions (layout, causality, granularity, units) and sources are those of minference.h; this
// file says what C++ adds. A failed call throws Error and leaves the outputs untouched. A call
// returns when its result is written (CPU) or its work is enqueued (CUDA). If tensors are on a GPU,
// every function also throws Error with the codes that only CUDA has, from kNoDevice on, and
// kWorkspaceTooSmall without Exec::workspace.
//
//     minference::TensorView out(out_data, {batch, seqlen_q, num_heads_q, head_dim});
//     minference::prefill_attention(q, k, v, {minference::vertical_slash(1000, 6096)}, out);
//
// On a GPU the caller also brings a stream and work memory, for every function that has a
// *_workspace_bytes beside it:
//
//     minference::Exec exec;
//     exec.stream = stream;
//     exec.workspace.bytes = minference::prefill_attention_workspace_bytes(q, k, patterns);
//     cudaMallocAsync(&exec.workspace.data, exec.workspace.bytes, stream);
//     minference::prefill_attention(q, k, v, patterns, out, {}, exec);
//
// SPDX-License-Identifier: Apache-2.0
#ifndef MINFERENCE_MINFERENCE_HPP_
#define MINFERENCE_MINFERENCE_HPP_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "minference/minference.h"
#include "minference/types.hpp"

namespace minference {

// ---- From C++ to C --------------------------------------------------------------------------

namespace detail {

inline minf_exec to_c(const Exec& exec) {
  return {sizeof(minf_exec),        exec.stream, exec.num_threads, 0, exec.parallel_for,
          exec.parallel_for_context};
}

inline const double* to_c(const SoftmaxScale& scale) { return scale ? &*scale : nullptr; }

/// Calls call(data, bytes) with the caller's workspace. On the CPU, if there is none, allocates
/// size() bytes for the call; device memory is never allocated.
template <typename Size, typename Call>
void with_workspace(const ConstTensorView& q, const Exec& exec, const Size& size,
                    const Call& call) {
  if (exec.workspace.data != nullptr || q.device().type == DeviceType::kCuda) {
    return check(call(exec.workspace.data, exec.workspace.bytes));
  }
  const std::size_t bytes = size();
  const std::unique_ptr<std::byte[]> memory(new (std::nothrow) std::byte[bytes]);  // Uninitialised.
  if (!memory) {
    throw Error(ErrorCode::kOutOfMemory,
                "workspace: cannot allocate " + std::to_string(bytes) + " bytes");
  }
  check(call(memory.get(), bytes));
}

}  // namespace detail

// ---- Stage 1: estimate -----------------------------------------------------------------------

/// How estimate_vertical_slash() scores; see minf_vertical_slash_options.
struct VerticalSlashOptions {
  SoftmaxScale softmax_scale;
  int32_t last_q = MINF_DEFAULT_LAST_Q;  // Rows that estimate, counted from the end; 1 to 64.
  int32_t sink = MINF_DEFAULT_SINK;      // First columns, always kept. >= 0.
  int32_t local = MINF_DEFAULT_LOCAL;    // Distances [0, local), always kept. >= 0.
  double vertical_p = 1;                 // Mass budgets in (0, 1]; 1 = off.
  double slash_p = 1;
};

/// How estimate_block_sparse() selects; see minf_block_sparse_options.
struct BlockSparseOptions {
  SoftmaxScale softmax_scale;  // Only the mass budget uses it.
  double top_p = 1;            // Mass budget in (0, 1]; 1 = off.
};

namespace detail {

/// The result points into `options`.
inline minf_vertical_slash_options to_c(const VerticalSlashOptions& options) {
  return {sizeof(minf_vertical_slash_options),
          to_c(options.softmax_scale),
          options.last_q,
          options.sink,
          options.local,
          0,
          options.vertical_p,
          options.slash_p};
}

inline minf_block_sparse_options to_c(const BlockSparseOptions& options) {
  return {sizeof(minf_block_sparse_options), to_c(options.softmax_scale), options.top_p};
}

}  // namespace detail

/// Returns the bytes of work memory that estimate_vertical_slash() needs for these arguments.
/// @throws Error{kInvalidArgument} where that call would.
inline std::size_t estimate_vertical_slash_workspace_bytes(const ConstTensorView& q,
                                                           const ConstTensorView& k,
                                                           const VerticalSlashOptions& options = {},
                                                           const Exec& exec = {}) {
  const minf_vertical_slash_options c_options = detail::to_c(options);
  const minf_exec c_exec = detail::to_c(exec);
  std::size_t bytes = 0;
  detail::check(minf_estimate_vertical_slash_workspace_bytes(&q.c_tensor(), &k.c_tensor(),
                                                             &c_options, &c_exec, &bytes));
  return bytes;
}

/// Selects, per query head, the key columns and the distances that the last rows attend most.
///
///     q               [batch, seqlen_q, num_heads_q,  head_dim]  float32 | bfloat16 | float16
///     k               [batch, seqlen_k, num_heads_kv, head_dim]  dtype and device of q
///     vertical_index  [batch, num_heads_q, vertical_size]        int32, out, ascending
///     slash_index     [batch, num_heads_q, slash_size]           int32, out, ascending
///
/// Formula, sizes, ties and fill: minf_estimate_vertical_slash().
/// @throws Error{kInvalidArgument} on a shape, dtype, stride, device or option mismatch.
/// @throws Error{kUnsupported} if no built backend serves this device; the message says why.
inline void estimate_vertical_slash(const ConstTensorView& q, const ConstTensorView& k,
                                    const TensorView& vertical_index, const TensorView& slash_index,
                                    const VerticalSlashOptions& options = {},
                                    const Exec& exec = {}) {
  const minf_vertical_slash_options c_options = detail::to_c(options);
  const minf_exec c_exec = detail::to_c(exec);
  detail::with_workspace(
      q, exec, [&] { return estimate_vertical_slash_workspace_bytes(q, k, options, exec); },
      [&](void* data, std::size_t bytes) {
        return minf_estimate_vertical_slash(&q.c_tensor(), &k.c_tensor(), &c_options,
                                            &vertical_index.c_tensor(), &slash_index.c_tensor(),
                                            data, bytes, &c_exec);
      });
}

/// Returns the bytes of work memory that estimate_block_sparse() needs for these arguments.
/// @throws Error{kInvalidArgument} where that call would.
inline std::size_t estimate_block_sparse_workspace_bytes(const ConstTensorView& q,
                                                         const ConstTensorView& k,
                                                         const BlockSparseOptions& options = {},
                                                         const Exec& exec = {}) {
  const minf_block_sparse_options c_options = detail::to_c(options);
  const minf_exec c_exec = detail::to_c(exec);
  std::size_t bytes = 0;
  detail::check(minf_estimate_block_sparse_workspace_bytes(&q.c_tensor(), &k.c_tensor(), &c_options,
                                                           &c_exec, &bytes));
  return bytes;
}

/// Selects, per query head and row block, the key blocks with the largest mean-pooled score.
///
///     q, k         as in estimate_vertical_slash()
///     block_index  [batch, num_heads_q, ceil(seqlen_q / 64), top_k]  int32, out, ascending
///
/// Formula, forced blocks, ties and fill: minf_estimate_block_sparse().
/// @throws Error{kInvalidArgument} on a shape, dtype, stride, device or option mismatch.
/// @throws Error{kUnsupported} if no built backend serves this device; the message says why.
inline void estimate_block_sparse(const ConstTensorView& q, const ConstTensorView& k,
                                  const TensorView& block_index,
                                  const BlockSparseOptions& options = {}, const Exec& exec = {}) {
  const minf_block_sparse_options c_options = detail::to_c(options);
  const minf_exec c_exec = detail::to_c(exec);
  detail::with_workspace(
      q, exec, [&] { return estimate_block_sparse_workspace_bytes(q, k, options, exec); },
      [&](void* data, std::size_t bytes) {
        return minf_estimate_block_sparse(&q.c_tensor(), &k.c_tensor(), &c_options,
                                          &block_index.c_tensor(), data, bytes, &c_exec);
      });
}

// ---- Stage 2: plan ---------------------------------------------------------------------------

/// Returns the most runs that `slash_size` distances over `seqlen_k` keys can become.
inline int64_t max_runs(int64_t slash_size, int64_t seqlen_k) {
  return minf_max_runs(slash_size, seqlen_k);
}

/// Merges each head's distances into runs, the form that sparse_attention() reads.
///
///     slash_index  [batch, num_heads_q, slash_size]              int32, ascending, then -1
///     runs         [batch, num_heads_q, at least max_runs(), 2]  int32, out: (lo, hi), ascending
///     run_count    [batch, num_heads_q]                          int32, out
///
/// @throws Error{kInvalidArgument} on a shape, dtype or device mismatch, and (CPU) on a distance
/// that is out of range, unsorted or repeated.
inline void plan_vertical_slash(const ConstTensorView& slash_index, int64_t seqlen_k,
                                const TensorView& runs, const TensorView& run_count,
                                const Exec& exec = {}) {
  const minf_exec c_exec = detail::to_c(exec);
  detail::check(minf_plan_vertical_slash(&slash_index.c_tensor(), seqlen_k, &runs.c_tensor(),
                                         &run_count.c_tensor(), &c_exec));
}

// ---- Stage 3: compute ------------------------------------------------------------------------

/// The keys that each head attends; shapes in minf_sparse_index. A tensor that no head needs may be
/// absent. Only the kind of vertical-slash and block-sparse patterns is read.
struct SparseIndex {
  std::vector<Pattern> patterns;
  ConstTensorView vertical_index;
  ConstTensorView runs;
  ConstTensorView run_count;
  ConstTensorView block_index;
};

namespace detail {

/// The result points into `index`.
inline minf_sparse_index to_c(const SparseIndex& index) {
  return {sizeof(minf_sparse_index),
          index.patterns.data(),
          static_cast<int64_t>(index.patterns.size()),
          index.vertical_index.c_tensor(),
          index.runs.c_tensor(),
          index.run_count.c_tensor(),
          index.block_index.c_tensor()};
}

}  // namespace detail

/// Returns the bytes of work memory that sparse_attention() needs for these arguments.
/// @throws Error{kInvalidArgument} where that call would.
inline std::size_t sparse_attention_workspace_bytes(const ConstTensorView& q,
                                                    const ConstTensorView& k,
                                                    const SparseIndex& index,
                                                    const Exec& exec = {}) {
  const minf_sparse_index c_index = detail::to_c(index);
  const minf_exec c_exec = detail::to_c(exec);
  std::size_t bytes = 0;
  detail::check(minf_sparse_attention_workspace_bytes(&q.c_tensor(), &k.c_tensor(), &c_index,
                                                      &c_exec, &bytes));
  return bytes;
}

/// Computes exact softmax attention over the keys that `index` selects.
///
///     q    [batch, seqlen_q, num_heads_q,  head_dim]    float32 | bfloat16 | float16
///     k    [batch, seqlen_k, num_heads_kv, head_dim]    dtype and device of q
///     v    [batch, seqlen_k, num_heads_kv, head_dim_v]  dtype and device of q
///     out  [batch, seqlen_q, num_heads_q,  head_dim_v]  dtype and device of q
///     lse  [batch, num_heads_q, seqlen_q]               float32; absent to skip
///
/// Formula and edge cases: minf_sparse_attention().
/// @throws Error{kInvalidArgument} on a shape, dtype, stride or device mismatch, overlapping
/// outputs, and (CPU) on an index that is out of range, unsorted or repeated.
/// @throws Error{kUnsupported} if no built backend serves this device; the message says why.
inline void sparse_attention(const ConstTensorView& q, const ConstTensorView& k,
                             const ConstTensorView& v, const SparseIndex& index,
                             const TensorView& out, const TensorView& lse = {},
                             const SoftmaxScale& softmax_scale = {}, const Exec& exec = {}) {
  const minf_sparse_index c_index = detail::to_c(index);
  const minf_attention_options c_options = {sizeof(minf_attention_options),
                                            detail::to_c(softmax_scale)};
  const minf_exec c_exec = detail::to_c(exec);
  detail::with_workspace(
      q, exec, [&] { return sparse_attention_workspace_bytes(q, k, index, exec); },
      [&](void* data, std::size_t bytes) {
        return minf_sparse_attention(&q.c_tensor(), &k.c_tensor(), &v.c_tensor(), &c_index,
                                     &c_options, &out.c_tensor(), &lse.c_tensor(), data, bytes,
                                     &c_exec);
      });
}

/// Counts the 64-row x 64-key tiles that sparse_attention() computes for `index`.
///
///     tiles  [batch, num_heads_q]  int64, out; on the device of the index tensors, if any
///
/// @throws Error{kInvalidArgument} on a shape, dtype or device mismatch.
inline void count_key_tiles(int64_t batch, int64_t num_heads_q, int64_t seqlen_q, int64_t seqlen_k,
                            const SparseIndex& index, const TensorView& tiles,
                            const Exec& exec = {}) {
  const minf_sparse_index c_index = detail::to_c(index);
  const minf_exec c_exec = detail::to_c(exec);
  detail::check(minf_count_key_tiles(batch, num_heads_q, seqlen_q, seqlen_k, &c_index,
                                     &tiles.c_tensor(), &c_exec));
}

// ---- All stages ------------------------------------------------------------------------------

/// Bytes of memory that build_index() needs.
struct IndexBytes {
  std::size_t index = 0;      // For the index itself, which stays.
  std::size_t workspace = 0;  // For work memory, which may be freed when the call has run.
};

/// Returns the bytes of memory that build_index() needs for these arguments.
/// @throws Error{kInvalidArgument} where that call would.
inline IndexBytes build_index_bytes(const ConstTensorView& q, const ConstTensorView& k,
                                    const std::vector<Pattern>& patterns, const Exec& exec = {}) {
  const minf_exec c_exec = detail::to_c(exec);
  IndexBytes bytes;
  detail::check(minf_build_index_bytes(&q.c_tensor(), &k.c_tensor(), patterns.data(),
                                       static_cast<int64_t>(patterns.size()), &c_exec, &bytes.index,
                                       &bytes.workspace));
  return bytes;
}

/// Estimates and plans, so that sparse_attention() then computes what prefill_attention() does.
///
///     q, k      as in estimate_vertical_slash()
///     patterns  num_heads_q entries, or one for all heads
///     memory    holds the lists of the result, on the device of q; it must outlive them
///
/// @throws Error{kInvalidArgument} on a shape, dtype, stride, device or pattern mismatch.
/// @throws Error{kWorkspaceTooSmall} if `memory` is smaller than build_index_bytes() says.
/// @throws Error{kUnsupported} if no built backend serves this device; the message says why.
inline SparseIndex build_index(const ConstTensorView& q, const ConstTensorView& k,
                               const std::vector<Pattern>& patterns, const Workspace& memory,
                               const SoftmaxScale& softmax_scale = {}, const Exec& exec = {}) {
  SparseIndex index;
  index.patterns = patterns;
  minf_sparse_index c_index{};
  c_index.struct_size = sizeof c_index;
  const minf_attention_options c_options = {sizeof(minf_attention_options),
                                            detail::to_c(softmax_scale)};
  const minf_exec c_exec = detail::to_c(exec);
  detail::with_workspace(
      q, exec, [&] { return build_index_bytes(q, k, patterns, exec).workspace; },
      [&](void* data, std::size_t bytes) {
        return minf_build_index(&q.c_tensor(), &k.c_tensor(), index.patterns.data(),
                                static_cast<int64_t>(patterns.size()), &c_options, &c_index,
                                memory.data, memory.bytes, data, bytes, &c_exec);
      });
  index.vertical_index = ConstTensorView(c_index.vertical_index);
  index.runs = ConstTensorView(c_index.runs);
  index.run_count = ConstTensorView(c_index.run_count);
  index.block_index = ConstTensorView(c_index.block_index);
  return index;
}

/// The optional arguments of prefill_attention().
struct PrefillOptions {
  SoftmaxScale softmax_scale;
  TensorView lse;    // [batch, num_heads_q, seqlen_q] float32, out; absent to skip.
  TensorView tiles;  // [batch, num_heads_q] int64, device of q, out: tiles computed; or absent.
};

/// Returns the bytes of work memory that prefill_attention() needs for these arguments.
/// @throws Error{kInvalidArgument} where that call would.
inline std::size_t prefill_attention_workspace_bytes(const ConstTensorView& q,
                                                     const ConstTensorView& k,
                                                     const std::vector<Pattern>& patterns,
                                                     const Exec& exec = {}) {
  const minf_exec c_exec = detail::to_c(exec);
  std::size_t bytes = 0;
  detail::check(minf_prefill_attention_workspace_bytes(
      &q.c_tensor(), &k.c_tensor(), patterns.data(), static_cast<int64_t>(patterns.size()), &c_exec,
      &bytes));
  return bytes;
}

/// Estimates, plans and computes prefill attention, each head with its own pattern, in one call.
///
///     q, k, v, out  as in sparse_attention()
///     patterns      num_heads_q entries, or one for all heads
///
/// @throws Error{kInvalidArgument} on a shape, dtype, stride, device or pattern mismatch.
/// @throws Error{kUnsupported} if no built backend serves this device; the message says why.
inline void prefill_attention(const ConstTensorView& q, const ConstTensorView& k,
                              const ConstTensorView& v, const std::vector<Pattern>& patterns,
                              const TensorView& out, const PrefillOptions& options = {},
                              const Exec& exec = {}) {
  const auto num_patterns = static_cast<int64_t>(patterns.size());
  const minf_attention_options c_options = {sizeof(minf_attention_options),
                                            detail::to_c(options.softmax_scale)};
  const minf_exec c_exec = detail::to_c(exec);
  detail::with_workspace(
      q, exec, [&] { return prefill_attention_workspace_bytes(q, k, patterns, exec); },
      [&](void* data, std::size_t bytes) {
        return minf_prefill_attention(&q.c_tensor(), &k.c_tensor(), &v.c_tensor(), patterns.data(),
                                      num_patterns, &c_options, &out.c_tensor(),
                                      &options.lse.c_tensor(), &options.tiles.c_tensor(), data,
                                      bytes, &c_exec);
      });
}

/// Merges attention over two disjoint key sets of the same rows; formula: minf_merge_attention().
///
///     out_a, out_b, out  [batch, seqlen_q, num_heads_q, head_dim]  float32 | bfloat16 | float16
///     lse_a, lse_b, lse  [batch, num_heads_q, seqlen_q]            float32
///
/// out may be out_a or out_b itself, and lse may be lse_a or lse_b itself; no other overlap is
/// allowed.
/// @throws Error{kInvalidArgument} on a shape, dtype, stride or device mismatch.
inline void merge_attention(const ConstTensorView& out_a, const ConstTensorView& lse_a,
                            const ConstTensorView& out_b, const ConstTensorView& lse_b,
                            const TensorView& out, const TensorView& lse, const Exec& exec = {}) {
  const minf_exec c_exec = detail::to_c(exec);
  detail::check(minf_merge_attention(&out_a.c_tensor(), &lse_a.c_tensor(), &out_b.c_tensor(),
                                     &lse_b.c_tensor(), &out.c_tensor(), &lse.c_tensor(), &c_exec));
}

// ---- What this library is, and what it can use here --------------------------------------------

/// Version of the library, "0.2.0".
inline std::string version() { return minf_version(); }

/// Compiler, flags, build type and CUDA architectures, in one line.
inline std::string build_info() { return minf_build_info(); }

/// A backend or a CPU instruction set.
struct Capability {
  std::string name;
  bool available = false;  // Can be used on this machine.
  bool selected = false;   // Is used; instruction sets: by the next call.
  std::string reason;      // Why not available; empty if it is.
};

namespace detail {

inline std::vector<Capability> capabilities(int32_t count,
                                            minf_status (*get)(int32_t, minf_capability*)) {
  std::vector<Capability> capabilities;
  for (int32_t i = 0; i < count; ++i) {
    minf_capability c{};
    check(get(i, &c));
    capabilities.push_back({c.name, c.available != 0, c.selected != 0, c.reason});
  }
  return capabilities;
}

}  // namespace detail

/// Lists the backends of this build.
inline std::vector<Capability> backends() {
  return detail::capabilities(minf_backend_count(), &minf_backend);
}

/// Lists the CPU instruction sets of this build, best first.
inline std::vector<Capability> cpu_isas() {
  return detail::capabilities(minf_cpu_isa_count(), &minf_cpu_isa);
}

/// Says how the attention of a call would be computed: lists the implementations of q's backend in
/// order, each with whether it could serve the call, the reason if not, and whether it will
/// (Capability::selected). If `out` is absent, a contiguous one is assumed. No memory is read.
/// @throws Error{kInvalidArgument} where prefill_attention() would.
inline std::vector<Capability> attention_implementations(
    const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
    const std::vector<Pattern>& patterns, const ConstTensorView& out = {}, const Exec& exec = {}) {
  std::int32_t count = 0;
  detail::check(minf_attention_implementation_count(static_cast<std::int32_t>(q.device().type),
                                                    q.device().index, &count));
  const minf_exec c_exec = detail::to_c(exec);
  std::vector<Capability> capabilities;
  for (std::int32_t i = 0; i < count; ++i) {
    minf_capability c{};
    detail::check(minf_attention_implementation(
        &q.c_tensor(), &k.c_tensor(), &v.c_tensor(), patterns.data(),
        static_cast<std::int64_t>(patterns.size()), &out.c_tensor(), &c_exec, i, &c));
    capabilities.push_back({c.name, c.available != 0, c.selected != 0, c.reason});
  }
  return capabilities;
}

/// Forces the CPU instruction set of all later calls of the process; null restores the best
/// available. For tests and benchmarks.
/// @throws Error{kUnsupported} if the machine lacks it.
inline void set_cpu_isa(const char* name) { detail::check(minf_set_cpu_isa(name)); }

/// Forces the backend of all later calls of the process on devices of its kind; null restores the
/// best for each device. For tests and benchmarks.
/// @throws Error{kInvalidArgument} if this build has no such backend, or the backend's own code if
/// it cannot be used.
inline void set_backend(const char* name) { detail::check(minf_set_backend(name)); }

/// Returns the smallest seqlen_k at which vertical-slash is worth its estimate on `device`: see
/// minf_min_sparse_seqlen(). @throws Error if no backend serves the device.
inline std::int32_t min_sparse_seqlen(Device device = {}) {
  std::int32_t seqlen = 0;
  detail::check(
      minf_min_sparse_seqlen(static_cast<std::int32_t>(device.type), device.index, &seqlen));
  return seqlen;
}

}  // namespace minference

#endif  // MINFERENCE_MINFERENCE_HPP_
