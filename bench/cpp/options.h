// The command line of minference_bench.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "minference/minference.hpp"

namespace bench {

enum class Stage { kPrefill, kEstimate, kAttention };

/// A pattern as the command line names it; "mixed" gives each quarter of the heads another one.
struct PatternOption {
  std::string name;
  std::vector<minference::Pattern> quarters;  // 1 (all heads alike) or 4.
};

struct Options {
  std::vector<int64_t> seqlens = {8192};
  std::vector<PatternOption> patterns;  // Empty only where `densities` is not.
  std::vector<double> densities;
  std::vector<int64_t> head_dims = {128};
  int64_t num_heads_q = 32;
  int64_t num_heads_kv = 8;
  std::vector<minference::DType> dtypes = {minference::DType::kBFloat16};
  std::vector<Stage> stages = {Stage::kPrefill};
  std::optional<minference::DeviceType> device;  // None: a GPU if there is one.
  int32_t num_threads = 0;                       // 0: all that the process may run on.
  bool help = false;
};

/// What was wrong with the command line.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

extern const char* const kUsage;

/// Takes the options it knows out of `args`, and leaves the others (Google Benchmark's) in order.
/// @throws UsageError with the option, what was expected and what came.
Options parse_options(std::vector<char*>& args);

const char* name_of(Stage stage);
const char* name_of(minference::DType dtype);
const char* name_of(minference::DeviceType device);

}  // namespace bench
