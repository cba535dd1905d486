// The arithmetic of one wgmma: D 64xN, A 64x16, B 16xN; fragments to matrices and back.
// PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16".
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt::engine {

struct ProductCall;

/// Products are exact; of each sum of 16 and the accumulator, all but the last rounding is in
/// double (hardware: other orders, truncation).
class MatrixProduct {
 public:
  explicit MatrixProduct(const ProductCall& call);

  /// Reads A from shared memory; `window` is where address 0 would be.
  void load_a(const char* window);
  void load_b(const char* window);

  /// Sets the fragments of one thread (0 to 127).
  void load_a(std::size_t thread, const std::array<uint32_t, 4>& fragment);
  void load_d(std::size_t thread, const std::vector<float>& fragment);
  void store_d(std::size_t thread, std::vector<float>& fragment) const;

  void multiply();

 private:
  float widen(uint32_t bits) const;

  const ProductCall& call_;
  std::size_t n_;
  std::vector<double> a_;  // [64][16]
  std::vector<double> b_;  // [16][n]
  std::vector<double> d_;  // [64][n]
};

}  // namespace simt::engine
