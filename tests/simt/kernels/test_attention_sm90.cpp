// sm90's attention kernel on emulated threads.
// SPDX-License-Identifier: Apache-2.0
#include "attention_checks.h"
#include "cuda/sm90/attention.h"

int main(int argc, char** argv) {
  using namespace minference;
  test::test_attention(
      {.bytes =
           [](const AttentionArgs& args, int32_t resident_blocks) {
             return sm90::attention_bytes(
                 args, {}, {.resident_blocks = resident_blocks, .serves_small = true});
           },
       .enqueue =
           [](const AttentionArgs& args, Workspace workspace, int32_t resident_blocks) {
             sm90::attention(args, workspace, {},
                             {.resident_blocks = resident_blocks, .serves_small = true});
           },
       .max_shared_bytes = 227 * 1024,
       .sums_alike = false},
      test::extent_of(argc, argv, /*index=*/1));
  return test::finish();
}
