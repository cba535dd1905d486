// A CUDA backend of a build without its kernels, MINF_NOT_BUILT (sm80 or sm90): it is listed, so
// that a program can say why it has no GPU.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/backends.h"

#ifndef MINF_NOT_BUILT
#define MINF_NOT_BUILT sm80
#endif
#ifndef MINF_NOT_BUILT_REASON
#define MINF_NOT_BUILT_REASON "built without CUDA"
#endif
#define MINF_TEXT_OF(macro) MINF_TEXT(macro)
#define MINF_TEXT(word) #word

namespace minference::MINF_NOT_BUILT {

const Backend& backend() {
  // Never selected, so that no other entry of the table is ever called.
  static constexpr Backend kBackend = {
      .name = MINF_TEXT_OF(MINF_NOT_BUILT),
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

}  // namespace minference::MINF_NOT_BUILT
