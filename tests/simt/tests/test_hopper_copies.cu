// Bulk copies and tensor maps: what the driver refuses to encode, copies against plain loops for
// every swizzle, and their misuse.
// SPDX-License-Identifier: Apache-2.0
#include "hopper.h"

namespace {

using simt::test::DeviceArray;
using simt::test::kHopperSharedBytes;
using simt::test::launch_block;
using simt::test::MatrixMap;
using simt::test::storage;

// ---- Encoding -----------------------------------------------------------------------------------

struct Tensor {
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  cuuint32_t rank = 3;
  uintptr_t base = 1 << 20;
  cuuint64_t sizes[5] = {64, 100, 7, 1, 1};
  cuuint64_t stride_bytes[4] = {128, 12800, 16, 16};
  cuuint32_t box[5] = {64, 64, 1, 1, 1};
  cuuint32_t element_strides[5] = {1, 1, 1, 1, 1};
  CUtensorMapInterleave interleave = CU_TENSOR_MAP_INTERLEAVE_NONE;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B;
  CUtensorMapFloatOOBfill fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;

  CUresult encode() const {
    CUtensorMap map;
    return cuTensorMapEncodeTiled(&map, type, rank, reinterpret_cast<void*>(base), sizes,
                                  stride_bytes, box, element_strides, interleave, swizzle,
                                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, fill);
  }
};

template <typename Change>
CUresult encode_changed(const Change& change) {
  Tensor tensor;
  change(tensor);
  return tensor.encode();
}

void test_encoding() {
  constexpr cuuint64_t kTwoTo32 = cuuint64_t{1} << 32;
  constexpr cuuint64_t kTwoTo40 = cuuint64_t{1} << 40;
#define ENCODES(change) (encode_changed([](Tensor& t) { change; }))
  CHECK(Tensor{}.encode() == CUDA_SUCCESS);
  CHECK(ENCODES(t.sizes[1] = kTwoTo32) == CUDA_SUCCESS);
  CHECK(ENCODES(t.stride_bytes[0] = kTwoTo40 - 16) == CUDA_SUCCESS);
  CHECK(ENCODES(t.box[1] = 256) == CUDA_SUCCESS);
  CHECK(ENCODES(t.rank = 5) == CUDA_SUCCESS);
  CHECK(ENCODES(t.base += 8) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.rank = 0) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.rank = 6) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.sizes[2] = 0) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.sizes[1] = kTwoTo32 + 1) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.stride_bytes[1] += 8) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.stride_bytes[0] = kTwoTo40) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.box[1] = 0) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.box[1] = 257) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.box[0] = 60) == CUDA_ERROR_INVALID_VALUE, "120 bytes");
  CHECK(ENCODES(t.box[0] = 72) == CUDA_ERROR_INVALID_VALUE, "144 bytes in a 128-byte swizzle");
  CHECK(ENCODES(t.swizzle = CU_TENSOR_MAP_SWIZZLE_64B) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.element_strides[1] = 0) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.element_strides[1] = 9) == CUDA_ERROR_INVALID_VALUE);
  CHECK(ENCODES(t.element_strides[1] = 2) == CUDA_ERROR_NOT_SUPPORTED);
  CHECK(ENCODES(t.interleave = CU_TENSOR_MAP_INTERLEAVE_16B) == CUDA_ERROR_NOT_SUPPORTED);
  CHECK(ENCODES(t.fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA) ==
        CUDA_ERROR_NOT_SUPPORTED);
#undef ENCODES
}

// ---- Copies there and back ----------------------------------------------------------------------

constexpr int kRows = 21;
constexpr int kColumns = 70;
constexpr int kStride = 80;
constexpr int kBoxRows = 8;

struct Storage {
  alignas(1024) uint16_t tile[4096];
  uint64_t barrier;
};

/// Copies a box from one matrix to the same place in another, through address 128 * line of the
/// tile, and returns what lies in shared memory.
void copy_box(const CUtensorMap from, const CUtensorMap to, int x, int y, int line, int bytes,
              uint16_t* seen) {
  auto& shared = storage<Storage>();
  simt::mbarrier_init(&shared.barrier, 1);
  simt::fence_mbarrier_init();
  const int32_t coordinates[2] = {x, y};
  uint16_t* tile = shared.tile + 64 * line;
  simt::mbarrier_arrive_expect_tx(&shared.barrier, static_cast<uint32_t>(bytes));
  simt::bulk_tensor_load(tile, &from, coordinates, 2, &shared.barrier);
  simt::mbarrier_try_wait(&shared.barrier, 0);
  for (int i = 0; i < bytes / 2; ++i) seen[i] = tile[i];
  simt::bulk_tensor_store(&to, coordinates, 2, tile);
  simt::bulk_commit();
  simt::bulk_wait(0, /*read_only=*/false);
}

