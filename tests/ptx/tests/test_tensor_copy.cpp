// cp.async.bulk.tensor: boxes of tensors of one to five dimensions, swizzles, elements outside.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "async_programs.h"
#include "device_memory.h"
#include "run_ptx.h"
#include "tensor_map.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

enum Type : u32 { kU8 = 0, kU16 = 1, kU32 = 2, kU64 = 4, kF16 = 6, kF32 = 7, kF64 = 8, kBf16 = 9 };

/// A tensor of `sizes`, packed except that rows are multiples of 16 bytes, with random contents;
/// and its map.
struct Tensor {
  std::vector<u64> sizes, strides;
  std::vector<u32> box;
  u32 element = 2;
  u32 swizzle = 0;
  DeviceMemory<u8> memory;
  DeviceMemory<u8> map;

  Tensor(u32 type, const std::vector<u64>& sizes_, const std::vector<u32>& box_, u32 swizzle_ = 0,
         u32 fill = 0)
      : sizes(sizes_),
        strides(strides_of(sizes_, tensor_type_bytes(type))),
        box(box_),
        element(tensor_type_bytes(type)),
        swizzle(swizzle_),
        memory(random_bytes(strides.back())),
        map(std::vector<u8>(128)) {
    const std::vector<u32> ones(sizes.size(), 1);
    const std::string broken = encode_tensor_map(reinterpret_cast<void*>(map.address()),
                                                 {.type = type,
                                                  .rank = static_cast<u32>(sizes.size()),
                                                  .base = reinterpret_cast<void*>(memory.address()),
                                                  .sizes = sizes.data(),
                                                  .strides = strides.data(),
                                                  .box = box.data(),
                                                  .element_strides = ones.data(),
                                                  .swizzle = swizzle,
                                                  .fill = fill});
    CHECK(broken.empty(), broken);
  }

  /// Bytes from one index of dimension d + 1 to the next; the last one is the whole tensor's size.
  static std::vector<u64> strides_of(const std::vector<u64>& sizes, u32 element) {
    std::vector<u64> strides;
    u64 stride = (sizes[0] * element + 15) / 16 * 16;
    for (std::size_t d = 1; d <= sizes.size(); ++d) {
      strides.push_back(stride);
      if (d < sizes.size()) stride *= sizes[d];
    }
    return strides;
  }

  u64 box_elements() const {
    u64 count = 1;
    for (const u32 size : box) count *= size;
    return count;
  }

  /// Where element `i` of a box at `at` lies in memory; negative if outside of the tensor.
  s64 place(u64 i, const std::vector<s32>& at) const {
    s64 place = 0;
    for (std::size_t d = 0; d < sizes.size(); ++d) {
      const s64 index = at[d] + static_cast<s64>(i % box[d]);
      i /= box[d];
      if (index < 0 || index >= static_cast<s64>(sizes[d])) return -1;
      place += index * static_cast<s64>(d == 0 ? element : strides[d - 1]);
    }
    return place;
  }

  /// Where byte `offset` of the box lies in shared memory at an address whose 10 low bits are zero:
  /// bits 4 to 6 are XORed with those of the row of 128 bytes (section 5.5.6).
  u64 swizzled(u64 offset) const {
    const u64 row = offset / 128 % (u64{1} << swizzle);
    return offset ^ row * 16;
  }
};

std::string coordinates(const std::vector<s32>& at) {
  std::string text = "{";
  for (std::size_t d = 0; d < at.size(); ++d) text += (d ? ", " : "") + std::to_string(at[d]);
  return text + "}";
}

std::string dimensions(const Tensor& tensor) { return std::to_string(tensor.sizes.size()) + "d"; }

