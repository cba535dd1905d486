// Inputs of the benchmark. Constants and their reasons are those of bench/inputs.py.
// SPDX-License-Identifier: Apache-2.0
#include "inputs.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>
#include <cstring>
#include <numbers>

namespace bench {

namespace mi = minference;

namespace {

constexpr double kRopeTheta = 500'000;
constexpr float kNoise = 0.5f;             // Standard deviation of a query's and a key's own part.
constexpr double kBandTokens = 64;         // Frequencies faster than once in this many tokens fade.
constexpr int64_t kMaxContentDims = 16;    // Last dims: not rotated, they make a column strong.
constexpr int kNumPeaks = 12;              // Distances that a head looks back to, beside 0.
constexpr double kSlashLogit = 9;          // Logit at the strongest peak.
constexpr double kColumnLogit = 11;        // Logit of the strongest columns.
constexpr double kColumnShare = 1. / 512;  // Of all columns are strong.

/// splitmix64: half a billion numbers are drawn for 128K tokens and 32 heads.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // In [0, 1).
  int64_t below(int64_t end) { return static_cast<int64_t>(uniform() * static_cast<double>(end)); }
  /// About normal: the sum of four uniform 16-bit numbers, centred, over its standard deviation.
  float normal() {
    const uint64_t z = bits();
    const auto sum =
        static_cast<int32_t>((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48));
    return static_cast<float>(sum - 131070) * (1 / 37837.2f);
  }

 private:
  uint64_t state_;
};

uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// For the finite values drawn here, which are far below the largest float16.
uint16_t to_float16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude < 0x38800000) {  // Below 2^-14: multiples of 2^-24.
    return sign | static_cast<uint16_t>(std::lrint(std::fabs(value) * 0x1p24f));
  }
  const uint32_t rebiased = magnitude - (112u << 23);
  return sign | static_cast<uint16_t>((rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13);
}

/// Host memory of a tensor, filled from float one element after the other.
class Filler {
 public:
  Filler(mi::DType dtype, int64_t count)
      : dtype_(dtype), values_(static_cast<std::size_t>(count) * element_bytes(dtype)) {}
  void push(float value) {
    if (dtype_ == mi::DType::kFloat32) return put(value);
    put(dtype_ == mi::DType::kBFloat16 ? to_bfloat16(value) : to_float16(value));
  }
  Tensor tensor(mi::DeviceType device, const mi::Dims& shape) const {
    Tensor tensor(device, dtype_, shape);
    tensor.memory().upload(values_.data());
    return tensor;
  }

 private:
  template <typename T>
  void put(T value) {
    std::memcpy(values_.data() + end_, &value, sizeof(T));
    end_ += sizeof(T);
  }
  mi::DType dtype_;
  std::vector<std::byte> values_;
  std::size_t end_ = 0;
};

using Spectrum = std::vector<std::complex<double>>;  // A number per rotary frequency.

struct Rotary {
  Rotary(int64_t head_dim, int64_t dims) {
    double square = 0;
    for (int64_t i = 0; i < dims; i += 2) {
      frequency.push_back(
          std::pow(kRopeTheta, -static_cast<double>(i) / static_cast<double>(dims)));
      amplitude.push_back(1 / (1 + kBandTokens * frequency.back()));
      square += amplitude.back() * amplitude.back();
    }
    // Logits carry 1 / sqrt(head_dim); the peak is a sum over the frequencies.
    const double norm = std::sqrt(kSlashLogit * std::sqrt(static_cast<double>(head_dim)) / square);
    for (double& a : amplitude) a *= norm;
  }
  std::vector<double> frequency;
  std::vector<double> amplitude;
};

/// The direction shared by the keys of a KV head.
Spectrum direction(const Rotary& rotary, Random& random) {
  Spectrum spectrum;
  for (const double amplitude : rotary.amplitude) {
    spectrum.push_back(std::polar(amplitude, 2 * std::numbers::pi * random.uniform()));
  }
  return spectrum;
}

/// By what a query's direction is turned back: several distances, drawn evenly in their logarithm,
/// because heads look near more often than far.
Spectrum looks_back(const Rotary& rotary, int64_t seqlen, Random& random) {
  Spectrum spectrum(rotary.frequency.size(), 1);  // Distance 0.
  for (int peak = 0; peak < kNumPeaks; ++peak) {
    const double distance = std::pow(static_cast<double>(seqlen) / 2, random.uniform());
    const double weight = 0.4 + 0.5 * random.uniform();
    for (std::size_t i = 0; i < spectrum.size(); ++i) {
      spectrum[i] += std::polar(weight, -distance * rotary.frequency[i]);
    }
  }
  double mean = 0;
  for (const auto& value : spectrum) mean += std::abs(value) / static_cast<double>(spectrum.size());
  for (auto& value : spectrum) value /= mean;
  return spectrum;
}

/// One row of q or k: a spectrum turned by its position, then `content` in the last dims.
void push_row(Filler& filler, const Spectrum& turn, const Spectrum& spectrum, float content,
              int64_t content_dims, Random& random) {
  for (std::size_t i = 0; i < spectrum.size(); ++i) {
    const std::complex<double> turned = turn[i] * spectrum[i];
    filler.push(static_cast<float>(turned.real()) + kNoise * random.normal());
    filler.push(static_cast<float>(turned.imag()) + kNoise * random.normal());
  }
  for (int64_t i = 0; i < content_dims; ++i) filler.push(content + 0.1f * random.normal());
}

}  // namespace

