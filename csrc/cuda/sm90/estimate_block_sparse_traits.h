// Compile-time shape of the thread block that scores and selects on sm90, and its shared memory.
//
//     barrier    arrivals per phase  by                        waited for by   then
//     full[u]    1, and the bytes    the producing thread      consumers       unit u is there
//     empty[u]   8                   a lane of each consumer   the producing   unit u may be
//                                    warp, after its products  thread          overwritten
//     request    1                   thread 0, at each pass    the producing   num_tiles is the
//                                                              thread          next pass's
//     named 1    256                 consumers                 consumers       unsettled[] stands
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/mbarrier.h"
#include "cuda/sm80/estimate_block_sparse_traits.h"
#include "cuda/tma/pool_panels.h"

namespace minference::sm90::block_sparse {

namespace shared = sm80::block_sparse;

template <int kPaddedDim_>
struct WgmmaSelectTraits {
  static constexpr int kPaddedDim = kPaddedDim_;
  static constexpr int kSteps = kPaddedDim / cuda::kGroupDims;
  using Panels = tma::KeyPanels<kPaddedDim>;

  static constexpr int kWarpgroups = 2;
  static constexpr int kBlockRows = kWarpgroups * shared::kTileRows;
  static constexpr int kConsumers = kWarpgroups * 128;
  static constexpr int kConsumerWarps = kConsumers / device::kWarpThreads;
  // And the producing warpgroup, of which one thread works: setmaxnreg gives the others' registers
  // to the consumers.
  static constexpr int kThreads = kConsumers + 128;
  static constexpr int kProducerRegisters = 24;
  static constexpr int kConsumerRegisters = 240;

  // A unit of the ring is a part of a tile: 8 to 16 KiB. What the candidates leave room for.
  static constexpr int kUnits = kPaddedDim == 128 || kPaddedDim == 256 ? 5 : 6;

  struct Storage {
    alignas(1024) unsigned char keys[kUnits][Panels::kPartBytes];
    shared::SelectionStorage selection[kWarpgroups];
    arch::Mbarrier full[kUnits];
    arch::Mbarrier empty[kUnits];
    arch::Mbarrier request;
    int32_t num_tiles;                     // Of the pass that is requested; -1: no more.
    int32_t unsettled[2][kConsumerWarps];  // By vote: [vote % 2][warp]
  };
  static_assert(sizeof(Storage) <= 227 * 1024);
  static_assert(Panels::kPartBytes % 1024 == 0, "units start where the swizzle's pattern does");
};

}  // namespace minference::sm90::block_sparse
