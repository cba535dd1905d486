// A kernel that combines Hopper's instructions: C = A B, rounded to 16 bits. Its blocks are
// persistent. A producer warpgroup fills a ring of stages with bulk copies; two consumer warpgroups
// multiply, each with 64 rows of A, and store through shared memory.
//
// A is [M][K]. B is transposed, [N][K], or [K][N] with A in registers. Sizes are not multiples of
// the tile: copies fill what lies outside with zeros, and drop it when they store.
//
// Each rule that the kernel keeps can be broken (Defect), to test that this is noticed.
//
//     barrier   arrivals per phase    by                          waited for by   then
//     full[s]   1, and the bytes      the producing thread        consumers       stage s is there
//     empty[s]  8                     a lane of each consumer     the producing   stage s may be
//                                     warp, after its products    thread          overwritten
//     named 1+w 128                   consumer warpgroup w        itself          the tile is done
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "cuda/arch/barrier.h"
#include "cuda/arch/bulk_copy.h"
#include "cuda/arch/matrix.h"
#include "cuda/arch/warp_specialization.h"
#include "cuda/arch/wgmma.h"

namespace minference::gpu_test {

enum class Defect {
  kNone,
  kNoInitFence,            // The mbarriers' init is not made visible to bulk copies,
  kNoInitBarrier,          // or other threads do not wait for it.
  kNoWaitForFull,          // Consumers read stages without waiting.
  kNoWaitForEmpty,         // The producer overwrites stages that may be in use.
  kTooFewBytes,            // Fewer bytes are announced than land,
  kTooManyBytes,           // or more.
  kWrongFullParity,        // Waits for the phase before,
  kWrongEmptyParity,       // or the one after.
  kReleaseBeforeProducts,  // A stage is given back while products read it,
  kReleaseBeforeLoads,     // or while ldmatrix of other lanes may read it,
  kNoReadFence,            // or without a proxy fence after ldmatrix.
  kMissingRelease,         // One warp never releases stages.
  kNoProxyFence,           // Results are stored while ordinary writes may still be in flight.
  kNoTileBarrier,          // Results are stored before all threads have written them,
  kReuseBeforeRead,        // or the tile is overwritten before it was read.
  kNoStoreWait,            // The last stores are never waited for.
  kNoProductFence,         // wgmma_fence is left out.
  kNoProductWait,          // Accumulators are used before the products are complete.
  kOperandOverwritten,     // Registers of A are overwritten while a product reads them.
  kUnequalProducts,        // One warp multiplies by a different operand.
};

enum class Operand { kShared, kRegisters };

template <Operand kOperandA, Defect kBroken>
struct PipelineTraits {
  static constexpr bool kInRegisters = kOperandA == Operand::kRegisters;
  using Element = std::conditional_t<kInRegisters, arch::Float16, arch::BFloat16>;
  static constexpr arch::Major kMajorB = kInRegisters ? arch::Major::kMn : arch::Major::kK;
  MINF_HOST_DEVICE static constexpr bool is(Defect defect) { return kBroken == defect; }

  static constexpr int kBlockM = 128;
  static constexpr int kBlockN = 128;
  static constexpr int kBlockK = 64;  // A 128-byte row.
  static constexpr int kStages = 4;
  static constexpr int kThreads = 3 * 128;
  static constexpr int kPanelBytes = 64 * 128;
  static constexpr int kStageBytes = (kBlockM + kBlockN) * kBlockK * 2;

  struct Storage {
    // Panels of 64 rows and 64 columns with a 128-byte swizzle, for rows of A or B. A row of B has
    // one n if A is in shared memory, and one k if A is in registers.
    alignas(1024) uint16_t a[kStages][2][64][64];
    alignas(1024) uint16_t b[kStages][2][64][64];
    alignas(1024) uint16_t c[2][2][64][64];  // [warpgroup][column / 64]
    arch::Mbarrier full[kStages];
    arch::Mbarrier empty[kStages];
  };
};

struct PipelineShape {
  int32_t m;
  int32_t n;
  int32_t k;
};

/// A thread's position in the ring.
template <typename Traits>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;  // Parity of the phases of full[] that are filled in this round.

