// Compares the matrix descriptors of every wgmma that sm90's kernels issue with those that CuTe
// makes for the same tile of shared memory; and the places where the kernels put that tile's
// elements.
//
// The kernels' own functions issue the products, on their own storage: all stages, halves of a
// stage and steps of k.
// SPDX-License-Identifier: Apache-2.0
#include <type_traits>

#include "cuda/arch/element.h"
#include "cuda/sm90/attention_mainloop.h"
#include "cuda/sm90/estimate_block_sparse_kernel.h"
#include "cuda/sm90/estimate_vertical_slash_kernels.h"
#include "cuda/tma/pool_panels.h"
#include "judge.h"

namespace judges {
namespace {

using cute::_0;
using cute::_1;
using cute::_2;
using cute::_64;
using cute::Int;
using cute::Shape;
using Element = cutlass::bfloat16_t;
using minference::arch::BFloat16;
using Major = cute::SM90::GMMA::Major;

constexpr int kBlock = minference::kBlock;

Tally key_major("descriptors, K-major");
Tally value_major("descriptors, MN-major");
Tally columns("N of the products");
Tally places("places of elements");

/// CuTe's layouts of swizzled rows of 128 and 64 bytes.
template <int kRowBytes>
using KAtom = std::conditional_t<kRowBytes == 128, cute::SM90::GMMA::Layout_K_SW128_Atom<Element>,
                                 cute::SM90::GMMA::Layout_K_SW64_Atom<Element>>;
template <int kRowBytes>
using MnAtom = std::conditional_t<kRowBytes == 128, cute::SM90::GMMA::Layout_MN_SW128_Atom<Element>,
                                  cute::SM90::GMMA::Layout_MN_SW64_Atom<Element>>;

template <typename Layout>
auto shared_tensor(const void* start, const Layout& layout) {
  return cute::make_tensor(cute::make_smem_ptr(static_cast<const Element*>(start)), layout);
}

/// CuTe's own choice of an instruction with N columns.
template <int kN, Major kMajorB>
auto product_of_shared() {
  return cute::make_tiled_mma(
      cute::SM90::GMMA::ss_op_selector<Element, Element, float, Shape<_64, Int<kN>, _64>, Major::K,
                                       kMajorB>());
}
template <int kN, Major kMajorB>
auto product_of_registers() {
  return cute::make_tiled_mma(
      cute::SM90::GMMA::rs_op_selector<Element, Element, float, Shape<_64, Int<kN>, _64>, Major::K,
                                       kMajorB>());
}

template <typename Fragment>
uint64_t descriptor(const Fragment& fragment, int step) {
  const cute::GmmaDescriptor cute_descriptor = *fragment(cute::_, _0{}, step).data();
  return cute_descriptor.desc_;
}

// ---- Attention ----------------------------------------------------------------------------------

template <typename Traits>
using Storage = typename Traits::SharedStorage;

template <typename Traits>
auto query_tensor(const Storage<Traits>& storage, int stage, int consumer) {
  return shared_tensor(
      &storage.query[stage][consumer],
      cute::tile_to_shape(KAtom<Traits::kRowBytes>{}, Shape<Int<kBlock>, Int<Traits::kDim>>{}));
}

template <typename Traits>
auto key_tensor(const Storage<Traits>& storage, int stage) {
  return shared_tensor(&storage.keys[stage],
                       cute::tile_to_shape(KAtom<Traits::kRowBytes>{},
                                           Shape<Int<Traits::kStageKeys>, Int<Traits::kDim>>{}));
}

/// Dims by keys.
template <typename Traits>
auto value_tensor(const Storage<Traits>& storage, int stage) {
  return shared_tensor(&storage.values[stage],
                       cute::tile_to_shape(MnAtom<Traits::kRowBytes>{},
                                           Shape<Int<Traits::kDimV>, Int<Traits::kStageKeys>>{},
                                           cute::Step<_2, _1>{}));
}

template <typename Traits, int kTiles>
void check_scores(const Storage<Traits>& storage, int query_stage, int consumer, int stage,
                  int first_tile) {
  minference::sm90::Scores<kTiles> scores;
  minference::sm90::multiply_keys<Traits>(scores, storage.query[query_stage][consumer], storage,
                                          stage, first_tile);
  const auto products = take_products();

  constexpr int kKeys = kTiles * kBlock;
  const auto mma = product_of_shared<kKeys, Major::K>().get_thread_slice(0);
  const auto a = mma.partition_fragment_A(query_tensor<Traits>(storage, query_stage, consumer));
  const auto b = mma.partition_fragment_B(cute::local_tile(key_tensor<Traits>(storage, stage),
                                                           Shape<Int<kKeys>, Int<Traits::kDim>>{},
                                                           cute::make_coord(first_tile, 0)));
  columns.compare(products.size(), cute::size<2>(a), stage);
  for (int step = 0; step < cute::size<2>(a); ++step) {
    key_major.compare(products.at(step).a, descriptor(a, step), stage, step);
    key_major.compare(products.at(step).b, descriptor(b, step), stage, step);
    columns.compare(products.at(step).n, cute::tile_size<1>(product_of_shared<kKeys, Major::K>()),
                    stage, step);
  }
}

/// CuTe writes 0 for the distance between panels if there is only one; nothing reads it.
template <typename Traits>
uint64_t used_bits(uint64_t descriptor_bits) {
  constexpr uint64_t kLeadingOffset = uint64_t{0x3fff} << 16;
  return Traits::kValuePanels == 1 ? descriptor_bits & ~kLeadingOffset : descriptor_bits;
}

template <typename Traits, int kTiles>
void check_values(const Storage<Traits>& storage, int stage, int first_tile) {
  minference::sm90::RowState<Traits> rows;
  const minference::sm90::Probabilities<Traits> p = {};
  minference::sm90::multiply_values<Traits, kTiles>(rows, p, storage, stage, first_tile);
  const auto products = take_products();

  constexpr int kKeys = kTiles * kBlock;
  const auto tiled_mma = product_of_registers<Traits::kDimV, Major::MN>();
  const auto b = tiled_mma.get_thread_slice(0).partition_fragment_B(
      cute::local_tile(value_tensor<Traits>(storage, stage),
                       Shape<Int<Traits::kDimV>, Int<kKeys>>{}, cute::make_coord(0, first_tile)));
  columns.compare(products.size(), cute::size<2>(b), stage);
  for (int step = 0; step < cute::size<2>(b); ++step) {
    value_major.compare(used_bits<Traits>(products.at(step).b),
                        used_bits<Traits>(descriptor(b, step)), stage, step);
    columns.compare(products.at(step).n, cute::tile_size<1>(tiled_mma), stage, step);
  }
}

/// TMA puts element (row, dim) of the box that begins at `box` at swizzle_offset().
template <typename Traits>
uint32_t box_address(const void* box, int row, int dim) {
  const auto offset = static_cast<uint32_t>(row) * Traits::kRowBytes +
                      static_cast<uint32_t>(dim) * static_cast<uint32_t>(sizeof(Element));
  return shared_address(box) + minference::arch::swizzle_offset(Traits::kSwizzle, offset);
}

template <typename Traits>
void check_places(const Storage<Traits>& storage) {
  constexpr int kPanelDims = Traits::kPanelDims;
  const auto query = query_tensor<Traits>(storage, 0, 1);
  const auto keys = key_tensor<Traits>(storage, 1);
  const auto values = value_tensor<Traits>(storage, 1);
  for (int row = 0; row < Traits::kStageKeys; ++row) {
    const int first = row / kBlock * kBlock;  // First row of the box.
    for (int dim = 0; dim < Traits::kDim; ++dim) {
      const int panel = dim / kPanelDims;
      const auto address = [&](const void* box) {
        return box_address<Traits>(box, row - first, dim % kPanelDims);
      };
      if (row < kBlock) {
        places.compare(address(storage.query[0][1][panel]), element_address(query, row, dim), row,
                       dim);
      }
      places.compare(address(storage.keys[1][panel][first]), element_address(keys, row, dim), row,
                     dim);
      if (dim < Traits::kDimV) {
        places.compare(address(storage.values[1][panel][first]), element_address(values, dim, row),
                       row, dim);
      }
    }
  }
}

template <int kDim, int kDimV>
void check_attention() {
  using Traits = minference::sm90::AttentionTraits<BFloat16, kDim, kDimV>;
  const auto& storage = shared_storage<Storage<Traits>>();
  constexpr int kTiles = Traits::kStageTiles;
  for (int query = 0; query < Traits::kQueryStages * minference::sm90::kConsumers; ++query) {
    for (int stage = 0; stage < Traits::kKeyStages; ++stage) {
      check_scores<Traits, kTiles>(storage, query / 2, query % 2, stage, 0);
      for (int tile = 0; tile < kTiles; ++tile) {
        check_scores<Traits, 1>(storage, query / 2, query % 2, stage, tile);
      }
    }
  }
  for (int stage = 0; stage < Traits::kValueStages; ++stage) {
    check_values<Traits, kTiles>(storage, stage, 0);
    for (int tile = 0; tile < kTiles; ++tile) check_values<Traits, 1>(storage, stage, tile);
  }
  check_places<Traits>(storage);
}

// ---- Estimation of vertical-slash ---------------------------------------------------------------

template <typename Rows>
auto operand_tensor(const Rows& rows) {
  constexpr int kPanels = std::extent_v<Rows, 0>;
  constexpr int kRows = std::extent_v<Rows, 1>;
  constexpr int kPanelDims = std::extent_v<Rows, 2>;
  return shared_tensor(&rows, cute::tile_to_shape(KAtom<2 * kPanelDims>{},
                                                  Shape<Int<kRows>, Int<kPanels * kPanelDims>>{}));
}

/// Rows of numbers, as the kernel's function writes them.
template <typename Traits>
void check_queries(typename Traits::Queries& queries) {
  constexpr int kDim = Traits::kHeadDim;
  static uint16_t rows[minference::sm90::vertical_slash::kWarpgroupHeads][kBlock][kDim];
  for (int row = 0; row < 2 * kBlock; ++row) {
    for (int dim = 0; dim < kDim; ++dim) {
      rows[row / kBlock][row % kBlock][dim] = static_cast<uint16_t>(256 * row + dim);
    }
  }
  minference::cuda::ScoreArgs args = {};
  args.q = {.data = rows, .batch_stride = 0, .token_stride = kDim, .head_stride = kBlock * kDim};
  args.sequences.max.seqlen_q = args.last_q = kBlock;
  args.head_dim = kDim;
  const minference::cuda::ScoreGroup group = {
      .batch = 0, .first_target = 0, .num_heads = 2, .heads = {0, 1}};
  for (int thread = 0; thread < minference::device::kWarpgroupThreads; ++thread) {
    run_thread(thread, [&] {
      minference::sm90::vertical_slash::Consumer consumer(group);
      minference::sm90::vertical_slash::load_queries<Traits>(queries, args, group, consumer);
    });
  }
  const auto tensor = operand_tensor(queries.rows);
  for (int row = 0; row < 2 * kBlock; ++row) {
    for (int dim = 0; dim < kDim; ++dim) {
      const Element& element = tensor(row, dim);
      places.compare(rows[row / kBlock][row % kBlock][dim], element.raw(), row, dim);
    }
  }
}

/// A stream's products of all stages, with the queries of one warpgroup.
template <typename Traits>
void check_stream(typename Traits::Buffers& buffers, const typename Traits::Queries& queries) {
  namespace kernels = minference::sm90::vertical_slash;
  kernels::ScoreStream<Traits> stream(buffers, queries);
  const auto tiled_mma = product_of_shared<2 * kBlock, Major::K>();
  const auto mma = tiled_mma.get_thread_slice(0);
  for (int stage = 0; stage < Traits::kStages; ++stage) {
    kernels::WarpScores scores;
    stream.start(scores);
    const auto products = take_products();
    const auto a = mma.partition_fragment_A(operand_tensor(buffers.keys[stage].rows));
    const auto b = mma.partition_fragment_B(operand_tensor(queries.rows));
    columns.compare(products.size(), Traits::kHeadDim / 16, stage);
    for (int step = 0; step < Traits::kHeadDim / 16; ++step) {
      key_major.compare(products.at(step).a, descriptor(a, step), stage, step);
      key_major.compare(products.at(step).b, descriptor(b, step), stage, step);
      columns.compare(products.at(step).n, cute::tile_size<1>(tiled_mma), stage, step);
    }
  }
}

template <int kDim>
void check_vertical_slash() {
  namespace kernels = minference::sm90::vertical_slash;
  using Traits = kernels::VerticalSlashTraits<BFloat16, kDim>;
  auto& buffers = shared_storage<typename Traits::Buffers>();
  for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
    auto& statistics =
        kernels::own_storage<kernels::WarpgroupStatistics<Traits>>(buffers, warpgroup);
    check_stream<Traits>(buffers, statistics.queries);
    auto& sums = kernels::own_storage<kernels::WarpgroupSums<Traits>>(buffers, warpgroup);
    check_stream<Traits>(buffers, sums.queries);
  }
  check_queries<Traits>(
      kernels::own_storage<kernels::WarpgroupStatistics<Traits>>(buffers, 0).queries);
}

// ---- Estimation of block-sparse -----------------------------------------------------------------

/// The panels of a part of pooled keys.
template <typename Panels>
auto pooled_tensor(const void* part) {
  constexpr int kDim = Panels::kPartBytes / 2 / Panels::kTileKeys;
  return shared_tensor(part, cute::tile_to_shape(KAtom<Panels::kRowBytes>{},
                                                 Shape<Int<Panels::kTileKeys>, Int<kDim>>{}));
}

/// A tile of pooled keys, as the kernel's function writes it: numbers, odd ones for the low part.
template <int kDim>
void check_pooled_keys() {
  using Traits = minference::tma::PoolPanelTraits<BFloat16, kDim>;
  using Panels = typename Traits::Panels;
  auto* const pooled = reinterpret_cast<minference::cuda::SplitFragment*>(shared_memory());
  for (int slot = 0; slot < Panels::kTileKeys; ++slot) {
    for (int lane = 0; lane < 32; ++lane) {
      run_thread(lane, [&] {
        minference::cuda::SplitMeans means;
        for (int word = 0; word < 4; ++word) {
          const auto number = static_cast<uint32_t>(512 * slot + 2 * (8 * lane + 2 * word));
          means.high[word] = number | (number + 2) << 16;
          means.low[word] = (number + 1) | (number + 3) << 16;
        }
        Traits::store_key(means, pooled, slot);
      });
    }
  }
  const auto high = pooled_tensor<Panels>(shared_memory());
  const auto low = pooled_tensor<Panels>(shared_memory() + Panels::kPartBytes);
  for (int slot = 0; slot < Panels::kTileKeys; ++slot) {
    for (int dim = 0; dim < kDim; ++dim) {
      const Element& high_element = high(slot, dim);
      const Element& low_element = low(slot, dim);
      places.compare(512 * slot + 2 * dim, high_element.raw(), slot, dim);
      places.compare(512 * slot + 2 * dim + 1, low_element.raw(), slot, dim);
    }
  }
}

template <int kDim>
void check_block_sparse() {
  using Traits = minference::sm90::block_sparse::WgmmaSelectTraits<kDim>;
  using Stream = minference::sm90::block_sparse::WgmmaStream<Traits>;
  auto& storage = shared_storage<typename Traits::Storage>();
  Stream stream{storage, /*multiplier=*/1, {}, {}};
  const auto tiled_mma = product_of_registers<Stream::kTileKeys, Major::K>();
  for (int stage = 0; stage < Traits::kStages; ++stage) {
    float sums[Stream::kSums];
    stream.multiply(sums, stream.queries.high, stage, /*accumulate=*/false);
    const auto products = take_products();
    const auto b = tiled_mma.get_thread_slice(0).partition_fragment_B(
        pooled_tensor<typename Traits::Panels>(storage.keys[stage]));
    columns.compare(products.size(), cute::size<2>(b), stage);
    for (int step = 0; step < cute::size<2>(b); ++step) {
      key_major.compare(products.at(step).b, descriptor(b, step), stage, step);
      columns.compare(products.at(step).n, cute::tile_size<1>(tiled_mma), stage, step);
    }
  }
  check_pooled_keys<kDim>();
}

bool check_all() {
  check_attention<64, 64>();
  check_attention<96, 96>();
  check_attention<128, 128>();
  check_attention<192, 128>();
  check_attention<192, 192>();
  check_attention<256, 256>();
  check_vertical_slash<64>();
  check_vertical_slash<96>();
  check_vertical_slash<128>();
  check_vertical_slash<192>();
  check_vertical_slash<256>();
  check_block_sparse<64>();
  check_block_sparse<96>();
  check_block_sparse<128>();
  check_block_sparse<192>();
  check_block_sparse<256>();
  const bool equal[] = {key_major.report(), value_major.report(), columns.report(),
                        places.report()};
  return equal[0] && equal[1] && equal[2] && equal[3];
}

}  // namespace
}  // namespace judges

int main() { return judges::check_all() ? 0 : 1; }
