// Runs a few lines of PTX in every lane, and records which forms of the table have run: a form that
// no test runs fails the test that asks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "launch.h"
#include "options.h"

namespace ptxsim::test {

/// One value per thread.
using Values = std::vector<u64>;

struct Program {
  /// Instructions and declarations. Each thread's .b64 registers hold the inputs %in0, %in1, ...
  /// and receive the outputs %out0, %out1, ...; %tid is a .b32 register. Labels begin with a
  /// letter.
  std::string body = {};
  std::vector<Values> inputs = {};
  int num_outputs = 1;
  Dim3 block = {32, 1, 1};
  Dim3 grid = {1, 1, 1};  // Inputs and outputs continue from block to block.
  Dim3 cluster = {1, 1, 1};
  u64 dynamic_shared_bytes = 0;  // Named `shared`.
  std::string directives = {};   // Directives of the entry: ".maxntid 128".
  std::string module = {};       // Declarations before the entry.
  /// More parameters, each a .u64 (in %p0, %p1, ...): addresses of memory that the test owns and
  /// has registered (memory.h), or tensor maps.
  std::vector<u64> parameters = {};
};

/// Outputs by register, then thread. @throws Error of parse(), decode() or run().
std::vector<Values> run_ptx(const Program& program, Counts* counts = nullptr);

/// Forms whose first word is one of `roots` and that no program of this process has run, one per
/// line; also each root that no form has. `section` ("9.7.1.") restricts it to forms of that
/// section.
std::string forms_missed(std::initializer_list<const char*> roots, const char* section = "");

}  // namespace ptxsim::test

/// Checks that every form with one of these first words has run.
#define CHECK_FORMS(...) CHECK_FORMS_OF("", __VA_ARGS__)
#define CHECK_FORMS_OF(section, ...)                                               \
  do {                                                                             \
    const std::string missed = ptxsim::test::forms_missed({__VA_ARGS__}, section); \
    CHECK(missed.empty(), missed);                                                 \
  } while (false)
