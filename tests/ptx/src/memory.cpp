// Checks bounds and alignment of every access. If one range holds all of a warp's addresses, one
// check covers them.
// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>

#include "lanes.h"
#include "state.h"

namespace ptxsim {
namespace {

std::map<u64, u64> allocations;  // Begin, end.
std::mutex allocations_mutex;
u64 allocations_version = 1;

struct Range {
  u64 begin = 0, end = 0;
  bool holds(u64 first, u64 past) const { return first >= begin && past <= end && first <= past; }
};

/// The allocation at or before `address`; empty if there is none.
Range range_before(u64 address) {
  const std::lock_guard lock(allocations_mutex);
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return {};
  --next;
  return {next->first, next->second};
}

/// Like range_before(), but fast for addresses in the same range as the last one.
bool in_allocation(u64 first, u64 past) {
  thread_local Range last;
  thread_local u64 version = 0;
  if (version == allocations_version && last.holds(first, past)) return true;
  const Range range = range_before(first);
  if (!range.holds(first, past)) return false;
  last = range;
  version = allocations_version;
  return true;
}

Range shared_range(const Block& block) {
  const u64 begin = reinterpret_cast<u64>(block.shared);
  return {begin + kSharedBase, begin + block.shared_bytes};
}

Range parameter_range(const Warp& warp) {
  const Launch& launch = *warp.cluster->launch;
  const u64 begin = reinterpret_cast<u64>(launch.parameters);
  return {begin, begin + launch.kernel->function->parameter_bytes};
}

Range local_range(const Warp& warp, u32 lane) {
  const u64 begin = reinterpret_cast<u64>(warp.local) + lane * warp.local_bytes;
  return {begin, begin + warp.local_bytes};
}

Range all_local_range(const Warp& warp) {
  const u64 begin = reinterpret_cast<u64>(warp.local);
  return {begin, begin + kWarpSize * warp.local_bytes};
}

std::string hexadecimal(u64 value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string bytes_at(u64 address, u64 bytes) {
  return std::to_string(bytes) + " bytes at " + hexadecimal(address);
}

[[noreturn]] void fail_global(Warp& warp, u64 address, u64 bytes) {
  std::string text = "invalid global address: " + bytes_at(address, bytes);
  const Range before = range_before(address);
  if (before.end != 0) {
    text += ", that is at byte " + std::to_string(address - before.begin) +
            " of the allocation before, which has " + std::to_string(before.end - before.begin);
  }
  fail(warp, text);
}

u8* pointer_to(u64 address) { return reinterpret_cast<u8*>(address); }

bool in_shared_of_cluster(Warp& warp, u64 first, u64 past) {
  return std::any_of(warp.cluster->blocks.begin(), warp.cluster->blocks.end(),
                     [&](const Block& block) { return shared_range(block).holds(first, past); });
}

u8* generic_pointer(Warp& warp, u32 lane, u64 address, u64 bytes) {
  const u64 past = address + bytes;
  if (in_allocation(address, past) || in_shared_of_cluster(warp, address, past) ||
      local_range(warp, lane).holds(address, past) || parameter_range(warp).holds(address, past)) {
    return pointer_to(address);
  }
  if (all_local_range(warp).holds(address, past)) {
    fail(warp, "local memory of another lane, or past its end: " + bytes_at(address, bytes),
         1u << lane);
  }
  fail_global(warp, address, bytes);
}

u8* local_pointer(Warp& warp, u32 lane, u64 address, u64 bytes) {
  const Range own = local_range(warp, lane);
  if (own.holds(address, address + bytes)) return pointer_to(address);
  fail(warp,
       "local address outside of the lane's own " + std::to_string(warp.local_bytes) +
           " bytes: " + std::to_string(bytes) + " bytes at offset " +
           std::to_string(static_cast<s64>(address - own.begin)),
       1u << lane);
}

/// Parameters of the kernel; those of calls are in local memory.
u8* parameter_pointer(Warp& warp, u32 lane, u64 address, u64 bytes) {
  const Range parameters = parameter_range(warp);
  const u64 past = address + bytes;
  if (parameters.holds(address, past) || local_range(warp, lane).holds(address, past)) {
    return pointer_to(address);
  }
  fail(warp,
       "outside of the kernel's " + std::to_string(parameters.end - parameters.begin) +
           " bytes of parameters: " + std::to_string(bytes) + " bytes at offset " +
           std::to_string(static_cast<s64>(address - parameters.begin)),
       1u << lane);
}

/// The smallest and largest address of some lanes, and the bits that are set in any.
struct Extent {
  u64 least = ~u64{0}, greatest = 0, bits = 0;
};
Extent extent_of(u32 lanes, const u64* addresses) {
  Extent extent;
  each_lane(lanes, [&](u32 lane) {
    extent.least = std::min(extent.least, addresses[lane]);
    extent.greatest = std::max(extent.greatest, addresses[lane]);
    extent.bits |= addresses[lane];
  });
  return extent;
}

void add_to_all(u32 lanes, const u64* addresses, const u8* base, u8** pointers) {
  each_lane(lanes, [&](u32 lane) {
    pointers[lane] = pointer_to(reinterpret_cast<u64>(base) + addresses[lane]);
  });
}

}  // namespace

void add_memory(const void* begin, u64 bytes) {
  const std::lock_guard lock(allocations_mutex);
  allocations[reinterpret_cast<u64>(begin)] = reinterpret_cast<u64>(begin) + bytes;
  ++allocations_version;
}

void remove_memory(const void* begin) {
  const std::lock_guard lock(allocations_mutex);
  allocations.erase(reinterpret_cast<u64>(begin));
  ++allocations_version;
}

Allocation find_memory(const void* at) {
  const u64 address = reinterpret_cast<u64>(at);
  const Range range = range_before(address);
  if (address >= range.end) return {};
  return {pointer_to(range.begin), range.end - range.begin};
}

u8* global_pointer(Warp& warp, u64 address, u64 bytes) {
  const u64 past = address + bytes;
  if (in_allocation(address, past) || in_shared_of_cluster(warp, address, past) ||
      all_local_range(warp).holds(address, past) || parameter_range(warp).holds(address, past)) {
    return pointer_to(address);
  }
  fail_global(warp, address, bytes);
}

u8* shared_pointer(Warp& warp, u64 address, u64 bytes) {
  const Block* block = warp.block;
  u64 offset = address;
  if (const u64 rank = address >> kRankShift; rank != 0) {
    if (rank > warp.cluster->blocks.size()) {
      fail(warp, "shared address of no block of the cluster: " + hexadecimal(address));
    }
    block = &warp.cluster->blocks[rank - 1];
    offset = address & ((u64{1} << kRankShift) - 1);
  }
  const Range allowed{kSharedBase, block->shared_bytes};
  if (!allowed.holds(offset, offset + bytes)) {
    fail(warp, "shared address outside of the block's " +
                   std::to_string(allowed.end - allowed.begin) +
                   " bytes: " + std::to_string(bytes) + " bytes at " +
                   std::to_string(static_cast<s64>(offset - kSharedBase)));
  }
  return block->shared + offset;
}

void check_aligned(Warp& warp, u64 address, u64 bytes, const char* what) {
  if (address % bytes == 0) return;
  fail(warp, "misaligned " + std::string(what) + ": address " + hexadecimal(address) +
                 " is no multiple of " + std::to_string(bytes));
}

u8* lane_pointer(Warp& warp, u32 lane, Space space, u64 address, u64 bytes) {
  switch (space) {
    case Space::kShared:
      return shared_pointer(warp, address, bytes);
    case Space::kLocal:
      return local_pointer(warp, lane, address, bytes);
    case Space::kParam:
      return parameter_pointer(warp, lane, address, bytes);
    case Space::kGlobal:
    case Space::kConst:
      if (!in_allocation(address, address + bytes)) fail_global(warp, address, bytes);
      return pointer_to(address);
    case Space::kGeneric:
      break;
  }
  return generic_pointer(warp, lane, address, bytes);
}

void resolve(Warp& warp, u32 lanes, Space space, const u64* addresses, u32 bytes, u8** pointers) {
  const Extent extent = extent_of(lanes, addresses);
  if ((extent.bits & (bytes - 1)) != 0) {
    each_lane(lanes, [&](u32 lane) { check_aligned(warp, addresses[lane], bytes, "access"); });
  }
  const u64 past = extent.greatest + bytes;
  const bool is_shared = space == Space::kShared;
  if (is_shared && extent.least >= kSharedBase && past <= warp.block->shared_bytes) {
    return add_to_all(lanes, addresses, warp.block->shared, pointers);
  }
  const bool is_global = !is_shared && space != Space::kLocal && space != Space::kParam;
  if (is_global && in_allocation(extent.least, past)) {
    return add_to_all(lanes, addresses, nullptr, pointers);
  }
  each_lane(lanes, [&](u32 lane) {
    pointers[lane] = lane_pointer(warp, lane, space, addresses[lane], bytes);
  });
}

Block* block_of(Warp& warp, const u8* at) {
  const auto holds = [&](const Block& block) {
    return at >= block.shared && at < block.shared + block.shared_bytes;
  };
  if (holds(*warp.block)) return warp.block;
  const auto found = std::find_if(warp.cluster->blocks.begin(), warp.cluster->blocks.end(), holds);
  return found == warp.cluster->blocks.end() ? nullptr : &*found;
}

u64 cluster_address(const Block& block, const u8* at) {
  return static_cast<u64>(at - block.shared) | (u64{block.rank} + 1) << kRankShift;
}

}  // namespace ptxsim
