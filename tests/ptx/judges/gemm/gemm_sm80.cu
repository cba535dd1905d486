// CUTLASS's GEMM for sm_80 (cp.async in several stages, ldmatrix, mma.sync) with bf16 and fp16.
// SPDX-License-Identifier: Apache-2.0
#include <cutlass/gemm/device/gemm_universal.h>

#include "gemm_case.h"

namespace judges {
namespace {

using cutlass::layout::ColumnMajor;
using cutlass::layout::RowMajor;

template <typename Element, typename LayoutA, typename LayoutB>
struct MultistageGemm {
  using Gemm = cutlass::gemm::device::GemmUniversal<
      Element, LayoutA, Element, LayoutB, float, RowMajor, float, cutlass::arch::OpClassTensorOp,
      cutlass::arch::Sm80, cutlass::gemm::GemmShape<64, 64, 32>,
      cutlass::gemm::GemmShape<32, 32, 32>, cutlass::gemm::GemmShape<16, 8, 16>,
      cutlass::epilogue::thread::LinearCombination<float, 4, float, float>,
      cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<>, /*Stages=*/3, /*AlignmentA=*/8,
      /*AlignmentB=*/8>;

  /// `slices`: parts of k, which are added serially.
  static void multiply(int slices, const Sizes& sizes, const Element* a, const Element* b,
                       const float* c, float* d) {
    const int a_stride = std::is_same_v<LayoutA, RowMajor> ? sizes.k : sizes.m;
    const int b_stride = std::is_same_v<LayoutB, RowMajor> ? sizes.n : sizes.k;
    typename Gemm::Arguments arguments(cutlass::gemm::GemmUniversalMode::kGemm,
                                       {sizes.m, sizes.n, sizes.k}, slices, {kAlpha, kBeta}, a, b,
                                       c, d, 0, 0, 0, 0, a_stride, b_stride, sizes.n, sizes.n);
    Gemm gemm;
    JUDGES_REQUIRE(Gemm::can_implement(arguments));
    const DeviceArray<char> workspace(std::vector<char>(Gemm::get_workspace_size(arguments) + 1));
    JUDGES_REQUIRE(gemm.initialize(arguments, workspace.data()));
    JUDGES_REQUIRE(gemm.run());
  }

  static bool check(const char* name, int slices, const std::vector<Sizes>& sizes) {
    return check_gemm<Element, LayoutA, LayoutB>(
        name, sizes,
        [&](const Sizes& s, const Element* a, const Element* b, const float* c, float* d) {
          multiply(slices, s, a, b, c, d);
        });
  }
};

bool check_all() {
  using Bf16 = MultistageGemm<cutlass::bfloat16_t, RowMajor, ColumnMajor>;
  using Fp16 = MultistageGemm<cutlass::half_t, ColumnMajor, RowMajor>;
  bool right = true;
  right &= Bf16::check("bf16, both K-major", 1, {{1, 4, 8}, {77, 108, 72}, {129, 68, 200}});
  right &= Bf16::check("bf16, K in two slices", 2, {{77, 68, 328}});
  right &= Fp16::check("fp16, both MN-major", 1, {{8, 8, 3}, {72, 104, 77}, {136, 72, 201}});
  return right;
}

}  // namespace
}  // namespace judges

int main() { return judges::check_all() ? 0 : 1; }
