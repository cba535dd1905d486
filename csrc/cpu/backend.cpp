// The CPU backend's table. Always available: the portable kernels run anywhere.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/backend.h"

#include "cpu/stages.h"

namespace minference::cpu {

const Backend& backend() {
  static constexpr Backend kBackend = {
      .name = "cpu",
      .device_type = MINF_DEVICE_CPU,
      .unavailable_reason = [] { return ""; },
      .estimate_vertical_slash_bytes = estimate_vertical_slash_bytes,
      .estimate_vertical_slash = estimate_vertical_slash,
      .estimate_block_sparse_bytes = estimate_block_sparse_bytes,
      .estimate_block_sparse = estimate_block_sparse,
      .attention_bytes = attention_bytes,
      .attention = attention,
      .merge_attention = merge_attention,
  };
  return kBackend;
}

}  // namespace minference::cpu
