// Which GPUs a list of built architectures serves.
// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "cuda/machine.h"

namespace {

using minference::cuda::architectures_serve;

void test_machine_code_runs_within_its_major_version() {
  CHECK(architectures_serve("80-real", 80));
  CHECK(architectures_serve("80-real", 87));
  CHECK(!architectures_serve("80-real", 90));
  CHECK(!architectures_serve("86-real", 80), "not backwards");
  CHECK(!architectures_serve("100-real", 120));
}

void test_ptx_runs_on_all_that_follow() {
  CHECK(architectures_serve("90-virtual", 90));
  CHECK(architectures_serve("90-virtual", 121));
  CHECK(!architectures_serve("90-virtual", 89));
  CHECK(architectures_serve("80", 100), "a plain number is both");
  CHECK(!architectures_serve("80", 75));
}

void test_lists() {
  const char* const built = "80-real,86-real,89-real,90-real,90-virtual";
  for (const int gpu : {80, 86, 87, 89, 90, 100, 103, 110, 120, 121}) {
    CHECK(architectures_serve(built, gpu), gpu);
  }
  for (const int gpu : {50, 70, 75}) CHECK(!architectures_serve(built, gpu), gpu);
  CHECK(!architectures_serve("", 80));
}

void test_what_cmake_decides_is_taken_at_its_word() {
  for (const char* const list : {"native", "all", "all-major", "90a", "90a-real", "75-real,90a"}) {
    CHECK(architectures_serve(list, 80), list);
  }
}

}  // namespace

int main() {
  test_machine_code_runs_within_its_major_version();
  test_ptx_runs_on_all_that_follow();
  test_lists();
  test_what_cmake_decides_is_taken_at_its_word();
  return minference::test::finish();
}
