// sm80's attention kernel on emulated threads.
// SPDX-License-Identifier: Apache-2.0
#include "attention_checks.h"
#include "cuda/sm80/kernels.h"

int main(int argc, char** argv) {
  using namespace minference;
  test::test_attention(
      {.bytes =
           [](const AttentionArgs& args, int32_t resident_blocks) {
             return sm80::attention_bytes(args, {}, {.resident_blocks = resident_blocks});
           },
       .enqueue =
           [](const AttentionArgs& args, Workspace workspace, int32_t resident_blocks) {
             sm80::attention(args, workspace, {}, {.resident_blocks = resident_blocks});
           },
       .max_shared_bytes = 99 * 1024,
       .sums_alike = true},
      test::extent_of(argc, argv, /*index=*/1));
  return test::finish();
}
