// Every refusal of the C surface on tensors in host memory. Cases that depend on no memory are in
// api_error_cases.h; the rest is here.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>

#include "api_arguments.h"
#include "api_error_cases.h"
#include "check.h"
#include "minference/minference.h"

namespace {

using namespace minference::test;

/// Entries are untrusted in every list, the first as the last.
void test_index_entries() {
  const auto last_head = [](Arguments& a, int64_t idx, double value) {
    a.vertical_memory.set({1, 2, idx}, value);
  };
  for (const Call call : {&Arguments::sparse, &Arguments::count_tiles}) {
    refuse(call,
           {"vertical_index[1, 2]: expected ascending entries in [0, 100) without duplicates",
            "got 100 at 37 after 72"},
           [&](Arguments& a) { last_head(a, 37, 100); });
    refuse(call, {"vertical_index[1, 2]:", "got 6 at 4 after 6"},
           [&](Arguments& a) { last_head(a, 4, 6); });
    refuse(call, {"vertical_index[1, 2]:", "got 5 at 4 after 6"},
           [&](Arguments& a) { last_head(a, 4, 5); });
    refuse(call, {"vertical_index[1, 2]:", "got -2 at 0"},
           [&](Arguments& a) { last_head(a, 0, -2); });
    refuse(call, {"vertical_index[1, 2]:", "got 80 at 39 after -1"},
           [&](Arguments& a) { last_head(a, 39, 80); });
    refuse(call, {"run_count[1, 2]: expected a count in [0, max_runs = 2], got 3"},
           [](Arguments& a) { a.run_count_memory.set({1, 2}, 3); });
    refuse(call, {"run_count[0, 2]: expected a count in [0, max_runs = 2], got -1"},
           [](Arguments& a) { a.run_count_memory.set({0, 2}, -1); });
    refuse(call, {"runs[1, 2, 0]: expected lo in [0, seqlen_k = 100)", "got (-1, 63)"},
           [](Arguments& a) {
             a.runs_memory.set({1, 2, 0, 0}, -1);
             a.runs_memory.set({1, 2, 0, 1}, 63);
           });
    refuse(call, {"runs[1, 2, 1]: expected lo in [67, seqlen_k = 100)", "got (66, 130)"},
           [](Arguments& a) {
             a.runs_memory.set({1, 2, 1, 0}, 66);
             a.runs_memory.set({1, 2, 1, 1}, 130);
           });
    refuse(call, {"runs[1, 2, 1]: expected lo in [67, seqlen_k = 100)", "got (100, 208)"},
           [](Arguments& a) { a.runs_memory.set({1, 2, 1, 0}, 100); });
    refuse(call, {"hi - lo a positive multiple of 64, got (80, 207)"},
           [](Arguments& a) { a.runs_memory.set({1, 2, 1, 1}, 207); });
    refuse(call, {"hi - lo a positive multiple of 64, got (80, 80)"},
           [](Arguments& a) { a.runs_memory.set({1, 2, 1, 1}, 80); });
    refuse(call, {"hi - lo a positive multiple of 64, got (80, -2147483648)"},
           [](Arguments& a) { a.runs_memory.set({1, 2, 1, 1}, INT32_MIN); });
    refuse(call,
           {"block_index[1, 3, 1]: expected ascending entries in [0, 2)", "got 2 at 1 after 0"},
           [](Arguments& a) { a.block_memory.set({1, 3, 1, 1}, 2); });
    refuse(call, {"block_index[0, 3, 0]:", "got 0 at 1 after 0"},
           [](Arguments& a) { a.block_memory.set({0, 3, 0, 1}, 0); });
    accept(call, "lists of other heads are not read", [](Arguments& a) {
      a.vertical_memory.set({0, 0, 0}, 999);
      a.run_count_memory.set({0, 1}, 999);
      a.block_memory.set({0, 2, 0, 0}, 999);
    });
  }
  refuse(&Arguments::plan, {"slash_index[1, 3]:", "got 100 at 49 after 96"},
         [](Arguments& a) { a.slash_memory.set({1, 3, 49}, 100); });
  refuse(&Arguments::plan, {"slash_index[0, 0]:", "got 0 at 1 after 0"},
         [](Arguments& a) { a.slash_memory.set({0, 0, 1}, 0); });
}

void test_no_rows_no_tiles() {
  Arguments a;
  a.q.shape[1] = a.out.shape[1] = a.lse.shape[2] = 0;
  CHECK(a.prefill() == MINF_OK && a.tiles_memory.get({1, 3}) == 0, minf_last_error());
}

minf_capability backend_named(std::string_view name) {
  minf_capability backend{.name = "", .available = 0, .selected = 0, .reason = ""};
  for (int32_t i = 0; i < minf_backend_count(); ++i) {
    CHECK(minf_backend(i, &backend) == MINF_OK);
    if (backend.name == name) return backend;
  }
  CHECK(false, "no backend", name);
  return backend;
}

/// Tensors that claim to be on a GPU are refused: without a GPU for the reason that minf_backend()
/// gives, with one because of their dtype.
void test_claims_of_a_gpu() {
  const minf_capability sm80 = backend_named("sm80");
  Arguments a;
  for (minf_tensor* tensor : {&a.q, &a.k, &a.v, &a.out, &a.lse, &a.tiles}) {
    tensor->device_type = MINF_DEVICE_CUDA;
  }
  const auto before = a.outputs();
  const minf_status status = a.prefill();
  if (sm80.available) {
    check_refusal(MINF_ERROR_UNSUPPORTED, status,
                  {"q: expected dtype bfloat16 or float16 on CUDA devices, got float32"});
  } else {
    CHECK(status == MINF_ERROR_UNSUPPORTED || status == MINF_ERROR_NO_DEVICE ||
              status == MINF_ERROR_DRIVER_TOO_OLD || status == MINF_ERROR_ARCH_NOT_BUILT,
          status);
    check_refusal(status, status,
                  {std::string("q: no backend serves tensors on CUDA devices: ") +
                   (sm80.reason == std::string_view(backend_named("sm90").reason) ? "sm90, sm80: "
                                                                                  : "sm80: ") +
                   sm80.reason});
  }
  CHECK(a.outputs() == before, "written despite:", minf_last_error());
}

void test_last_error_is_per_thread() {
  Arguments a;
  a.q.ndim = 1;
  CHECK(a.prefill() == MINF_ERROR_INVALID_ARGUMENT);
  const std::string mine = minf_last_error();
  std::thread([&] {
    CHECK(std::string(minf_last_error()).empty(), "a new thread has no error");
    Arguments other;
    other.k.ndim = 2;
    CHECK(other.prefill() == MINF_ERROR_INVALID_ARGUMENT);
    CHECK(std::string(minf_last_error()) == "k: expected 4 dimensions, got 2");
  }).join();
  CHECK(minf_last_error() == mine && mine == "q: expected 4 dimensions, got 1", mine);
}

}  // namespace

int main() {
  test_common_errors();
  test_workspace({&Arguments::prefill, &Arguments::sparse, &Arguments::estimate_vertical_slash,
                  &Arguments::estimate_blocks});
  test_index_entries();
  test_no_rows_no_tiles();
  test_claims_of_a_gpu();
  test_last_error_is_per_thread();
  return minference::test::finish();
}
