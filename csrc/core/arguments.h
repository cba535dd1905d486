// What every stage of a call gets: sizes, tensors, and where the call runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/host_device.h"
#include "core/pattern.h"
#include "core/sequence.h"
#include "minference/minference.h"

namespace minference {

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

/// [batch, num_heads_q, seqlen_q] float32, any strides (elements). data is null if they are not
/// wanted.
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
  int32_t head_dim_v = 0;  // Of v and out. The *_bytes functions do not know it.
  Lengths lengths;

  int32_t group_size() const { return num_heads_q / num_heads_kv; }
  int32_t kv_head(int32_t head) const { return head / group_size(); }
  Sequences sequences() const { return {.count = batch, .max = lengths}; }
};

/// The pattern of a query head, and which head of the index tensors has its lists. patterns: one
/// per query head or one for all.
inline HeadKeys pattern_of_head(std::span<const HeadKeys> patterns, int32_t head) {
  HeadKeys pattern = patterns[patterns.size() == 1 ? 0 : static_cast<std::size_t>(head)];
  if (patterns.size() == 1) pattern.list_head = head;
  return pattern;
}

/// Where and with how many threads a call runs. parallel_for is never null here: api/ fills in the
/// library's own pool if the caller gave none.
struct Executor {
  void* stream = nullptr;    // CUDA: where the work is enqueued.
  int32_t device_index = 0;  // CUDA: ordinal; already current when a stage is called.
  int32_t num_threads = 1;
  minf_parallel_for parallel_for = nullptr;
  void* parallel_for_context = nullptr;
};

/// Borrowed work memory, 64-byte aligned by whoever makes it.
using Workspace = std::span<std::byte>;

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
