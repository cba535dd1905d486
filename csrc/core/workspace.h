// Carves typed arrays out of one borrowed block of work memory.
//
// Without memory the allocator only counts. A *_workspace_bytes function and its call run the same
// carving code, once without and once with memory, so they cannot disagree.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

#include "core/check.h"

namespace minference {

/// Every array starts on a cache line: no false sharing between per-thread arrays.
inline constexpr std::size_t kWorkspaceAlignment = 64;

/// Bytes that a block of unknown alignment needs on top of what the allocator counted.
inline constexpr std::size_t kWorkspaceSlack = kWorkspaceAlignment;

class WorkspaceAllocator {
 public:
  /// Counts only: take() returns empty spans.
  WorkspaceAllocator() = default;

  /// Hands out parts of `memory`, which must be aligned to kWorkspaceAlignment.
  explicit WorkspaceAllocator(std::span<std::byte> memory)
      : memory_(memory.data()), capacity_(memory.size()), counting_(false) {
    MINF_ASSERT(reinterpret_cast<std::uintptr_t>(memory_) % kWorkspaceAlignment == 0);
  }

  /// Returns `count` uninitialised elements; a counting allocator returns an empty span.
  /// @throws Error{MINF_ERROR_UNSUPPORTED} if the sum exceeds kMaxBytes.
  template <typename T>
  std::span<T> take(std::size_t count) {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
    static_assert(alignof(T) <= kWorkspaceAlignment);
    if (count > (kMaxBytes - bytes_) / sizeof(T)) throw_too_large();

    const std::size_t begin = bytes_;
    bytes_ +=
        (count * sizeof(T) + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
    if (counting_ || count == 0) return {};
    MINF_ASSERT(bytes_ <= capacity_);
    return {reinterpret_cast<T*>(memory_ + begin), count};
  }

  /// Bytes taken so far, a multiple of kWorkspaceAlignment.
  std::size_t bytes() const { return bytes_; }

 private:
  /// A multiple of kWorkspaceAlignment, so that rounding up never passes it.
  static constexpr std::size_t kMaxBytes = std::size_t{1}
                                           << (std::numeric_limits<std::size_t>::digits - 2);

  [[noreturn]] static void throw_too_large() {
    detail::throw_error(MINF_ERROR_UNSUPPORTED,
                        detail::concat("workspace: expected a call that needs at most ", kMaxBytes,
                                       " bytes of work memory, got sizes that need more"));
  }

  std::byte* memory_ = nullptr;
  std::size_t capacity_ = 0;
  bool counting_ = true;
  std::size_t bytes_ = 0;
};

}  // namespace minference
