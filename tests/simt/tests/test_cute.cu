// CuTe on emulated threads. Layouts, swizzles, partitioning and tiled products are CuTe's; the
// three instructions that its atoms issue are simt's. The test is a matrix product with a pipeline
// of cp.async stages.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>
#include <cutlass/numeric_types.h>

#include <cute/tensor.hpp>

#include "test.h"

namespace {

using Element = cutlass::bfloat16_t;

/// mma.sync.m16n8k16 with CuTe's own fragment layouts.
struct EmulatedMma : cute::SM80_16x8x16_F32BF16BF16F32_TN {
  static void fma(float& d0, float& d1, float& d2, float& d3, const uint32_t& a0,
                  const uint32_t& a1, const uint32_t& a2, const uint32_t& a3, const uint32_t& b0,
                  const uint32_t& b1, const float& c0, const float& c1, const float& c2,
                  const float& c3) {
    float sums[4] = {c0, c1, c2, c3};
    simt::mma_m16n8k16(sums, {a0, a1, a2, a3}, {b0, b1}, /*bf16=*/true);
    d0 = sums[0];
    d1 = sums[1];
    d2 = sums[2];
    d3 = sums[3];
  }
};

struct EmulatedLdmatrix : cute::SM75_U32x4_LDSM_N {
  static void copy(const cute::uint128_t& row, uint32_t& d0, uint32_t& d1, uint32_t& d2,
                   uint32_t& d3) {
    uint32_t words[4];
    simt::ldmatrix(words, 4, /*transposed=*/false, &row);
    d0 = words[0];
    d1 = words[1];
    d2 = words[2];
    d3 = words[3];
  }
};

struct EmulatedCpAsync : cute::SM80_CP_ASYNC_CACHEGLOBAL<cute::uint128_t> {
  static void copy(const cute::uint128_t& global, cute::uint128_t& shared) {
    simt::cp_async(&shared, &global, 16, 16);
  }
};

}  // namespace

template <>
struct cute::MMA_Traits<EmulatedMma> : cute::MMA_Traits<cute::SM80_16x8x16_F32BF16BF16F32_TN> {};
template <>
struct cute::Copy_Traits<EmulatedLdmatrix> : cute::Copy_Traits<cute::SM75_U32x4_LDSM_N> {};
template <>
struct cute::Copy_Traits<EmulatedCpAsync>
    : cute::Copy_Traits<cute::SM80_CP_ASYNC_CACHEGLOBAL<cute::uint128_t>> {};

namespace {

struct Traits {
  using BlockM = cute::Int<64>;
  using BlockN = cute::Int<64>;
  using BlockK = cute::Int<32>;
  using Stages = cute::Int<3>;

  // 8 rows of 64 bytes, swizzled so that the 8 rows of an ldmatrix are in different banks.
  using Atom = decltype(cute::composition(
      cute::Swizzle<2, 3, 3>{},
      cute::Layout<cute::Shape<cute::_8, cute::_32>, cute::Stride<cute::_32, cute::_1>>{}));
  using LayoutA = decltype(cute::tile_to_shape(Atom{}, cute::Shape<BlockM, BlockK, Stages>{}));
  using LayoutB = decltype(cute::tile_to_shape(Atom{}, cute::Shape<BlockN, BlockK, Stages>{}));

  // 128 threads copy 32 rows of 4 times 16 bytes at once; 2 x 2 warps multiply 32 x 32.
  using GlobalCopy = decltype(cute::make_tiled_copy(
      cute::Copy_Atom<EmulatedCpAsync, Element>{},
      cute::Layout<cute::Shape<cute::_32, cute::_4>, cute::Stride<cute::_4, cute::_1>>{},
      cute::Layout<cute::Shape<cute::_1, cute::_8>>{}));
  using Mma =
      decltype(cute::make_tiled_mma(EmulatedMma{}, cute::Layout<cute::Shape<cute::_2, cute::_2>>{},
                                    cute::Tile<cute::_32, cute::_32, cute::_16>{}));
  using SharedCopy = cute::Copy_Atom<EmulatedLdmatrix, Element>;

