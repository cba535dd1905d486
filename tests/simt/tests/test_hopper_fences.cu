// Proxy fences between threads' reads of shared memory and a bulk copy that overwrites it: where a
// fence may be; anywhere else, or without one, there is a violation under every schedule.
// SPDX-License-Identifier: Apache-2.0
#include <simt/instructions.h>

#include "hopper.h"

namespace {

using simt::test::DeviceArray;
using simt::test::launch_block;
using simt::test::MatrixMap;
using simt::test::storage;

struct Storage {
  alignas(1024) uint16_t tile[32][8];  // A row of 16 bytes for each reading lane.
  uint64_t full;
  uint64_t empty;
};
constexpr uint32_t kTileBytes = sizeof(Storage::tile);

enum class Reading { kLoad, kMatrix };
enum class Copying { kRun, kBox };
enum class Fence {
  // The copy is ordered after the reads.
  kEachReader,  // After its reads, before it hands the tile back.
  kOneReader,   // A reader that has met the others.
  kLoader,      // The loader, after it has waited for the hand-back.
  kAfterBarrier,
  // The copy is not.
  kNone,
  kBeforeReads,
  kOneReaderEarly,   // A reader that has not met the others yet.
  kLoaderEarly,      // The loader, before it has waited.
  kBystander,        // A thread that was not told of the reads.
  kBystanderUnseen,  // A thread that was told, but tells nobody.
};

/// Warp 0's first thread loads, warp 1 reads, warp 2 is the bystander.
struct Run {
  Reading reading;
  Copying copying;
  Fence fence;

  __device__ bool is(Fence other) const { return fence == other; }
};

__device__ void copy_tile(const Run& run, Storage& shared, const CUtensorMap& map,
                          const uint16_t* global) {
  simt::mbarrier_arrive_expect_tx(&shared.full, kTileBytes);
  if (run.copying == Copying::kRun) {
    simt::bulk_load(shared.tile, global, kTileBytes, &shared.full);
  } else {
    const int32_t origin[2] = {};
    simt::bulk_tensor_load(shared.tile, &map, origin, 2, &shared.full);
  }
}

__device__ void load(const Run& run, Storage& shared, const CUtensorMap& map,
                     const uint16_t* global) {
  copy_tile(run, shared, map, global);
  if (run.is(Fence::kLoaderEarly)) simt::fence_proxy_async();
  simt::mbarrier_try_wait(&shared.empty, 0);
  if (run.is(Fence::kLoader)) simt::fence_proxy_async();
  copy_tile(run, shared, map, global + 8 * 32);
  simt::mbarrier_try_wait(&shared.full, 1);
}

__device__ void read(const Run& run, Storage& shared, uint32_t* seen) {
  const unsigned lane = threadIdx.x % 32;
  simt::mbarrier_try_wait(&shared.full, 0);
  if (run.is(Fence::kBeforeReads)) simt::fence_proxy_async();
  if (run.reading == Reading::kLoad) {
    seen[lane] = shared.tile[lane][lane % 8];
  } else {
    uint32_t words[4];
    simt::ldmatrix(words, /*count=*/4, /*transposed=*/false, shared.tile[lane]);
    seen[lane] = words[lane % 4];
  }
  if (run.is(Fence::kEachReader)) simt::fence_proxy_async();
  if (run.is(Fence::kOneReaderEarly) && lane == 0) simt::fence_proxy_async();
  __syncwarp();
  if (run.is(Fence::kOneReader) && lane == 0) simt::fence_proxy_async();
  if (lane == 0) simt::mbarrier_arrive(&shared.empty);
}

/// The tile is loaded, read, and loaded again.
void reload(Run run, const CUtensorMap map, const uint16_t* global, uint32_t* seen) {
  auto& shared = storage<Storage>();
  const unsigned warp = threadIdx.x / 32;
  if (threadIdx.x == 0) {
    simt::mbarrier_init(&shared.full, 1);
    simt::mbarrier_init(&shared.empty, 1);
    simt::fence_mbarrier_init();
  }
  __syncthreads();
  if (run.is(Fence::kAfterBarrier)) {
    if (threadIdx.x == 0) copy_tile(run, shared, map, global);
    if (warp == 1) read(run, shared, seen);
    __syncthreads();
    if (threadIdx.x == 65) simt::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x != 0) return;
    copy_tile(run, shared, map, global + 8 * 32);
    simt::mbarrier_try_wait(&shared.full, 1);
    return;
  }
  if (threadIdx.x == 0) load(run, shared, map, global);
  if (warp == 1) read(run, shared, seen);
  if (run.is(Fence::kBystander) && threadIdx.x == 64) {
    simt::fence_proxy_async();
    simt::fence_proxy_async();
  }
  if (run.is(Fence::kBystanderUnseen) && threadIdx.x == 64) {
    simt::mbarrier_try_wait(&shared.empty, 0);
    simt::fence_proxy_async();
  }
}

class Launches {
 public:
  Launches() : global_(std::vector<uint16_t>(2 * 8 * 32, 7)), seen_(32) {}

  void run(const Run& run) const {
    const MatrixMap map{.base = global_.data(),
                        .rows = 64,
                        .columns = 8,
                        .stride_bytes = 16,
                        .box_rows = 32,
                        .box_columns = 8};
    launch_block<Storage>(96, &reload, run, map.map(), global_.data(), seen_.data());
  }

 private:
  DeviceArray<uint16_t> global_;
  DeviceArray<uint32_t> seen_;
};

void test_fences(Reading reading, Copying copying) {
  const Launches launches;
  for (const Fence fence :
       {Fence::kEachReader, Fence::kOneReader, Fence::kLoader, Fence::kAfterBarrier}) {
    const std::string text =
        simt::test::violation_of([&] { launches.run({reading, copying, fence}); });
    CHECK(text.empty(), text, static_cast<int>(fence));
  }
  for (const Fence fence : {Fence::kNone, Fence::kBeforeReads, Fence::kOneReaderEarly,
                            Fence::kLoaderEarly, Fence::kBystander, Fence::kBystanderUnseen}) {
    const std::string text =
        simt::test::violation_of([&] { launches.run({reading, copying, fence}); });
    CHECK(simt::test::contains(text, {"kernel 'hopper', block (0,0,0), thread (0,0,0): starts a "
                                      "bulk copy that overwrites shared memory at offset ",
                                      " read with no proxy fence"}),
          text, static_cast<int>(fence));
  }
}

}  // namespace

int main() {
  simt::options().locate = false;
  simt::test::for_all_schedules([] {
    for (const Reading reading : {Reading::kLoad, Reading::kMatrix}) {
      for (const Copying copying : {Copying::kRun, Copying::kBox}) test_fences(reading, copying);
    }
  });
  return simt::test::finish();
}
