// Cases of conversions and of one-instruction arithmetic: special values, every 16-bit pattern, and
// random bits.
// SPDX-License-Identifier: Apache-2.0
#include "case.h"
#include "cuda/arch/element.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/math.h"

namespace minference::gpu_test {
namespace {

constexpr int kThreads = 128;

template <typename Element_>
struct ElementTraits {
  using Element = Element_;
  static constexpr Format kFormat =
      std::is_same_v<Element_, arch::BFloat16> ? Format::kBFloat16 : Format::kFloat16;
};

__device__ inline int global_thread() {
  return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

// ---- pack_elements ----------------------------------------------------------------------------

constexpr int kPacks = 16384;

/// Special values first, then their neighbours, then bits of all exponents, then fp16's range.
void fill_floats(std::span<uint32_t> input) {
  Random random;
  std::size_t i = 0;
  for (const uint32_t special : kSpecialFloats) {
    for (const uint32_t step : {0U, 1U, ~0U, 2U}) input[i++] = special + step;
  }
  for (; i < input.size() / 2; ++i) input[i] = random.bits();
  for (; i < input.size(); ++i) {
    const uint32_t exponent = 97 + random.below(50);  // 2^-30 to 2^19.
    input[i] = (random.bits() & 0x807fffffU) | exponent << 23;
  }
}

template <typename Traits>
__global__ void pack_kernel(const uint32_t* input, uint32_t* output) {
  const int i = global_thread();
  const uint32_t pair = arch::pack_elements<typename Traits::Element>(
      __uint_as_float(input[2 * i]), __uint_as_float(input[2 * i + 1]));
  output[2 * i] = pair & 0xffff;
  output[2 * i + 1] = pair >> 16;
}

template <Format kFormat>
void expect_packed(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) {
    const double value = std::bit_cast<float>(input[i]);
    output[i] = {.word = encode(value, kFormat), .format = kFormat};
  }
}

template <typename Element>
Case pack_case(const char* name) {
  using Traits = ElementTraits<Element>;
  return {.name = name,
          .min_arch = 80,
          .input_words = 2 * kPacks,
          .output_words = 2 * kPacks,
          .fill = &fill_floats,
          .launch =
              [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
                arch::launch("pack", &pack_kernel<Traits>,
                             {dim3(kPacks / kThreads), dim3(kThreads)}, stream, input, output);
              },
          .expect = &expect_packed<Traits::kFormat>};
}

// ---- unpack_elements: every value ---------------------------------------------------------------

constexpr int kPairs = 32768;

void fill_all_pairs(std::span<uint32_t> input) {
  for (std::size_t i = 0; i < input.size(); ++i) {
    input[i] = static_cast<uint32_t>((2 * i + 1) << 16 | 2 * i);
  }
}

template <typename Traits>
__global__ void unpack_kernel(const uint32_t* input, uint32_t* output) {
  const int i = global_thread();
  const arch::FloatPair pair = arch::unpack_elements<typename Traits::Element>(input[i]);
  output[2 * i] = __float_as_uint(pair.low);
  output[2 * i + 1] = __float_as_uint(pair.high);
}

template <Format kFormat>
void expect_unpacked(std::span<const uint32_t>, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) {
    const auto value = static_cast<float>(decode(static_cast<uint32_t>(i), kFormat));
    output[i] = {.word = std::bit_cast<uint32_t>(value), .format = Format::kFloat32};
  }
}

template <typename Element>
Case unpack_case(const char* name) {
  using Traits = ElementTraits<Element>;
  return {.name = name,
          .min_arch = 80,
          .input_words = kPairs,
          .output_words = 2 * kPairs,
          .fill = &fill_all_pairs,
          .launch =
              [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
                arch::launch("unpack", &unpack_kernel<Traits>,
                             {dim3(kPairs / kThreads), dim3(kThreads)}, stream, input, output);
              },
          .expect = &expect_unpacked<Traits::kFormat>};
}

// ---- exp2_approx ------------------------------------------------------------------------------

constexpr int kPowers = 16384;

/// Special values, random bits, then [-160, 160), where most results are neither 0, 1 nor infinite.
void fill_exponents(std::span<uint32_t> input) {
  fill_floats(input);
  Random random;
  for (std::size_t i = input.size() / 4; i < input.size(); ++i) {
    const auto step = static_cast<int32_t>(random.below(320 << 16)) - (160 << 16);
    input[i] = std::bit_cast<uint32_t>(static_cast<float>(step) / 65536);
  }
}

template <typename Traits>
__global__ void power_kernel(const uint32_t* input, uint32_t* output) {
  const int i = global_thread();
  output[i] = __float_as_uint(arch::exp2_approx(__uint_as_float(input[i])));
}

/// 2 ulp are at most 2^-22 of the result. At 2^-126 both 0 and the power itself are correct.
void expect_powers(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) {
    const auto power = std::exp2(static_cast<double>(std::bit_cast<float>(input[i])));
    const bool at_edge = std::fabs(power - 0x1p-126) <= 0x1p-126 * 0x1p-22;
    const bool finite = power < 0x1p128;
    const float want = std::isnan(power) || power >= 0x1p-126 ? static_cast<float>(power) : 0.0F;
    output[i] = {.word = std::bit_cast<uint32_t>(want),
                 .format = Format::kFloat32,
                 .bound = at_edge              ? 2 * 0x1p-126
                          : finite && want > 0 ? power * 0x1p-22
                                               : 0};
  }
}

struct PowerTraits {};

}  // namespace

CaseList number_cases() {
  return {pack_case<arch::BFloat16>("pack_elements, bf16"),
          pack_case<arch::Float16>("pack_elements, fp16"),
          unpack_case<arch::BFloat16>("unpack_elements, bf16"),
          unpack_case<arch::Float16>("unpack_elements, fp16"),
          {.name = "exp2_approx",
           .min_arch = 80,
           .input_words = kPowers,
           .output_words = kPowers,
           .fill = &fill_exponents,
           .launch =
               [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
                 arch::launch("power", &power_kernel<PowerTraits>,
                              {dim3(kPowers / kThreads), dim3(kThreads)}, stream, input, output);
               },
           .expect = &expect_powers}};
}

}  // namespace minference::gpu_test
