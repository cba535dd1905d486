// Operands of wgmma in shared memory (sections 9.7.15.5.1): which 16 bytes hold which elements.
//
// A chunk is eight elements that lie side by side. The fields of a descriptor, a swizzle and an
// operand's size determine where chunks lie, up to multiples of 1 KiB; so places are computed once
// and kept.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "types.h"

namespace ptxsim {

struct Warp;

/// An operand, A or B, with 16 k. mn is its rows (A) or columns (B).
struct OperandShape {
  bool is_mn_major = false;
  u32 first_mn = 0;  // The rows or columns that a warp needs.
  u32 num_mn = 0;    // A multiple of 8.
};

/// Offsets from a multiple of 1 KiB in shared memory, in bytes.
struct OperandPlaces {
  struct Run {
    u32 begin = 0, bytes = 0;
  };
  std::vector<u32> chunks;  // In the order [mn][k], or [k][mn] if MN-major.
  std::vector<Run> runs;    // The same bytes, ascending, without gaps.
};

class SharedOperand {
 public:
  /// Fails if the descriptor uses something that is not modelled, or chunks are out of bounds.
  SharedOperand(Warp& warp, u64 descriptor, const OperandShape& shape);

  const u8* base() const { return base_; }
  const OperandPlaces& places() const { return *places_; }
  /// Changes, almost certainly, if any of its bytes changes.
  u64 checksum() const;
  /// Fails if the async proxy may not read it yet.
  void check_proxies(Warp& warp) const;

 private:
  const u8* base_ = nullptr;
  const OperandPlaces* places_ = nullptr;
};

}  // namespace ptxsim
