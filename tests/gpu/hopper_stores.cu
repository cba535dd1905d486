// Cases of bulk copies from shared to global memory: boxes of tensors with every swizzle, plain
// ranges of bytes, and when shared memory may be reused.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/arch/barrier.h"
#include "cuda/arch/bulk_copy.h"
#include "cuda/arch/launch.h"
#include "hopper_boxes.h"

namespace minference::gpu_test {
namespace {

constexpr uint32_t kUnwritten = 0xdeadbeefU;

/// A value that must remain where the copies write nothing.
template <int kUnused = 0>
__global__ void fill_kernel(uint32_t* output, int num_words) {
  for (int i = static_cast<int>(threadIdx.x); i < num_words; i += 256) output[i] = kUnwritten;
}

// ---- Boxes: block b stores the grid's b-th box, whose words lie in input as in shared memory
// -----

template <typename Traits>
__global__ void box_kernel(const __grid_constant__ CUtensorMap map, const uint32_t* input) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  constexpr int kWords = Traits::box_words();
  const auto block = static_cast<int>(blockIdx.x);
  for (int i = static_cast<int>(threadIdx.x); i < kWords; i += Traits::kThreads) {
    storage.tile[i] = input[block * kWords + i];
  }
  arch::fence_proxy_async();  // By every writer, before the barrier and the store.
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t coordinates[Traits::kRank];
    for (int d = 0; d < Traits::kRank; ++d) coordinates[d] = Traits::coordinate(block, d);
    arch::cp_async_bulk_tensor_store(map, coordinates, storage.tile);
    arch::cp_async_bulk_commit();
    arch::cp_async_bulk_wait<0>();
  }
}

template <typename Traits>
void expect_boxes(std::span<const uint32_t> input, std::span<Expected> output) {
  for (Expected& expected : output) expected.word = kUnwritten;
  for (int block = 0; block < Traits::num_blocks(); ++block) {
    const auto box = input.subspan(static_cast<std::size_t>(block) * Traits::box_words());
    for_each_element<Traits>(block, [&](std::size_t element, int64_t position) {
      if (position < 0) return;
      const uint32_t value = half_of(box, swizzled(Traits::kSwizzle, 2 * element) / 2);
      const auto half = static_cast<std::size_t>(position);
      set_half(output[half / 2].word, half, value);
    });
  }
}

template <typename Shape, arch::Swizzle kSwizzle>
Case box_case(const char* name) {
  using Traits = BoxTraits<Shape, kSwizzle>;
  return {.name = name,
          .min_arch = 90,
          .input_words = int64_t{Traits::num_blocks()} * Traits::box_words(),
          .output_words = Traits::tensor_words(),
          .fill = &fill_random,
          .launch =
              [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
                arch::launch("fill", &fill_kernel<>, {dim3(1), dim3(256)}, stream, output,
                             Traits::tensor_words());
                arch::launch("store_box", &box_kernel<Traits>,
                             {dim3(Traits::num_blocks()), dim3(Traits::kThreads),
                              sizeof(typename Traits::Storage)},
                             stream, map_of<Traits>(output), input);
              },
          .expect = &expect_boxes<Traits>,
          .max_arch = 90};
}

// ---- Ranges: two stores from one buffer, which is rewritten once the first has read it ----------

struct RunTraits {
  static constexpr int kWords = 64;
  struct Storage {
    alignas(16) uint32_t tile[kWords];
  };
};

/// One warp; lane 0 stores.
template <typename Traits>
__global__ void run_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto lane = static_cast<int>(threadIdx.x);
  for (int run = 0; run < 2; ++run) {
    for (int i = lane; i < Traits::kWords; i += 32) {
      storage.tile[i] = input[run * Traits::kWords + i];
    }
    arch::fence_proxy_async();  // By every lane, before lane 0 continues.
    __syncwarp();
    if (lane == 0) {
      arch::cp_async_bulk_store(output + run * Traits::kWords, storage.tile, 4 * Traits::kWords,
                                arch::l2_evict_last());
      arch::cp_async_bulk_commit();
      arch::cp_async_bulk_wait_read<0>();
    }
    __syncwarp();  // The buffer has been read.
  }
  if (lane == 0) arch::cp_async_bulk_wait<0>();
}

void expect_same(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) output[i].word = input[i];
}

}  // namespace

CaseList hopper_store_cases() {
  using arch::Swizzle;
  return {
      {.name = "cp_async_bulk_store, cp_async_bulk_wait_read",
       .min_arch = 90,
       .input_words = 2 * RunTraits::kWords,
       .output_words = 2 * RunTraits::kWords,
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("store_run", &run_kernel<RunTraits>,
                          {dim3(1), dim3(32), sizeof(RunTraits::Storage)}, stream, input, output);
           },
       .expect = &expect_same,
       .max_arch = 90},
      box_case<Box2d, Swizzle::kNone>("cp_async_bulk_tensor_store 2D"),
      box_case<Box2d, Swizzle::k32B>("cp_async_bulk_tensor_store 2D, 32B swizzle"),
      box_case<Box2d, Swizzle::k64B>("cp_async_bulk_tensor_store 2D, 64B swizzle"),
      box_case<Box2d, Swizzle::k128B>("cp_async_bulk_tensor_store 2D, 128B swizzle"),
      box_case<Box3d, Swizzle::kNone>("cp_async_bulk_tensor_store 3D"),
      box_case<Box3d, Swizzle::k128B>("cp_async_bulk_tensor_store 3D, 128B swizzle"),
      box_case<Box4d, Swizzle::k32B>("cp_async_bulk_tensor_store 4D, 32B swizzle"),
      box_case<Box4d, Swizzle::k64B>("cp_async_bulk_tensor_store 4D, 64B swizzle"),
  };
}

}  // namespace minference::gpu_test
