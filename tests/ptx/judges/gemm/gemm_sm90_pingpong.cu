// CUTLASS's ping-pong GEMM: two consumer warpgroups take tiles in turn, one multiplies while the
// other stores. With bf16, in clusters of two blocks, to which TMA multicasts; with fp16, alone.
// SPDX-License-Identifier: Apache-2.0
#include "gemm_sm90.h"

namespace judges {
namespace {

using cute::_1;
using cute::_2;
using cute::_64;

template <typename Element, typename LayoutA, typename LayoutB, typename ClusterShape>
using PingpongGemm =
    WarpSpecializedGemm<Element, LayoutA, LayoutB, cute::Shape<_64, _64, _64>, ClusterShape,
                        cutlass::gemm::KernelTmaWarpSpecializedPingpong,
                        cutlass::epilogue::TmaWarpSpecializedPingpong>;

bool check_all() {
  using Bf16 =
      PingpongGemm<cutlass::bfloat16_t, RowMajor, ColumnMajor, cute::Shape<_2, _1, _1>>;
  using Fp16 = PingpongGemm<cutlass::half_t, ColumnMajor, RowMajor, cute::Shape<_1, _1, _1>>;
  bool right = true;
  right &= Bf16::check("bf16, both K-major, 2x1x1", {{1, 8, 8}, {141, 100, 72}, {259, 68, 328}});
  right &= Fp16::check("fp16, both MN-major", {{8, 8, 9}, {200, 104, 77}, {264, 72, 331}});
  return right;
}

}  // namespace
}  // namespace judges

int main() { return judges::check_all() ? 0 : 1; }
