// A vertical-slash estimation with random inputs in emulated device memory: its arguments, and the
// float64 results.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/backend.h"
#include "cuda/common/estimate_vertical_slash.h"
#include "device_array.h"
#include "simt/instructions.h"

namespace minference::test {

enum class Layout { kTokens, kHeads, kPadded };  // [B, S, H, D]; [B, H, S, D]; rows 8 apart.

struct Case {
  const char* name;
  DType dtype = DType::kBFloat16;
  int32_t head_dim = 64;
  int32_t num_heads_q = 1;
  int32_t num_heads_kv = 1;
  int32_t batch = 1;
  int32_t seqlen_q = 64;
  int32_t seqlen_k = 64;
  int32_t last_q = 64;
  double scale = 0;  // 0: head_dim^-0.5.
  bool zero_scale = false;
  Layout layout = Layout::kTokens;
  bool non_finite = false;
  double vertical_p = 1;
  double slash_p = 1;
  std::vector<int32_t> heads = {};  // Empty: all. NOLINT(readability-redundant-member-init): gcc.
  cuda::ScoreLimits limits = {};
};

inline uint16_t to_bits(DType dtype, float value) {
  const uint32_t pair =
      dtype == DType::kBFloat16 ? simt::pack_bf16x2(value, 0.0f) : simt::pack_f16x2(value, 0.0f);
  return static_cast<uint16_t>(pair);
}

inline double from_bits(DType dtype, uint16_t bits) {
  return dtype == DType::kBFloat16 ? std::bit_cast<float>(uint32_t{bits} << 16)
                                   : simt::float_from_f16(bits);
}

/// q or k: values rounded to the dtype, in emulated device memory. The gaps between rows are NaN.
class Tensor {
 public:
  Tensor(const Case& c, int32_t seqlen, int32_t num_heads, std::mt19937_64& random)
      : dtype_(c.dtype) {
    const int64_t row = c.head_dim + (c.layout == Layout::kPadded ? 8 : 0);
    tokens.token_stride = c.layout == Layout::kHeads ? row : row * num_heads;
    tokens.head_stride = c.layout == Layout::kHeads ? row * seqlen : row;
    tokens.batch_stride = row * num_heads * seqlen;
    std::normal_distribution<float> normal;
    bits_.assign(static_cast<std::size_t>(tokens.batch_stride * c.batch), to_bits(dtype_, NAN));
    for (int32_t b = 0; b < c.batch; ++b) {
      for (int32_t h = 0; h < num_heads; ++h) {
        for (int32_t s = 0; s < seqlen; ++s) {
          for (int32_t d = 0; d < c.head_dim; ++d) set(b, h, s, d, normal(random));
        }
      }
    }
  }

  void set(int32_t b, int32_t h, int32_t s, int32_t d, float value) {
    bits_[at(b, h, s, d)] = to_bits(dtype_, value);
  }
  double get(int32_t b, int32_t h, int32_t s, int32_t d) const {
    return from_bits(dtype_, bits_[at(b, h, s, d)]);
  }

  /// set() must not be called after this.
  void copy_to_device() {
    device_ = std::make_unique<DeviceArray<uint16_t>>(bits_);
    tokens.data = device_->data();
  }

  ConstTokens tokens;

 private:
  std::size_t at(int32_t b, int32_t h, int32_t s, int32_t d) const {
    return static_cast<std::size_t>(b * tokens.batch_stride + h * tokens.head_stride +
                                    s * tokens.token_stride + d);
  }

  DType dtype_;
  std::vector<uint16_t> bits_;
  std::unique_ptr<DeviceArray<uint16_t>> device_;
};

/// Results of one target in float64, and how far float32 may be off (relative).
struct Expected {
  std::vector<double> vertical;
  std::vector<double> slash;
  double bound = 0;
};

/// A call: inputs in device memory, arguments, float64 scores of each target.
class Call {
 public:
  explicit Call(const Case& c)
      : case_(c),
        random_(std::hash<std::string>{}(c.name)),
        q_(c, c.seqlen_q, c.num_heads_q, random_),
        k_(c, c.seqlen_k, c.num_heads_kv, random_) {
    if (c.non_finite) spoil();
    q_.copy_to_device();
    k_.copy_to_device();
    args = {.shape = {.dtype = c.dtype,
                      .batch = c.batch,
                      .num_heads_q = c.num_heads_q,
                      .num_heads_kv = c.num_heads_kv,
                      .head_dim = c.head_dim,
                      .lengths = {c.seqlen_q, c.seqlen_k}},
            .q = q_.tokens,
            .k = {k_.tokens},
            .softmax_scale = scale(),
            .last_q = std::min(c.last_q, c.seqlen_q),
            .sink = std::min(30, c.seqlen_k),
            .local = std::min(100, c.seqlen_k),
            .vertical_p = c.vertical_p,
            .slash_p = c.slash_p,
            .targets = {}};
    add_targets();
  }

