// minference._C: version, build, and what can be used on this machine, with the reason where not.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <tuple>
#include <vector>

#include "minference/minference.hpp"

namespace py = pybind11;

namespace {

/// A tensor as Python describes it: (address, minf_dtype, whether it is on a GPU, device index,
/// shape, strides).
using Description = std::tuple<std::uintptr_t, std::int32_t, bool, std::int32_t,
                               std::vector<std::int64_t>, std::vector<std::int64_t>>;

minference::ConstTensorView view_of(const Description& tensor) {
  const auto& [address, dtype, cuda, index, shape, strides] = tensor;
  using minference::DeviceType;
  return {std::bit_cast<const void*>(address),
          static_cast<minference::DType>(dtype),
          {shape.data(), shape.size()},
          {strides.data(), strides.size()},
          {cuda ? DeviceType::kCuda : DeviceType::kCpu, index}};
}

std::vector<minference::Pattern> patterns_of(const std::vector<std::vector<double>>& rows) {
  std::vector<minference::Pattern> patterns(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    minference::detail::check(minf_pattern_from_numbers(
        rows[i].data(), static_cast<std::int64_t>(rows[i].size()), &patterns[i]));
  }
  return patterns;
}

py::list to_dicts(const std::vector<minference::Capability>& capabilities) {
  using namespace py::literals;
  py::list dicts;
  for (const minference::Capability& capability : capabilities) {
    dicts.append(py::dict("name"_a = capability.name, "available"_a = capability.available,
                          "selected"_a = capability.selected, "reason"_a = capability.reason));
  }
  return dicts;
}

// The Python exceptions that the torch ops raise for the same codes.
void translate_error(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const minference::Error& error) {
    switch (error.code()) {
      case minference::ErrorCode::kInvalidArgument:
      case minference::ErrorCode::kWrongDevice:
      case minference::ErrorCode::kWrongStream:
        return py::set_error(PyExc_ValueError, error.what());
      case minference::ErrorCode::kUnsupported:
      case minference::ErrorCode::kNoDevice:
      case minference::ErrorCode::kDriverTooOld:
      case minference::ErrorCode::kArchNotBuilt:
        return py::set_error(PyExc_NotImplementedError, error.what());
      case minference::ErrorCode::kOutOfMemory:
        return py::set_error(PyExc_MemoryError, error.what());
      default:
        return py::set_error(PyExc_RuntimeError, error.what());
    }
  }
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  py::register_local_exception_translator(&translate_error);

  module.attr("BLOCK") = MINF_BLOCK;
  module.attr("DEFAULT_LAST_Q") = MINF_DEFAULT_LAST_Q;
  module.attr("DEFAULT_SINK") = MINF_DEFAULT_SINK;
  module.attr("DEFAULT_LOCAL") = MINF_DEFAULT_LOCAL;
  using namespace py::literals;
  module.attr("DTYPES") =
      py::dict("float32"_a = int{MINF_FLOAT32}, "bfloat16"_a = int{MINF_BFLOAT16},
               "float16"_a = int{MINF_FLOAT16});
  py::dict kinds;
  for (int kind = 0; const char* name = minf_pattern_name(kind); ++kind) kinds[name] = kind;
  module.attr("PATTERN_KINDS") = kinds;

  module.def("version", &minference::version, "Version of libminference.");
  module.def("build_info", &minference::build_info, "Compiler, flags and build type, one line.");
  module.def(
      "backends", [] { return to_dicts(minference::backends()); },
      "Backends of this build: name, available, selected, and why not available.");
  module.def(
      "cpu_isas", [] { return to_dicts(minference::cpu_isas()); },
      "CPU instruction sets, best first: name, available, selected, and why not available.");
  module.def(
      "set_backend", &minference::set_backend, py::arg("name").none(true),
      "Forces the backend of all later calls on its kind of device; None restores the best.");
  module.def(
      "min_sparse_seqlen",
      [](bool cuda, std::int32_t index) {
        using minference::DeviceType;
        return minference::min_sparse_seqlen({cuda ? DeviceType::kCuda : DeviceType::kCpu, index});
      },
      py::kw_only(), py::arg("cuda"), py::arg("index"),
      "The smallest seqlen_k at which vertical-slash beats dense attention on a device.");
  module.def(
      "attention_implementations",
      [](const Description& q, const Description& k, const Description& v,
         const std::vector<std::vector<double>>& patterns) {
        return to_dicts(minference::attention_implementations(view_of(q), view_of(k), view_of(v),
                                                              patterns_of(patterns)));
      },
      py::arg("q"), py::arg("k"), py::arg("v"), py::arg("patterns"),
      "How the attention of a call would be computed: name, available, selected, and why not.");
  module.def(
      "prefill_workspace_bytes",
      [](const Description& q, const Description& k,
         const std::vector<std::vector<double>>& patterns) {
        return minference::prefill_attention_workspace_bytes(view_of(q), view_of(k),
                                                             patterns_of(patterns));
      },
      py::arg("q"), py::arg("k"), py::arg("patterns"), "Bytes of work memory of a call.");
  module.def("set_cpu_isa", &minference::set_cpu_isa, py::arg("name").none(true),
             "Forces the instruction set of all later calls; None restores the best available.");
}