  __device__ void advance() {
    if (++stage < Traits::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// ---- Producer: one thread -----------------------------------------------------------------------

template <typename Traits>
__device__ void produce(typename Traits::Storage& storage, const CUtensorMap& map_a,
                        const CUtensorMap& map_b, int32_t tile_m, int32_t tile_n, int32_t size_k,
                        RingPosition<Traits>& ring) {
  for (int32_t k = 0; k < size_k; k += Traits::kBlockK) {
    const uint32_t parity = Traits::is(Defect::kWrongEmptyParity) ? ring.parity : ring.parity ^ 1;
    if (!Traits::is(Defect::kNoWaitForEmpty)) {
      arch::mbarrier_wait(storage.empty[ring.stage], parity);
    }
    arch::Mbarrier& full = storage.full[ring.stage];
    const int wrong_bytes = Traits::is(Defect::kTooFewBytes)    ? -128
                            : Traits::is(Defect::kTooManyBytes) ? 128
                                                                : 0;
    arch::mbarrier_arrive_expect_tx(full, static_cast<uint32_t>(Traits::kStageBytes + wrong_bytes));
    for (int half = 0; half < 2; ++half) {
      const int32_t m = tile_m * Traits::kBlockM + half * 64;
      const int32_t n = tile_n * Traits::kBlockN + half * 64;
      arch::cp_async_bulk_tensor_load(storage.a[ring.stage][half], map_a, {k, m}, full,
                                      arch::l2_evict_last());
      if constexpr (Traits::kInRegisters) {
        arch::cp_async_bulk_tensor_load(storage.b[ring.stage][half], map_b, {n, k}, full);
      } else {
        arch::cp_async_bulk_tensor_load(storage.b[ring.stage][half], map_b, {k, n}, full);
      }
    }
    ring.advance();
  }
}

// ---- Consumers: one warpgroup each --------------------------------------------------------------

/// Registers of A for one stage: the warpgroup's rows, all 64 columns.
template <typename Traits>
__device__ void load_fragments(uint32_t (&fragments)[4][4], const uint16_t* panel, int thread) {
  const int row = thread / 32 * 16 + thread % 16;
  for (int step = 0; step < 4; ++step) {
    const auto offset = static_cast<uint32_t>(row * 128 + step * 32 + thread % 32 / 16 * 16);
    arch::ldmatrix_x4(fragments[step],
                      panel + arch::swizzle_offset(arch::Swizzle::k128B, offset) / 2);
  }
  // By every reader, before the release: then a copy may overwrite the stage.
  if (!Traits::is(Defect::kNoReadFence)) arch::fence_proxy_async();
}

template <typename Traits>
__device__ void multiply_stage(typename Traits::Storage& storage, int stage, int warpgroup,
                               float (&d)[64], uint32_t (&fragments)[4][4], bool accumulate) {
  using arch::Swizzle;
  const bool differs = Traits::is(Defect::kUnequalProducts) && threadIdx.x / 32 == 6;
  constexpr bool kFenced = !Traits::is(Defect::kNoProductFence);
  if constexpr (kFenced && Traits::kInRegisters) arch::wgmma_fence(d, fragments);
  // With A in shared memory, products of the previous stage may still run on d.
  if constexpr (kFenced && !Traits::kInRegisters) arch::wgmma_fence();
#pragma unroll
  for (uint32_t step = 0; step < 4; ++step) {
    const uint32_t step_b = differs ? step ^ 1 : step;
    if constexpr (Traits::kInRegisters) {  // The next 16 rows of k.
      const auto b =
          arch::mn_major_descriptor(storage.b[stage], Swizzle::k128B, Traits::kPanelBytes);
      arch::wgmma<typename Traits::Element, Traits::kMajorB>(
          d, fragments[step], arch::advance(b, 16 * 128 * step_b), accumulate || step > 0);
    } else {  // The next 16 columns of k; the second panel continues the rows of the first.
      const auto a = arch::k_major_descriptor(storage.a[stage][warpgroup], Swizzle::k128B);
      const auto b = arch::k_major_descriptor(storage.b[stage], Swizzle::k128B);
      arch::wgmma<typename Traits::Element, Traits::kMajorB>(
          d, arch::advance(a, 32 * step), arch::advance(b, 32 * step_b), accumulate || step > 0);
    }
  }
  arch::wgmma_commit_group();
}

template <typename Traits>
__device__ void release_stage(typename Traits::Storage& storage, int stage) {
  const auto thread = static_cast<int>(threadIdx.x);
  if (!Traits::is(Defect::kReleaseBeforeLoads)) __syncwarp();  // All lanes are done with the stage.
  if (Traits::is(Defect::kMissingRelease) && thread / 32 == 9) return;
  if (thread % 32 == 0) arch::mbarrier_arrive(storage.empty[stage]);
}

/// With A in shared memory, one stage's products keep running while the next stage's are issued.
template <typename Traits>
__device__ void consume(typename Traits::Storage& storage, int warpgroup, int32_t size_k,
                        float (&d)[64], RingPosition<Traits>& ring) {
  constexpr int kRunning = Traits::kInRegisters ? 0 : 1;
  const auto thread = static_cast<int>(threadIdx.x) % 128;
  uint32_t fragments[4][4];
  int last_stage = -1;
  for (int32_t k = 0; k < size_k; k += Traits::kBlockK) {
    if (!Traits::is(Defect::kNoWaitForFull)) {
      arch::mbarrier_wait(storage.full[ring.stage],
                          Traits::is(Defect::kWrongFullParity) ? ring.parity ^ 1 : ring.parity);
    }
    if constexpr (Traits::kInRegisters) {
      load_fragments<Traits>(fragments, storage.a[ring.stage][warpgroup][0], thread);
    }
    multiply_stage<Traits>(storage, ring.stage, warpgroup, d, fragments, k > 0);
    if (Traits::is(Defect::kOperandOverwritten)) fragments[0][0] ^= 0x8000;
    if (Traits::is(Defect::kReleaseBeforeProducts)) release_stage<Traits>(storage, ring.stage);
    arch::wgmma_wait<kRunning>();
    if (!Traits::is(Defect::kReleaseBeforeProducts)) {
      const int done = kRunning == 0 ? ring.stage : last_stage;
      if (done >= 0) release_stage<Traits>(storage, done);
    }
    last_stage = ring.stage;
    ring.advance();
  }
  if (!Traits::is(Defect::kNoProductWait)) arch::wgmma_wait<0>();
  if (kRunning > 0 && !Traits::is(Defect::kReleaseBeforeProducts)) {
    release_stage<Traits>(storage, last_stage);
  }
  arch::keep_registers(d);
}

template <typename Traits>
__device__ void store_tile(typename Traits::Storage& storage, const CUtensorMap& map_c,
                           int warpgroup, int32_t tile_m, int32_t tile_n, const float (&d)[64]) {
  const auto thread = static_cast<int>(threadIdx.x) % 128;
  const int row = thread / 32 * 16 + thread % 32 / 4;
  if (!Traits::is(Defect::kReuseBeforeRead)) {
    if (thread == 0) arch::cp_async_bulk_wait_read<0>();  // For the previous tile.
    arch::named_barrier_sync(1 + warpgroup, 128);
  }
  auto* tile = reinterpret_cast<uint32_t*>(storage.c[warpgroup]);
#pragma unroll
  for (int i = 0; i < 64; i += 2) {
    const int column = i / 4 * 8 + thread % 4 * 2;
    const auto offset = static_cast<uint32_t>(column / 64 * Traits::kPanelBytes +
                                              (row + i % 4 / 2 * 8) * 128 + column % 64 * 2);
    tile[arch::swizzle_offset(arch::Swizzle::k128B, offset) / 4] =
        arch::pack_elements<typename Traits::Element>(d[i], d[i + 1]);
  }
  if (!Traits::is(Defect::kNoProxyFence)) arch::fence_proxy_async();
  if (!Traits::is(Defect::kNoTileBarrier)) arch::named_barrier_sync(1 + warpgroup, 128);
  if (thread != 0) return;
  for (int half = 0; half < 2; ++half) {
    arch::cp_async_bulk_tensor_store(
        map_c, {tile_n * Traits::kBlockN + half * 64, tile_m * Traits::kBlockM + warpgroup * 64},
        storage.c[warpgroup][half]);
  }
  arch::cp_async_bulk_commit();
}

// ---- The kernel ---------------------------------------------------------------------------------

template <typename Traits>
__device__ void initialize(typename Traits::Storage& storage) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Traits::kStages; ++stage) {
      arch::mbarrier_init(storage.full[stage], /*arrivals=*/1);
      arch::mbarrier_init(storage.empty[stage], /*arrivals=*/8);
    }
    if (!Traits::is(Defect::kNoInitFence)) arch::fence_mbarrier_init();
  }
  if (!Traits::is(Defect::kNoInitBarrier)) __syncthreads();
}

