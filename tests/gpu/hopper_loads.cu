// Cases of bulk copies from global to shared memory: boxes of tensors with every swizzle, and plain
// ranges of bytes. Ordinary stores fill the destination first, so that what a copy leaves out
// shows.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/arch/barrier.h"
#include "cuda/arch/bulk_copy.h"
#include "cuda/arch/launch.h"
#include "hopper_boxes.h"

namespace minference::gpu_test {
namespace {

constexpr uint32_t kUnwritten = 0xdeadbeefU;

/// A barrier at which thread 0 arrives, and a tile that copies may overwrite, set up for the whole
/// block.
template <typename Storage>
__device__ void prepare(Storage& storage, int num_words) {
  for (int i = static_cast<int>(threadIdx.x); i < num_words; i += static_cast<int>(blockDim.x)) {
    storage.tile[i] = kUnwritten;
  }
  arch::fence_proxy_async();  // By every writer: the copy's writes come after these.
  if (threadIdx.x == 0) {
    arch::mbarrier_init(storage.barrier, /*arrivals=*/1);
    arch::fence_mbarrier_init();
  }
  __syncthreads();
}

// ---- Boxes: block b copies the grid's b-th box and returns its words as they lie ----------------

template <typename Traits>
__global__ void box_kernel(const __grid_constant__ CUtensorMap map, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  constexpr int kWords = Traits::box_words();
  constexpr int kFirst = 32 * Traits::kFirstLine;
  prepare(storage, kFirst + kWords);
  if (threadIdx.x == 0) {
    arch::prefetch_tensor_map(map);
    int32_t coordinates[Traits::kRank];
    for (int d = 0; d < Traits::kRank; ++d) {
      coordinates[d] = Traits::coordinate(static_cast<int>(blockIdx.x), d);
    }
    arch::mbarrier_arrive_expect_tx(storage.barrier, 4 * kWords);
    arch::cp_async_bulk_tensor_load(storage.tile + kFirst, map, coordinates, storage.barrier);
  }
  arch::mbarrier_wait(storage.barrier, /*parity=*/0);
  for (int i = static_cast<int>(threadIdx.x); i < kWords; i += Traits::kThreads) {
    output[static_cast<int64_t>(blockIdx.x) * kWords + i] = storage.tile[kFirst + i];
  }
}

template <typename Traits>
void expect_boxes(std::span<const uint32_t> input, std::span<Expected> output) {
  for (int block = 0; block < Traits::num_blocks(); ++block) {
    const std::size_t first = static_cast<std::size_t>(block) * Traits::box_words();
    for_each_element<Traits>(block, [&](std::size_t element, int64_t position) {
      const std::size_t before = 128 * static_cast<std::size_t>(Traits::kFirstLine);
      const std::size_t half = (swizzled(Traits::kSwizzle, before + 2 * element) - before) / 2;
      const uint32_t value = position < 0 ? 0 : half_of(input, static_cast<std::size_t>(position));
      set_half(output[first + half / 2].word, half, value);
    });
  }
}

template <typename Traits>
Case case_of(const char* name) {
  static_assert(32 * Traits::kFirstLine + Traits::box_words() <= 2048);
  return {.name = name,
          .min_arch = 90,
          .input_words = Traits::tensor_words(),
          .output_words = int64_t{Traits::num_blocks()} * Traits::box_words(),
          .fill = &fill_random,
          .launch =
              [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
                arch::launch("load_box", &box_kernel<Traits>,
                             {dim3(Traits::num_blocks()), dim3(Traits::kThreads),
                              sizeof(typename Traits::Storage)},
                             stream, map_of<Traits>(input), output);
              },
          .expect = &expect_boxes<Traits>,
          .max_arch = 90};
}

template <typename Shape, arch::Swizzle kSwizzle>
Case box_case(const char* name) {
  return case_of<BoxTraits<Shape, kSwizzle>>(name);
}

// ---- Ranges of bytes: block b copies 16 (b + 1) bytes from word 4 b to word 4 (b % 3) of its tile

struct RunTraits {
  static constexpr int kBlocks = 12;
  static constexpr int kWords = 4 * (kBlocks + 3);
  struct Storage {
    alignas(16) uint32_t tile[kWords];
    arch::Mbarrier barrier;
  };
};

template <typename Traits>
__global__ void run_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  prepare(storage, Traits::kWords);
  const auto block = static_cast<int>(blockIdx.x);
  if (threadIdx.x == 0) {
    const auto bytes = static_cast<uint32_t>(16 * (block + 1));
    // Half of the blocks announce bytes before the copy; the others after it, with the arrival.
    const bool before = block % 2 == 0;
    if (before) arch::mbarrier_expect_tx(storage.barrier, bytes);
    arch::cp_async_bulk_load(storage.tile + 4 * (block % 3), input + 4 * block, bytes,
                             storage.barrier, arch::l2_evict_first());
    if (before) {
      arch::mbarrier_arrive(storage.barrier);
    } else {
      arch::mbarrier_arrive_expect_tx(storage.barrier, bytes);
    }
  }
  arch::mbarrier_wait(storage.barrier, /*parity=*/0);
  for (int i = static_cast<int>(threadIdx.x); i < Traits::kWords; i += 32) {
    output[block * Traits::kWords + i] = storage.tile[i];
  }
}

void expect_runs(std::span<const uint32_t> input, std::span<Expected> output) {
  for (int block = 0; block < RunTraits::kBlocks; ++block) {
    for (int i = 0; i < RunTraits::kWords; ++i) {
      const int from = i - 4 * (block % 3);
      const bool copied = 0 <= from && from < 4 * (block + 1);
      output[static_cast<std::size_t>(block * RunTraits::kWords + i)].word =
          copied ? input[static_cast<std::size_t>(4 * block + from)] : kUnwritten;
    }
  }
}

}  // namespace

