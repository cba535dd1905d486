# Decides whether the CUDA backends are built. After this file minference_no_cuda_reason is empty if
# they are, and CUDA is an enabled language; otherwise it says why not, for the build's log and for
# minf_backend().
# SPDX-License-Identifier: Apache-2.0
include_guard()

include(CheckLanguage)

set(MINF_CUDA AUTO CACHE STRING "CUDA backends: AUTO (if there is an nvcc that works), ON or OFF")
set_property(CACHE MINF_CUDA PROPERTY STRINGS AUTO ON OFF)

set(minference_min_nvcc 12.4) # C++20 in device code; older ones were not tried.
set(minference_no_cuda_reason "")

# An nvcc that is not on PATH is often where NVIDIA's installer puts it.
if(MINF_CUDA AND NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(MINF_NVCC nvcc PATHS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
  mark_as_advanced(MINF_NVCC)
  if(MINF_NVCC)
    set(ENV{CUDACXX} "${MINF_NVCC}")
  endif()
endif()

# A launcher that speeds up the C++ compiler, such as ccache, usually handles nvcc too.
if(NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER AND DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${CMAKE_CXX_COMPILER_LAUNCHER}")
endif()

# Set before the language is enabled, which would set its own default. Machine code for every GPU
# generation so far, and PTX for those to come. For the interpreter: only PTX of the oldest.
if(MINF_PTXSIM)
  set(CMAKE_CUDA_ARCHITECTURES "80-virtual" CACHE STRING "GPU architectures of the CUDA backends")
elseif(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(
    CMAKE_CUDA_ARCHITECTURES "80-real;86-real;89-real;90-real;90-virtual"
    CACHE STRING "GPU architectures of the CUDA backends"
  )
endif()

if(NOT MINF_CUDA)
  set(minference_no_cuda_reason "MINF_CUDA=OFF")
elseif(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  set(minference_no_cuda_reason "no nvcc")
else()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS minference_min_nvcc)
      set(
        minference_no_cuda_reason
        "nvcc ${CMAKE_CUDA_COMPILER_VERSION}, need ${minference_min_nvcc} or newer"
      )
    endif()
    find_package(CUDAToolkit QUIET)
    if(NOT TARGET CUDA::cudart_static)
      set(minference_no_cuda_reason "nvcc without the static CUDA runtime")
    endif()
  else()
    set(minference_no_cuda_reason "nvcc does not work: $ENV{CUDACXX}")
    unset(CMAKE_CUDA_COMPILER CACHE) # So that the next configuration looks again.
  endif()
endif()

# The Hopper kernels, whose code runs on sm_90 only.
set(minference_sm90_architectures "90a-real")
if(MINF_PTXSIM)
  set(minference_sm90_architectures "90a-virtual")
endif()

# They are built if any code for sm_90 is asked for. Empty if they are.
set(minference_no_sm90_reason "${minference_no_cuda_reason}")
if(minference_no_sm90_reason STREQUAL "")
  set(architectures ${CMAKE_CUDA_ARCHITECTURES})
  if("native" IN_LIST architectures)
    list(APPEND architectures ${CMAKE_CUDA_ARCHITECTURES_NATIVE})
  endif()
  if(NOT MINF_PTXSIM AND NOT architectures MATCHES "(^|;)(90|all)")
    set(minference_no_sm90_reason "CUDA architectures ${CMAKE_CUDA_ARCHITECTURES}, none of them 90")
  endif()
endif()

if(minference_no_cuda_reason STREQUAL "")
  set(
    minference_cuda_build
    "nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}"
  )
  message(STATUS "CUDA backends: ${minference_cuda_build}")
else()
  set(minference_cuda_build "not built (${minference_no_cuda_reason})")
  set(minference_cuda_message "CUDA backends: ${minference_cuda_build}")
  if(MINF_CUDA STREQUAL "AUTO" AND NOT minference_no_cuda_reason STREQUAL "no nvcc")
    message(WARNING "${minference_cuda_message}. What it said: CMakeFiles/CMakeError.log or, with "
                    "newer CMake, CMakeConfigureLog.yaml")
  elseif(NOT MINF_CUDA OR MINF_CUDA STREQUAL "AUTO")
    message(STATUS "${minference_cuda_message}")
  else()
    message(FATAL_ERROR "${minference_cuda_message}, and MINF_CUDA=${MINF_CUDA} asks for them")
  endif()
endif()
