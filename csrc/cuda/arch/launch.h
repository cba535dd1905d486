// Kernel launches: the one place where a grid is handed to the device, or to emulated threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "cuda/arch/emulation.h"
#include "cuda/check.h"

namespace minference::arch {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  /// The most that any launch of the kernel asks for, if launches differ. The limit of a kernel is
  /// one setting for all threads of the process: one thread's launch must not lower it between
  /// another thread's setting and launch.
  std::size_t max_shared_bytes = 0;
};

/// Above this a kernel must be told that it may have more dynamic shared memory.
inline constexpr std::size_t kDefaultSharedBytes = 48 * 1024;

/// Lets the current device's blocks of the kernel have `shared_bytes` of dynamic shared memory.
template <typename... Parameters>
void allow_shared_bytes(const char* name, void (*kernel)(Parameters...), std::size_t shared_bytes) {
  if (shared_bytes <= kDefaultSharedBytes) return;
  check_launch(name, cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                          cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(shared_bytes)));
}

/// Enqueues kernel(arguments...) on `stream`. Launches nothing for an empty grid. `name` is the
/// kernel's name in messages. @throws Error{MINF_ERROR_LAUNCH_FAILED}
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            cudaStream_t stream, Arguments&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
#if defined(MINF_SIMT)
  check_launch(name, simt::launch(name, shape.grid, shape.block, shape.shared_bytes, stream, kernel,
                                  static_cast<Parameters>(arguments)...));
#else
  if (shape.shared_bytes > kDefaultSharedBytes) {
    allow_shared_bytes(name, kernel, std::max(shape.shared_bytes, shape.max_shared_bytes));
  }
  // clang-format off: in a .h it takes >>> apart.
  kernel<<<shape.grid, shape.block, shape.shared_bytes, stream>>>(
      std::forward<Arguments>(arguments)...);
  // clang-format on
  check_launch(name, cudaGetLastError());
#endif
}

/// How many blocks of the kernel a multiprocessor of the current device holds at a time, at least
/// 1. `shared_bytes` is the most dynamic shared memory that any launch of the kernel asks for; this
/// call allows the kernel that much. Emulated threads have no registers, so the count ignores them
/// there.
/// @throws Error{MINF_ERROR_LAUNCH_FAILED}
template <typename... Parameters>
int resident_blocks(const char* name, void (*kernel)(Parameters...), unsigned block_threads,
                    std::size_t shared_bytes) {
  allow_shared_bytes(name, kernel, shared_bytes);
  int blocks = 0;
  check_launch(name, cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                         &blocks, reinterpret_cast<const void*>(kernel),
                         static_cast<int>(block_threads), shared_bytes));
  return std::max(blocks, 1);  // If a block does not fit, the launch reports it.
}

}  // namespace minference::arch
