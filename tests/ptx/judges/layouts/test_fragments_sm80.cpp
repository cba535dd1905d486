// Which lane holds which element of mma.m16n8k16's operands: sm80's own functions beside the
// layouts of CuTe's MMA_Traits. Elements are numbers; the functions load, pack and store them.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "judge.h"

// clang-format off: attention's headers name a KeyTile of core/, score_tile.h brings another.
#include "cuda/sm80/attention_epilogue.h"
#include "cuda/sm80/attention_mainloop.h"
#include "cuda/sm80/attention_traits.h"
#include "cuda/common/pool_rows_kernel.h"
#include "cuda/device/rows.h"
#include "cuda/device/score_tile.h"
#include "cuda/sm80/estimate_block_sparse_kernel.h"
// clang-format on

namespace judges {
namespace {

namespace cuda = minference::cuda;
namespace device = minference::device;
namespace sm80 = minference::sm80;
using minference::arch::BFloat16;

Tally loaded("sm80: operands from swizzled rows");
Tally masked("sm80: scores that a mask leaves");
Tally packed("sm80: P, from C to A");
Tally stored("sm80: rows of out");
Tally scored("vertical-slash: operands and scores");
Tally pooled_means("block-sparse: pooled means as operands");

// ---- CuTe's layouts: (lane, value) to place -----------------------------------------------------

using Traits = cute::MMA_Traits<cute::SM80_16x8x16_F32BF16BF16F32_TN>;

struct Place {
  int mn;  // m of A, n of B.
  int k;   // n of C.
};
Place place_in_a(int lane, int value) {
  const int at = Traits::ALayout{}(lane, value);
  return {at % 16, at / 16};
}
Place place_in_b(int lane, int value) {
  const int at = Traits::BLayout{}(lane, value);
  return {at % 8, at / 8};
}
Place place_in_c(int lane, int value) {
  const int at = Traits::CLayout{}(lane, value);
  return {at % 16, at / 16};
}

/// A register's low (0) or high (1) element.
uint32_t half_of(uint32_t word, int half) { return word >> (16 * half) & 0xffff; }

// ---- Operands from swizzled rows ----------------------------------------------------------------

constexpr int kRows = 128;

/// Rows of numbers, where the kernels' copies put them.
template <int kDim>
void fill_rows() {
  using Rows = device::SwizzledRows<kDim>;
  for (int row = 0; row < kRows; ++row) {
    for (int dim = 0; dim < kDim; ++dim) {
      const auto number = static_cast<uint16_t>(256 * row + dim);
      std::memcpy(shared_memory() + Rows::offset(row, dim / 8) + 2 * (dim % 8), &number, 2);
    }
  }
}

template <int kDim>
void check_loads(int first, int k) {
  using Rows = device::SwizzledRows<kDim>;
  const uint32_t rows = shared_address(shared_memory());
  uint32_t a[32][4];
  uint32_t b[32][2][2];
  uint32_t transposed[32][2][2];
  run_warp(0, [&](int lane) {
    device::load_a<Rows>(a[lane], rows + device::row_offset<Rows>(), first, k);
    device::load_b<Rows>(b[lane], rows + device::key_offset<Rows>(), first, k);
    device::load_b_transposed<Rows>(transposed[lane], rows + device::row_offset<Rows>(), first, k);
  });
  const auto number = [](int row, int dim) { return static_cast<uint32_t>(256 * row + dim); };
  for (int lane = 0; lane < 32; ++lane) {
    for (int value = 0; value < 8; ++value) {
      const Place place = place_in_a(lane, value);
      loaded.compare(half_of(a[lane][value / 2], value % 2),
                     number(first + place.mn, 16 * k + place.k), lane, value);
    }
    for (int value = 0; value < 4; ++value) {
      const Place place = place_in_b(lane, value);
      for (int matrix = 0; matrix < 2; ++matrix) {
        loaded.compare(half_of(b[lane][matrix][value / 2], value % 2),
                       number(first + 8 * matrix + place.mn, 16 * k + place.k), lane, value);
        loaded.compare(half_of(transposed[lane][matrix][value / 2], value % 2),
                       number(first + place.k, 16 * k + 8 * matrix + place.mn), lane, value);
      }
    }
  }
}

template <int kDim>
void check_swizzled_rows() {
  fill_rows<kDim>();
  for (int first = 0; first < kRows; first += 16) {
    for (int k = 0; k < kDim / 16; ++k) check_loads<kDim>(first, k);
  }
}

// ---- Attention ----------------------------------------------------------------------------------

/// Row `row` attends keys up to its own, so the scores that remain show which lane holds which
/// element.
template <typename Attention>
void check_mask() {
  const device::KeyMask mask = {.keep = ~uint64_t{0},
                                .first_key = 0,
                                .contiguous = true,
                                .columns = nullptr,
                                .sink = 0,
                                .window = INT32_MAX,
                                .dense_from = 0};
  for (int lane = 0; lane < 32; ++lane) {
    sm80::Scores<Attention> scores = {};
    run_thread(lane, [&] { sm80::mask_scores(scores, mask, /*first_position=*/0); });
    for (int m = 0; m < Attention::kRowMats; ++m) {
      for (int n = 0; n < Attention::kStepKeys / 8; ++n) {
        for (int value = 0; value < 4; ++value) {
          const Place place = place_in_c(lane, value);
          masked.compare(scores.s[m][n][value] == 0, 8 * n + place.k <= 16 * m + place.mn, lane,
                         value);
        }
      }
    }
  }
}

template <typename Attention>
void check_probabilities() {
  constexpr int kKeys = Attention::kStepKeys;
  for (int lane = 0; lane < 32; ++lane) {
    sm80::Scores<Attention> scores;
    for (int m = 0; m < Attention::kRowMats; ++m) {
      for (int n = 0; n < kKeys / 8; ++n) {
        for (int value = 0; value < 4; ++value) {
          const Place place = place_in_c(lane, value);
          const int number = (16 * m + place.mn) * kKeys + 8 * n + place.k;
          scores.s[m][n][value] = static_cast<float>(-number);
        }
      }
    }
    sm80::RowState<Attention> rows;
    for (auto& of_mat : rows.max) of_mat[0] = of_mat[1] = 0;
    sm80::Probabilities<Attention> steps[Attention::kFillSteps] = {};
    run_thread(lane, [&] {
      sm80::soften(rows, scores, /*scale_log2=*/1, steps, /*step=*/0, /*num_before=*/0);
    });
    for (int m = 0; m < Attention::kRowMats; ++m) {
      for (int k = 0; k < kKeys / 16; ++k) {
        for (int value = 0; value < 8; ++value) {
          const Place place = place_in_a(lane, value);
          packed.compare(half_of(steps[0].p[m][k][value / 2], value % 2),
                         (16 * m + place.mn) * kKeys + 16 * k + place.k, lane, value);
        }
      }
    }
  }
}

/// Stores rows of out to global memory through shared memory.
template <typename Attention>
void check_rows_of_out() {
  constexpr int kDimV = Attention::kDimV;
  static uint16_t out[Attention::kWarpRows][kDimV];
  sm80::AttentionParams params = {};
  params.out.data = out;
  params.out.token_stride = kDimV;
  params.head_dim_v = kDimV;
  const sm80::WarpRows place = {.batch = 0, .head = 0, .first = 0, .count = Attention::kWarpRows};
  run_warp(0, [&](int lane) {
    sm80::RowState<Attention> rows;
    for (int m = 0; m < Attention::kRowMats; ++m) {
      for (int n = 0; n < kDimV / 8; ++n) {
        for (int value = 0; value < 4; ++value) {
          const Place c = place_in_c(lane, value);
          rows.out[m][n][value] = static_cast<float>((16 * m + c.mn) * kDimV + 8 * n + c.k);
        }
      }
    }
    sm80::store_out<Attention>(params, rows, place, shared_memory());
  });
  for (int row = 0; row < Attention::kWarpRows; ++row) {
    for (int dim = 0; dim < kDimV; ++dim) {
      stored.compare(out[row][dim], row * kDimV + dim, row, dim);
    }
  }
}

template <int kDim, int kDimV>
void check_attention() {
  using Attention = sm80::AttentionTraits<BFloat16, kDim, kDimV>;
  check_mask<Attention>();
  check_probabilities<Attention>();
  check_rows_of_out<Attention>();
}

// ---- Estimation of vertical-slash: keys are A, queries B ----------------------------------------

template <int kDim>
void check_scores() {
  using Tile = device::KeyTile<BFloat16, kDim>;
  auto& tile = shared_storage<Tile>();
  static uint16_t queries[device::kWarpRows][kDim];
  for (int row = 0; row < minference::kBlock; ++row) {
    for (int dim = 0; dim < kDim; ++dim) {
      const auto number = static_cast<uint16_t>(256 * row + dim);
      tile.rows[row * Tile::kPitch + dim].bits = number;
      if (row < device::kWarpRows) queries[row][dim] = number;
    }
  }
  constexpr int kFirst = 16;
  run_warp(0, [&](int) {
    device::QueryFragments<BFloat16, kDim> fragments;
    fragments.load(reinterpret_cast<const uint32_t*>(queries), kDim / 2, device::kWarpRows, kDim,
                   device::QueryBits{});
    device::score_keys(tile, kFirst, fragments);
  });
  const auto products = take_lane_products();  // One list per lane.
  constexpr int kLaneProducts = kDim / 16 * device::kRowTiles;
  scored.compare(products.size(), 32 * kLaneProducts, 0);
  for (std::size_t i = 0; i < products.size(); ++i) {
    const auto lane = static_cast<int>(i) / kLaneProducts;
    const int k = static_cast<int>(i) % kLaneProducts / device::kRowTiles;
    const int n = static_cast<int>(i) % device::kRowTiles;
    for (int value = 0; value < 8; ++value) {
      const Place place = place_in_a(lane, value);
      scored.compare(half_of(products[i].a[value / 2], value % 2),
                     256 * (kFirst + place.mn) + 16 * k + place.k, lane, value);
    }
    for (int value = 0; value < 4; ++value) {
      const Place place = place_in_b(lane, value);
      scored.compare(half_of(products[i].b[value / 2], value % 2),
                     256 * (8 * n + place.mn) + 16 * k + place.k, lane, value);
    }
  }
}

/// at(), row_of() and lane_key() must name the element that CuTe says the lane holds.
void check_score_places() {
  for (int lane = 0; lane < 32; ++lane) {
    device::ScoreTile tile;
    for (int n = 0; n < device::kRowTiles; ++n) {
      for (int value = 0; value < 4; ++value) {
        const Place place = place_in_c(lane, value);
        tile.s[n][value] = static_cast<float>(64 * place.mn + 8 * n + place.k);
      }
    }
    run_thread(lane, [&] {
      for (int i = 0; i < device::kThreadRows; ++i) {
        for (int j = 0; j < 2; ++j) {
          scored.compare(static_cast<uint64_t>(tile.at(i, j)),
                         64 * (device::lane_key() + 8 * j) + device::row_of(i), lane, i);
        }
      }
    });
  }
}

// ---- Estimation of block-sparse -----------------------------------------------------------------

/// 64 means as fragments, read as A and as B. Low parts have odd numbers.
template <int kDim>
void check_pooled_means() {
  namespace kernels = sm80::block_sparse;
  using Pool = cuda::PoolTraits<BFloat16, kDim>;
  using Select = kernels::SelectBlocksTraits<kDim>;
  constexpr int kMeans = kernels::kTileRows;
  static cuda::SplitFragment pooled[cuda::num_fragments(kMeans, kDim)];
  for (int mean = 0; mean < kMeans; ++mean) {
    run_warp(0, [&](int lane) {
      cuda::SplitMeans means;
      for (int word = 0; word < 4; ++word) {
        const auto number = static_cast<uint32_t>(512 * mean + 2 * (8 * lane + 2 * word));
        means.high[word] = number | (number + 2) << 16;
        means.low[word] = (number + 1) | (number + 3) << 16;
      }
      cuda::store_means<Pool>(means, pooled, mean);
    });
  }
  const auto number = [](int mean, int dim) { return static_cast<uint64_t>(512 * mean + 2 * dim); };
  for (int thread = 0; thread < 4 * 32; ++thread) {
    const int lane = thread % 32;
    kernels::QueryFragments<Select> queries;
    run_thread(thread, [&] { cuda::block_sparse::load_queries<Select>(queries, pooled); });
    for (int step = 0; step < kDim / 16; ++step) {
      for (int value = 0; value < 8; ++value) {
        const Place place = place_in_a(lane, value);
        const uint64_t expected = number(thread / 32 * 16 + place.mn, 16 * step + place.k);
        pooled_means.compare(half_of(queries.high[step][value / 2], value % 2), expected, thread,
                             step);
        pooled_means.compare(half_of(queries.low[step][value / 2], value % 2), expected + 1, thread,
                             step);
      }
      for (int value = 0; value < 4; ++value) {
        const Place place = place_in_b(lane, value);
        const int group = thread / 32;
        const auto& keys = pooled[(group * (kDim / 16) + step) * 32 + lane];
        pooled_means.compare(half_of(keys.high[value / 2], value % 2),
                             number(8 * group + place.mn, 16 * step + place.k), thread, step);
      }
    }
  }
}

template <int kDim>
void check_dim() {
  check_swizzled_rows<kDim>();
  check_scores<kDim>();
  check_pooled_means<kDim>();
}

bool check_all() {
  check_dim<64>();
  check_dim<96>();
  check_dim<128>();
  check_dim<192>();
  check_dim<256>();
  check_attention<64, 64>();
  check_attention<96, 96>();
  check_attention<128, 128>();
  check_attention<192, 128>();
  check_attention<192, 192>();
  check_attention<256, 256>();
  check_score_places();
  return report_all({&loaded, &masked, &packed, &stored, &scored, &pooled_means});
}

}  // namespace
}  // namespace judges

int main() { return judges::check_all() ? 0 : 1; }
