// SPDX-License-Identifier: Apache-2.0
#include "cluster.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace ptxsim {
namespace {

// Poison, so that unwritten memory is not zero by chance. As floats: NaN, and -2.9e-16.
constexpr int kMemoryPoison = 0xff;
constexpr int kRegisterPoison = 0xa5;

u64 round_up(u64 value, u64 step) { return (value + step - 1) / step * step; }

/// Returns `bytes` of the buffer, aligned and poisoned.
u8* poisoned(std::vector<u8>& buffer, u64 bytes, u64 align, int poison) {
  if (buffer.size() < bytes + align) buffer.resize(bytes + align);
  u8* const begin = reinterpret_cast<u8*>(round_up(reinterpret_cast<u64>(buffer.data()), align));
  std::memset(begin, poison, bytes);
  return begin;
}

/// Where the parts of a block's memory lie.
struct Layout {
  u64 dynamic_shared = 0;
  u64 shared_bytes = 0, shared_pitch = 0;  // Pitch: distance from block to block.
  u64 register_pitch = 0;                  // Distance from warp to warp.
  u64 local_bytes = 0;                     // Per lane.
  u32 num_warps = 0;

  explicit Layout(const Launch& launch) {
    const Function& function = *launch.kernel->function;
    constexpr u64 kSharedAlign = 1024;  // Alignment of the host's copy, as swizzles require.
    constexpr u64 kCacheLine = 64;
    dynamic_shared = round_up(kSharedBase + function.shared_bytes, function.dynamic_shared_align);
    shared_bytes = dynamic_shared + launch.dynamic_shared_bytes;
    shared_pitch = round_up(shared_bytes, kSharedAlign) + kSharedAlign;
    register_pitch = round_up(function.register_bytes, kCacheLine) + kCacheLine;
    local_bytes = round_up(function.local_bytes, 16);
    num_warps = (launch.block.count() + kWarpSize - 1) / kWarpSize;
  }
};

u32 component(const Dim3& dim, u32 axis) { return axis == 0 ? dim.x : axis == 1 ? dim.y : dim.z; }

u32 position(u32 index, const Dim3& dim, u32 axis) {
  switch (axis) {
    case 0:
      return index % dim.x;
    case 1:
      return index / dim.x % dim.y;
    default:
      return index / (dim.x * dim.y);
  }
}

/// Axis of a value in a sequence X, Y, Z.
u32 axis_of(Source source, Source x) { return static_cast<u32>(source) - static_cast<u32>(x); }

/// The value of what all lanes of a block have in common (section 10).
u64 value_in_block(const Initial& initial, const Block& block, const Layout& layout) {
  const Launch& launch = *block.cluster->launch;
  const Function& function = *launch.kernel->function;
  const Source source = initial.source;
  switch (source) {
    case Source::kConstant:
      return initial.value;
    case Source::kParam:
      return reinterpret_cast<u64>(launch.parameters) + initial.value;
    case Source::kShared:
      return kSharedBase + initial.value;
    case Source::kDynamicShared:
      return layout.dynamic_shared + initial.value;
    case Source::kNtidX:
    case Source::kNtidY:
    case Source::kNtidZ:
      return component(launch.block, axis_of(source, Source::kNtidX));
    case Source::kCtaidX:
    case Source::kCtaidY:
    case Source::kCtaidZ:
      return block.index[axis_of(source, Source::kCtaidX)];
    case Source::kNctaidX:
    case Source::kNctaidY:
    case Source::kNctaidZ:
      return component(launch.grid, axis_of(source, Source::kNctaidX));
    case Source::kNwarpid:
      return layout.num_warps;
    case Source::kClusteridX:
    case Source::kClusteridY:
    case Source::kClusteridZ:
      return block.cluster->index[axis_of(source, Source::kClusteridX)];
    case Source::kNclusteridX:
    case Source::kNclusteridY:
    case Source::kNclusteridZ: {
      const u32 axis = axis_of(source, Source::kNclusteridX);
      return component(launch.grid, axis) / component(launch.cluster, axis);
    }
    case Source::kClusterCtaidX:
    case Source::kClusterCtaidY:
    case Source::kClusterCtaidZ:
      return position(block.rank, launch.cluster, axis_of(source, Source::kClusterCtaidX));
    case Source::kClusterNctaidX:
    case Source::kClusterNctaidY:
    case Source::kClusterNctaidZ:
      return component(launch.cluster, axis_of(source, Source::kClusterNctaidX));
    case Source::kClusterCtarank:
      return block.rank;
    case Source::kClusterNctarank:
      return launch.cluster.count();
    case Source::kIsExplicitCluster:
      return launch.cluster.count() > 1 || function.cluster[0] != 0;
    case Source::kSmid: {
      const u32 row = block.index[1] + launch.grid.y * block.index[2];
      return (block.index[0] + launch.grid.x * row) % options().num_multiprocessors;
    }
    case Source::kNsmid:
      return options().num_multiprocessors;
    case Source::kGridid:
      return 0;
    case Source::kDynamicSmemSize:
      return launch.dynamic_shared_bytes;
    case Source::kTotalSmemSize:
      return layout.shared_bytes - kSharedBase;
    default:
      throw Error("a register's first value is of a kind that is not known");
  }
}

/// Whether the lanes of a warp differ in it. Then initial values are computed per lane.
bool differs_by_lane(Source source) {
  return source == Source::kLocal || (source >= Source::kTidX && source <= Source::kTidZ) ||
         source == Source::kLaneid || source == Source::kWarpid ||
         (source >= Source::kLaneLt && source <= Source::kLaneEq);
}

u64 value_in_lane(const Initial& initial, const Warp& warp, u32 lane) {
  const Dim3& block = warp.cluster->launch->block;
  const u32 thread = kWarpSize * warp.id + lane;
  switch (initial.source) {
    case Source::kLocal:
      return reinterpret_cast<u64>(warp.local) + lane * warp.local_bytes + initial.value;
    case Source::kTidX:
    case Source::kTidY:
    case Source::kTidZ:
      return position(thread, block, axis_of(initial.source, Source::kTidX));
    case Source::kLaneid:
      return lane;
    case Source::kWarpid:
      return warp.id;
    case Source::kLaneLt:
      return (1u << lane) - 1;
    case Source::kLaneLe:
      return (2u << lane) - 1;
    case Source::kLaneGt:
      return static_cast<u32>(~((2u << lane) - 1));
    case Source::kLaneGe:
      return static_cast<u32>(~((1u << lane) - 1));
    default:
      return 1u << lane;
  }
}

void store(Warp& warp, Reg reg, u32 lane, u64 value) {
  std::memcpy(warp.registers + reg.offset + lane * reg.bytes, &value, reg.bytes);
}

/// Fills the registers that hold a value before the first instruction.
void fill_registers(Warp& warp, const Layout& layout) {
  for (const Initial& initial : warp.kernel->function->initial) {
    const Reg reg = initial.reg;
    if (!warp.defined.empty()) warp.defined[reg.number] = kAllLanes;
    const bool by_lane = differs_by_lane(initial.source);
    const u64 common = by_lane ? 0 : value_in_block(initial, *warp.block, layout);
    if (reg.bytes == 0) {
      warp.predicate(reg) = common != 0 ? kAllLanes : 0;
      continue;
    }
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      store(warp, reg, lane, by_lane ? value_in_lane(initial, warp, lane) : common);
    }
  }
}

