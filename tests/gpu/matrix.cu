// Cases of ldmatrix and mma.sync. Fragment layouts are taken from the table in cuda/arch/matrix.h,
// which the kernels here apply with plain loads and stores.
// SPDX-License-Identifier: Apache-2.0
#include "case.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/matrix.h"
#include "matrix.h"

namespace minference::gpu_test {
namespace {

// ---- ldmatrix ---------------------------------------------------------------------------------

template <bool kTransposed>
struct LoadTraits : MatrixTraits {
  static constexpr bool kTranspose = kTransposed;
};

template <typename Traits>
__global__ void load_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 4; ++i) storage.slots[slot_of_row(lane)][i] = input[4 * lane + i];
  __syncwarp();  // Other lanes read the rows.
  uint32_t fragment[4];
  if constexpr (Traits::kTranspose) {
    arch::ldmatrix_x4_transposed(fragment, storage.slots[slot_of_row(lane)]);
  } else {
    arch::ldmatrix_x4(fragment, storage.slots[slot_of_row(lane)]);
  }
  for (int i = 0; i < 4; ++i) output[4 * lane + i] = fragment[i];
}

template <bool kTransposed>
void expect_loads(std::span<const uint32_t> input, std::span<Expected> output) {
  const auto element = [&](int matrix, int row, int column) {
    const uint32_t pair = input[static_cast<std::size_t>(32 * matrix + 4 * row + column / 2)];
    return (pair >> (16 * (column % 2))) & 0xffff;
  };
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4;
    const int t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = kTransposed ? element(i, 2 * t, g) : element(i, g, 2 * t);
      const uint32_t high = kTransposed ? element(i, 2 * t + 1, g) : element(i, g, 2 * t + 1);
      output[static_cast<std::size_t>(4 * lane + i)].word = high << 16 | low;
    }
  }
}

template <bool kTransposed>
Case load_case(const char* name) {
  return {.name = name,
          .min_arch = 80,
          .input_words = kMatrixWords,
          .output_words = kMatrixWords,
          .fill = &fill_random,
          .launch =
              [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
                arch::launch("load", &load_kernel<LoadTraits<kTransposed>>,
                             {dim3(1), dim3(32), sizeof(MatrixTraits::Storage)}, stream, input,
                             output);
              },
          .expect = &expect_loads<kTransposed>};
}

// ---- mma.sync ---------------------------------------------------------------------------------
// Each block runs a trial: A [16, 16] and B transposed [8, 16] as pairs, C [16, 8] as floats.

constexpr int kWordsA = 16 * 16 / 2;
constexpr int kWordsB = 8 * 16 / 2;
constexpr int kWordsC = 16 * 8;
constexpr int kTrialWords = kWordsA + kWordsB + kWordsC;
constexpr int kTrials = 80;

template <typename Element_>
struct MmaTraits {
  using Element = Element_;
  static constexpr Format kFormat =
      std::is_same_v<Element_, arch::BFloat16> ? Format::kBFloat16 : Format::kFloat16;
};

template <typename Traits>
__global__ void mma_kernel(const uint32_t* input, uint32_t* output) {
  const uint32_t* a_words = input + static_cast<int64_t>(blockIdx.x) * kTrialWords;
  const uint32_t* b_words = a_words + kWordsA;
  const uint32_t* c_words = b_words + kWordsB;
  const auto lane = static_cast<int>(threadIdx.x);
  const int g = lane / 4;
  const int t = lane % 4;
  const uint32_t a[4] = {a_words[8 * g + t], a_words[8 * (g + 8) + t], a_words[8 * g + t + 4],
                         a_words[8 * (g + 8) + t + 4]};
  const uint32_t b[2] = {b_words[8 * g + t], b_words[8 * g + t + 4]};
  const int first[2] = {8 * g + 2 * t, 8 * (g + 8) + 2 * t};
  float c[4];
  for (int i = 0; i < 4; ++i) c[i] = __uint_as_float(c_words[first[i / 2] + i % 2]);
  arch::mma_m16n8k16<typename Traits::Element>(c, a, b);
  uint32_t* out = output + static_cast<int64_t>(blockIdx.x) * kWordsC;
  for (int i = 0; i < 4; ++i) out[first[i / 2] + i % 2] = __float_as_uint(c[i]);
}

