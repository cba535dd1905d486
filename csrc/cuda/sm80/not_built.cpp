// The sm80 backend of a build without nvcc: listed, so that a program can say why it has no GPU.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/backend.h"

#ifndef MINF_NOT_BUILT_REASON
#define MINF_NOT_BUILT_REASON "built without CUDA"
#endif

namespace minference::sm80 {

const Backend& backend() {
  // Never selected, so that no other entry of the table is ever called.
  static constexpr Backend kBackend = {
      .name = "sm80",
      .device_type = MINF_DEVICE_CUDA,
      .serves_float32 = false,
      .row_alignment = 16,
      .min_sparse_seqlen = 0,
      .availability =
          [] {
            return Availability{MINF_ERROR_UNSUPPORTED, "not built (" MINF_NOT_BUILT_REASON ")"};
          },
      .serves_device = nullptr,
      .check_device = nullptr,
      .check_resources = nullptr,
      .estimators = {},
      .plan_vertical_slash = nullptr,
      .count_key_tiles = nullptr,
      .fill_lists = nullptr,
      .attention = {},
      .merge_attention = nullptr,
  };
  return kBackend;
}

}  // namespace minference::sm80
