// The rules of cuTensorMapEncodeTiled: which arguments are allowed, and the error for others.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <iterator>

#include "tensor_map.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

constexpr u32 kU16 = 1;  // CU_TENSOR_MAP_DATA_TYPE_UINT16
constexpr u32 kF16 = 6;

struct Arguments {
  alignas(64) std::array<u8, 192> map = {};
  std::array<u64, 5> sizes = {64, 32, 4, 4, 4};
  std::array<u64, 4> strides = {128, 4096, 16384, 65536};
  std::array<u32, 5> box = {64, 16, 1, 1, 1};
  std::array<u32, 5> ones = {1, 1, 1, 1, 1};
  TiledTensor tensor = {.type = kF16, .rank = 2, .base = reinterpret_cast<void*>(0x10000)};
  u64 shift = 0;  // Moves the map's address.

  std::string encode() {
    tensor.sizes = sizes.data();
    tensor.strides = strides.data();
    tensor.box = box.data();
    tensor.element_strides = ones.data();
    return encode_tensor_map(map.data() + shift, tensor);
  }
};

/// Whether the arguments, as changed by `change`, break a rule whose text contains `part`.
template <class Change>
bool breaks(const char* part, Change change) {
  Arguments arguments;
  change(arguments);
  const std::string broken = arguments.encode();
  return !broken.empty() && contains(broken, {part});
}
template <class Change>
bool is_allowed(Change change) {
  Arguments arguments;
  change(arguments);
  return arguments.encode().empty();
}

void test_rules() {
  using A = Arguments;
  CHECK(is_allowed([](A&) {}));
  CHECK(is_allowed([](A& a) { a.tensor.rank = 5; }));
  CHECK(is_allowed([](A& a) { a.tensor.swizzle = 3; }));
  CHECK(is_allowed([](A& a) { a.sizes[1] = u64{1} << 32; }));
  CHECK(is_allowed([](A& a) { a.strides[0] = (u64{1} << 40) - 16; }));
  CHECK(is_allowed([](A& a) { a.strides[0] = 0; }));
  CHECK(is_allowed([](A& a) { a.box[1] = 256; }));
  CHECK(is_allowed([](A& a) { a.tensor.fill = 1; }));
  CHECK(breaks("tensorMap", [](A& a) { a.shift = 32; }));
  CHECK(breaks("tensorDataType", [](A& a) { a.tensor.type = 99; }));
  CHECK(breaks("not known here", [](A& a) { a.tensor.type = 13; }));
  CHECK(breaks("tensorRank", [](A& a) { a.tensor.rank = 0; }));
  CHECK(breaks("tensorRank", [](A& a) { a.tensor.rank = 6; }));
  CHECK(breaks("globalAddress", [](A& a) { a.tensor.base = reinterpret_cast<void*>(0x10008); }));
  CHECK(breaks("globalDim[1]", [](A& a) { a.sizes[1] = 0; }));
  CHECK(breaks("globalDim[0]", [](A& a) { a.sizes[0] = (u64{1} << 32) + 1; }));
  CHECK(breaks("globalStrides[0]", [](A& a) { a.strides[0] = 120; }));
  CHECK(breaks("globalStrides[0]", [](A& a) { a.strides[0] = u64{1} << 40; }));
  CHECK(breaks("boxDim[0]", [](A& a) { a.box[0] = 0; }));
  CHECK(breaks("boxDim[1]", [](A& a) { a.box[1] = 257; }));
  CHECK(breaks("multiple of 16 bytes", [](A& a) { a.box[0] = 60; }));
  CHECK(breaks("bytes of the swizzle", [](A& a) { a.tensor.swizzle = 2; }));
  CHECK(breaks("elementStrides[1]", [](A& a) { a.ones[1] = 0; }));
  CHECK(breaks("elementStrides[1]", [](A& a) { a.ones[1] = 9; }));
  CHECK(breaks("not known here", [](A& a) { a.ones[1] = 2; }));
  CHECK(breaks("interleave", [](A& a) { a.tensor.interleave = 1; }));
  CHECK(breaks("swizzle 4", [](A& a) { a.tensor.swizzle = 4; }));
  CHECK(breaks("floating-point", [](A& a) { a.tensor.type = kU16, a.tensor.fill = 1; }));
}

void test_type_bytes() {
  constexpr u32 kBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
  for (u32 type = 0; type < std::size(kBytes); ++type) {
    CHECK(tensor_type_bytes(type) == kBytes[type], type);
  }
  CHECK(tensor_type_bytes(13) == 0);
}

}  // namespace

int main() {
  test_rules();
  test_type_bytes();
  return finish();
}
