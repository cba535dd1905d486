// Arguments for calls of the C surface: rows in several layouts, and work memory of exactly the
// size that was asked for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <utility>

#include "check.h"
#include "minference/minference.h"
#include "test_tensor.h"

namespace minference::test {

enum class RowLayout {
  kContiguous,
  kHeadsFirst,  // [batch, heads, seqlen, head_dim] in memory.
  kPaddedRows,  // 8 elements between rows.
};

/// A tensor [batch, seqlen, heads, head_dim] in a layout.
class Rows {
 public:
  Rows(int32_t dtype, RowLayout layout, int64_t batch, int64_t seqlen, int64_t heads, int64_t dim) {
    switch (layout) {
      case RowLayout::kContiguous:
        memory_ = TestTensor(dtype, {batch, seqlen, heads, dim});
        break;
      case RowLayout::kHeadsFirst:
        memory_ = TestTensor(dtype, {batch, heads, seqlen, dim});
        break;
      case RowLayout::kPaddedRows:
        memory_ = TestTensor(dtype, {batch, seqlen, heads, dim + 8});
        break;
    }
    view_ = memory_.view();
    if (layout == RowLayout::kHeadsFirst) {
      std::swap(view_.shape[1], view_.shape[2]);
      std::swap(view_.stride[1], view_.stride[2]);
    }
    view_.shape[3] = dim;
  }
  Rows& fill_random(std::mt19937& random) {
    memory_.fill_random(random);
    return *this;
  }
  const minf_tensor& view() const { return view_; }
  /// As it lies in memory, including what is between the rows.
  const TestTensor& memory() const { return memory_; }

 private:
  TestTensor memory_;
  minf_tensor view_{};
};

/// Work memory of exactly the size that was asked for, so that an access to one more byte is seen.
/// It starts one byte after an aligned address, where a call needs all of the alignment slack in
/// that size.
class Workspace {
 public:
  /// Uninitialised, or filled with the byte `dirt`.
  explicit Workspace(std::size_t bytes, std::optional<unsigned char> dirt = {})
      : bytes_(bytes), release_(place.release) {
    if (bytes == 0) return;
    memory_ = static_cast<std::byte*>(place.allocate(kOffset + bytes));
    if (!dirt) return;
    std::memset(data(), *dirt, bytes);
    place.written(data(), bytes);
  }
  ~Workspace() {
    if (memory_ != nullptr) release_(memory_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  void* data() const { return memory_ == nullptr ? nullptr : memory_ + kOffset; }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kOffset = 1;

  std::byte* memory_ = nullptr;
  std::size_t bytes_;
  void (*release_)(void*);
};

inline void check_ok(minf_status status, const char* name) {
  CHECK(status == MINF_OK, name, minf_last_error());
}

}  // namespace minference::test