/// All 16 KiB of `tile` after a box was loaded to it; what the box does not reach is 0.
std::vector<u8> load_box(const Tensor& tensor, const std::vector<s32>& at,
                         const std::string& destination = ".shared::cluster",
                         const std::string& modifiers = "", const std::string& operands = "") {
  DeviceMemory<u8> out(std::vector<u8>(16384));
  const u64 bytes = tensor.box_elements() * tensor.element;
  run_ptx({.body = declarations() + R"(
      mov.u32 %r0, tile;
      mad.lo.u32 %r0, %tid, 512, %r0;
      mad.wide.u32 %a, %tid, 512, %p1;
      .reg .b32 %i, %at;
      mov.u32 %i, 0;
      clear:
      add.u32 %at, %r0, %i;
      st.shared.u64 [%at], 0;
      add.u32 %i, %i, 8;
      setp.lt.u32 %p, %i, 512;
      @%p bra clear;
      fence.proxy.async.shared::cta;
      mov.b64 %b, 0;
      )" + init_barrier(1) +
                   "@%leader mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], " +
                   std::to_string(bytes) + ";\n@%leader cp.async.bulk.tensor." +
                   dimensions(tensor) + destination + ".global" + ".mbarrier::complete_tx::bytes" +
                   modifiers + " [tile], [%p0, " + coordinates(at) + "], [bar]" + operands + ";\n" +
                   wait_for_barrier("waiting") + R"(
      mov.u32 %i, 0;
      copy:
      add.u32 %at, %r0, %i;
      .reg .b64 %value, %to;
      cvt.u64.u32 %to, %i;
      add.u64 %to, %to, %a;
      ld.shared.u64 %value, [%at];
      st.global.u64 [%to], %value;
      add.u32 %i, %i, 8;
      setp.lt.u32 %p, %i, 512;
      @%p bra copy;)",
           .parameters = {tensor.map.address(), out.address()}});
  std::vector<u8> bytes_out(16384);
  std::memcpy(bytes_out.data(), reinterpret_cast<const void*>(out.address()), bytes_out.size());
  return bytes_out;
}

/// Whether `tile` holds the box, `outside` in each element outside of the tensor, and zeros after
/// it.
bool is_box(const std::vector<u8>& tile, const Tensor& tensor, const std::vector<s32>& at,
            u64 outside = 0) {
  std::vector<u8> expected(tile.size());
  for (u64 i = 0; i < tensor.box_elements(); ++i) {
    const s64 place = tensor.place(i, at);
    const void* const value =
        place < 0 ? static_cast<const void*>(&outside) : &tensor.memory[static_cast<u64>(place)];
    std::memcpy(&expected[tensor.swizzled(i * tensor.element)], value, tensor.element);
  }
  return tile == expected;
}

void test_ranks() {
  with_each_landing([] {
    const Tensor one(kF32, {100}, {32});
    CHECK(is_box(load_box(one, {64}), one, {64}));
    const Tensor two(kF16, {48, 20}, {32, 8});
    CHECK(is_box(load_box(two, {16, 5}), two, {16, 5}));
    const Tensor three(kU8, {64, 5, 6}, {16, 4, 3});
    CHECK(is_box(load_box(three, {32, 1, 2}), three, {32, 1, 2}));
    const Tensor four(kBf16, {16, 4, 5, 6}, {8, 2, 3, 2});
    CHECK(is_box(load_box(four, {8, 1, 2, 3}), four, {8, 1, 2, 3}));
    const Tensor five(kF64, {4, 3, 3, 4, 3}, {2, 3, 2, 2, 2});
    CHECK(is_box(load_box(five, {2, 0, 1, 2, 1}), five, {2, 0, 1, 2, 1}));
  });
}

void test_forms() {
  const Tensor tensor(kF16, {48, 20}, {32, 8});
  const std::vector<s32> at = {8, 3};
  CHECK(is_box(load_box(tensor, at, ".shared::cta"), tensor, at));
  CHECK(is_box(load_box(tensor, at, ".shared::cluster", ".L2::cache_hint", ", %b"), tensor, at));
  CHECK(is_box(load_box(tensor, at, ".shared::cluster", ".multicast::cluster", ", 1"), tensor, at));
  CHECK(is_box(
      load_box(tensor, at, ".shared::cluster", ".multicast::cluster.L2::cache_hint", ", 1, %b"),
      tensor, at));
  CHECK_ERROR(load_box(tensor, at, ".shared::cluster", ".foo"), "'.foo' is not known");
}

