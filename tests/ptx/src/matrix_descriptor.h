// Operands of wgmma in shared memory (sections 9.7.15.5.1): which 16 bytes hold which elements.
//
// Eight elements that lie side by side are a chunk. A descriptor's fields, a swizzle and an
// operand's size settle where chunks lie, but for multiples of 1 KiB: so places are computed once
// and kept.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "types.h"

namespace ptxsim {

struct Warp;

/// An operand, A or B, of 16 k. mn: its rows (A) or columns (B).
struct OperandShape {
  bool is_mn_major = false;
  u32 first_mn = 0;  // Those that a warp needs.
  u32 num_mn = 0;    // A multiple of 8.
};

/// Bytes from a multiple of 1 KiB in shared memory.
struct OperandPlaces {
  struct Run {
    u32 begin = 0, bytes = 0;
  };
  std::vector<u32> chunks;  // In the order [mn][k], or [k][mn] if MN-major.
  std::vector<Run> runs;    // The same bytes, ascending, without gaps.
};

class SharedOperand {
 public:
  /// Fails if the descriptor has what is not modelled, or chunks are out of bounds.
  SharedOperand(Warp& warp, u64 descriptor, const OperandShape& shape);

  const u8* base() const { return base_; }
  const OperandPlaces& places() const { return *places_; }
  /// Changes with any of its bytes, all but surely.
  u64 checksum() const;
  /// Fails where the async proxy must not read yet.
  void check_proxies(Warp& warp) const;

 private:
  const u8* base_ = nullptr;
  const OperandPlaces* places_ = nullptr;
};

}  // namespace ptxsim
