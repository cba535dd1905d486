// See panels.h.
// SPDX-License-Identifier: Apache-2.0
#include "panels.h"

// Vertical-slash names its box where it encodes the map; here it calls our function instead.
#define tensor_map note_panel
#include "cuda/sm90/attention_traits.h"
#include "cuda/sm90/estimate_vertical_slash_kernels.h"
#undef tensor_map

namespace minference::tma {
namespace {
PanelLayout noted_panel;
}
CUtensorMap note_panel(const ConstTokens&, const RowSizes&, const PanelLayout& panel) {
  noted_panel = panel;
  return {};
}
}  // namespace minference::tma

namespace judges {
namespace {

using minference::tma::PanelLayout;

Panel panel_of(const PanelLayout& panel) {
  return {panel.dims, static_cast<unsigned>(panel.swizzle), panel.rows};
}

template <int kDim, int kDimV>
Panel attention_panel() {
  using Traits = minference::sm90::AttentionTraits<minference::arch::BFloat16, kDim, kDimV>;
  return panel_of({Traits::kPanelDims, Traits::kSwizzle});
}

Panel vertical_slash_panel() {
  minference::sm90::vertical_slash::key_map({}, {});
  return panel_of(minference::tma::noted_panel);
}

}  // namespace

std::vector<Panel> panels() {
  return {attention_panel<64, 64>(),   attention_panel<96, 96>(),   attention_panel<128, 128>(),
          attention_panel<192, 128>(), attention_panel<192, 192>(), attention_panel<256, 256>(),
          vertical_slash_panel()};
}

}  // namespace judges
