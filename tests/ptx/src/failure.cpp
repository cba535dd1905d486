// Errors that say where they happened.
// SPDX-License-Identifier: Apache-2.0
#include "failure.h"

#include "state.h"

namespace ptxsim {

std::string lanes_text(u32 lanes) {
  std::string text;
  for (u32 first = 0; first < kWarpSize; ++first) {
    if (!(lanes >> first & 1)) continue;
    u32 last = first;
    while (last + 1 < kWarpSize && (lanes >> (last + 1) & 1)) ++last;
    if (!text.empty()) text += ", ";
    text += std::to_string(first);
    if (last != first) text += "-" + std::to_string(last);
    first = last;
  }
  return text.empty() ? "none" : text;
}

std::string instruction_text(const Op& op) {
  if (op.source == nullptr) return "the end of the text";
  return "PTX line " + std::to_string(op.source->line) + ": " + op.source->text;
}

std::string block_text(const Block& block) {
  return "block (" + std::to_string(block.index[0]) + ", " + std::to_string(block.index[1]) + ", " +
         std::to_string(block.index[2]) + ")";
}

void fail(const Warp& warp, const std::string& what, u32 lanes) {
  std::string text = warp.kernel->function->name + ": " + what + "\n  " + block_text(*warp.block) +
                     ", warp " + std::to_string(warp.id);
  if (lanes != 0) text += ", lanes " + lanes_text(lanes);
  if (warp.op != nullptr) text += "\n  " + instruction_text(*warp.op);
  throw Error(text);
}

}  // namespace ptxsim
