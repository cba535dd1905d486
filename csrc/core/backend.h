// A backend: one function per stage, behind arguments that api/ has already checked.
//
// Backends are siblings; the list in backend.cpp is the only place that names them. A call goes to
// the first available backend that serves the tensors' device. Work memory is the caller's: each
// stage says how many bytes it needs for given arguments, whatever the values in the tensors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "core/host_device.h"
#include "core/pattern.h"
#include "minference/minference.h"

namespace minference {

/// Whether a backend can be used on this machine, else what its calls fail with, and why.
struct Availability {
  minf_status status = MINF_OK;
  const char* reason = "";  // Static storage; empty where the backend can be used.
};

/// Values are those of minf_dtype; only the floating-point ones reach a backend.
enum class DType : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

inline constexpr int64_t dtype_bytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

/// [batch, seqlen, num_heads, head_dim] with innermost stride 1. Strides in elements.
template <typename Pointer>
struct BasicTokens {
  Pointer data = nullptr;
  int64_t batch_stride = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};
using ConstTokens = BasicTokens<const void*>;
using Tokens = BasicTokens<void*>;

/// [batch, num_heads_q, seqlen_q] float32, any strides (elements). data may be null: not wanted.
template <typename Pointer>
struct BasicRowValues {
  Pointer data = nullptr;
  int64_t batch_stride = 0;
  int64_t head_stride = 0;
  int64_t row_stride = 0;
};
using RowValues = BasicRowValues<float*>;
using ConstRowValues = BasicRowValues<const float*>;

/// Sizes that all stages of a call share.
struct Shape {
  DType dtype = DType::kFloat32;
  int32_t batch = 0;
  int32_t num_heads_q = 0;
  int32_t num_heads_kv = 0;
  int32_t head_dim = 0;
  int32_t head_dim_v = 0;  // Of v, and of stage 3's out. Not known to the *_bytes functions.
  Lengths lengths;

  int32_t group_size() const { return num_heads_q / num_heads_kv; }
  int32_t kv_head(int32_t head) const { return head / group_size(); }
};

/// Where and with how many threads a call runs. parallel_for is never null here: api/ puts the
/// library's own pool where the caller gave none.
struct Executor {
  void* stream = nullptr;    // CUDA: where the work is enqueued.
  int32_t device_index = 0;  // CUDA: ordinal; already current when a stage is called.
  int32_t num_threads = 1;
  minf_parallel_for parallel_for = nullptr;
  void* parallel_for_context = nullptr;
};

/// Borrowed work memory, 64-byte aligned by whoever makes it.
using Workspace = std::span<std::byte>;

/// Stage 1, vertical-slash: one (batch, query head) to estimate, and where its indices go. Fewer
/// entries than `vertical_size` or `slash_size` are followed by -1.
struct VerticalSlashTarget {
  int32_t batch = 0;
  int32_t head = 0;
  int32_t vertical_size = 0;  // Already clamped: sink <= vertical_size <= seqlen_k.
  int32_t slash_size = 0;     // Already clamped: local <= slash_size <= seqlen_k.
  int32_t* vertical_index = nullptr;
  int32_t* slash_index = nullptr;
};

struct EstimateVerticalSlashArgs {
  Shape shape;
  ConstTokens q;
  ConstTokens k;
  double softmax_scale = 0;
  int32_t last_q = 0;  // Already clamped: <= min(64, seqlen_q). 0 without rows, when every score is
                       // 0; there is no workspace then.
  int32_t sink = 0;    // Already clamped to seqlen_k.
  int32_t local = 0;   // Already clamped to seqlen_k.
  double vertical_p = 1;
  double slash_p = 1;
  std::span<const VerticalSlashTarget> targets;  // Ordered by (batch, head).
};

/// Stage 1, block-sparse: one (batch, query head), and where its block lists go.
struct BlockSparseTarget {
  int32_t batch = 0;
  int32_t head = 0;
  int32_t top_k = 0;               // May exceed the key blocks, at no cost in work memory.
  int64_t row_stride = 0;          // Elements between the lists of neighbouring row blocks.
  int32_t* block_index = nullptr;  // [row_blocks, top_k]
};

struct EstimateBlockSparseArgs {
  Shape shape;
  ConstTokens q;
  ConstTokens k;
  double softmax_scale = 0;  // Only top_p < 1 reads it.
  double top_p = 1;
  std::span<const BlockSparseTarget> targets;  // Ordered by (batch, head).
};

/// The lists of a [batch, num_heads_q, ...] tensor: where that of each (batch, head) begins.
/// Strides in bytes: a Run is two elements of its tensor, whose strides may be odd. data is null
/// where no head has such a list.
template <typename T>
struct HeadLists {
  T* data = nullptr;
  int64_t batch_stride_bytes = 0;
  int64_t head_stride_bytes = 0;
  int32_t size = 0;  // Entries of each list.

  MINF_HOST_DEVICE T* at(int64_t batch, int64_t head) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const std::byte, std::byte>;
    if (data == nullptr) return nullptr;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(data) + batch * batch_stride_bytes +
                                head * head_stride_bytes);
  }
};

/// Stage 2: distances to runs, for all heads of an index tensor. The CPU refuses bad distances; a
/// GPU, where looking would synchronise, ignores those out of range and writes in bounds whatever
/// comes.
struct PlanArgs {
  int32_t batch = 0;
  int32_t num_heads_q = 0;
  int32_t seqlen_k = 0;
  HeadLists<const int32_t> slash_index;
  HeadLists<Run> runs;  // size >= max_runs(slash_index.size, seqlen_k); (0, 0) fills the end.
  HeadLists<int32_t> run_count;
};

