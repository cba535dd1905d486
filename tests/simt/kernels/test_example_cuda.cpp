// examples/vertical_slash_cuda.cpp on emulated threads, at a smaller size: its source, its main()
// and its verification, which must also detect wrong results.
// SPDX-License-Identifier: Apache-2.0
#define main example_main
#include "../../../examples/vertical_slash_cuda.cpp"  // NOLINT(bugprone-suspicious-include)
#undef main

#include <cstddef>
#include <string>
#include <utility>

#include "check.h"
#include "simt/simt.h"

namespace {

int run_example(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "vertical_slash_cuda");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  return example_main(static_cast<int>(argv.size()), argv.data());
}

template <typename T>
T* elements(const mi::TensorView& tensor) {
  return static_cast<T*>(tensor.c_tensor().data);
}

/// Changes one element (host code may write emulated device memory), verifies, and restores it.
template <typename T>
void check_seen(const char* what, const Layer& layer, T& element, T value) {
  const T before = std::exchange(element, value);
  CHECK(before != value, what);
  CHECK(!verify(what, layer), what);
  element = before;
}

void test_wrong_results_are_seen() {
  const Layer layer(448, 4, 2);
  upload_inputs(layer, /*seed=*/1, nullptr);
  layer.enqueue(nullptr);
  CHECK(verify("right", layer));

  // The last row and its head are among the rows that the example samples.
  const int64_t row = layer.seqlen - 1, head = 95 % 4;
  uint16_t& out = elements<uint16_t>(layer.out)[(row * 4 + head) * kHeadDim + 77];
  check_seen<uint16_t>("the sign of one element", layer, out, out ^ 0x8000);
  check_seen<uint16_t>("NaN", layer, out, 0x7fc0);
  float& lse = elements<float>(layer.lse)[head * layer.seqlen + row];
  check_seen("lse", layer, lse, lse + 1e-3f);
  int32_t& run_count = elements<int32_t>(layer.run_count)[head];
  check_seen("a run less", layer, run_count, run_count - 1);
  int32_t* const columns = elements<int32_t>(layer.columns) + head * layer.num_columns;
  int32_t alone = 0;  // A column that is in no run of the last row block.
  const int32_t* const runs = elements<int32_t>(layer.runs) + head * layer.max_runs * 2;
  for (int64_t i = 0; i < layer.num_columns; ++i) {
    const int64_t distance = layer.seqlen - columns[i];
    bool in_run = false;
    for (int32_t run = 0; run < run_count; ++run) {
      in_run = in_run || (distance > runs[2 * run] && distance <= runs[2 * run + 1]);
    }
    if (!in_run) alone = static_cast<int32_t>(i);
  }
  check_seen("a column less", layer, columns[alone], -1);
  upload_inputs(layer, /*seed=*/2, nullptr);
  CHECK(!verify("new inputs, old results", layer));
}

}  // namespace

int main(int argc, char** argv) {
  simt::options().max_shared_bytes = std::size_t{227} << 10;  // The machine has a Hopper GPU.
  const std::string machine = argc > 1 ? argv[1] : "";
  if (machine == "right") {
    CHECK(run_example({"448", "4", "2"}) == 0);
    CHECK(run_example({"100", "2", "1"}) == 0, "all keys attended");
    simt::machine().next_launch_error = cudaErrorLaunchFailure;
    CHECK(run_example({"100", "2", "1"}) == 1, "a launch that fails");
    CHECK(run_example({"100", "3", "2"}) == 1, "arguments that the library refuses");
    test_wrong_results_are_seen();
  } else {
    if (machine == "no_driver") simt::machine().driver_version = 0;
    if (machine == "no_gpu") simt::machine().devices.clear();
    if (machine == "old_gpu") simt::machine().devices = {{7, 5, 40}};
    if (machine == "old_and_new_gpu") simt::machine().devices = {{7, 5, 40}, {9, 0, 132}};
    CHECK(run_example({}) == 77, machine);
  }
  return minference::test::finish();
}