/// Block b computes tiles b, b + gridDim.x, ...
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    pipeline_kernel(const __grid_constant__ CUtensorMap map_a,
                    const __grid_constant__ CUtensorMap map_b,
                    const __grid_constant__ CUtensorMap map_c, const PipelineShape shape) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  initialize<Traits>(storage);
  const int32_t tiles_n = (shape.n + Traits::kBlockN - 1) / Traits::kBlockN;
  const int32_t tiles_m = (shape.m + Traits::kBlockM - 1) / Traits::kBlockM;
  const auto first = static_cast<int32_t>(blockIdx.x);
  const auto step = static_cast<int32_t>(gridDim.x);
  const int warpgroup = static_cast<int>(threadIdx.x) / 128 - 1;
  RingPosition<Traits> ring;
  if (warpgroup < 0) {
    arch::setmaxnreg_dec<40>();
    if (threadIdx.x >= 32 || !arch::elect_one()) return;
    for (int32_t tile = first; tile < tiles_m * tiles_n; tile += step) {
      produce<Traits>(storage, map_a, map_b, tile / tiles_n, tile % tiles_n, shape.k, ring);
    }
  } else {
    arch::setmaxnreg_inc<232>();
    float d[64];
    for (int32_t tile = first; tile < tiles_m * tiles_n; tile += step) {
      consume<Traits>(storage, warpgroup, shape.k, d, ring);
      store_tile<Traits>(storage, map_c, warpgroup, tile / tiles_n, tile % tiles_n, d);
    }
    if (threadIdx.x % 128 == 0 && !Traits::is(Defect::kNoStoreWait)) arch::cp_async_bulk_wait<0>();
  }
}

}  // namespace minference::gpu_test