/// Index tensors of a call as they came; lists that no head needs are null.
struct IndexLists {
  HeadLists<const int32_t> columns;
  HeadLists<const Run> runs;
  HeadLists<const int32_t> run_count;
  HeadLists<const int32_t> blocks;  // size: entries of one row block's list.
  int64_t block_row_stride = 0;     // Entries between the lists of neighbouring row blocks.
};

/// Tiles that stage 3 computes, per (batch, head). patterns: one per query head or one for all, in
/// host memory, without lists.
struct CountTilesArgs {
  Shape shape;
  std::span<const HeadKeys> patterns;
  IndexLists index;
  HeadLists<int64_t> tiles;  // In memory of the backend's device.
};

/// Whether two targets of stage 1 read the same keys.
template <typename Target>
bool share_keys(const Shape& shape, const Target& a, const Target& b) {
  return a.batch == b.batch && shape.kv_head(a.head) == shape.kv_head(b.head);
}

/// Stage 3. patterns: one per query head or one for all, in host memory, without lists; those are
/// in memory of the backend's device. The CPU refuses bad entries before it writes anything; a GPU
/// ignores them, and reads and writes in bounds whatever comes.
struct AttentionArgs {
  Shape shape;
  ConstTokens q;
  ConstTokens k;
  ConstTokens v;
  Tokens out;
  RowValues lse;
  double softmax_scale = 0;
  std::span<const HeadKeys> patterns;
  IndexLists index;
};

struct MergeArgs {
  Shape shape;  // dtype, batch, num_heads_q, head_dim, lengths.seqlen_q.
  ConstTokens out_a;
  ConstTokens out_b;
  Tokens out;
  ConstRowValues lse_a;
  ConstRowValues lse_b;
  RowValues lse;
};

/// Memory that a call hands to a backend, by its argument's name.
struct NamedMemory {
  const char* name = nullptr;
  const void* data = nullptr;
};

struct Backend {
  const char* name;
  minf_device_type device_type;
  /// What the backend demands of q and k beyond minference.h's conventions.
  bool serves_float32;
  int32_t row_alignment;  // Bytes.

  /// Fewer keys than this, and a whole vertical-slash call is no faster than a dense one. For those
  /// who choose patterns: calls compute what they are asked for.
  int32_t min_sparse_seqlen;

  /// Looked up once per process, without side effects that a caller could see.
  Availability (*availability)();
  /// Whether there is such a device and the backend serves it.
  bool (*serves_device)(int32_t device_index);
  /// The same, with a reason where not. @throws Error
  void (*check_device)(int32_t device_index);
  /// Checks what only the device's runtime knows: that memory and stream are the device's own. Last
  /// of a call's checks. @throws Error
  void (*check_resources)(std::span<const NamedMemory> memory, const Executor& executor);

  /// The *_bytes functions see targets whose pointers may be null. None shrinks when a target's
  /// sizes grow: where the sizes are not known yet, api/ asks with the largest.
  std::size_t (*estimate_vertical_slash_bytes)(const EstimateVerticalSlashArgs&, const Executor&);
  void (*estimate_vertical_slash)(const EstimateVerticalSlashArgs&, Workspace, const Executor&);
  std::size_t (*estimate_block_sparse_bytes)(const EstimateBlockSparseArgs&, const Executor&);
  void (*estimate_block_sparse)(const EstimateBlockSparseArgs&, Workspace, const Executor&);
  void (*plan_vertical_slash)(const PlanArgs&, const Executor&);
  void (*count_key_tiles)(const CountTilesArgs&, const Executor&);
  /// Writes -1 everywhere: what ends lists that are shorter than others beside them.
  void (*fill_lists)(std::span<int32_t> lists, const Executor&);
  /// Reads of AttentionArgs what is known without v and before stage 1 has run: shape (but
  /// head_dim_v), pattern kinds, and how long lists of columns are.
  std::size_t (*attention_bytes)(const AttentionArgs&, const Executor&);
  void (*attention)(const AttentionArgs&, Workspace, const Executor&);
  void (*merge_attention)(const MergeArgs&, const Executor&);
};

/// All built backends, most special first.
std::span<const Backend* const> backends();

/// The backend that serves tensors on this device: the first that can be used and has code for it.
/// @throws Error if no backend can be used, with the status of the most general one that was built,
/// and the reasons of all; if none has code for the device, what the most general one says.
const Backend& select_backend(minf_device_type device_type, int32_t device_index);

/// Makes select_backend() return the backend of this name for all devices of its kind, whichever
/// would be first; empty: no longer. @throws Error if there is none, or it cannot be used.
void force_backend(std::string_view name);
bool is_forced(const Backend& backend);

/// Runs task(i) for i in [0, num_tasks) on the executor's threads; returns when all have run.
/// Tasks must not throw.
template <typename Task>
void parallel_for(const Executor& executor, int64_t num_tasks, const Task& task) {
  if (num_tasks <= 0) return;
  if (num_tasks == 1) return task(int64_t{0});
  executor.parallel_for(
      num_tasks, [](int64_t index, void* context) { (*static_cast<const Task*>(context))(index); },
      const_cast<void*>(static_cast<const void*>(&task)), executor.parallel_for_context);
}

/// Runs body(i) for i in [0, count), in executor.num_threads tasks of interleaved indices.
template <typename Body>
void parallel_interleaved(const Executor& executor, int64_t count, const Body& body) {
  const int64_t num_tasks = count < executor.num_threads ? count : executor.num_threads;
  parallel_for(executor, num_tasks, [&](int64_t task) {
    for (int64_t i = task; i < count; i += num_tasks) body(i);
  });
}

}  // namespace minference