  struct Storage {
    alignas(128) Element a[cute::cosize_v<LayoutA>];
    alignas(128) Element b[cute::cosize_v<LayoutB>];
  };
};

// C [m, n] = A [m, k] B [n, k]^T.
__global__ void multiply(const Element* a, const Element* b, float* c, int m, int n, int k) {
  using namespace cute;
  auto& storage =
      *static_cast<Traits::Storage*>(simt::dynamic_shared(sizeof(Traits::Storage), 128));
  const auto thread = static_cast<int>(threadIdx.x);
  const Tensor sA = make_tensor(make_smem_ptr(storage.a), Traits::LayoutA{});
  const Tensor sB = make_tensor(make_smem_ptr(storage.b), Traits::LayoutB{});
  const Tensor A = make_tensor(make_gmem_ptr(a), make_shape(m, k), make_stride(k, _1{}));
  const Tensor B = make_tensor(make_gmem_ptr(b), make_shape(n, k), make_stride(k, _1{}));
  const Tensor C = make_tensor(make_gmem_ptr(c), make_shape(m, n), make_stride(n, _1{}));
  const Tensor gA = local_tile(A, Shape<Traits::BlockM, Traits::BlockK>{},
                               make_coord(static_cast<int>(blockIdx.x), _));
  const Tensor gB = local_tile(B, Shape<Traits::BlockN, Traits::BlockK>{},
                               make_coord(static_cast<int>(blockIdx.y), _));
  Tensor gC = local_tile(C, Shape<Traits::BlockM, Traits::BlockN>{},
                         make_coord(static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y)));

  const Traits::GlobalCopy global_copy;
  const auto copier = global_copy.get_thread_slice(thread);
  const Tensor from_a = copier.partition_S(gA);
  const Tensor from_b = copier.partition_S(gB);
  Tensor to_a = copier.partition_D(sA);
  Tensor to_b = copier.partition_D(sB);
  const int num_tiles = size<2>(gA);
  constexpr int kStages = Traits::Stages::value;
  const auto load = [&](int tile) {
    if (tile < num_tiles) {
      cute::copy(global_copy, from_a(_, _, _, tile), to_a(_, _, _, tile % kStages));
      cute::copy(global_copy, from_b(_, _, _, tile), to_b(_, _, _, tile % kStages));
    }
    simt::cp_async_commit();
  };

  const Traits::Mma mma;
  const auto multiplier = mma.get_thread_slice(thread);
  Tensor sums = partition_fragment_C(mma, Shape<Traits::BlockM, Traits::BlockN>{});
  clear(sums);
  Tensor rA = multiplier.partition_fragment_A(sA(_, _, 0));
  Tensor rB = multiplier.partition_fragment_B(sB(_, _, 0));
  const auto copy_a = make_tiled_copy_A(Traits::SharedCopy{}, mma);
  const auto copy_b = make_tiled_copy_B(Traits::SharedCopy{}, mma);
  const auto slice_a = copy_a.get_thread_slice(thread);
  const auto slice_b = copy_b.get_thread_slice(thread);
  Tensor rA_copied = slice_a.retile_D(rA);
  Tensor rB_copied = slice_b.retile_D(rB);

  for (int tile = 0; tile < kStages - 1; ++tile) load(tile);
  for (int tile = 0; tile < num_tiles; ++tile) {
    simt::cp_async_wait(kStages - 2);
    __syncthreads();  // The tile has landed; nobody still reads the stage loaded next.
    load(tile + kStages - 1);
    cute::copy(copy_a, slice_a.partition_S(sA(_, _, tile % kStages)), rA_copied);
    cute::copy(copy_b, slice_b.partition_S(sB(_, _, tile % kStages)), rB_copied);
    cute::gemm(mma, rA, rB, sums);
  }
  Tensor to_c = multiplier.partition_C(gC);
  cute::copy(sums, to_c);
}

void test_product() {
  constexpr int kM = 128, kN = 64, kK = 160;
  std::vector<Element> a(kM * kK);
  std::vector<Element> b(kN * kK);
  for (int i = 0; i < kM * kK; ++i) a[static_cast<std::size_t>(i)] = Element(float(i % 7 - 3));
  for (int i = 0; i < kN * kK; ++i) b[static_cast<std::size_t>(i)] = Element(float(i * 3 % 5 - 2));
  std::vector<float> want(kM * kN, 0.0f);  // Small integers: exact in any order.
  for (std::size_t i = 0; i < want.size(); ++i) {
    for (std::size_t l = 0; l < kK; ++l) {
      want[i] += float(a[i / kN * kK + l]) * float(b[i % kN * kK + l]);
    }
  }
  simt::test::for_all_schedules([&] {
    const simt::test::DeviceArray<Element> device_a(a);
    const simt::test::DeviceArray<Element> device_b(b);
    const simt::test::DeviceArray<float> c(want.size());
    simt::launch("multiply", dim3(kM / 64, kN / 64), dim3(128), sizeof(Traits::Storage), nullptr,
                 &multiply, device_a.data(), device_b.data(), c.data(), kM, kN, kK);
    CHECK(c.values() == want);
  });
}

}  // namespace

int main() {
  test_product();
  return simt::test::finish();
}
