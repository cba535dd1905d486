// SPDX-License-Identifier: Apache-2.0
#include "modules.h"

#include <cuda_runtime_api.h>

#include "errors.h"
#include "fat_binary.h"
#include "memory.h"

namespace ptxsim::runtime {
namespace {

struct RegisteredVariable {
  LoadedModule* module = nullptr;
  std::string name;
};

// Registration runs before main() and other static objects; nothing is ever unregistered.
std::unordered_map<const void*, RegisteredKernel>& kernels() {
  static auto* const kKernels = new std::unordered_map<const void*, RegisteredKernel>;
  return *kKernels;
}
std::unordered_map<const void*, RegisteredVariable>& variables() {
  static auto* const kVariables = new std::unordered_map<const void*, RegisteredVariable>;
  return *kVariables;
}

/// What the host code passes: a pointer to the fat binary is inside.
struct FatBinaryWrapper {
  int magic, version;
  const void* data;
  void* file_name;
};

}  // namespace

const std::string& LoadedModule::text() {
  module();
  return text_;
}

Module& LoadedModule::module() {
  if (module_ == nullptr) {
    text_ = ptx_of(fat_binary_);
    module_ = parse(text_);
    for (const auto& [name, variable] : module_->variables) {
      if (variable.offset == 0) continue;  // Shared memory has no address of its own.
      add_memory(reinterpret_cast<void*>(variable.offset), variable.bytes);
    }
  }
  return *module_;
}

const Kernel& LoadedModule::kernel(const std::string& name) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<Kernel>& known = kernels_[name];
  if (known == nullptr) {
    const auto function = module().functions.find(name);
    if (function == module().functions.end()) throw Error("no kernel " + name + " in its module");
    known = decode(*function->second);
  }
  return *known;
}

u64 LoadedModule::variable_address(const std::string& name) {
  const std::lock_guard lock(mutex_);
  return module().variables.at(name).offset;
}

RegisteredKernel* find_kernel(const void* host_function) {
  const auto found = kernels().find(host_function);
  return found == kernels().end() ? nullptr : &found->second;
}

// ---- What nvcc's host code calls ----------------------------------------------------------------

PTXSIM_API void** __cudaRegisterFatBinary(void* wrapper) {
  auto* module = new LoadedModule(static_cast<FatBinaryWrapper*>(wrapper)->data);
  return reinterpret_cast<void**>(module);
}
PTXSIM_API void __cudaRegisterFatBinaryEnd(void**) {}
PTXSIM_API void __cudaUnregisterFatBinary(void**) {}
PTXSIM_API void __cudaRegisterFunction(void** module, const char* host_function, char*,
                                       const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  kernels()[host_function] = {.module = reinterpret_cast<LoadedModule*>(module), .name = name};
}
PTXSIM_API void __cudaRegisterVar(void** module, char* host_variable, char*, const char* name, int,
                                  size_t, int, int) {
  variables()[host_variable] = {reinterpret_cast<LoadedModule*>(module), name};
}
PTXSIM_API char __cudaInitModule(void**) { return 1; }
PTXSIM_API cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host_function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host_function));
  return cudaSuccess;
}

PTXSIM_API cudaError_t cudaGetSymbolAddress(void** address, const void* symbol) {
  const auto found = variables().find(symbol);
  if (found == variables().end()) return failed(cudaErrorInvalidSymbol);
  try {
    *address = reinterpret_cast<void*>(found->second.module->variable_address(found->second.name));
  } catch (const std::exception& error) {
    fail_device(cudaErrorInvalidPtx, error.what());
    return failed(cudaErrorInvalidPtx);
  }
  return cudaSuccess;
}

}  // namespace ptxsim::runtime