Qkv vertical_slash_qkv(const Shape& shape, mi::DType dtype, mi::DeviceType device) {
  Random random(/*seed=*/0);
  const int64_t content_dims = std::min(kMaxContentDims, shape.head_dim / 2);
  const Rotary rotary(shape.head_dim, shape.head_dim - content_dims);
  const auto content_norm =
      static_cast<float>(std::sqrt(kColumnLogit * std::sqrt(static_cast<double>(shape.head_dim)) /
                                   static_cast<double>(content_dims)));
  std::vector<Spectrum> keys, queries;  // Per head.
  for (int64_t head = 0; head < shape.num_heads_kv; ++head) {
    keys.push_back(direction(rotary, random));
    for (int64_t i = 0; i < shape.num_heads_q / shape.num_heads_kv; ++i) {
      queries.push_back(looks_back(rotary, shape.seqlen, random));
      for (std::size_t j = 0; j < keys.back().size(); ++j) queries.back()[j] *= keys.back()[j];
    }
  }

  const int64_t row = shape.seqlen * shape.head_dim;
  Filler q(dtype, row * shape.num_heads_q), k(dtype, row * shape.num_heads_kv), v(k);
  Spectrum turn(rotary.frequency.size());
  for (int64_t position = 0; position < shape.seqlen; ++position) {
    for (std::size_t i = 0; i < turn.size(); ++i) {
      turn[i] = std::polar(1., static_cast<double>(position) * rotary.frequency[i]);
    }
    for (const Spectrum& key : keys) {
      const bool strong = random.uniform() < kColumnShare;
      const auto strength = static_cast<float>(strong ? random.uniform() : 0);
      push_row(k, turn, key, content_norm * (position == 0 ? 1 : strength), content_dims, random);
    }
    for (const Spectrum& query : queries) {
      push_row(q, turn, query, content_norm, content_dims, random);
    }
    for (int64_t i = 0; i < shape.num_heads_kv * shape.head_dim; ++i) v.push(random.normal());
  }
  const mi::Dims kv_shape = {1, shape.seqlen, shape.num_heads_kv, shape.head_dim};
  return {q.tensor(device, {1, shape.seqlen, shape.num_heads_q, shape.head_dim}),
          k.tensor(device, kv_shape), v.tensor(device, kv_shape)};
}

namespace {

/// `count` different numbers of [first, end), ascending; all of them where there are no more.
std::vector<int32_t> choose(int64_t first, int64_t end, int64_t count, Random& random) {
  // Selection sampling: each number is taken with the chance that fills the rest.
  std::vector<int32_t> chosen;
  for (int64_t i = first, missing = std::min(count, end - first); missing > 0; ++i) {
    if (random.below(end - i) >= missing) continue;
    chosen.push_back(static_cast<int32_t>(i));
    --missing;
  }
  return chosen;
}

int64_t share(double density, double of) {
  return std::max<int64_t>(1, std::llround(density * of));
}

}  // namespace

std::vector<std::vector<int32_t>> random_distances(const Shape& shape, double density) {
  Random random(/*seed=*/1);
  // A run covers 64 / seqlen of causal attention on average.
  const int64_t count = share(density, static_cast<double>(shape.seqlen) / kBlock);
  std::vector<std::vector<int32_t>> heads;
  for (int64_t head = 0; head < shape.num_heads_q; ++head) {
    std::vector<int32_t> distances = {0};
    // Starts 128 m + 0..63: 65 apart or more.
    for (const int32_t m : choose(1, shape.seqlen / (2 * kBlock), count - 1, random)) {
      distances.push_back(static_cast<int32_t>(2 * kBlock * m + random.below(kBlock)));
    }
    heads.push_back(std::move(distances));
  }
  return heads;
}

std::vector<std::vector<int32_t>> random_columns(const Shape& shape, double density) {
  Random random(/*seed=*/2);
  const int64_t count = share(density, static_cast<double>(shape.seqlen));
  std::vector<std::vector<int32_t>> heads;
  for (int64_t head = 0; head < shape.num_heads_q; ++head) {
    std::vector<int32_t> columns = choose(1, shape.seqlen, count - 1, random);
    columns.insert(columns.begin(), 0);
    heads.push_back(std::move(columns));
  }
  return heads;
}

std::vector<std::vector<int32_t>> random_blocks(const Shape& shape, double density) {
  Random random(/*seed=*/3);
  const int64_t num_blocks = (shape.seqlen + kBlock - 1) / kBlock;
  const auto attended = [&](int64_t top_k) {  // By a head: row block r sees r + 1 blocks.
    const int64_t ramp = std::min(top_k, num_blocks);
    return static_cast<double>(ramp * (ramp + 1) / 2 + (num_blocks - ramp) * ramp);
  };
  int64_t top_k = 2;
  while (top_k < num_blocks && attended(top_k) < density * attended(num_blocks)) ++top_k;
  std::vector<std::vector<int32_t>> rows;
  for (int64_t head = 0; head < shape.num_heads_q; ++head) {
    for (int64_t r = 0; r < num_blocks; ++r) {
      std::vector<int32_t> blocks = choose(1, r, top_k - 2, random);
      blocks.insert(blocks.begin(), 0);
      if (r > 0) blocks.push_back(static_cast<int32_t>(r));
      blocks.resize(static_cast<std::size_t>(top_k), -1);
      rows.push_back(std::move(blocks));
    }
  }
  return rows;
}

}  // namespace bench
