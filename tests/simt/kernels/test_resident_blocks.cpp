// What arch/launch.h asks the device: how many blocks of a kernel it holds at a time.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstring>
#include <string>

#include "check.h"
#include "core/check.h"
#include "cuda/arch/launch.h"
#include "simt/simt.h"

namespace {

using namespace minference;

void takes_little(int) {}
void takes_much(int) {}

int resident(void (*kernel)(int), unsigned block_threads, std::size_t shared_bytes) {
  return arch::resident_blocks("kernel", kernel, block_threads, shared_bytes);
}

/// The text of the refusal; empty if the call succeeds.
template <typename Ask>
std::string refusal(minf_status status, const Ask& ask) {
  try {
    ask();
  } catch (const Error& error) {
    CHECK(error.status() == status, error.status());
    return error.what();
  }
  return "";
}

void test_resident_blocks() {
  simt::machine() = {};
  CHECK(resident(&takes_little, 128, 0) == 16);
  CHECK(resident(&takes_little, 128, std::size_t{48} * 1024) == 4);
  // More than every kernel gets by default: the call raises the kernel's limit.
  CHECK(resident(&takes_much, 128, std::size_t{75} * 1024) == 3);
  cudaFuncAttributes attributes{};
  CHECK(cudaFuncGetAttributes(&attributes, &takes_much) == cudaSuccess);
  CHECK(attributes.maxDynamicSharedSizeBytes == 75 * 1024, attributes.maxDynamicSharedSizeBytes);
  // A block that fits nowhere counts as one: its launch fails.
  CHECK(resident(&takes_little, 2048, 0) == 1);

  const std::string too_much = refusal(MINF_ERROR_LAUNCH_FAILED,
                                       [] { resident(&takes_much, 128, std::size_t{100} * 1024); });
  CHECK(too_much.starts_with("kernel: cudaErrorInvalidValue: "), too_much);
  simt::machine().kernel_image_missing = true;
  const std::string missing =
      refusal(MINF_ERROR_LAUNCH_FAILED, [] { resident(&takes_little, 128, 0); });
  CHECK(missing.starts_with("kernel: cudaErrorNoKernelImageForDevice: "), missing);
  CHECK(cudaPeekAtLastError() == cudaSuccess, "left for the caller to find");
  simt::machine() = {};
}

}  // namespace

int main() {
  test_resident_blocks();
  return test::finish();
}
