// WorkspaceAllocator: the counting and the allocating pass agree, arrays are aligned and disjoint,
// misuse is an Error.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "core/workspace.h"

namespace {

using minference::Error;
using minference::kWorkspaceAlignment;
using minference::WorkspaceAllocator;

struct Carved {
  std::span<int32_t> numbers;
  std::span<double> values;
  std::span<std::byte> nothing;
  std::span<char> letters;
};

Carved carve(WorkspaceAllocator& memory) {
  return {memory.take<int32_t>(3), memory.take<double>(9), memory.take<std::byte>(0),
          memory.take<char>(65)};
}

void test_counting_and_carving_agree() {
  WorkspaceAllocator counter;
  const Carved counted = carve(counter);
  CHECK(counted.numbers.empty() && counted.letters.data() == nullptr);
  CHECK(counter.bytes() == 64 + 128 + 0 + 128, counter.bytes());

  alignas(kWorkspaceAlignment) std::byte block[64 + 128 + 128];
  WorkspaceAllocator memory(block);
  const Carved carved = carve(memory);
  CHECK(memory.bytes() == counter.bytes());
  CHECK(carved.numbers.size() == 3 && carved.values.size() == 9 && carved.letters.size() == 65);
  CHECK(reinterpret_cast<std::byte*>(carved.numbers.data()) == block);
  CHECK(reinterpret_cast<std::byte*>(carved.values.data()) == block + 64);
  CHECK(reinterpret_cast<std::byte*>(carved.letters.data()) == block + 192);
}

template <typename Body>
minf_status status_of(const Body& body) {
  try {
    body();
    return MINF_OK;
  } catch (const Error& error) {
    return error.status();
  }
}

void test_misuse() {
  alignas(kWorkspaceAlignment) std::byte block[128];
  CHECK(status_of([&] { WorkspaceAllocator(std::span(block)).take<char>(128); }) == MINF_OK);
  CHECK(status_of([&] { WorkspaceAllocator(std::span(block)).take<char>(129); }) ==
        MINF_ERROR_INTERNAL);
  CHECK(status_of([&] { WorkspaceAllocator(std::span(block).subspan(1)); }) == MINF_ERROR_INTERNAL);
  CHECK(status_of([&] { WorkspaceAllocator(std::span<std::byte>()).take<char>(1); }) ==
        MINF_ERROR_INTERNAL);
}

void test_sums_that_do_not_fit() {
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
  WorkspaceAllocator counter;
  CHECK(status_of([&] { counter.take<double>(kMax / 2); }) == MINF_ERROR_UNSUPPORTED);
  CHECK(counter.bytes() == 0);
  CHECK(status_of([&] { counter.take<std::byte>(kMax / 4); }) == MINF_OK);
  CHECK(status_of([&] { counter.take<std::byte>(kMax / 4); }) == MINF_ERROR_UNSUPPORTED);
}

}  // namespace

int main() {
  test_counting_and_carving_agree();
  test_misuse();
  test_sums_that_do_not_fit();
  return minference::test::finish();
}
