// Cases of wgmma: both places of A, both orders of B, every swizzle, small, odd and large N.
// Ordinary stores place the operands, and fragments are taken, by the tables of
// cuda/arch/wgmma.h.
//
// Each block runs a trial: A [64][K], B transposed [N][K] in 16 bits, C [64][N] in float. The
// output is C + A B, or A B alone in every second trial.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/arch/barrier.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/wgmma.h"
#include "hopper.h"

namespace minference::gpu_test {
namespace {

using arch::Major;
using arch::Swizzle;

enum class PlaceOfA { kShared, kRegisters };

template <typename Element_, int kN_>
struct Shape {
  using Element = Element_;
  static constexpr int kN = kN_;
};

template <typename Shape_, Major kMajorB_, Swizzle kSwizzle_>
struct ProductTraits : Shape_ {
  static constexpr Major kMajorB = kMajorB_;
  static constexpr Swizzle kSwizzle = kSwizzle_;

  static constexpr int kRowBytes = static_cast<int>(arch::swizzle_row_bytes(kSwizzle));
  static constexpr int kRow = kRowBytes / 2;                      // Elements.
  static constexpr int kK = kRow < 16 ? 16 : kRow;                // A K-major row, in steps of 16.
  static constexpr int kPanels = (Shape_::kN + kRow - 1) / kRow;  // Panels of an MN-major B.
  static constexpr int kPanelBytes = kK * kRowBytes;
  static constexpr Format kFormat = std::is_same_v<typename Shape_::Element, arch::BFloat16>
                                        ? Format::kBFloat16
                                        : Format::kFloat16;

  static constexpr int kTrials = 6;
  static constexpr int kWordsA = 64 * kK / 2;
  static constexpr int kWordsB = Shape_::kN * kK / 2;
  static constexpr int kWordsC = 64 * Shape_::kN;
  static constexpr int kTrialWords = kWordsA + kWordsB + kWordsC;

  struct Storage {
    alignas(1024) uint16_t a[64 * kK];
    alignas(1024) uint16_t b[(kMajorB == Major::kK ? Shape_::kN : kPanels * kRow) * kK];
  };
};

template <typename Shape_, Major kMajorB_, Swizzle kSwizzle_>
struct SharedTraits : ProductTraits<Shape_, kMajorB_, kSwizzle_> {
  static constexpr PlaceOfA kPlaceOfA = PlaceOfA::kShared;
};

template <typename Shape_, Major kMajorB_, Swizzle kSwizzle_>
struct RegisterTraits : ProductTraits<Shape_, kMajorB_, kSwizzle_> {
  static constexpr PlaceOfA kPlaceOfA = PlaceOfA::kRegisters;
};

// ---- Where elements lie in shared memory ------------------------------------------------------

/// Byte offset of element (mn, k) of a K-major operand of `size` rows.
template <typename Traits>
__device__ uint32_t k_major_offset(int mn, int k, int size) {
  if (Traits::kSwizzle == Swizzle::kNone) {  // [k / 8][mn][8]
    return static_cast<uint32_t>(((k / 8) * size + mn) * 16 + k % 8 * 2);
  }
  return arch::swizzle_offset(Traits::kSwizzle,
                              static_cast<uint32_t>(mn * Traits::kRowBytes + 2 * k));
}

/// The same for an MN-major operand: [panel][k][kRow].
template <typename Traits>
__device__ uint32_t mn_major_offset(int mn, int k) {
  const int offset =
      mn / Traits::kRow * Traits::kPanelBytes + k * Traits::kRowBytes + mn % Traits::kRow * 2;
  return arch::swizzle_offset(Traits::kSwizzle, static_cast<uint32_t>(offset));
}

/// The descriptor of the 16 columns of k from `k` on.
template <typename Traits>
__device__ arch::MatrixDescriptor k_major_operand(const uint16_t* operand, int k, int size) {
  if (Traits::kSwizzle == Swizzle::kNone) {
    return arch::matrix_descriptor(operand, Traits::kSwizzle,
                                   /*leading_bytes=*/static_cast<uint32_t>(16 * size),
                                   /*stride_bytes=*/128);
  }
  return advance(arch::k_major_descriptor(operand, Traits::kSwizzle), static_cast<uint32_t>(2 * k));
}

template <typename Traits>
__device__ arch::MatrixDescriptor operand_b(const uint16_t* operand, int k) {
  if (Traits::kMajorB == Major::kK) return k_major_operand<Traits>(operand, k, Traits::kN);
  if (Traits::kSwizzle == Swizzle::kNone) {  // Leading and stride swap roles: see the table.
    return arch::matrix_descriptor(operand, Traits::kSwizzle, /*leading_bytes=*/128,
                                   /*stride_bytes=*/Traits::kPanelBytes);
  }
  return advance(arch::mn_major_descriptor(operand, Traits::kSwizzle, Traits::kPanelBytes),
                 static_cast<uint32_t>(k * Traits::kRowBytes));
}

template <typename Traits>
__device__ void store_operands(typename Traits::Storage& storage, const uint16_t* a,
                               const uint16_t* b) {
  for (int i = static_cast<int>(threadIdx.x); i < 64 * Traits::kK; i += 128) {
    storage.a[k_major_offset<Traits>(i / Traits::kK, i % Traits::kK, 64) / 2] = a[i];
  }
  for (int i = static_cast<int>(threadIdx.x); i < Traits::kN * Traits::kK; i += 128) {
    const int n = i / Traits::kK;
    const int k = i % Traits::kK;
    const uint32_t offset = Traits::kMajorB == Major::kK ? k_major_offset<Traits>(n, k, Traits::kN)
                                                         : mn_major_offset<Traits>(n, k);
    storage.b[offset / 2] = b[i];
  }
}

// ---- The kernel: one warpgroup ------------------------------------------------------------------

template <typename Traits>
__global__ void __launch_bounds__(128) product_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  using Element = typename Traits::Element;
  const uint32_t* trial = input + static_cast<int64_t>(blockIdx.x) * Traits::kTrialWords;
  const auto* a = reinterpret_cast<const uint16_t*>(trial);
  const uint32_t* c = trial + Traits::kWordsA + Traits::kWordsB;
  store_operands<Traits>(storage, a, a + 2 * Traits::kWordsA);
  arch::fence_proxy_async();  // By every writer, before the barrier: wgmma may then read.
  __syncthreads();