/// The address bits that a swizzle changes at an address, by the PTX ISA's table.
int swizzled(int swizzle, int address) {
  const int row = 16 << swizzle;
  const int chunk = address % row / 16;
  const int line = address / 128 % (row / 16);
  return address - chunk * 16 + (chunk ^ line) * 16;
}

void test_box(int swizzle, int x, int y, int line) {
  const int box_columns = swizzle == 0 ? 24 : 8 << swizzle;
  const int bytes = 2 * box_columns * kBoxRows;
  std::vector<uint16_t> values(kRows * kStride);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(3 * i + 1);
  const DeviceArray<uint16_t> from(values);
  const DeviceArray<uint16_t> to(values.size(), uint16_t{0xdead});
  const DeviceArray<uint16_t> seen(static_cast<std::size_t>(bytes / 2));
  MatrixMap matrix{from.data(),
                   kRows,
                   kColumns,
                   2 * kStride,
                   kBoxRows,
                   static_cast<cuuint32_t>(box_columns),
                   static_cast<CUtensorMapSwizzle>(swizzle)};
  const CUtensorMap map_from = matrix.map();
  matrix.base = to.data();
  launch_block<Storage>(1, &copy_box, map_from, matrix.map(), x, y, line, bytes, seen.data());

  std::vector<uint16_t> want_to(values.size(), 0xdead);
  for (int row = 0; row < kBoxRows; ++row) {
    for (int column = 0; column < box_columns; ++column) {
      const bool inside =
          y + row >= 0 && y + row < kRows && x + column >= 0 && x + column < kColumns;
      const auto global = inside ? static_cast<std::size_t>((y + row) * kStride + x + column) : 0;
      const int address = 128 * line + 2 * (row * box_columns + column);
      const int at = (swizzled(swizzle, address) - 128 * line) / 2;
      CHECK(seen[static_cast<std::size_t>(at)] == (inside ? values[global] : 0), swizzle, x, y,
            line, row, column);
      if (inside) want_to[global] = values[global];
    }
  }
  CHECK(to.values() == want_to, swizzle, x, y, line);
}

void test_boxes() {
  for (int swizzle = 0; swizzle < 4; ++swizzle) {
    for (const int x : {0, -3, 13, 59, -24, -64, 70, 1 << 30, -(1 << 30)}) {
      for (const int y : {0, -5, 7, 17, -8, 21, 1 << 30}) test_box(swizzle, x, y, /*line=*/0);
    }
    // The pattern depends on addresses, so a box may begin anywhere in it.
    for (int line = 1; line < 8; ++line) {
      if (swizzle == 0 || line * 128 % (16 << swizzle) == 0) test_box(swizzle, 1, 2, line);
    }
  }
}

// ---- Misuse ------------------------------------------------------------------------------------

enum class Misuse {
  kNone,
  kMisalignedBox,
  kMisalignedRun,
  kRunNotShared,
  kRunOfHostMemory,
  kRunTooLong,
  kOddRun,
  kNotAMap,
  kWrongRank,
  kOverBarrier,
  kPastShared,
  kNotFenced,
  kReadBeforeWait,
  kWriteBeforeWait,
  kReadByAnother,
  kOverwritesUnfenced,
  kStoresUnfenced,
  kStoresUnwritten,
  kWriteBeforeRead,
  kNotAwaited,
  kStoreNotAwaited,
  kStoreNotCommitted,
};

