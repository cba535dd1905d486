// Compares the project's functions with CuTe on the host, and counts disagreements. CuTe's
// shared-memory addresses are the recorder's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <initializer_list>

#include "recorder.h"

// CuTe asks for addresses in the shared window as device code does.
inline std::size_t __cvta_generic_to_shared(const void* pointer) {
  return judges::shared_address(pointer);
}
#define CUTE_CVTA_GENERIC_TO_SHARED_ACTIVATED 1

// clang-format off: the rest of CuTe needs tensors.
#include <cutlass/numeric_types.h>
#include <cute/tensor.hpp>
#include <cute/atom/mma_atom.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
// clang-format on

namespace judges {

class Tally {
 public:
  explicit Tally(const char* what) : what_(what) {}

  /// Prints the first few that differ.
  void compare(uint64_t project, uint64_t cute, int where, int where_in_it = 0) {
    ++compared_;
    if (project == cute) return;
    if (different_++ < 3) {
      std::printf("%s (%d, %d): project %#llx, CuTe %#llx\n", what_, where, where_in_it,
                  static_cast<unsigned long long>(project), static_cast<unsigned long long>(cute));
    }
  }

  /// Prints a line. Returns whether something was compared and nothing differed.
  bool report() const {
    std::printf("%-44s %8lld compared, %lld different\n", what_, compared_, different_);
    return compared_ > 0 && different_ == 0;
  }

 private:
  const char* what_;
  long long compared_ = 0;
  long long different_ = 0;
};

/// Prints a line for each. Returns whether all are as they should be.
inline bool report_all(std::initializer_list<const Tally*> tallies) {
  bool equal = true;
  for (const Tally* tally : tallies) equal &= tally->report();
  return equal;
}

/// Address of an element of a tensor in shared memory.
template <typename Tensor>
uint32_t element_address(const Tensor& tensor, int i, int j) {
  return shared_address(cute::raw_pointer_cast(&tensor(i, j)));
}

}  // namespace judges