  EstimateVerticalSlashArgs args;  // Targets without pointers.
  std::vector<VerticalSlashTarget> targets;

  Expected expected(const VerticalSlashTarget& target) const {
    Expected want;
    const auto seqlen_k = static_cast<std::size_t>(case_.seqlen_k);
    want.vertical.assign(seqlen_k, 0);
    want.slash.assign(seqlen_k, 0);
    for (int32_t i = 0; i < args.last_q; ++i) add_row(target, i, want);
    return want;
  }

 private:
  double scale() const {
    if (case_.zero_scale) return 0;
    return case_.scale != 0 ? case_.scale : 1 / std::sqrt(case_.head_dim);
  }

  void add_targets() {
    const int32_t sizes[] = {0, 1, 7, case_.seqlen_k};
    int32_t next = 0;
    for (int32_t batch = 0; batch < case_.batch; ++batch) {
      for (int32_t head = 0; head < case_.num_heads_q; ++head) {
        const bool listed = std::ranges::find(case_.heads, head) != case_.heads.end();
        if (!case_.heads.empty() && !listed) continue;
        const int32_t more = sizes[next++ % 4];
        targets.push_back({.batch = batch,
                           .head = head,
                           .vertical_size = std::min(case_.seqlen_k, args.sink + 11 * more),
                           .slash_size = std::min(case_.seqlen_k, args.local + 9 * more)});
      }
    }
    args.targets = targets;
  }

  /// Puts NaN and inf in query rows, in early keys, and in a key that only the last rows see.
  void spoil() {
    constexpr float kInf = std::numeric_limits<float>::infinity();
    q_.set(0, 0, case_.seqlen_q - 3, 1, NAN);
    q_.set(0, 0, case_.seqlen_q - 9, 2, -kInf);
    q_.set(0, 1, case_.seqlen_q - 5, 2, kInf);
    k_.set(0, 0, 0, 3, kInf);  // A thread's first key: its score is -inf, or the row is lost.
    k_.set(0, 0, 64, 3, -kInf);
    k_.set(0, 0, case_.seqlen_k - 2, 0, NAN);
    k_.set(0, 1, case_.seqlen_k - 6, 0, kInf);
  }

  /// Adds row i of the last rows. It counts if its scores have a finite log-sum of exponentials.
  void add_row(const VerticalSlashTarget& target, int32_t i, Expected& want) const {
    const int32_t position = case_.seqlen_k - args.last_q + i;
    const int32_t row = case_.seqlen_q - args.last_q + i;
    const int32_t kv_head = target.head / args.shape.group_size();
    std::vector<double> p(static_cast<std::size_t>(position) + 1);
    double magnitude = 0;
    for (int32_t j = 0; j <= position; ++j) {
      double sum = 0, sum_abs = 0;
      for (int32_t d = 0; d < case_.head_dim && !case_.zero_scale; ++d) {
        const double product =
            q_.get(target.batch, target.head, row, d) * k_.get(target.batch, kv_head, j, d);
        sum += product;
        sum_abs += std::abs(product);
      }
      p[static_cast<std::size_t>(j)] = sum * scale();
      if (std::isfinite(sum_abs)) magnitude = std::max(magnitude, sum_abs * std::abs(scale()));
    }
    const double max = *std::ranges::max_element(p);
    double total = 0;
    for (double& score : p) total += score = std::exp(score - max);
    if (!std::isfinite(total)) return;
    for (int32_t j = 0; j <= position; ++j) {
      const double share = p[static_cast<std::size_t>(j)] / total;
      want.vertical[static_cast<std::size_t>(j)] += share;
      want.slash[static_cast<std::size_t>(position - j)] += share;
    }
    // A product sum of head_dim terms is off by at most head_dim eps times the terms' magnitudes,
    // and so is a row's offset; scaling, 2^x and the sums of 64 add a few dozen eps.
    constexpr double kEps = 0x1p-23;
    want.bound = std::max(want.bound, 2 * (case_.head_dim + 4) * kEps * magnitude + 64 * kEps);
  }

  const Case& case_;
  std::mt19937_64 random_;
  Tensor q_;
  Tensor k_;
};

}  // namespace minference::test