CaseList hopper_load_cases() {
  using arch::Swizzle;
  return {
      {.name = "cp_async_bulk_load, mbarrier_expect_tx before or after",
       .min_arch = 90,
       .input_words = 4 * 2 * RunTraits::kBlocks,
       .output_words = RunTraits::kBlocks * RunTraits::kWords,
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("load_run", &run_kernel<RunTraits>,
                          {dim3(RunTraits::kBlocks), dim3(32), sizeof(RunTraits::Storage)}, stream,
                          input, output);
           },
       .expect = &expect_runs,
       .max_arch = 90},
      box_case<Box2d, Swizzle::kNone>("cp_async_bulk_tensor_load 2D"),
      box_case<Box2d, Swizzle::k32B>("cp_async_bulk_tensor_load 2D, 32B swizzle"),
      box_case<Box2d, Swizzle::k64B>("cp_async_bulk_tensor_load 2D, 64B swizzle"),
      box_case<Box2d, Swizzle::k128B>("cp_async_bulk_tensor_load 2D, 128B swizzle"),
      case_of<ShiftedBoxTraits<Box2d, Swizzle::k64B>>(
          "cp_async_bulk_tensor_load 2D, 64B swizzle, shifted"),
      case_of<ShiftedBoxTraits<Box2d, Swizzle::k128B>>(
          "cp_async_bulk_tensor_load 2D, 128B swizzle, shifted"),
      box_case<Box3d, Swizzle::kNone>("cp_async_bulk_tensor_load 3D"),
      box_case<Box3d, Swizzle::k128B>("cp_async_bulk_tensor_load 3D, 128B swizzle"),
      box_case<Box4d, Swizzle::k32B>("cp_async_bulk_tensor_load 4D, 32B swizzle"),
      box_case<Box4d, Swizzle::k64B>("cp_async_bulk_tensor_load 4D, 64B swizzle"),
      box_case<Box4d, Swizzle::k128B>(
          "cp_async_bulk_tensor_load 4D, 128B swizzle, wider than the tensor"),
  };
}

}  // namespace minference::gpu_test
