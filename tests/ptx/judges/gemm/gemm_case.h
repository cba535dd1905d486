// One product D = alpha A B + beta C by a CUTLASS GEMM, compared with float64 on the host. Every
// buffer has exactly the bytes that it needs, and D starts as NaN, so that unwritten elements show.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>
#include <cutlass/cutlass.h>
#include <cutlass/layout/matrix.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace judges {

struct Sizes {
  int m, n, k;
};

inline constexpr float kAlpha = 0.75f;
inline constexpr float kBeta = -1.5f;

inline void require(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  std::printf("%s: %s\n", call, cudaGetErrorString(error));
  std::exit(1);
}

inline void require(cutlass::Status status, const char* call) {
  if (status == cutlass::Status::kSuccess) return;
  std::printf("%s: %s\n", call, cutlassGetStatusString(status));
  std::exit(1);
}

#define JUDGES_REQUIRE(call) ::judges::require((call), #call)

template <typename Value>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<Value>& values) : size_(values.size()) {
    JUDGES_REQUIRE(cudaMalloc(reinterpret_cast<void**>(&data_), bytes()));
    JUDGES_REQUIRE(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { static_cast<void>(cudaFree(data_)); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  Value* data() const { return data_; }

  std::vector<Value> read() const {
    std::vector<Value> values(size_);
    JUDGES_REQUIRE(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  std::size_t bytes() const { return size_ * sizeof(Value); }

  Value* data_ = nullptr;
  std::size_t size_;
};

/// Element (row, column) of a matrix of `rows` by `columns`.
template <typename Layout>
std::size_t place(Sizes shape, int row, int column) {
  const bool row_major = std::is_same_v<Layout, cutlass::layout::RowMajor>;
  return row_major ? std::size_t(row) * shape.n + column : std::size_t(column) * shape.m + row;
}

/// Random operands of one product; C and D are row-major.
template <typename Element, typename LayoutA, typename LayoutB>
struct GemmCase {
  Sizes sizes;
  std::vector<Element> a, b;
  std::vector<float> c;

  explicit GemmCase(Sizes s)
      : sizes(s), a(std::size_t(s.m) * s.k), b(std::size_t(s.k) * s.n), c(std::size_t(s.m) * s.n) {
    std::mt19937 random(static_cast<unsigned>(s.m * 10007 + s.n * 101 + s.k));
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (Element& value : a) value = Element(uniform(random));
    for (Element& value : b) value = Element(uniform(random));
    for (float& value : c) value = uniform(random);
  }

  std::vector<float> poison() const {
    return std::vector<float>(c.size(), std::numeric_limits<float>::quiet_NaN());
  }

  /// Number of elements of D that differ from float64 by more than rounding explains.
  ///
  /// A product of two 16-bit elements is exact in float32. Each of the k additions loses at most
  /// 2^-23 of its result, truncation allowed, so a sum is within gamma times the sum of magnitudes;
  /// alpha, beta and the last addition round once each.
  int count_wrong(const std::vector<float>& d) const {
    const double step = std::ldexp(sizes.k, -23);
    const double gamma = step / (1 - step);
    const double epilogue = 3 * std::ldexp(1.0, -24);
    int wrong = 0;
    for (int i = 0; i < sizes.m; ++i) {
      for (int j = 0; j < sizes.n; ++j) {
        double sum = 0;
        double magnitude = 0;
        for (int k = 0; k < sizes.k; ++k) {
          const double x = float(a[place<LayoutA>({sizes.m, sizes.k, 0}, i, k)]);
          const double y = float(b[place<LayoutB>({sizes.k, sizes.n, 0}, k, j)]);
          sum += x * y;
          magnitude += std::abs(x * y);
        }
        const std::size_t at = std::size_t(i) * sizes.n + j;
        const double expected = kAlpha * sum + kBeta * double(c[at]);
        const double largest =
            std::abs(kAlpha) * (1 + gamma) * magnitude + std::abs(kBeta * double(c[at]));
        const double bound = std::abs(kAlpha) * gamma * magnitude + epilogue * largest;
        if (!(std::abs(d[at] - expected) <= bound)) {
          if (wrong++ == 0) {
            std::printf("  D(%d, %d) is %.9g, not %.9g within %.2g\n", i, j, d[at], expected,
                        bound);
          }
        }
      }
    }
    return wrong;
  }
};

/// Runs `multiply(case, a, b, c, d)` for each of the sizes. @return whether all were correct.
template <typename Element, typename LayoutA, typename LayoutB, typename Multiply>
bool check_gemm(const char* name, const std::vector<Sizes>& all_sizes, const Multiply& multiply) {
  int wrong_products = 0;
  for (const Sizes& sizes : all_sizes) {
    const GemmCase<Element, LayoutA, LayoutB> gemm(sizes);
    const DeviceArray<Element> a(gemm.a);
    const DeviceArray<Element> b(gemm.b);
    const DeviceArray<float> c(gemm.c);
    const DeviceArray<float> d(gemm.poison());
    multiply(gemm.sizes, a.data(), b.data(), c.data(), d.data());
    JUDGES_REQUIRE(cudaDeviceSynchronize());
    const int wrong = gemm.count_wrong(d.read());
    std::printf("%-28s %4d x %4d x %4d: %d of %d wrong\n", name, sizes.m, sizes.n, sizes.k, wrong,
                sizes.m * sizes.n);
    wrong_products += wrong > 0;
  }
  return wrong_products == 0;
}

}  // namespace judges
