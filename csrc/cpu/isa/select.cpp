// The instruction sets of this build, best first, and the choice among them at run time.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <iterator>

#include "core/check.h"
#include "cpu/backend.h"
#include "cpu/isa/kernels.h"

namespace minference::cpu {

const float kZeroRow[kMaxHeadDim] = {};

namespace {

struct Isa {
  const IsaKernels& (*kernels)();
  const char* (*unavailable_reason)();
};

const char* always_available() { return ""; }

#if defined(__x86_64__)
// __builtin_cpu_supports also asks whether the operating system saves the registers.
const char* avx2_reason() {
  const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("f16c");
  return has ? "" : "this processor lacks AVX2, FMA or F16C";
}

const char* avx512_reason() {
  const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return has ? avx2_reason() : "this processor lacks AVX-512 F, BW, VL or DQ";
}

const char* avx512_bf16_reason() {
  return __builtin_cpu_supports("avx512bf16") ? avx512_reason()
                                              : "this processor lacks AVX-512 BF16";
}
#endif

constexpr Isa kIsas[] = {
#if defined(__x86_64__)
    {avx512_bf16_kernels, avx512_bf16_reason},
    {avx512_kernels, avx512_reason},
    {avx2_kernels, avx2_reason},
#endif
    {portable_kernels, always_available},
};

bool is_available(const Isa& isa) { return *isa.unavailable_reason() == '\0'; }

const IsaKernels* best_isa() {
  for (const Isa& isa : kIsas) {
    if (is_available(isa)) return &isa.kernels();
  }
  MINF_ASSERT(false && "the portable kernels are always available");
}

std::atomic<const IsaKernels*> forced_isa{nullptr};

const IsaKernels& selected_isa() {
  static const IsaKernels* const best = best_isa();
  const IsaKernels* forced = forced_isa.load(std::memory_order_acquire);
  return forced != nullptr ? *forced : *best;
}

}  // namespace

const KernelTable& kernels_for(DType dtype) {
  return *selected_isa().tables[static_cast<int>(dtype)];
}

int isa_count() { return static_cast<int>(std::size(kIsas)); }

IsaInfo isa_info(int isa) {
  const IsaKernels& kernels = kIsas[isa].kernels();
  return {kernels.name, kIsas[isa].unavailable_reason(), &kernels == &selected_isa()};
}

void force_isa(std::string_view name) {
  if (name.empty()) {
    forced_isa.store(nullptr, std::memory_order_release);
    return;
  }
  std::string known;
  for (const Isa& isa : kIsas) {
    const IsaKernels& kernels = isa.kernels();
    if (name != kernels.name) {
      known += std::string(" ") + kernels.name;
      continue;
    }
    if (!is_available(isa)) {
      detail::throw_error(
          MINF_ERROR_UNSUPPORTED,
          detail::concat("cpu_isa: ", name, " cannot be used: ", isa.unavailable_reason()));
    }
    forced_isa.store(&kernels, std::memory_order_release);
    return;
  }
  detail::throw_error(MINF_ERROR_INVALID_ARGUMENT,
                      detail::concat("cpu_isa: expected one of", known, ", got ", name));
}

}  // namespace minference::cpu