/// Threads 0 and 1; thread 1 waits for thread 0's copy, unless `how` says otherwise.
void misuse(Misuse how, const CUtensorMap map, const CUtensorMap* host_map, uint16_t* global) {
  auto& shared = storage<Storage>();
  const int32_t origin[3] = {};
  const auto is = [how](Misuse other) { return how == other; };
  if (threadIdx.x == 0) {
    simt::mbarrier_init(&shared.barrier, 1);
    if (!is(Misuse::kNotFenced)) simt::fence_mbarrier_init();
    if (is(Misuse::kOverwritesUnfenced)) shared.tile[100] = 1;
    simt::mbarrier_arrive_expect_tx(&shared.barrier, 1024);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    uint16_t* tile = shared.tile + (is(Misuse::kMisalignedBox) ? 8 : 0);
    if (is(Misuse::kOverBarrier)) tile = shared.tile + 3968;
    if (is(Misuse::kPastShared)) tile = shared.tile + 4160;
    if (is(Misuse::kMisalignedRun)) simt::bulk_load(tile + 4, global, 1024, &shared.barrier);
    if (is(Misuse::kRunNotShared)) simt::bulk_load(global, global, 1024, &shared.barrier);
    if (is(Misuse::kRunOfHostMemory)) simt::bulk_load(tile, host_map, 128, &shared.barrier);
    if (is(Misuse::kRunTooLong)) simt::bulk_load(tile, global, 8192, &shared.barrier);
    if (is(Misuse::kOddRun)) simt::bulk_load(tile, global, 1000, &shared.barrier);
    const void* bytes = is(Misuse::kNotAMap) ? static_cast<const void*>(global) : &map;
    simt::bulk_tensor_load(tile, static_cast<const CUtensorMap*>(bytes), origin,
                           is(Misuse::kWrongRank) ? 3 : 2, &shared.barrier);
    if (is(Misuse::kReadBeforeWait)) *global = shared.tile[0];
    if (is(Misuse::kWriteBeforeWait)) shared.tile[511] = 1;
    if (is(Misuse::kNotAwaited)) return;
  }
  if (!is(Misuse::kReadByAnother) && !is(Misuse::kNotAwaited)) {
    simt::mbarrier_try_wait(&shared.barrier, 0);
  }
  if (is(Misuse::kReadByAnother)) {
    if (threadIdx.x == 0) simt::mbarrier_try_wait(&shared.barrier, 0);
    if (threadIdx.x == 1) *global = shared.tile[7];
  }
  if (threadIdx.x == 0) return;
  if (is(Misuse::kStoresUnfenced)) shared.tile[5] = 1;
  simt::bulk_store(global, shared.tile + (is(Misuse::kStoresUnwritten) ? 512 : 0), 1024);
  if (is(Misuse::kStoreNotCommitted)) return simt::bulk_wait(0, /*read_only=*/false);
  simt::bulk_commit();
  if (is(Misuse::kStoreNotAwaited)) return;
  if (is(Misuse::kWriteBeforeRead)) shared.tile[5] = 1;
  simt::bulk_wait(0, /*read_only=*/true);
  shared.tile[5] = 1;
}

void test_misuse() {
  const DeviceArray<uint16_t> global(512, uint16_t{5});
  const CUtensorMap map =
      MatrixMap{global.data(), 8, 64, 128, 8, 64, CU_TENSOR_MAP_SWIZZLE_128B}.map();
  const auto run = [&](Misuse how) {
    launch_block<Storage>(2, &misuse, how, map, &map, global.data());
  };
  simt::test::for_all_schedules([&] {
    run(Misuse::kNone);
    for (const Misuse how :
         {Misuse::kReadBeforeWait, Misuse::kWriteBeforeWait, Misuse::kReadByAnother,
          Misuse::kOverwritesUnfenced, Misuse::kStoresUnfenced, Misuse::kWriteBeforeRead}) {
      const std::string text = simt::test::violation_of([&] { run(how); });
      CHECK(simt::test::contains(text, {"kernel 'hopper', block (0,0,0), thread ("}), text,
            static_cast<int>(how));
    }
  });
  CHECK_VIOLATION(run(Misuse::kMisalignedBox), "thread (0,0,0)", "not a multiple of 128");
  CHECK_VIOLATION(run(Misuse::kMisalignedRun), "not a multiple of 16");
  CHECK_VIOLATION(run(Misuse::kRunNotShared), "not one of shared memory");
  CHECK_VIOLATION(run(Misuse::kRunOfHostMemory), "the other side device memory");
  CHECK_VIOLATION(run(Misuse::kRunTooLong), "of device memory, out of bounds");
  CHECK_VIOLATION(run(Misuse::kOddRun), "of 1000 bytes: bytes and addresses are multiples of 16");
  CHECK_VIOLATION(run(Misuse::kNotAMap), "not a tensor map");
  CHECK_VIOLATION(run(Misuse::kWrongRank), "with 3 coordinates, the tensor map has 2");
  CHECK_VIOLATION(run(Misuse::kOverBarrier), "1024 bytes of shared memory at offset 8192",
                  "where an mbarrier is");
  CHECK_VIOLATION(run(Misuse::kPastShared), "1024 bytes of shared memory at offset 8320",
                  "out of bounds: the launch has 9216 bytes");
  CHECK_VIOLATION(run(Misuse::kNotFenced), "whose init has not been fenced");
  CHECK_VIOLATION(run(Misuse::kReadBeforeWait), "reads 2 bytes of shared memory at offset 0",
                  "the target of an asynchronous copy");
  CHECK_VIOLATION(run(Misuse::kWriteBeforeWait), "at offset 1022",
                  "the target of an asynchronous copy");
  CHECK_VIOLATION(run(Misuse::kReadByAnother), "thread (1,0,0)", "at offset 14",
                  "the target of an asynchronous copy");
  CHECK_VIOLATION(run(Misuse::kOverwritesUnfenced), "overwrites shared memory at offset 200",
                  "which thread 0 wrote with no proxy fence");
  CHECK_VIOLATION(run(Misuse::kStoresUnfenced), "thread (1,0,0)",
                  "reads shared memory at offset 10, which thread 1 wrote with no proxy fence");
  CHECK_VIOLATION(run(Misuse::kStoresUnwritten), "uninitialised");
  CHECK_VIOLATION(run(Misuse::kWriteBeforeRead), "writes 2 bytes",
                  "which an asynchronous operation that has not been waited for reads");
  CHECK_VIOLATION(run(Misuse::kNotAwaited), "starts to read 1024 bytes",
                  "the target of an asynchronous copy");
  CHECK_VIOLATION(run(Misuse::kStoreNotAwaited), "exits with bulk copies from shared memory");
  CHECK_VIOLATION(run(Misuse::kStoreNotCommitted), "exits with bulk copies from shared memory");
}

