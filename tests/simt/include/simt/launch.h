// Launches of emulated kernels. A launch runs to its end before the call returns.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <tuple>
#include <type_traits>

namespace simt {

struct KernelCall {
  const char* name;
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes;
  cudaStream_t stream;
  void (*invoke)(const void* arguments);  // Called once per thread.
  const void* arguments;                  // Threads may read these `argument_bytes` bytes.
  std::size_t argument_bytes;
  bool instrumented;  // The compiler reports all memory accesses of the kernel to the engine.
};

/// See launch().
cudaError_t launch_kernel(const KernelCall& call);

#if defined(__SANITIZE_THREAD__)
#define SIMT_INSTRUMENTED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SIMT_INSTRUMENTED 1
#endif
#endif

// launch() records how its source file is compiled. The namespaces keep the two variants apart;
// otherwise the linker would keep only one of them.
#if defined(SIMT_INSTRUMENTED)
inline namespace instrumented {
inline constexpr bool kInstrumented = true;
#else
inline namespace not_instrumented {
inline constexpr bool kInstrumented = false;
#endif

/// Runs kernel(arguments...) in every thread of the grid. If no GPU could run the launch (empty or
/// too large grid or block, more shared memory than options().max_shared_bytes), or machine() asks
/// for an error, returns the error that CUDA would return and runs nothing.
/// @throws Violation; and whatever the kernel throws.
template <typename... Parameters>
cudaError_t launch(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes,
                   cudaStream_t stream, void (*kernel)(Parameters...),
                   std::type_identity_t<Parameters>... arguments) {
  using Arguments = std::tuple<void (*)(Parameters...), Parameters...>;
  const Arguments packed(kernel, arguments...);
  const auto invoke = [](const void* packed_arguments) {
    std::apply([](auto function, const auto&... values) { function(values...); },
               *static_cast<const Arguments*>(packed_arguments));
  };
  return launch_kernel(
      {name, grid, block, shared_bytes, stream, invoke, &packed, sizeof packed, kInstrumented});
}

}  // namespace instrumented or not
}  // namespace simt
