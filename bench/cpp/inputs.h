// What is benchmarked on: q, k, v with the structure of real heads, and index lists of a density.
// The C++ twin of bench/inputs.py; drawn from fixed seeds, batch 1.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "minference/minference.hpp"
#include "tensor.h"

namespace bench {

constexpr int64_t kBlock = 64;  // Rows of a row block, keys of a key block.

struct Shape {
  int64_t seqlen;
  int64_t num_heads_q;
  int64_t num_heads_kv;
  int64_t head_dim;
  bool operator==(const Shape&) const = default;
};

struct Qkv {
  Tensor q;  // [1, seqlen, num_heads_q, head_dim]
  Tensor k;  // [1, seqlen, num_heads_kv, head_dim]
  Tensor v;  // as k
};

/// Heads that look back to a few distances and to a few strong columns, through rotary position
/// embedding, as heads of models do. Random tensors would scatter the distances that are kept, and
/// runs of 64 would then cover everything.
Qkv vertical_slash_qkv(const Shape& shape, minference::DType dtype, minference::DeviceType device);

/// [num_heads_q, n] distances: the diagonal, and runs of 64 keys that never touch, which start at
/// any alignment and differ per head: the hardest layout for a kernel.
std::vector<std::vector<int32_t>> random_distances(const Shape& shape, double density);

/// [num_heads_q, n] columns: column 0, and others drawn evenly.
std::vector<std::vector<int32_t>> random_columns(const Shape& shape, double density);

/// [num_heads_q * row_blocks, top_k] key blocks: block 0, the diagonal, and others drawn evenly
/// from those before it; -1 fills the end.
std::vector<std::vector<int32_t>> random_blocks(const Shape& shape, double density);

}  // namespace bench
