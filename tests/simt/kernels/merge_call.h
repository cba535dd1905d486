// Tensors of a merge in emulated device memory, in all layouts; the call, either the stage itself
// or the C function; and what the CPU computes from the same tensors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "check.h"
#include "core/backend.h"
#include "core/thread_pool.h"
#include "cpu/backend.h"
#include "cuda/common/stages.h"
#include "device_array.h"
#include "minference/minference.h"
#include "simt/simt.h"

namespace minference::test {

inline constexpr uint16_t kCanary = 0x5eed;

enum class Layout { kTokensFirst, kHeadsFirst, kPadded };
enum class InPlace { kNone, kA, kB, kOutAAndLseB };
enum class Through { kStage, kCApi };

struct Problem {
  const char* name;
  DType dtype = DType::kBFloat16;
  int32_t batch = 2, seqlen = 37, heads = 5, head_dim = 64;
  Layout a = Layout::kTokensFirst, b = Layout::kTokensFirst, out = Layout::kTokensFirst;
  InPlace in_place = InPlace::kNone;
  Through through = Through::kStage;

  int mantissa_bits() const { return dtype == DType::kBFloat16 ? 7 : 10; }
  int min_exponent() const { return dtype == DType::kBFloat16 ? -126 : -14; }
};

/// Memory of [batch, seqlen, heads] rows of `dim` elements, and the place of each row. Padding
/// holds canaries that kernels may not read.
template <typename T>
struct Rows {
  int64_t batch_stride, token_stride, head_stride;
  DeviceArray<T> memory;

  Rows(const Problem& p, Layout layout, int64_t dim) : Rows(p, layout, dim, dim > 1 ? 8 : 2) {}

  T* at(int64_t b, int64_t t, int64_t h) const {
    return memory.data() + b * batch_stride + t * token_stride + h * head_stride;
  }

 private:
  Rows(const Problem& p, Layout layout, int64_t dim, int64_t pad)
      : batch_stride(layout == Layout::kPadded ? p.seqlen * (p.heads * (dim + pad) + pad) + pad
                                               : p.seqlen * p.heads * dim),
        token_stride(layout == Layout::kPadded       ? p.heads * (dim + pad) + pad
                     : layout == Layout::kHeadsFirst ? dim
                                                     : p.heads * dim),
        head_stride(layout == Layout::kPadded       ? dim + pad
                    : layout == Layout::kHeadsFirst ? p.seqlen * dim
                                                    : dim),
        memory(static_cast<std::size_t>(p.batch * batch_stride)) {
    for (T& element : memory.span()) {
      const uint32_t bits = kCanary;
      std::memcpy(&element, &bits, sizeof element);
    }
  }
};

template <typename T>
void mark_written(const Rows<T>& rows, int64_t b, int64_t t, int64_t h, int64_t dim) {
  simt::mark_initialized(rows.at(b, t, h), static_cast<std::size_t>(dim) * sizeof(T));
}

/// The two parts, and their merged result.
struct Tensors {
  Rows<uint16_t> out_a, out_b, out;
  Rows<float> lse_a, lse_b, lse;

  explicit Tensors(const Problem& p)
      : out_a(p, p.a, p.head_dim),
        out_b(p, p.b, p.head_dim),
        out(p, p.out, p.head_dim),
        lse_a(p, lse_layout(p, p.b), 1),
        lse_b(p, lse_layout(p, p.out), 1),
        lse(p, lse_layout(p, p.a), 1) {}

  /// Heads first is the plain layout of lse, and the only one of these that the C function takes.
  static Layout lse_layout(const Problem& p, Layout layout) {
    return p.through == Through::kCApi ? Layout::kHeadsFirst : layout;
  }
};

template <typename Body>
void for_each_row(const Problem& p, const Body& body) {
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t t = 0; t < p.seqlen; ++t) {
      for (int64_t h = 0; h < p.heads; ++h) body(b, t, h);
    }
  }
}

