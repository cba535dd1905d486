# What the project is built against: threads; with MINF_PYTHON, Python and pybind11; with MINF_TORCH,
# the headers and libraries of an installed torch.
# SPDX-License-Identifier: Apache-2.0
include_guard()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

if(MINF_PYTHON)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
  find_package(pybind11 2.13 CONFIG REQUIRED)
elseif(MINF_TORCH AND NOT MINF_TORCH_DIR)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
endif()

if(NOT MINF_TORCH)
  return()
endif()

# Not find_package(Torch): it adds torch's own flags, its search for CUDA and every torch library,
# but the stable ABI needs only an include path and two library names.
set(torch_dir "${MINF_TORCH_DIR}")
if(NOT torch_dir)
  execute_process(
    COMMAND
      "${Python_EXECUTABLE}" -c
      "import importlib.util as u; print(*u.find_spec('torch').submodule_search_locations, end='')"
    OUTPUT_VARIABLE torch_dir
    ERROR_QUIET
  )
endif()
if(NOT EXISTS "${torch_dir}/version.py")
  message(FATAL_ERROR "MINF_TORCH: expected a torch package in MINF_TORCH_DIR, or one that "
                      "${Python_EXECUTABLE} can import; got '${torch_dir}'")
endif()
file(STRINGS "${torch_dir}/version.py" torch_version REGEX "^__version__")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" torch_version "${torch_version}")
if(torch_version VERSION_LESS 2.11)
  message(FATAL_ERROR "MINF_TORCH: expected torch >= 2.11, got ${torch_version} in ${torch_dir}")
endif()
message(STATUS "torch ${torch_version}: ${torch_dir}")

# One binary serves every torch from 2.11 on. Both libraries are linked by name, and kept even if
# nothing refers to the first: through libtorch a weak reference to a CUDA function resolves where
# torch has it.
add_library(minference_torch_sdk INTERFACE)
target_include_directories(minference_torch_sdk SYSTEM INTERFACE "${torch_dir}/include")
target_compile_definitions(minference_torch_sdk INTERFACE TORCH_TARGET_VERSION=0x020B000000000000)
target_link_directories(minference_torch_sdk INTERFACE "${torch_dir}/lib")
target_link_libraries(
  minference_torch_sdk
  INTERFACE -Wl,--push-state,--no-as-needed torch torch_cpu -Wl,--pop-state
)
