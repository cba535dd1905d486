// CUTLASS's GEMM for sm_90a as its builders make it: TMA, warp-specialised, persistent.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <cutlass/util/packed_stride.hpp>
#include <cute/tensor.hpp>

#include "gemm_case.h"

namespace judges {

using cutlass::layout::ColumnMajor;
using cutlass::layout::RowMajor;

template <typename Element, typename LayoutA, typename LayoutB, typename TileShape,
          typename ClusterShape, typename MainloopSchedule, typename EpilogueSchedule>
struct WarpSpecializedGemm {
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, TileShape, ClusterShape,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, float, RowMajor,
      /*AlignmentC=*/4, float, RowMajor, /*AlignmentD=*/4, EpilogueSchedule>::CollectiveOp;

  // Three stages: with more than 192 elements of k the ring begins again.
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, LayoutA, /*AlignmentA=*/8,
      Element, LayoutB, /*AlignmentB=*/8, float, TileShape, ClusterShape,
      cutlass::gemm::collective::StageCount<3>, MainloopSchedule>::CollectiveOp;

  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop,
                                                      Epilogue>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

  static void multiply(const Sizes& sizes, const Element* a, const Element* b, const float* c,
                       float* d) {
    using cutlass::make_cute_packed_stride;
    const auto a_stride =
        make_cute_packed_stride(typename Kernel::StrideA{}, {sizes.m, sizes.k, 1});
    const auto b_stride =
        make_cute_packed_stride(typename Kernel::StrideB{}, {sizes.n, sizes.k, 1});
    const auto c_stride =
        make_cute_packed_stride(typename Kernel::StrideC{}, {sizes.m, sizes.n, 1});
    const auto d_stride =
        make_cute_packed_stride(typename Kernel::StrideD{}, {sizes.m, sizes.n, 1});
    // Fewer multiprocessors than tiles: blocks take several in turn.
    cutlass::KernelHardwareInfo hardware;
    hardware.device_id = 0;
    hardware.sm_count = 2;
    typename Gemm::Arguments arguments{cutlass::gemm::GemmUniversalMode::kGemm,
                                       {sizes.m, sizes.n, sizes.k, 1},
                                       {a, a_stride, b, b_stride},
                                       {{kAlpha, kBeta}, c, c_stride, d, d_stride},
                                       hardware};
    Gemm gemm;
    JUDGES_REQUIRE(gemm.can_implement(arguments));
    const DeviceArray<char> workspace(std::vector<char>(Gemm::get_workspace_size(arguments) + 1));
    JUDGES_REQUIRE(gemm.initialize(arguments, workspace.data()));
    JUDGES_REQUIRE(gemm.run());
  }

  static bool check(const char* name, const std::vector<Sizes>& sizes) {
    return check_gemm<Element, LayoutA, LayoutB>(
        name, sizes,
        [](const Sizes& s, const Element* a, const Element* b, const float* c, float* d) {
          multiply(s, a, b, c, d);
        });
  }
};

}  // namespace judges
