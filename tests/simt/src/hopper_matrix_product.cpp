// The arithmetic of one wgmma: see hopper_matrix_product.h.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_matrix_product.h"

#include <bit>
#include <cstring>

#include "hopper_operands.h"
#include "hopper_products.h"
#include "numbers.h"

namespace simt::engine {
namespace {

constexpr std::size_t kM = 64;
constexpr std::size_t kK = 16;

/// First row of a thread's fragments; the others are 8 below.
std::size_t row_of(std::size_t thread) { return thread / 32 * 16 + thread % 32 / 4; }

std::size_t row_of_d(std::size_t thread, std::size_t i) { return row_of(thread) + i % 4 / 2 * 8; }
std::size_t column_of_d(std::size_t thread, std::size_t i) {
  return i / 4 * 8 + thread % 4 * 2 + i % 2;
}

}  // namespace

MatrixProduct::MatrixProduct(const ProductCall& call)
    : call_(call), n_(static_cast<std::size_t>(call.n)), a_(kM * kK), b_(kK * n_), d_(kM * n_) {}

float MatrixProduct::widen(uint32_t bits) const {
  return call_.bf16 ? std::bit_cast<float>(bits << 16)
                    : float_from_half(static_cast<uint16_t>(bits));
}

void MatrixProduct::load_a(const char* window) {
  for_each_chunk(MatrixDescriptor(call_.descriptor_a), /*mn_major=*/false, 0, kM,
                 [&](uint32_t address, uint32_t m, uint32_t k) {
                   std::array<uint16_t, 8> chunk;
                   std::memcpy(chunk.data(), window + address, sizeof chunk);
                   for (std::size_t i = 0; i < 8; ++i) a_[m * kK + k + i] = widen(chunk[i]);
                 });
}

void MatrixProduct::load_b(const char* window) {
  const bool n_major = call_.transposed_b;
  for_each_chunk(MatrixDescriptor(call_.descriptor_b), n_major, 0, static_cast<uint32_t>(n_),
                 [&](uint32_t address, uint32_t n, uint32_t k) {
                   std::array<uint16_t, 8> chunk;
                   std::memcpy(chunk.data(), window + address, sizeof chunk);
                   for (std::size_t i = 0; i < 8; ++i) {
                     b_[n_major ? k * n_ + n + i : (k + i) * n_ + n] = widen(chunk[i]);
                   }
                 });
}

void MatrixProduct::load_a(std::size_t thread, const std::array<uint32_t, 4>& fragment) {
  for (std::size_t i = 0; i < 4; ++i) {
    double* pair = &a_[(row_of(thread) + i % 2 * 8) * kK + i / 2 * 8 + thread % 4 * 2];
    pair[0] = widen(fragment[i] & 0xffff);
    pair[1] = widen(fragment[i] >> 16);
  }
}

void MatrixProduct::load_d(std::size_t thread, const std::vector<float>& fragment) {
  if (!call_.accumulate) return;  // Starts from zeros, whatever the registers held.
  for (std::size_t i = 0; i < fragment.size(); ++i) {
    d_[row_of_d(thread, i) * n_ + column_of_d(thread, i)] = fragment[i];
  }
}

void MatrixProduct::store_d(std::size_t thread, std::vector<float>& fragment) const {
  for (std::size_t i = 0; i < fragment.size(); ++i) {
    fragment[i] = static_cast<float>(d_[row_of_d(thread, i) * n_ + column_of_d(thread, i)]);
  }
}

void MatrixProduct::multiply() {
  for (std::size_t m = 0; m < kM; ++m) {
    double* sums = &d_[m * n_];
    for (std::size_t k = 0; k < kK; ++k) {
      const double factor = a_[m * kK + k];
      const double* row = &b_[k * n_];
      for (std::size_t n = 0; n < n_; ++n) sums[n] += factor * row[n];
    }
  }
}

}  // namespace simt::engine