void test_swizzles() {
  for (const u32 swizzle : {0u, 1u, 2u, 3u}) {
    const u32 span = 16u << swizzle;
    // As wide as the swizzle, and narrower.
    for (u32 inner = 16; inner <= span; inner *= 2) {
      const Tensor tensor(kF16, {80, 70}, {inner / 2, 40}, swizzle);
      const std::vector<s32> at = {8, 11};
      CHECK(is_box(load_box(tensor, at), tensor, at), swizzle, inner);
    }
    const Tensor bytes(kU8, {256, 20, 3}, {span, 9, 2}, swizzle);
    const std::vector<s32> at = {16, 4, 1};
    CHECK(is_box(load_box(bytes, at), bytes, at), swizzle);
  }
}

void test_outside() {
  for (const u32 swizzle : {0u, 3u}) {
    const Tensor tensor(kF16, {72, 20}, {64, 16}, swizzle);
    for (const std::vector<s32>& at : {std::vector<s32>{-5, 0},
                                       {0, -3},
                                       {40, 15},
                                       {71, 19},
                                       {72, 0},
                                       {0, 20},
                                       {-64, 0},
                                       {-100, -100},
                                       {2147483647, 2147483647},
                                       {-2147483647, 3}}) {
      CHECK(is_box(load_box(tensor, at), tensor, at), swizzle, at[0], at[1]);
    }
  }
  const Tensor half(kF16, {72, 20}, {64, 16}, 3, /*fill=*/1);
  CHECK(is_box(load_box(half, {-5, 10}), half, {-5, 10}, 0x7fff));
  const Tensor single(kF32, {20, 20}, {16, 16}, 0, /*fill=*/1);
  CHECK(is_box(load_box(single, {10, 10}), single, {10, 10}, 0x7fffffff));
}

/// Threads write `tile`, 16 bytes at a time, and thread 0 stores a box from it.
void store_box(const Tensor& tensor, const std::vector<s32>& at, const std::vector<u8>& tile,
               const std::string& modifiers = "", const std::string& operands = "") {
  const DeviceMemory<u8> in(tile);
  run_ptx({.body = declarations() + R"(
      .reg .b32 %i, %at;
      .reg .b64 %from, %value;
      mov.u32 %r0, tile;
      mad.lo.u32 %r0, %tid, 512, %r0;
      mad.wide.u32 %a, %tid, 512, %p1;
      mov.b64 %b, 0;
      mov.u32 %i, 0;
      copy:
      add.u32 %at, %r0, %i;
      cvt.u64.u32 %from, %i;
      add.u64 %from, %from, %a;
      ld.global.u64 %value, [%from];
      st.shared.u64 [%at], %value;
      add.u32 %i, %i, 8;
      setp.lt.u32 %p, %i, 512;
      @%p bra copy;
      fence.proxy.async.shared::cta;
      bar.sync 0;
      @%leader cp.async.bulk.tensor.)" +
                   dimensions(tensor) + ".global.shared::cta.bulk_group" + modifiers + " [%p0, " +
                   coordinates(at) + "], [tile]" + operands + R"(;
      @%leader cp.async.bulk.commit_group;
      @%leader cp.async.bulk.wait_group 0;)",
           .parameters = {tensor.map.address(), in.address()}});
}

void check_store(const std::vector<u64>& sizes, const std::vector<u32>& box,
                 const std::vector<s32>& at, u32 swizzle) {
  const std::vector<u8> tile = random_bytes(16384, /*seed=*/9);
  const Tensor tensor(kF16, sizes, box, swizzle);
  std::vector<u8> expected(tensor.memory.size());
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = tensor.memory[i];
  for (u64 i = 0; i < tensor.box_elements(); ++i) {
    const s64 place = tensor.place(i, at);
    if (place < 0) continue;
    std::memcpy(&expected[static_cast<u64>(place)], &tile[tensor.swizzled(2 * i)], 2);
  }
  store_box(tensor, at, tile);
  CHECK(std::memcmp(expected.data(), &tensor.memory[0], expected.size()) == 0, swizzle, at[0]);
}

