// Runs a few lines of PTX, lane by lane, and tells which forms of the table have run: a form that
// no test runs is a failure of the test that asks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "launch.h"
#include "options.h"

namespace ptxsim::test {

/// A value per thread.
using Values = std::vector<u64>;

struct Program {
  /// Instructions and declarations. They find %in0, %in1, ... and leave %out0, %out1, ..., .b64
  /// registers of each thread, and %tid, a .b32 register. Labels begin with a letter.
  std::string body = {};
  std::vector<Values> inputs = {};
  int num_outputs = 1;
  Dim3 block = {32, 1, 1};
  Dim3 grid = {1, 1, 1};  // Inputs and outputs go on from block to block, in order.
  Dim3 cluster = {1, 1, 1};
  u64 dynamic_shared_bytes = 0;  // `shared` names them.
  std::string directives = {};   // Of the entry: ".maxntid 128".
  std::string module = {};       // Declarations before the entry.
  /// More parameters, each a .u64 (%p0, %p1, ... hold them): addresses of memory that the test owns
  /// and has added (memory.h), tensor maps.
  std::vector<u64> parameters = {};
};

/// Outputs by register, then thread. @throws Error of parse(), decode() or run().
std::vector<Values> run_ptx(const Program& program, Counts* counts = nullptr);

/// Forms of the table whose first word is one of `roots` that have not run, one a line; a root that
/// no form has, too. Run: by a program of this process. `section`: only of those, "9.7.1.".
std::string forms_missed(std::initializer_list<const char*> roots, const char* section = "");

}  // namespace ptxsim::test

/// Every form of these first words has run.
#define CHECK_FORMS(...) CHECK_FORMS_OF("", __VA_ARGS__)
#define CHECK_FORMS_OF(section, ...)                                               \
  do {                                                                             \
    const std::string missed = ptxsim::test::forms_missed({__VA_ARGS__}, section); \
    CHECK(missed.empty(), missed);                                                 \
  } while (false)
