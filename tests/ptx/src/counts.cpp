// SPDX-License-Identifier: Apache-2.0
#include "counts.h"

#include <algorithm>
#include <bit>

#include "state.h"

namespace ptxsim {
namespace {

constexpr u32 kBanks = 32;  // Four bytes wide each.
constexpr u32 kBankBytes = 4;
constexpr u32 kWavefrontBytes = kBanks * kBankBytes;
constexpr u64 kSectorBytes = 32;

/// The words of shared memory that are requested at once. A bank serves one word at a time, to all
/// lanes that request it.
class Wavefronts {
 public:
  void ask(u64 address, u32 bytes) {
    for (u64 word = address / kBankBytes; word * kBankBytes < address + bytes; ++word) {
      const u32 bank = static_cast<u32>(word % kBanks);
      u64* const words = words_[bank];
      u64* const end = words + num_words_[bank];
      if (std::find(words, end, word) != end) continue;
      *end = word;
      needed_ = std::max(needed_, ++num_words_[bank]);
    }
  }
  u64 needed() const { return needed_; }

 private:
  u64 words_[kBanks][kWarpSize];
  u32 num_words_[kBanks] = {};
  u32 needed_ = 0;
};

}  // namespace

void Counts::add(const Counts& other) {
  if (ops.size() < other.ops.size()) ops.resize(other.ops.size());
  for (std::size_t i = 0; i < other.ops.size(); ++i) ops[i] += other.ops[i];
  warp_instructions += other.warp_instructions;
  thread_instructions += other.thread_instructions;
  polls_failed += other.polls_failed;
  shared_accesses += other.shared_accesses;
  shared_wavefronts += other.shared_wavefronts;
  shared_wavefronts_ideal += other.shared_wavefronts_ideal;
  global_accesses += other.global_accesses;
  global_sectors += other.global_sectors;
  global_bytes += other.global_bytes;
  tma_loads += other.tma_loads;
  tma_load_bytes += other.tma_load_bytes;
  tma_store_bytes += other.tma_store_bytes;
  cp_async_bytes += other.cp_async_bytes;
  wgmma_flops += other.wgmma_flops;
  mma_flops += other.mma_flops;
}

void count_shared_access(Warp& warp, const u64* addresses, u32 lanes, u32 bytes) {
  Counts& counts = *warp.cluster->counts;
  // Accesses of 8 bytes are served by half warps, of 16 bytes by quarters.
  const u32 lanes_at_once = std::min(kWarpSize, kWavefrontBytes / std::max(bytes, kBankBytes));
  u64 needed = 0;
  for (u32 first = 0; first < kWarpSize; first += lanes_at_once) {
    Wavefronts wavefronts;
    for (u32 lane = first; lane < first + lanes_at_once; ++lane) {
      if (lanes >> lane & 1) wavefronts.ask(addresses[lane], bytes);
    }
    needed += wavefronts.needed();
  }
  const u64 asked = static_cast<u64>(std::popcount(lanes)) * bytes;
  ++counts.shared_accesses;
  counts.shared_wavefronts += needed;
  counts.shared_wavefronts_ideal +=
      std::min(needed, (asked + kWavefrontBytes - 1) / kWavefrontBytes);
}

void count_global_access(Warp& warp, const u64* addresses, u32 lanes, u32 bytes) {
  Counts& counts = *warp.cluster->counts;
  constexpr std::size_t kMostSectors = 2 * kWarpSize;  // At most 32 bytes, so 2 per lane.
  u64 sectors[kMostSectors];
  std::size_t num_sectors = 0;
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    counts.global_bytes += bytes;
    const u64 last = (addresses[lane] + bytes - 1) / kSectorBytes;
    for (u64 sector = addresses[lane] / kSectorBytes; sector <= last; ++sector) {
      if (std::find(sectors, sectors + num_sectors, sector) != sectors + num_sectors) continue;
      if (num_sectors < kMostSectors) sectors[num_sectors++] = sector;
    }
  }
  ++counts.global_accesses;
  counts.global_sectors += num_sectors;
}

void count_matrix_rows(Warp& warp, const u64* addresses, u32 num_matrices) {
  Counts& counts = *warp.cluster->counts;
  constexpr u32 kRows = 8;
  constexpr u32 kRowBytes = 16;
  ++counts.shared_accesses;
  for (u32 matrix = 0; matrix < num_matrices; ++matrix) {
    Wavefronts wavefronts;
    for (u32 row = 0; row < kRows; ++row)
      wavefronts.ask(addresses[kRows * matrix + row], kRowBytes);
    counts.shared_wavefronts += wavefronts.needed();
    counts.shared_wavefronts_ideal += 1;
  }
}

}  // namespace ptxsim
