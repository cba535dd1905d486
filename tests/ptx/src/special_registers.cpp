// SPDX-License-Identifier: Apache-2.0
#include "special_registers.h"

#include <algorithm>
#include <array>

namespace ptxsim {
namespace {

struct Row {
  std::string_view name;
  Source source;
  u8 bytes = 4;
};

constexpr Row kRows[] = {
    {"%tid.x", Source::kTidX},
    {"%tid.y", Source::kTidY},
    {"%tid.z", Source::kTidZ},
    {"%ntid.x", Source::kNtidX},
    {"%ntid.y", Source::kNtidY},
    {"%ntid.z", Source::kNtidZ},
    {"%ctaid.x", Source::kCtaidX},
    {"%ctaid.y", Source::kCtaidY},
    {"%ctaid.z", Source::kCtaidZ},
    {"%nctaid.x", Source::kNctaidX},
    {"%nctaid.y", Source::kNctaidY},
    {"%nctaid.z", Source::kNctaidZ},
    {"%laneid", Source::kLaneid},
    {"%warpid", Source::kWarpid},
    {"%nwarpid", Source::kNwarpid},
    {"%lanemask_lt", Source::kLaneLt},
    {"%lanemask_le", Source::kLaneLe},
    {"%lanemask_gt", Source::kLaneGt},
    {"%lanemask_ge", Source::kLaneGe},
    {"%lanemask_eq", Source::kLaneEq},
    {"%clusterid.x", Source::kClusteridX},
    {"%clusterid.y", Source::kClusteridY},
    {"%clusterid.z", Source::kClusteridZ},
    {"%nclusterid.x", Source::kNclusteridX},
    {"%nclusterid.y", Source::kNclusteridY},
    {"%nclusterid.z", Source::kNclusteridZ},
    {"%cluster_ctaid.x", Source::kClusterCtaidX},
    {"%cluster_ctaid.y", Source::kClusterCtaidY},
    {"%cluster_ctaid.z", Source::kClusterCtaidZ},
    {"%cluster_nctaid.x", Source::kClusterNctaidX},
    {"%cluster_nctaid.y", Source::kClusterNctaidY},
    {"%cluster_nctaid.z", Source::kClusterNctaidZ},
    {"%cluster_ctarank", Source::kClusterCtarank},
    {"%cluster_nctarank", Source::kClusterNctarank},
    {"%is_explicit_cluster", Source::kIsExplicitCluster, 0},
    {"%smid", Source::kSmid},
    {"%nsmid", Source::kNsmid},
    {"%gridid", Source::kGridid, 8},
    {"%dynamic_smem_size", Source::kDynamicSmemSize},
    {"%total_smem_size", Source::kTotalSmemSize},
};

constexpr std::string_view kClocks[] = {"%clock",       "%clock64",        "%clock_hi",
                                        "%globaltimer", "%globaltimer_lo", "%globaltimer_hi"};

}  // namespace

std::optional<SpecialRegister> find_special_register(std::string_view name) {
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows),
                                 [&](const Row& r) { return r.name == name; });
  if (row == std::end(kRows)) return {};
  return SpecialRegister{row->source, row->bytes};
}

bool is_clock(std::string_view name) {
  return std::find(std::begin(kClocks), std::end(kClocks), name) != std::end(kClocks);
}

}  // namespace ptxsim
