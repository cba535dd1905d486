// SPDX-License-Identifier: Apache-2.0
#include "run_ptx.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "device_memory.h"
#include "instruction_set.h"
#include "operation.h"

namespace ptxsim::test {
namespace {

std::set<std::string> known_forms;  // By their syntax.

/// Lets kernels touch the module's variables while this object lives.
class VariableMemory {
 public:
  explicit VariableMemory(const Module& module) : module_(module) {
    each([](void* begin, u64 bytes) { add_memory(begin, bytes); });
  }
  ~VariableMemory() {
    each([](void* begin, u64) { remove_memory(begin); });
  }
  VariableMemory(const VariableMemory&) = delete;
  VariableMemory& operator=(const VariableMemory&) = delete;

 private:
  template <class Do>
  void each(Do act) const {
    for (const auto& [name, variable] : module_.variables) {
      if (variable.offset == 0) continue;  // Shared memory has no address of its own.
      act(reinterpret_cast<void*>(variable.offset), variable.bytes);
    }
  }

  const Module& module_;
};

/// If counts are wanted, counts accesses to memory while this object lives.
class Counting {
 public:
  explicit Counting(bool counts) : before_(options().count) { options().count = counts; }
  ~Counting() { options().count = before_; }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;

 private:
  bool before_;
};

std::string numbered(const char* prefix, std::size_t i) { return prefix + std::to_string(i); }

/// The kernel around a program's body. Word i of thread t is at 8 * (i * threads + t).
std::string kernel_text(const Program& program, u32 num_threads) {
  const std::size_t num_inputs = program.inputs.size();
  const u64 pitch = u64{8} * num_threads;
  std::string text = ".version 9.0\n.target sm_90a\n.address_size 64\n" + program.module + "\n";
  if (program.dynamic_shared_bytes != 0) text += ".extern .shared .align 1024 .b8 shared[];\n";
  text += ".visible .entry program(.param .u64 in, .param .u64 out";
  for (std::size_t i = 0; i < program.parameters.size(); ++i)
    text += numbered(", .param .u64 p", i);
  text += ")\n" + program.directives + "\n{\n";
  text += ".reg .b32 %tid, %harness<8>;\n.reg .b64 %at, %to, %offset;\n";
  text += numbered(".reg .b64 %in<", num_inputs + 1) + ">;\n";
  text += numbered(".reg .b64 %out<", static_cast<std::size_t>(program.num_outputs) + 1) + ">;\n";
  text += numbered(".reg .b64 %p<", program.parameters.size() + 1) + ">;\n";
  text +=
      "mov.u32 %harness0, %tid.z;\nmov.u32 %harness1, %ntid.y;\nmov.u32 %harness2, %tid.y;\n"
      "mad.lo.u32 %harness0, %harness0, %harness1, %harness2;\nmov.u32 %harness3, %ntid.x;\n"
      "mov.u32 %harness4, %tid.x;\nmad.lo.u32 %tid, %harness0, %harness3, %harness4;\n"
      "mov.u32 %harness5, %ctaid.x;\n";
  text += "mul.lo.u32 %harness6, %harness5, " + std::to_string(program.block.count()) + ";\n";
  text += "add.u32 %harness6, %harness6, %tid;\nmul.wide.u32 %offset, %harness6, 8;\n";
  text += "ld.param.u64 %at, [in];\nadd.u64 %at, %at, %offset;\n";
  text += "ld.param.u64 %to, [out];\nadd.u64 %to, %to, %offset;\n";
  for (std::size_t i = 0; i < num_inputs; ++i) {
    text += numbered("ld.global.b64 %in", i) + numbered(", [%at+", i * pitch) + "];\n";
  }
  for (std::size_t i = 0; i < program.parameters.size(); ++i) {
    text += numbered("ld.param.u64 %p", i) + numbered(", [p", i) + "];\n";
  }
  text += "{\n" + program.body + "\n}\n";
  for (int i = 0; i < program.num_outputs; ++i) {
    const auto n = static_cast<std::size_t>(i);
    text += numbered("st.global.b64 [%to+", n * pitch) + numbered("], %out", n) + ";\n";
  }
  return text + "ret;\n}\n";
}

}  // namespace

std::vector<Values> run_ptx(const Program& program, Counts* counts) {
  const u32 num_threads = program.grid.count() * program.block.count();
  Values in;
  for (const Values& input : program.inputs) {
    Values padded = input;
    padded.resize(num_threads, input.empty() ? 0 : input.back());
    in.insert(in.end(), padded.begin(), padded.end());
  }
  const DeviceMemory<u64> inputs(std::move(in));
  const DeviceMemory<u64> outputs(
      Values(static_cast<std::size_t>(program.num_outputs) * num_threads));
  std::vector<u64> parameters = {inputs.address(), outputs.address()};
  parameters.insert(parameters.end(), program.parameters.begin(), program.parameters.end());
  const DeviceMemory<u64> parameter_memory(std::move(parameters));

  const std::unique_ptr<Module> module = parse(kernel_text(program, num_threads));
  const VariableMemory variables(*module);
  const std::unique_ptr<Kernel> kernel = decode(*module->functions.at("program"));
  const Counting counting(counts != nullptr);
  Counts own;
  run({.kernel = kernel.get(),
       .grid = program.grid,
       .block = program.block,
       .cluster = program.cluster,
       .dynamic_shared_bytes = program.dynamic_shared_bytes,
       .parameters = reinterpret_cast<const u8*>(parameter_memory.address())},
      &own);
  for (std::size_t i = 0; i < own.ops.size(); ++i) {
    const Op& op = kernel->ops[i];
    if (own.ops[i] != 0 && op.rule != nullptr) known_forms.insert(op.rule->syntax);
  }
  if (counts != nullptr) *counts = own;
  std::vector<Values> result;
  for (std::size_t i = 0; i < outputs.size(); i += num_threads) {
    result.emplace_back(&outputs[i], &outputs[i] + num_threads);
  }
  return result;
}

std::string forms_missed(std::initializer_list<const char*> roots, const char* section) {
  std::string missed;
  for (const std::string root : roots) {
    bool is_known = false;
    for (const Form& form : instruction_set()) {
      const std::string syntax = form.syntax;
      if (syntax.substr(0, syntax.find_first_of(".{(")) != root) continue;
      if (!std::string(form.section).starts_with(section)) continue;
      is_known = true;
      if (!known_forms.contains(syntax)) missed += "\n  " + syntax;
    }
    if (!is_known) missed += "\n  " + root + ": no form of the table";
  }
  return missed;
}

}  // namespace ptxsim::test
