// CUTLASS's GEMMs for sm_90a as its builders make them: TMA, warp-specialised, persistent.
// Cooperative: two consumer warpgroups share a tile. Ping-pong: they alternate tiles, and one
// multiplies while the other stores. In clusters of two blocks TMA multicasts.
// SPDX-License-Identifier: Apache-2.0

// Includes only sm_90's builders, collectives and kernels: the headers with all of them take long
// to compile. clang-format off: they depend on each other in this order.
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/kernel/gemm_universal_decl.h>

#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/builders/sm90_gmma_builder.inl>
#include <cutlass/gemm/collective/collective_builder_decl.hpp>
#include <cutlass/gemm/collective/collective_mma_decl.hpp>
#include <cutlass/gemm/collective/sm90_mma_tma_gmma_ss_warpspecialized.hpp>
#include <cutlass/gemm/kernel/sm90_gemm_tma_warpspecialized_cooperative.hpp>
#include <cutlass/gemm/kernel/sm90_gemm_tma_warpspecialized_pingpong.hpp>
#include <cutlass/gemm/kernel/tile_scheduler.hpp>
#include <cutlass/util/packed_stride.hpp>
// clang-format on

#include "gemm_case.h"

namespace judges {
namespace {

using cute::_1;
using cute::_128;
using cute::_2;
using cute::_64;
using cute::Shape;
using cutlass::layout::ColumnMajor;
using cutlass::layout::RowMajor;

template <typename Element, typename LayoutA, typename LayoutB, typename TileShape,
          typename ClusterShape, typename MainloopSchedule, typename EpilogueSchedule>
struct WarpSpecializedGemm {
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, TileShape, ClusterShape,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, float, RowMajor,
      /*AlignmentC=*/4, float, RowMajor, /*AlignmentD=*/4, EpilogueSchedule>::CollectiveOp;

  // Three stages: beyond 192 elements of k the ring wraps.
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, LayoutA, /*AlignmentA=*/8,
      Element, LayoutB, /*AlignmentB=*/8, float, TileShape, ClusterShape,
      cutlass::gemm::collective::StageCount<3>, MainloopSchedule>::CollectiveOp;

  using Kernel =
      cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop, Epilogue>;
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
    // Fewer multiprocessors than tiles, so that each block takes several.
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

template <typename Element, typename LayoutA, typename LayoutB, typename ClusterShape>
using Cooperative =
    WarpSpecializedGemm<Element, LayoutA, LayoutB, Shape<_128, _64, _64>, ClusterShape,
                        cutlass::gemm::KernelTmaWarpSpecializedCooperative,
                        cutlass::epilogue::TmaWarpSpecializedCooperative>;

template <typename Element, typename LayoutA, typename LayoutB, typename ClusterShape>
using Pingpong = WarpSpecializedGemm<Element, LayoutA, LayoutB, Shape<_64, _64, _64>, ClusterShape,
                                     cutlass::gemm::KernelTmaWarpSpecializedPingpong,
                                     cutlass::epilogue::TmaWarpSpecialized>;

bool check_all() {
  using Bf16 = cutlass::bfloat16_t;
  using Fp16 = cutlass::half_t;
  using Alone = Shape<_1, _1, _1>;
  using Pair = Shape<_2, _1, _1>;
  const std::vector<Sizes> k_major = {{1, 8, 8}, {141, 100, 72}, {259, 68, 328}};
  const std::vector<Sizes> mn_major = {{8, 8, 9}, {200, 104, 77}, {264, 72, 331}};
  bool right = true;
  right &= Cooperative<Bf16, RowMajor, ColumnMajor, Alone>::check("cooperative bf16", k_major);
  right &= Cooperative<Fp16, ColumnMajor, RowMajor, Pair>::check("cooperative fp16, clusters of 2",
                                                                 mn_major);
  right &=
      Pingpong<Bf16, RowMajor, ColumnMajor, Pair>::check("ping-pong bf16, clusters of 2", k_major);
  right &= Pingpong<Fp16, ColumnMajor, RowMajor, Alone>::check("ping-pong fp16", mn_major);
  return right;
}

}  // namespace
}  // namespace judges

int main() { return judges::check_all() ? 0 : 1; }
