// sm90's attention kernel on emulated threads.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "attention_checks.h"
#include "cuda/sm80/kernels.h"
#include "cuda/sm90/kernels.h"
#include "cuda/sm90/stages.h"

int main(int argc, char** argv) {
  using namespace minference;
  test::test_attention(
      {.bytes =
           [](const AttentionArgs& args, int32_t resident_blocks) {
             return std::max(sm90::attention_bytes(args, {}, {.resident_blocks = resident_blocks}),
                             sm80::attention_bytes(args, {}, {.resident_blocks = resident_blocks}));
           },
       .enqueue =
           [](const AttentionArgs& args, Workspace workspace, int32_t resident_blocks) {
             // Strides that TMA cannot address go to sm80, as in the backend's list.
             if (*sm90::attention_refuses(args) != '\0') {
               return sm80::attention(args, workspace, {}, {.resident_blocks = resident_blocks});
             }
             sm90::attention(args, workspace, {}, {.resident_blocks = resident_blocks});
           },
       .max_shared_bytes = 227 * 1024,
       .sums_alike = false},
      test::extent_of(argc, argv, /*index=*/1));
  return test::finish();
}
