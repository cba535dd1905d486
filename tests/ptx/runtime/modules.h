// Kernels and variables of the program: what nvcc's host code registers, and its PTX.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "operation.h"

namespace ptxsim::runtime {

/// The device code of one translation unit. Parsed on first use, and decoded kernel by kernel.
class LoadedModule {
 public:
  explicit LoadedModule(const void* fat_binary) : fat_binary_(fat_binary) {}

  /// @throws Error for PTX that is not understood, and for a kernel that is not there.
  const Kernel& kernel(const std::string& name);
  u64 variable_address(const std::string& name);
  const std::string& text();

 private:
  Module& module();

  const void* fat_binary_;
  std::mutex mutex_;
  std::string text_;
  std::unique_ptr<Module> module_;
  std::map<std::string, std::unique_ptr<Kernel>> kernels_;
};

struct RegisteredKernel {
  LoadedModule* module = nullptr;
  std::string name;
  int max_dynamic_shared_bytes = 48 * 1024;
};

/// The kernel behind a host function; null if there is none.
RegisteredKernel* find_kernel(const void* host_function);

}  // namespace ptxsim::runtime