  const auto thread = static_cast<int>(threadIdx.x);
  const int row = thread / 32 * 16 + thread % 32 / 4;
  const int column = thread % 4 * 2;
  const auto position = [&](int i) {
    return (row + i % 4 / 2 * 8) * Traits::kN + column + i / 4 * 8 + i % 2;
  };
  float d[Traits::kN / 2];
  for (int i = 0; i < Traits::kN / 2; ++i) d[i] = __uint_as_float(c[position(i)]);
  uint32_t fragments[Traits::kK / 16][4];
  if constexpr (Traits::kPlaceOfA == PlaceOfA::kRegisters) {
    for (int i = 0; i < Traits::kK / 4; ++i) {
      const int k = i / 4 * 16 + i % 4 / 2 * 8 + column;
      fragments[i / 4][i % 4] = trial[((row + i % 2 * 8) * Traits::kK + k) / 2];
    }
  }

  bool accumulate = blockIdx.x % 2 == 0;
  if constexpr (Traits::kPlaceOfA == PlaceOfA::kRegisters) {
    arch::wgmma_fence(d, fragments);
  } else {
    arch::wgmma_fence(d);
  }
#pragma unroll
  for (int k = 0; k < Traits::kK; k += 16) {
    const arch::MatrixDescriptor b = operand_b<Traits>(storage.b, k);
    if constexpr (Traits::kPlaceOfA == PlaceOfA::kRegisters) {
      arch::wgmma<Element, Traits::kMajorB>(d, fragments[k / 16], b, accumulate);
    } else {
      const arch::MatrixDescriptor shared_a = k_major_operand<Traits>(storage.a, k, 64);
      arch::wgmma<Element, Traits::kMajorB>(d, shared_a, b, accumulate);
    }
    accumulate = true;
  }
  arch::wgmma_commit_group();
  arch::wgmma_wait<0>();
  arch::keep_registers(d);
  uint32_t* out = output + static_cast<int64_t>(blockIdx.x) * Traits::kWordsC;
  for (int i = 0; i < Traits::kN / 2; ++i) out[position(i)] = __float_as_uint(d[i]);
}

// ---- Inputs and the definition ------------------------------------------------------------------

/// Trials 0 and 1: [-1, 1). 2 and 3: exponents of all sizes whose sums stay finite. 4 and 5: ones
/// that cancel, occasionally subnormal, infinite or NaN.
template <Format kFormat>
uint32_t draw_element(Random& random, int trial) {
  constexpr bool kIsBFloat16 = kFormat == Format::kBFloat16;
  constexpr int kShift = kIsBFloat16 ? 7 : 10;
  const uint32_t sign = random.bits() & 0x8000;
  const uint32_t fraction = random.bits() & ((1U << kShift) - 1);
  if (trial < 2) return encode(random.uniform(), kFormat);
  if (trial < 4) {
    return sign | (kIsBFloat16 ? 107 + random.below(40) : 1 + random.below(30)) << kShift |
           fraction;
  }
  const uint32_t kind = random.below(4096);
  if (kind == 0) return sign | (kIsBFloat16 ? 0xffU : 0x1fU) << kShift | (fraction & 1) << 3;
  if (kind < 64) return sign | fraction;
  return encode(random.uniform() < 0 ? -1 : 1, kFormat);
}

template <typename Traits>
void fill_trials(std::span<uint32_t> input) {
  Random random;
  for (int trial = 0; trial < Traits::kTrials; ++trial) {
    uint32_t* words = input.data() + static_cast<std::ptrdiff_t>(trial) * Traits::kTrialWords;
    for (int i = 0; i < Traits::kWordsA + Traits::kWordsB; ++i) {
      const uint32_t low = draw_element<Traits::kFormat>(random, trial);
      words[i] = draw_element<Traits::kFormat>(random, trial) << 16 | low;
    }
    for (int i = Traits::kWordsA + Traits::kWordsB; i < Traits::kTrialWords; ++i) {
      words[i] = std::bit_cast<uint32_t>(random.uniform());
    }
  }
}

/// In each step of 16 the hardware aligns 16 products and the accumulator to the largest, truncates
/// each to 24 bits or more, and truncates the sum.
constexpr double kStepError = 20 * 0x1p-23;

template <typename Traits>
void expect_products(std::span<const uint32_t> input, std::span<Expected> output) {
  for (int trial = 0; trial < Traits::kTrials; ++trial) {
    const uint32_t* words = input.data() + static_cast<std::ptrdiff_t>(trial) * Traits::kTrialWords;
    std::vector<double> elements;
    for (int i = 0; i < Traits::kWordsA + Traits::kWordsB; ++i) {
      elements.push_back(decode(words[i] & 0xffff, Traits::kFormat));
      elements.push_back(decode(words[i] >> 16, Traits::kFormat));
    }
    const uint32_t* c = words + Traits::kWordsA + Traits::kWordsB;
    for (int i = 0; i < Traits::kWordsC; ++i) {
      const double* a = elements.data() + i / Traits::kN * Traits::kK;
      const double* b = elements.data() + 2 * Traits::kWordsA + i % Traits::kN * Traits::kK;
      double sum = trial % 2 == 0 ? std::bit_cast<float>(c[i]) : 0;
      double magnitude = std::fabs(sum);
      for (int k = 0; k < Traits::kK; ++k) {
        sum += a[k] * b[k];
        magnitude += std::fabs(a[k] * b[k]);
      }
      output[static_cast<std::size_t>(trial) * Traits::kWordsC + static_cast<std::size_t>(i)] = {
          .word = std::bit_cast<uint32_t>(static_cast<float>(sum)),
          .format = Format::kFloat32,
          .bound = std::isfinite(sum) ? Traits::kK / 16 * kStepError * magnitude : 0};
    }
  }
}

template <typename Traits>
Case product_case(const char* name) {
  return {.name = name,
          .min_arch = 90,
          .input_words = Traits::kTrials * Traits::kTrialWords,
          .output_words = Traits::kTrials * Traits::kWordsC,
          .fill = &fill_trials<Traits>,
          .launch =
              [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
                arch::launch("product", &product_kernel<Traits>,
                             {dim3(Traits::kTrials), dim3(128), sizeof(typename Traits::Storage)},
                             stream, input, output);
              },
          .expect = &expect_products<Traits>,
          .max_arch = 90};
}

template <typename Element, int kN, Major kMajorB, Swizzle kSwizzle>
Case shared_case(const char* name) {
  return product_case<SharedTraits<Shape<Element, kN>, kMajorB, kSwizzle>>(name);
}

template <typename Element, int kN, Major kMajorB, Swizzle kSwizzle>
Case register_case(const char* name) {
  return product_case<RegisterTraits<Shape<Element, kN>, kMajorB, kSwizzle>>(name);
}

}  // namespace

