// A backend: one function per stage, behind arguments that api/ has already checked.
//
// Backends are siblings; the list in api/backends.cpp is the only place that names them. A call
// goes to the first available backend that serves the tensors' device. Work memory is the caller's.
// How many bytes a stage needs depends on its arguments, never on the values in tensors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "core/arguments.h"
#include "core/estimator.h"
#include "core/host_device.h"
#include "core/kv_rows.h"
#include "core/pattern.h"
#include "minference/minference.h"

namespace minference {

/// Whether a backend can be used on this machine; if not, the status of its calls and the reason.
struct Availability {
  minf_status status = MINF_OK;
  const char* reason = "";  // Static storage; empty where the backend can be used.
};

/// Where the list of each (batch, head) of a [batch, num_heads_q, ...] tensor begins. Strides are
/// in bytes because a Run is two elements of its tensor, whose strides may be odd. data is null if
/// no head has such a list.
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

/// Stage 2: distances to runs, for all heads of an index tensor. The CPU refuses bad distances. A
/// GPU cannot look without synchronising: it ignores those out of range, and writes in bounds
/// whatever the lists hold.
struct PlanArgs {
  int32_t batch = 0;
  int32_t num_heads_q = 0;
  int32_t seqlen_k = 0;
  HeadLists<const int32_t> slash_index;
  HeadLists<Run> runs;  // size >= max_runs(slash_index.size, seqlen_k); (0, 0) fills the end.
  HeadLists<int32_t> run_count;
};

/// The index tensors of a call, as the caller gave them. Lists that no head needs are null.
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

/// Stage 3. patterns: one per query head or one for all, in host memory, without lists; those are
/// in memory of the backend's device. The CPU refuses bad entries before it writes anything; a GPU
/// ignores them, and reads and writes in bounds whatever the lists hold.
struct AttentionArgs {
  Shape shape;
  ConstTokens q;
  KvRows k;
  KvRows v;
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

/// One way to compute stage 3. Reasons are static text, empty where there is none.
struct AttentionImplementation {
  const char* name;
  /// Why it cannot compute the call.
  const char* (*refuses)(const AttentionArgs&);
  /// Why one further down the list computes the call faster. Reads only what is known before stage
  /// 1 has run. Never called on the last one, nor when the caller has forced the backend.
  const char* (*yields)(const AttentionArgs&, const Executor&);
  /// Reads only what is known without v and before stage 1 has run: the shape (except head_dim_v),
  /// the forms, and the sizes of the column lists.
  std::size_t (*workspace_bytes)(const AttentionArgs&, const Executor&);
  void (*attend)(const AttentionArgs&, Workspace, const Executor&);
};

struct Backend {
  const char* name;
  minf_device_type device_type;
  /// What the backend demands of q and k beyond minference.h's conventions.
  bool serves_float32;
  int32_t row_alignment;  // Bytes.

  /// Below this seqlen_k, a whole call of vertical-slash (500, 700) is not faster than dense.
  /// Advisory: no call reads it, callers that choose patterns may.
  int32_t min_sparse_seqlen;

  /// Looked up once per process, without side effects that a caller could see.
  Availability (*availability)();
  /// Whether the device exists and the backend serves it.
  bool (*serves_device)(int32_t device_index);
  /// The same, but throws the reason if not. @throws Error
  void (*check_device)(int32_t device_index);
  /// Checks what only the device's runtime knows: that memory and stream are the device's own. The
  /// last check of a call. @throws Error
  void (*check_resources)(std::span<const NamedMemory> memory, const Executor& executor);

  /// One for each kind of pattern that is estimated.
  std::span<const Estimator> estimators;
  void (*plan_vertical_slash)(const PlanArgs&, const Executor&);
  void (*count_key_tiles)(const CountTilesArgs&, const Executor&);
  /// Writes -1 everywhere: it ends lists that are shorter than their neighbours.
  void (*fill_lists)(std::span<int32_t> lists, const Executor&);
  /// Stage 3: the first that neither refuses nor yields computes a call. The last never refuses.
  std::span<const AttentionImplementation> attention;
  void (*merge_attention)(const MergeArgs&, const Executor&);
};

}  // namespace minference