/// A load that nobody waits for before the block ends.
void forget_load(const CUtensorMap map) {
  auto& shared = storage<Storage>();
  simt::mbarrier_init(&shared.barrier, 1);
  simt::fence_mbarrier_init();
  const int32_t origin[2] = {};
  simt::bulk_tensor_load(shared.tile, &map, origin, 2, &shared.barrier);
}

/// The map claims more rows than the memory has.
void test_bad_maps() {
  const DeviceArray<uint16_t> global(512, uint16_t{5});
  MatrixMap matrix{global.data(), 8, 64, 128, 8, 64, CU_TENSOR_MAP_SWIZZLE_128B};
  const auto run = [&](const MatrixMap& one) { launch_block<Storage>(1, &forget_load, one.map()); };
  CHECK_VIOLATION(run(matrix), "the block ends while a bulk tensor load is under way");
  MatrixMap long_matrix = matrix;
  long_matrix.base = global.data() + 64;
  CHECK_VIOLATION(run(long_matrix), "device memory, out of bounds");
  MatrixMap narrow = matrix;
  narrow.box_columns = 32;
  CHECK_VIOLATION(run(narrow), "of a box 64 bytes wide, swizzled in 128");
}

// ---- When stores read and write -----------------------------------------------------------------

/// Two groups; after wait(1) only the first has been written.
void store_groups(uint16_t* global, uint16_t* seen) {
  auto& shared = storage<Storage>();
  for (int group = 0; group < 2; ++group) {
    for (int i = 0; i < 8; ++i) shared.tile[8 * group + i] = static_cast<uint16_t>(group + 1);
    simt::fence_proxy_async();
    simt::bulk_store(global + 8 * group, shared.tile + 8 * group, 16);
    simt::bulk_commit();
  }
  simt::bulk_wait(1, /*read_only=*/false);
  seen[0] = global[0];
  seen[1] = global[8];
  simt::bulk_wait(0, /*read_only=*/true);
  shared.tile[8] = 7;  // The store has read it already, so this does not change the store.
  simt::bulk_wait(0, /*read_only=*/false);
  seen[2] = global[8];
}

void test_groups() {
  const DeviceArray<uint16_t> global(16, uint16_t{0});
  const DeviceArray<uint16_t> seen(3);
  simt::test::for_all_schedules([&] {
    std::fill_n(global.data(), 16, uint16_t{0});
    launch_block<Storage>(1, &store_groups, global.data(), seen.data());
    CHECK(seen[0] == 1 && seen[2] == 2);
    if (simt::options().async == simt::AsyncCopies::kLate) CHECK(seen[1] == 0, "not yet");
  });
}

}  // namespace

int main() {
  simt::options().locate = false;
  test_encoding();
  test_boxes();
  test_misuse();
  test_bad_maps();
  test_groups();
  return simt::test::finish();
}