CaseList hopper_product_cases() {
  using arch::BFloat16;
  using arch::Float16;
  return {
      shared_case<BFloat16, 64, Major::kK, Swizzle::k128B>("wgmma n64 bf16, B K-major"),
      shared_case<Float16, 64, Major::kMn, Swizzle::k128B>("wgmma n64 fp16, B MN-major"),
      shared_case<BFloat16, 96, Major::kK, Swizzle::k128B>("wgmma n96 bf16, B K-major"),
      shared_case<Float16, 128, Major::kK, Swizzle::k128B>("wgmma n128 fp16, B K-major"),
      shared_case<BFloat16, 128, Major::kMn, Swizzle::k128B>("wgmma n128 bf16, B MN-major"),
      shared_case<BFloat16, 192, Major::kK, Swizzle::k128B>("wgmma n192 bf16, B K-major"),
      shared_case<Float16, 192, Major::kMn, Swizzle::k128B>("wgmma n192 fp16, B MN-major"),
      shared_case<Float16, 256, Major::kK, Swizzle::k128B>("wgmma n256 fp16, B K-major"),
      shared_case<BFloat16, 16, Major::kK, Swizzle::k128B>("wgmma n16 bf16, B K-major"),
      // 80 = 64 + 16: the last swizzled panel of B is a quarter full. No kernel does this, so the
      // result on hardware affects no kernel.
      shared_case<BFloat16, 80, Major::kMn, Swizzle::k128B>(
          "wgmma n80 bf16, B MN-major, ends within a panel"),
      shared_case<BFloat16, 96, Major::kK, Swizzle::k64B>("wgmma n96 bf16, B K-major, 64B"),
      shared_case<BFloat16, 96, Major::kMn, Swizzle::k64B>("wgmma n96 bf16, B MN-major, 64B"),
      shared_case<Float16, 96, Major::kK, Swizzle::k32B>("wgmma n96 fp16, B K-major, 32B"),
      shared_case<Float16, 96, Major::kMn, Swizzle::k32B>("wgmma n96 fp16, B MN-major, 32B"),
      shared_case<BFloat16, 96, Major::kK, Swizzle::kNone>("wgmma n96 bf16, B K-major, no swizzle"),
      shared_case<BFloat16, 96, Major::kMn, Swizzle::kNone>(
          "wgmma n96 bf16, B MN-major, no swizzle"),
      register_case<BFloat16, 64, Major::kMn, Swizzle::k128B>("wgmma n64 bf16, A regs, B MN-major"),
      // 96 = 64 + 32: half full, also in no kernel.
      register_case<Float16, 96, Major::kMn, Swizzle::k128B>(
          "wgmma n96 fp16, A regs, B MN-major, ends within a panel"),
      register_case<BFloat16, 96, Major::kMn, Swizzle::k64B>(
          "wgmma n96 bf16, A regs, B MN-major, 64B"),
      register_case<BFloat16, 128, Major::kMn, Swizzle::k128B>(
          "wgmma n128 bf16, A regs, B MN-major"),
      register_case<Float16, 128, Major::kK, Swizzle::k128B>("wgmma n128 fp16, A regs, B K-major"),
      register_case<BFloat16, 192, Major::kMn, Swizzle::k128B>(
          "wgmma n192 bf16, A regs, B MN-major"),
      register_case<BFloat16, 256, Major::kMn, Swizzle::k128B>(
          "wgmma n256 bf16, A regs, B MN-major"),
      register_case<BFloat16, 256, Major::kK, Swizzle::k64B>(
          "wgmma n256 bf16, A regs, B K-major, 64B"),
  };
}

}  // namespace minference::gpu_test