void test_stores() {
  with_each_landing([] {
    check_store({100}, {32}, {64}, 0);
    check_store({72, 20}, {64, 16}, {3, 2}, 3);
    check_store({72, 20}, {32, 16}, {-7, 10}, 2);  // Nothing outside is written.
    check_store({72, 20}, {16, 16}, {70, -5}, 1);
    check_store({32, 4, 5}, {16, 3, 2}, {8, 2, 4}, 0);
    check_store({32, 4, 5, 2}, {16, 3, 2, 2}, {8, 2, 4, 0}, 1);
    check_store({16, 3, 2, 2, 3}, {8, 2, 2, 2, 2}, {8, 1, 0, 0, 2}, 0);
  });
  const Tensor tensor(kF16, {72, 20}, {64, 16}, 3);
  store_box(tensor, {0, 0}, random_bytes(16384), ".L2::cache_hint", ", %b");
}

void test_prefetch() {
  const Tensor tensor(kF16, {72, 20}, {64, 16}, 3);
  const auto prefetch = [&](const std::string& lines) {
    return error_of([&] {
      run_ptx({.body = declarations() + "mov.b64 %b, 0;\n" + lines,
               .parameters = {tensor.map.address(), tensor.memory.address()}});
    });
  };
  CHECK(prefetch("prefetch.tensormap [%p0];\n").empty());
  CHECK(contains(prefetch("prefetch.tensormap [%p1];\n"), {"no tensor map"}));
  CHECK(prefetch("cp.async.bulk.prefetch.tensor.2d.L2.global [%p0, {3, 4}];\n").empty());
  CHECK(prefetch("cp.async.bulk.prefetch.tensor.2d.L2.global.tile.L2::cache_hint [%p0, {3, 4}], "
                 "%b;\n")
            .empty());
  CHECK(contains(prefetch("cp.async.bulk.prefetch.tensor.3d.L2.global [%p0, {3, 4, 5}];\n"),
                 {"has 2 dimensions, the instruction 3"}));
  CHECK(contains(prefetch("cp.async.bulk.prefetch.tensor.3d.L2.global [%p0, {3, 4}];\n"),
                 {"another number of dimensions"}));
}

void test_errors() {
  const Tensor tensor(kF16, {72, 20}, {64, 16}, 3);
  const auto load = [&](const std::string& operands, u64 memory) {
    return error_of([&] {
      run_ptx({.body = declarations() + init_barrier(1) +
                       "@%leader cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::"
                       "complete_tx::bytes " +
                       operands + ";\n",
               .parameters = {memory}});
    });
  };
  const u64 map = tensor.map.address();
  CHECK(load("[tile], [%p0, {0, 0}], [bar]", map).empty());
  CHECK(contains(load("[tile+64], [%p0, {0, 0}], [bar]", map), {"misaligned", "128"}));
  CHECK(contains(load("[tile], [%p0, {0, 0}], [bar+4]", map), {"misaligned mbarrier"}));
  CHECK(contains(load("[tile], [%p0, {0, 0}], [tile+64]", map), {"not initialised"}));
  CHECK(contains(load("[tile+16256], [%p0, {0, 0}], [bar]", map), {"outside of the block's"}));
  CHECK(contains(load("[tile], [%p0+32, {0, 0}], [bar]", map), {"misaligned tensor map"}));
  CHECK(contains(load("[tile], [%p0, {0, 0}], [bar]", tensor.memory.address()), {"no tensor map"}));
  // The map's tensor is larger than its memory: only boxes that reach beyond the memory fail.
  const Tensor larger(kF16, {72, 20}, {64, 16}, 3);
  remove_memory(reinterpret_cast<void*>(larger.memory.address()));
  add_memory(reinterpret_cast<void*>(larger.memory.address()), larger.memory.size() - 16);
  CHECK(load("[tile], [%p0, {0, 0}], [bar]", larger.map.address()).empty());
  CHECK(contains(load("[tile], [%p0, {60, 10}], [bar]", larger.map.address()), {"invalid global"}));
}

}  // namespace

int main() {
  test_ranks();
  test_forms();
  test_swizzles();
  test_outside();
  test_stores();
  test_prefetch();
  test_errors();
  CHECK_FORMS_OF("9.7.9.25.5", "cp");
  return finish();
}