void set_up_warp(Warp& warp, Block& block, u32 id, const Layout& layout) {
  const Launch& launch = *block.cluster->launch;
  const Function& function = *launch.kernel->function;
  warp.block = &block;
  warp.cluster = block.cluster;
  warp.kernel = launch.kernel;
  warp.id = id;
  const u32 num_threads = std::min(kWarpSize, launch.block.count() - kWarpSize * id);
  warp.alive = num_threads == kWarpSize ? kAllLanes : (1u << num_threads) - 1;
  warp.groups.push_back({.pc = 0, .lanes = warp.alive});
  warp.local_bytes = layout.local_bytes;
  warp.num_registers = registers_of_launch(function);
  if (options().check) warp.defined.assign(function.num_registers, 0);
}

}  // namespace

void set_up(Cluster& cluster, u32 index, Buffers& buffers) {
  const Launch& launch = *cluster.launch;
  const Layout layout(launch);
  const u32 num_blocks = launch.cluster.count();
  const u64 num_warps = u64{num_blocks} * layout.num_warps;
  const Dim3 clusters = {launch.grid.x / launch.cluster.x, launch.grid.y / launch.cluster.y,
                         launch.grid.z / launch.cluster.z};
  for (u32 axis = 0; axis < 3; ++axis) cluster.index[axis] = position(index, clusters, axis);
  u8* registers =
      poisoned(buffers.registers, layout.register_pitch * num_warps, 64, kRegisterPoison);
  u8* shared = poisoned(buffers.shared, layout.shared_pitch * num_blocks, 1024, kMemoryPoison);
  u8* local =
      poisoned(buffers.local, kWarpSize * layout.local_bytes * num_warps, 64, kMemoryPoison);
  cluster.blocks.resize(num_blocks);
  for (u32 rank = 0; rank < num_blocks; ++rank) {
    Block& block = cluster.blocks[rank];
    block.cluster = &cluster;
    block.rank = rank;
    for (u32 axis = 0; axis < 3; ++axis) {
      block.index[axis] = cluster.index[axis] * component(launch.cluster, axis) +
                          position(rank, launch.cluster, axis);
    }
    block.shared = std::exchange(shared, shared + layout.shared_pitch);
    block.shared_bytes = layout.shared_bytes;
    block.warps.resize(layout.num_warps);
    for (u32 id = 0; id < layout.num_warps; ++id) {
      Warp& warp = block.warps[id];
      set_up_warp(warp, block, id, layout);
      warp.registers = std::exchange(registers, registers + layout.register_pitch);
      warp.local = std::exchange(local, local + kWarpSize * layout.local_bytes);
      fill_registers(warp, layout);
    }
  }
}

}  // namespace ptxsim
