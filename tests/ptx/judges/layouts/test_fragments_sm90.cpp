// Swizzles, and which thread holds which element of wgmma's accumulators and register operands: the
// project's own functions beside CuTe's swizzles, MMA_Traits and shared-memory layouts.
// SPDX-License-Identifier: Apache-2.0
#include <type_traits>

#include "cuda/arch/swizzle.h"
#include "cuda/sm90/attention_epilogue.h"
#include "cuda/sm90/attention_mainloop.h"
#include "cuda/sm90/estimate_vertical_slash_scores.h"
#include "judge.h"

namespace judges {
namespace {

namespace device = minference::device;
namespace sm90 = minference::sm90;
namespace gmma = cute::SM90::GMMA;
using cute::Int;
using cute::Shape;
using minference::arch::BFloat16;
using minference::arch::Swizzle;
using Element = cutlass::bfloat16_t;

constexpr int kThreads = minference::device::kWarpgroupThreads;

Tally swizzles("swizzles");
Tally masked("sm90: scores that a mask leaves");
Tally packed("sm90: P, from D to A in registers");
Tally staged("sm90: rows of out that TMA stores");
Tally loaded("sm90: values as operands of mma.sync");
Tally scored("vertical-slash: places of scores");

// ---- Swizzles -----------------------------------------------------------------------------------

/// kBits: log2 of the 16-byte chunks that CuTe's swizzle permutes.
template <int kBits, typename Atom>
void check_swizzle(Swizzle swizzle) {
  constexpr int kRowElements = cute::size<1>(Atom{});
  swizzles.compare(minference::arch::swizzle_row_bytes(swizzle), sizeof(Element) * kRowElements,
                   kBits);
  for (int offset = 0; offset < 1 << 14; ++offset) {
    swizzles.compare(minference::arch::swizzle_offset(swizzle, static_cast<uint32_t>(offset)),
                     cute::Swizzle<kBits, 4, 3>{}(offset), kBits, offset);
  }
}

void check_swizzles() {
  check_swizzle<0, gmma::Layout_K_INTER_Atom<Element>>(Swizzle::kNone);
  check_swizzle<1, gmma::Layout_K_SW32_Atom<Element>>(Swizzle::k32B);
  check_swizzle<2, gmma::Layout_K_SW64_Atom<Element>>(Swizzle::k64B);
  check_swizzle<3, gmma::Layout_K_SW128_Atom<Element>>(Swizzle::k128B);
}

// ---- CuTe's layouts: (thread, value) to place ---------------------------------------------------

struct Place {
  int row;
  int column;
};

/// Place in the accumulators of 64 rows and N columns.
template <int kN>
Place place_in_d(int thread, int value) {
  const int at = gmma::CLayout_64xN<kN>{}(thread, value);
  return {at % 64, at / 64};
}

/// Place in A: 64 rows and 16 columns of k.
Place place_in_a(int thread, int value) {
  using Op = gmma::MMA_64x64x16_F32BF16BF16_RS<gmma::Major::K, gmma::Major::K>;
  const int at = cute::MMA_Traits<Op>::ALayout{}(thread, value);
  return {at % 64, at / 64};
}

uint32_t half_of(uint32_t word, int half) { return word >> (16 * half) & 0xffff; }

// ---- Attention ----------------------------------------------------------------------------------

/// Row `row` of each tile attends keys up to its own.
template <int kTiles>
void check_mask() {
  constexpr int kBlock = minference::kBlock;
  const device::KeyMask mask = {.keep = ~uint64_t{0},
                                .first_key = 0,
                                .contiguous = true,
                                .columns = nullptr,
                                .sink = 0,
                                .window = INT32_MAX,
                                .dense_from = 0};
  for (int thread = 0; thread < kThreads; ++thread) {
    sm90::Scores<kTiles> scores = {};
    const int first_row = place_in_d<kTiles * kBlock>(thread, 0).row;
    run_thread(thread, [&] {
      for (int i = 0; i < kTiles; ++i) sm90::mask_tile(scores, i, mask, first_row);
    });
    for (int value = 0; value < kTiles * kBlock / 2; ++value) {
      const Place place = place_in_d<kTiles * kBlock>(thread, value);
      masked.compare(scores.s[value] == 0, place.column % kBlock <= place.row, thread, value);
    }
  }
}

template <typename Attention, int kTiles>
void check_probabilities() {
  constexpr int kKeys = kTiles * minference::kBlock;
  for (int thread = 0; thread < kThreads; ++thread) {
    sm90::Scores<kTiles> scores;
    for (int value = 0; value < kKeys / 2; ++value) {
      const Place place = place_in_d<kKeys>(thread, value);
      scores.s[value] = static_cast<float>(place.row * kKeys + place.column);
    }
    sm90::Probabilities<Attention> p;
    run_thread(thread, [&] { sm90::pack_probabilities<Attention>(p, scores); });
    for (int k = 0; k < kKeys / 16; ++k) {
      for (int value = 0; value < 8; ++value) {
        const Place place = place_in_a(thread, value);
        packed.compare(half_of(p.p[k][value / 2], value % 2),
                       place.row * kKeys + 16 * k + place.column, thread, value);
      }
    }
  }
}

template <typename Attention>
using KAtom = std::conditional_t<Attention::kPanelDims == 64, gmma::Layout_K_SW128_Atom<Element>,
                                 gmma::Layout_K_SW64_Atom<Element>>;

/// `rows` by `dims` in panels, row-major.
template <typename Attention, int kRows, int kDims>
auto panel_tensor(void* start) {
  return cute::make_tensor(
      cute::make_smem_ptr(static_cast<Element*>(start)),
      cute::tile_to_shape(KAtom<Attention>{}, Shape<Int<kRows>, Int<kDims>>{}));
}

template <typename Attention>
void check_rows_of_out() {
  constexpr int kDimV = Attention::kDimV;
  auto& tile = shared_storage<typename Attention::OutTile>();
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    run_warp(warp, [&](int lane) {
      sm90::RowState<Attention> rows;
      rows.sum[0] = rows.sum[1] = 1;
      for (int value = 0; value < kDimV / 2; ++value) {
        const Place place = place_in_d<kDimV>(32 * warp + lane, value);
        rows.out[value] = static_cast<float>(place.row * kDimV + place.column);
      }
      sm90::stage_out<Attention>(tile, rows);
    });
  }
  const auto out = panel_tensor<Attention, minference::kBlock, kDimV>(&tile);
  for (int row = 0; row < minference::kBlock; ++row) {
    for (int dim = 0; dim < kDimV; ++dim) {
      const Element& element = out(row, dim);
      staged.compare(element.raw(), row * kDimV + dim, row, dim);
    }
  }
}

/// Values of a panel, for the product that leaves out NaN: B of mma.m16n8k16, with keys along k.
template <typename Attention>
void check_values() {
  constexpr int kKeys = Attention::kStageKeys;
  constexpr int kDims = Attention::kPanelDims;
  auto values = panel_tensor<Attention, kKeys, kDims>(shared_memory());
  for (int key = 0; key < kKeys; ++key) {
    for (int dim = 0; dim < kDims; ++dim) {
      values(key, dim) = Element::bitcast(static_cast<uint16_t>(256 * key + dim));
    }
  }
  using Traits = cute::MMA_Traits<cute::SM80_16x8x16_F32BF16BF16F32_TN>;
  for (int k = 0; k < kKeys / 16; ++k) {
    for (int n = 0; n < kDims / 16; ++n) {
      uint32_t b[32][2][2];
      run_warp(0, [&](int lane) { sm90::load_values<Attention>(b[lane], shared_memory(), k, n); });
      for (int lane = 0; lane < 32; ++lane) {
        for (int value = 0; value < 4; ++value) {
          const int at = Traits::BLayout{}(lane, value);  // n + 8 k
          for (int matrix = 0; matrix < 2; ++matrix) {
            loaded.compare(half_of(b[lane][matrix][value / 2], value % 2),
                           256 * (16 * k + at / 8) + 16 * n + 8 * matrix + at % 8, lane, value);
          }
        }
      }
    }
  }
}

template <int kDim, int kDimV>
void check_attention() {
  using Attention = sm90::AttentionTraits<BFloat16, kDim, kDimV>;
  check_probabilities<Attention, Attention::kStageTiles>();
  check_rows_of_out<Attention>();
  check_values<Attention>();
}

// ---- Estimation of vertical-slash: 64 keys by the rows of two heads -----------------------------

/// Element at(i, j) of a head must belong to row row_of(i) and the thread's key j of its warp's 16.
void check_score_places() {
  namespace kernels = sm90::vertical_slash;
  constexpr int kRows = kernels::kWarpgroupHeads * minference::kBlock;
  for (int thread = 0; thread < kThreads; ++thread) {
    kernels::WarpScores scores;
    for (int value = 0; value < kRows / 2; ++value) {
      const Place place = place_in_d<kRows>(thread, value);
      scores.d[value] = static_cast<float>(place.row * kRows + place.column);
    }
    run_thread(thread, [&] {
      for (int head = 0; head < kernels::kWarpgroupHeads; ++head) {
        for (int i = 0; i < kernels::HeadScores::kThreadRows; ++i) {
          for (int j = 0; j < 2; ++j) {
            const int key = thread / 32 * kernels::kStepKeys + device::lane_key() + 8 * j;
            const int row = head * minference::kBlock + device::row_of(i);
            scored.compare(static_cast<uint64_t>(scores.of(head).at(i, j)), key * kRows + row,
                           thread, i);
          }
        }
      }
    });
  }
}

bool check_all() {
  check_swizzles();
  check_mask<1>();
  check_mask<2>();
  check_attention<64, 64>();
  check_attention<96, 96>();
  check_attention<128, 128>();
  check_attention<192, 128>();
  check_attention<192, 192>();
  check_attention<256, 256>();
  check_score_places();
  return report_all({&swizzles, &masked, &packed, &staged, &loaded, &scored});
}

}  // namespace
}  // namespace judges

int main() { return judges::check_all() ? 0 : 1; }
