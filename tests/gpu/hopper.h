// The lists of cases for Hopper's instructions, and what they share. Their kernels are compiled for
// sm_90a, which runs on sm_90 only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "case.h"
#include "core/host_device.h"
#include "cuda/arch/swizzle.h"

namespace minference::gpu_test {

CaseList hopper_barrier_cases();
CaseList hopper_load_cases();
CaseList hopper_store_cases();
CaseList hopper_product_cases();
CaseList hopper_pipeline_cases();

inline CaseList hopper_cases() {
  CaseList cases;
  for (const auto list : {&hopper_barrier_cases, &hopper_load_cases, &hopper_store_cases,
                          &hopper_product_cases, &hopper_pipeline_cases}) {
    CaseList some = list();
    cases.insert(cases.end(), some.begin(), some.end());
  }
  return cases;
}

/// Offset of a byte of a swizzled tile, chunk by chunk: the 16-byte chunk's number within its row,
/// exclusive-or the number of the 128-byte line, which counts up to the chunks in a row.
inline std::size_t swizzled(arch::Swizzle swizzle, std::size_t offset) {
  if (swizzle == arch::Swizzle::kNone) return offset;
  const std::size_t row_bytes = std::size_t{16} << static_cast<uint32_t>(swizzle);
  const std::size_t line = offset / 128;
  const std::size_t chunk = offset % row_bytes / 16;
  return offset / row_bytes * row_bytes + (chunk ^ line % (row_bytes / 16)) * 16 + offset % 16;
}

}  // namespace minference::gpu_test
