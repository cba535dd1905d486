// A warpgroup's product as a program: the bytes of its operands in shared memory, laid out as the
// manual says (section 9.7.15.5.1), its registers, and its lines.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "half.h"
#include "memory.h"
#include "run_ptx.h"

namespace ptxsim::test {

struct WgmmaCase {
  u32 n = 16;
  bool is_bf16 = true;
  bool f16_accumulators = false;
  bool a_in_registers = false;
  bool a_is_mn_major = false, b_is_mn_major = false;
  u32 swizzle = 3;  // 0: none; 1, 2, 3: 32, 64, 128 bytes.
  u32 first_k = 0;  // For K-major operands: where in the row they begin.
  u32 gap = 0;      // Extra bytes between groups of 8 rows.
  int scale_a = 1, scale_b = 1;
  bool accumulates = true;

  u32 num_registers() const { return n / (f16_accumulators ? 4 : 2); }
  u16 encode(float value) const { return is_bf16 ? float_to_bf16(value) : float_to_f16(value); }
};

/// The layout of an operand of 16 k in shared memory.
class OperandLayout {
 public:
  OperandLayout(const WgmmaCase& product, bool is_mn_major, u32 num_mn)
      : swizzle_(product.swizzle),
        first_k_(is_mn_major || swizzle_ == 0 ? 0 : product.first_k),
        is_mn_major_(is_mn_major),
        num_mn_(num_mn) {
    const u32 row_bytes = 16u << swizzle_;
    if (swizzle_ == 0) {
      leading_ = 128 + product.gap;
      stride_ = 2 * leading_;
    } else {
      stride_ = 8 * row_bytes + product.gap;
      leading_ = 2 * stride_;
    }
  }

  /// Offset of element (mn, k) from a multiple of 1024.
  u32 offset(u32 mn, u32 k) const {
    const u32 row_bytes = 16u << swizzle_;
    const u32 row_elements = row_bytes / 2;
    u32 at = 0;
    if (swizzle_ == 0) {
      const u32 along_mn = is_mn_major_ ? 2 : 16;
      const u32 along_k = is_mn_major_ ? 16 : 2;
      at = mn / 8 * stride_ + mn % 8 * along_mn + k / 8 * leading_ + k % 8 * along_k;
    } else if (is_mn_major_) {
      at = mn / row_elements * leading_ + mn % row_elements * 2 + k / 8 * stride_ +
           k % 8 * row_bytes;
    } else {
      at = mn / 8 * stride_ + mn % 8 * row_bytes + (first_k_ + k) * 2;
    }
    const u32 swizzled_bits = ((1u << swizzle_) - 1) << 7;
    return at ^ ((at & swizzled_bits) >> 3);
  }

  u32 bytes() const {
    u32 end = 0;
    for (u32 mn = 0; mn < num_mn_; ++mn) {
      for (u32 k = 0; k < 16; ++k) end = std::max(end, offset(mn, k) + 2);
    }
    return (end + 1023) / 1024 * 1024;
  }

  /// The descriptor if that multiple of 1024 is at `start` in shared memory.
  u64 descriptor(u32 start) const {
    const u64 mode = swizzle_ == 0 ? 0 : 4 - swizzle_;
    return u64{start + 2 * first_k_} >> 4 | u64{leading_ >> 4} << 16 | u64{stride_ >> 4} << 32 |
           mode << 62;
  }

 private:
  u32 swizzle_, first_k_;
  bool is_mn_major_;
  u32 num_mn_;
  u32 leading_ = 0, stride_ = 0;
};

/// Values of A [64][16], B [n][16] and the accumulators [64][n], and a program's text and memory.
class WgmmaProgram {
 public:
  WgmmaProgram(const WgmmaCase& product, std::vector<float> a, std::vector<float> b,
               std::vector<float> c);
  ~WgmmaProgram();
  WgmmaProgram(const WgmmaProgram&) = delete;
  WgmmaProgram& operator=(const WgmmaProgram&) = delete;

  // Lines that write operands to shared memory; load accumulators and A to registers %d0.. and
  // %a0..; and set the descriptors %da, %db and the predicate %scale.
  std::string declare() const;
  std::string load() const;
  std::string fence_proxy() const { return "fence.proxy.async.shared::cta;\nbar.sync 0;\n"; }
  std::string setup() const { return declare() + load() + fence_proxy(); }
  std::string product() const { return product("%da", "%db"); }
  std::string product(const std::string& a_descriptor, const std::string& b_descriptor) const;
  std::string store() const;
  /// A fence, the product, its commit and the wait.
  std::string whole() const;

  /// @return the accumulators that store() wrote, [64][n].
  std::vector<float> run(const std::string& body, u32 num_threads = 128, Counts* counts = nullptr);

 private:
  WgmmaCase product_;
  OperandLayout a_layout_, b_layout_;
  std::vector<u8> shared_;
  std::vector<u32> a_registers_, accumulators_;  // [register][thread]
};

inline const std::string kWgmmaFence = "wgmma.fence.sync.aligned;\n";
inline const std::string kWgmmaCommit = "wgmma.commit_group.sync.aligned;\n";
inline const std::string kWgmmaWait = "wgmma.wait_group.sync.aligned 0;\n";

}  // namespace ptxsim::test
