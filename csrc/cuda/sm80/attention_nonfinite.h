// Stage 3 on sm80: V with NaN or infinity in keys that only some rows of a tile attend.
//
// 0 * NaN is NaN, so a plain product would carry a bad V into rows that must not see it. Tiles in
// which every row attends every key need no care. In the others a warp looks at V's exponents
// first; if one is all ones, V is multiplied without its bad elements, and two more products, of P
// with ones where V is +inf (or NaN) and where it is -inf (or NaN), say which sums those reach.
// A row whose P has become 0 in the dtype is taken not to attend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/device/element_pair.h"
#include "cuda/sm80/attention_softmax.h"

namespace minference::sm80 {

/// Whether some row of row block `r` of the row tile does not attend some key of the tile that is
/// loaded.
__device__ inline bool is_exposed(const device::PairTile& tile, int r) {
  return tile.mask[r] != 0 || tile.keep[r] != tile.loaded();
}

/// Whether V has a NaN or an infinity in these keys. By a warp.
template <typename Traits>
__device__ inline bool has_nonfinite(uint32_t values) {
  using Pair = device::ElementPair<typename Traits::Element>;
  uint32_t found = 0;
#pragma unroll 2
  for (int k = 0; k < Traits::kStepKeys / 16; ++k) {
#pragma unroll
    for (int n = 0; n < Traits::kDimV / 16; ++n) {
      uint32_t b[2][2];
      device::load_b_transposed<typename Traits::ValueRows>(b, values, 16 * k, n);
      found |= Pair::nonfinite(b[0][0]) | Pair::nonfinite(b[0][1]) | Pair::nonfinite(b[1][0]) |
               Pair::nonfinite(b[1][1]);
    }
  }
  return __any_sync(device::kFullWarp, found != 0);
}

/// O += P V, where no bad element of V reaches a row that does not attend it.
template <typename Traits>
__device__ inline void add_nonfinite_values(RowState<Traits>& rows, const Probabilities<Traits>& p,
                                            uint32_t values) {
#pragma unroll
  for (int k = 0; k < Traits::kStepKeys / 16; ++k) {
#pragma unroll
    for (int n = 0; n < Traits::kDimV / 8; ++n) {
      uint32_t both[2][2];
      device::load_b_transposed<typename Traits::ValueRows>(both, values, 16 * k, n / 2);
#pragma unroll
      for (int m = 0; m < Traits::kRowMats; ++m) {
        device::add_nonfinite<typename Traits::Element>(rows.out[m][n], p.p[m][k], both[n % 2]);
      }
      __syncwarp();  // Orders nothing: keeps what follows, and its registers, behind.
    }
  }
}

}  // namespace minference::sm80