inline const Rows<uint16_t>& out_of(const Problem& p, const Tensors& x) {
  if (p.in_place == InPlace::kNone) return x.out;
  return p.in_place == InPlace::kB ? x.out_b : x.out_a;
}

inline const Rows<float>& lse_of(const Problem& p, const Tensors& x) {
  if (p.in_place == InPlace::kNone) return x.lse;
  return p.in_place == InPlace::kA ? x.lse_a : x.lse_b;
}

template <typename Result, typename T>
Result tokens_of(const Rows<T>& rows) {
  return {.data = rows.memory.data(),
          .batch_stride = rows.batch_stride,
          .token_stride = rows.token_stride,
          .head_stride = rows.head_stride};
}

template <typename Result>
Result row_values_of(const Rows<float>& rows) {
  return {.data = rows.memory.data(),
          .batch_stride = rows.batch_stride,
          .head_stride = rows.head_stride,
          .row_stride = rows.token_stride};
}

inline MergeArgs merge_args(const Problem& p, const Tensors& x, const Rows<uint16_t>& out,
                            const Rows<float>& lse) {
  return {.shape = {.dtype = p.dtype,
                    .batch = p.batch,
                    .num_heads_q = p.heads,
                    .num_heads_kv = p.heads,
                    .head_dim = p.head_dim,
                    .lengths = {.seqlen_q = p.seqlen, .seqlen_k = p.seqlen}},
          .out_a = tokens_of<ConstTokens>(x.out_a),
          .out_b = tokens_of<ConstTokens>(x.out_b),
          .out = tokens_of<Tokens>(out),
          .lse_a = row_values_of<ConstRowValues>(x.lse_a),
          .lse_b = row_values_of<ConstRowValues>(x.lse_b),
          .lse = row_values_of<RowValues>(lse)};
}

inline minf_tensor tensor_of(const Problem& p, const Rows<uint16_t>& rows) {
  return {.data = rows.memory.data(),
          .dtype = static_cast<int32_t>(p.dtype),
          .device_type = MINF_DEVICE_CUDA,
          .device_index = 0,
          .ndim = 4,
          .shape = {p.batch, p.seqlen, p.heads, p.head_dim},
          .stride = {rows.batch_stride, rows.token_stride, rows.head_stride, 1}};
}

inline minf_tensor tensor_of(const Problem& p, const Rows<float>& rows) {
  return {.data = rows.memory.data(),
          .dtype = MINF_FLOAT32,
          .device_type = MINF_DEVICE_CUDA,
          .device_index = 0,
          .ndim = 3,
          .shape = {p.batch, p.heads, p.seqlen},
          .stride = {rows.batch_stride, rows.head_stride, rows.token_stride}};
}

inline void merge(const Problem& p, const Tensors& x) {
  const auto& out = out_of(p, x);
  const auto& lse = lse_of(p, x);
  if (p.through == Through::kStage) {
    return cuda::merge_attention(merge_args(p, x, out, lse), Executor{});
  }
  const minf_tensor out_a = tensor_of(p, x.out_a), lse_a = tensor_of(p, x.lse_a);
  const minf_tensor out_b = tensor_of(p, x.out_b), lse_b = tensor_of(p, x.lse_b);
  const minf_tensor merged = tensor_of(p, out), merged_lse = tensor_of(p, lse);
  const minf_status status =
      minf_merge_attention(&out_a, &lse_a, &out_b, &lse_b, &merged, &merged_lse, nullptr);
  CHECK(status == MINF_OK, p.name, minf_last_error());
}

/// What the CPU computes from the same parts, in tensors of its own.
struct Expected {
  Rows<uint16_t> out;
  Rows<float> lse;

  Expected(const Problem& p, const Tensors& x)
      : out(p, Layout::kTokensFirst, p.head_dim), lse(p, Layout::kTokensFirst, 1) {
    cpu::backend().merge_attention(merge_args(p, x, out, lse),
                                   Executor{.num_threads = 1, .parallel_for = pool_parallel_for});
  }
};

}  // namespace minference::test