/// The bits of one operand. Trials cover ranges: [-1, 1), exponents of all sizes whose products and
/// sums stay finite, subnormals; in the last trials occasionally infinity or NaN.
template <Format kFormat>
uint32_t draw_element(Random& random, int trial) {
  constexpr bool kIsBFloat16 = kFormat == Format::kBFloat16;
  const uint32_t sign = random.bits() & 0x8000;
  const uint32_t fraction = random.bits() & (kIsBFloat16 ? 0x7f : 0x3ff);
  const int shift = kIsBFloat16 ? 7 : 10;
  if (trial >= 64 && random.below(48) == 0) {
    const uint32_t infinity = (kIsBFloat16 ? 0xffU : 0x1fU) << shift;
    return sign | infinity | (random.below(2) == 0 ? fraction : 0);
  }
  switch (trial % 4) {
    case 0:
      return encode(random.uniform(), kFormat);
    case 1:
      return sign | (kIsBFloat16 ? 107 + random.below(40) : 1 + random.below(30)) << shift |
             fraction;
    case 2:
      return sign | (random.below(2) == 0 ? 0 : (kIsBFloat16 ? 167U : 30U) << shift) | fraction;
    default:
      return encode(random.uniform() < 0 ? -1 : 1, kFormat);  // Ones, whose sums cancel.
  }
}

template <Format kFormat>
void fill_trials(std::span<uint32_t> input) {
  Random random;
  for (int trial = 0; trial < kTrials; ++trial) {
    const std::span<uint32_t> words = input.subspan(static_cast<std::size_t>(trial) * kTrialWords,
                                                    static_cast<std::size_t>(kTrialWords));
    for (int i = 0; i < kWordsA + kWordsB; ++i) {
      const uint32_t low = draw_element<kFormat>(random, trial);
      words[static_cast<std::size_t>(i)] = draw_element<kFormat>(random, trial) << 16 | low;
    }
    const float scale = trial % 8 < 4 ? 1.0F : 4096.0F;
    for (int i = kWordsA + kWordsB; i < kTrialWords; ++i) {
      words[static_cast<std::size_t>(i)] = std::bit_cast<uint32_t>(scale * random.uniform());
    }
  }
}

/// The hardware may take k in two steps of 8. In a step it aligns 8 products and the accumulator to
/// the largest, truncates each to 24 bits or more, and then truncates the sum: 10 units of 2^-23
/// per step.
constexpr double kMmaError = 20 * 0x1p-23;

template <Format kFormat>
void expect_products(std::span<const uint32_t> input, std::span<Expected> output) {
  for (int trial = 0; trial < kTrials; ++trial) {
    const uint32_t* a = input.data() + static_cast<std::ptrdiff_t>(trial) * kTrialWords;
    const uint32_t* b = a + kWordsA;
    const uint32_t* c = b + kWordsB;
    const auto element = [](const uint32_t* matrix, int row, int k) {
      return decode(matrix[8 * row + k / 2] >> (16 * (k % 2)), kFormat);
    };
    for (int i = 0; i < kWordsC; ++i) {
      double sum = std::bit_cast<float>(c[i]);
      double magnitude = std::fabs(sum);
      for (int k = 0; k < 16; ++k) {
        const double product = element(a, i / 8, k) * element(b, i % 8, k);
        sum += product;
        magnitude += std::fabs(product);
      }
      output[static_cast<std::size_t>(trial) * kWordsC + static_cast<std::size_t>(i)] = {
          .word = std::bit_cast<uint32_t>(static_cast<float>(sum)),
          .format = Format::kFloat32,
          .bound = std::isfinite(sum) ? kMmaError * magnitude : 0};
    }
  }
}

template <typename Element>
Case mma_case(const char* name) {
  using Traits = MmaTraits<Element>;
  return {.name = name,
          .min_arch = 80,
          .input_words = kTrials * kTrialWords,
          .output_words = kTrials * kWordsC,
          .fill = &fill_trials<Traits::kFormat>,
          .launch =
              [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
                arch::launch("mma", &mma_kernel<Traits>, {dim3(kTrials), dim3(32)}, stream, input,
                             output);
              },
          .expect = &expect_products<Traits::kFormat>};
}

}  // namespace

CaseList matrix_cases() {
  return {load_case<false>("ldmatrix_x4"), load_case<true>("ldmatrix_x4_transposed"),
          mma_case<arch::BFloat16>("mma_m16n8k16, bf16"),
          mma_case<arch::Float16>("mma_m16n8k16, fp16")};
}

}  // namespace minference::gpu_test
