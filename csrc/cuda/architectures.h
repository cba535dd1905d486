// Which GPUs a build has code for, from the list of architectures it was given.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <string_view>

namespace minference::cuda {

/// Of a GPU: compute capability 8.6 is 86.
using Architecture = int;

/// Whether code for one entry of CMAKE_CUDA_ARCHITECTURES runs on `gpu`: "86-real" (machine code,
/// within a major version forwards only), "90-virtual" (PTX, forwards), "86" (both). What else
/// CMake accepts there ("native", "90a") is taken at its word.
inline bool entry_serves(std::string_view entry, Architecture gpu) {
  Architecture built = 0;
  const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), built);
  const std::string_view kind = entry.substr(static_cast<std::size_t>(end - entry.data()));
  if (error != std::errc() || (!kind.empty() && kind != "-real" && kind != "-virtual")) return true;
  if (gpu < built) return false;
  return kind != "-real" || gpu / 10 == built / 10;
}

/// The same for a comma-separated list.
inline bool architectures_serve(std::string_view list, Architecture gpu) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    if (entry_serves(list.substr(0, comma), gpu)) return true;
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  }
  return false;
}

}  // namespace minference::cuda
