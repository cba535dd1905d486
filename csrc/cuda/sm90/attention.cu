// Stage 3 on sm90: not yet its own.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/stages.h"
#include "cuda/sm90/stages.h"

namespace minference::sm90 {

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor) {
  return sm80::attention_bytes(args, executor);
}

void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor) {
  sm80::attention(args, workspace, executor);
}

}  // namespace minference::sm90
