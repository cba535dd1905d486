# The only file that names a compile or link flag. Every target of the project calls
# minference_configure_target(); the library also sets its instruction sets, CUDA sources and
# exports here.
# SPDX-License-Identifier: Apache-2.0
include_guard()

include(CheckCXXSymbolExists)

set(MINF_EXPORTS_FILE "${CMAKE_CURRENT_LIST_DIR}/exports.map")

# Warnings, visibility, include path and language level of one of our targets. Internals are C++20;
# the public headers stay C++17, and tests/cpp compiles them as such.
function(minference_configure_target target)
  target_include_directories(
    ${target}
    PUBLIC
      $<BUILD_INTERFACE:${minference_SOURCE_DIR}/include>
      $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    PRIVATE ${minference_SOURCE_DIR}/csrc
  )
  target_compile_features(${target} PRIVATE cxx_std_20)
  set_target_properties(
    ${target}
    PROPERTIES
      CXX_EXTENSIONS OFF
      CXX_VISIBILITY_PRESET hidden
      C_VISIBILITY_PRESET hidden
      VISIBILITY_INLINES_HIDDEN ON
      POSITION_INDEPENDENT_CODE ON
  )
  # -Wno-sign-conversion: clang includes it in -Wconversion, gcc does not.
  set(flags -Wall -Wextra -Wconversion -Wno-sign-conversion ${minference_sanitize_flags})
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:C,CXX>:${flags}>")
  target_link_options(${target} PRIVATE ${minference_sanitize_flags})
endfunction()

# Exports only minf_*: hidden visibility alone would leave instantiations of std templates.
function(minference_export_c_api_only target)
  if(NOT APPLE)
    target_link_options(${target} PRIVATE "LINKER:--version-script=${MINF_EXPORTS_FILE}")
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "${MINF_EXPORTS_FILE}")
  endif()
endfunction()

# Compiles `source` once per CPU instruction set, as target minference_isa_<name>, and links the objects to
# all who link `target`. "portable" is built everywhere; the others on x86-64 only.
function(minference_add_cpu_isas target source)
  set(names portable)
  check_cxx_symbol_exists(__x86_64__ "cstddef" MINF_TARGETS_X86_64) # As the sources ask.
  if(MINF_TARGETS_X86_64)
    list(PREPEND names avx512_bf16 avx512 avx2)
  endif()
  foreach(name IN LISTS names)
    minference_cpu_isa_flags(${name} flags)
    string(REPLACE "_bf16" "" vectors ${name}) # Of the same file: it asks what it is compiled for.
    add_library(minference_isa_${name} OBJECT ${source})
    minference_configure_target(minference_isa_${name})
    target_compile_definitions(
      minference_isa_${name}
      PRIVATE MINF_ISA=${name} "MINF_ISA_VECTORS=\"cpu/isa/simd_${vectors}.h\""
    )
    target_compile_options(minference_isa_${name} PRIVATE ${flags})
    target_link_libraries(${target} INTERFACE $<TARGET_OBJECTS:minference_isa_${name}>)
  endforeach()
endfunction()

# Never -march or -mtune: a build must not depend on the machine that made it.
function(minference_cpu_isa_flags name result)
  set(avx2 -mavx2 -mfma -mf16c)
  # GCC 12 warns about the deliberately undefined lanes inside its own AVX-512 intrinsics.
  set(quiet "$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq ${quiet})
  set(avx512_bf16 ${avx512} -mavx512bf16)
  set(portable "")
  if(NOT DEFINED ${name})
    message(FATAL_ERROR "unknown CPU instruction set '${name}'")
  endif()
  set(${result} ${${name}} PARENT_SCOPE)
endfunction()

# Language level, flags and runtime of a target with .cu sources. The runtime is linked statically
# and reaches the driver through dlopen, so the library loads on machines that have neither. With
# MINF_PTXSIM the runtime is the interpreter's, and the kernels are PTX.
function(minference_configure_cuda target)
  set_target_properties(${target} PROPERTIES CUDA_VISIBILITY_PRESET hidden)
  list(JOIN CMAKE_CUDA_ARCHITECTURES "," architectures)
  target_compile_definitions(${target} PRIVATE "MINF_CUDA_ARCHITECTURES=\"${architectures}\"")
  if(MINF_PTXSIM)
    set(flags -std=c++20 -lineinfo -Xcompiler=-Wall,-Wextra)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${flags}>")
    ptxsim_configure_cuda(${target})
    return()
  endif()
  set_target_properties(${target} PROPERTIES CUDA_RUNTIME_LIBRARY Static)
  minference_share_front_ends(${target})
  # Spills are only a warning, because a user's nvcc may differ from ours. In development they are
  # errors of tests/python/test_machine_code.py and `make static-check`; a separate flag would
  # recompile everything. The standard is a flag because CMake 3.25 does not know that nvcc supports
  # C++20.
  set(flags -std=c++20 -lineinfo -Xptxas=-warn-spills -Xcompiler=-Wall,-Wextra)
  # Compresses the line numbers of five architectures to a seventh of their size.
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    list(APPEND flags --compress-mode=size)
  endif()
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${flags}>")
  target_link_libraries(${target} PUBLIC CUDA::cudart_static)
endfunction()

# Adds the objects of a CUDA backend, target minference_<name>_objects, from
# minference_<name>_sources. MinferenceCuda.cmake may set the architectures of one backend and a
# reason why it is not built; otherwise those of all CUDA code hold. If there is a reason,
# cuda/not_built.cpp reports it; "cuda", which all backends share, is empty then.
function(minference_add_cuda_backend name)
  set(target minference_${name}_objects)
  set_property(GLOBAL APPEND PROPERTY minference_backend_objects ${target})
  set(architectures "${CMAKE_CUDA_ARCHITECTURES}")
  if(DEFINED minference_${name}_architectures)
    set(architectures "${minference_${name}_architectures}")
  endif()
  set(no_reason "${minference_no_cuda_reason}")
  if(DEFINED minference_no_${name}_reason)
    set(no_reason "${minference_no_${name}_reason}")
  endif()
  if(NOT no_reason STREQUAL "" AND name STREQUAL "cuda")
    add_library(${target} INTERFACE)
    return()
  endif()
  add_library(${target} OBJECT)
  minference_configure_target(${target})
  if(NOT no_reason STREQUAL "")
    string(REPLACE ";" "," no_reason "${no_reason}")
    target_sources(${target} PRIVATE cuda/not_built.cpp)
    target_compile_definitions(
      ${target} PRIVATE MINF_NOT_BUILT=${name} "MINF_NOT_BUILT_REASON=\"${no_reason}\""
    )
    return()
  endif()
  target_sources(${target} PRIVATE ${minference_${name}_sources})
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${architectures}")
  minference_configure_cuda(${target})
endfunction()

# Links the library's objects: itself, and tests of what it hides.
function(minference_link_objects target)
  get_property(backends GLOBAL PROPERTY minference_backend_objects)
  target_link_libraries(${target} PRIVATE minference_objects ${backends})
endfunction()

# Compiles the machine code of one generation from one PTX, that of its lowest requested
# architecture: 86-real and 89-real from compute_80. CMake would run nvcc's front end, half of the
# time, once for each. No source here depends on the architecture (__CUDA_ARCH__), so the front end
# would write the same. Must be called after CUDA_ARCHITECTURES is set.
function(minference_share_front_ends target)
  get_target_property(architectures ${target} CUDA_ARCHITECTURES)
  set(reals ${architectures})
  list(FILTER reals INCLUDE REGEX "^[0-9]+-real$")
  list(SORT reals COMPARE NATURAL)
  foreach(real IN LISTS reals)
    string(REGEX REPLACE "-real$" "" number ${real})
    string(REGEX REPLACE ".$" "" generation ${number})
    if(NOT DEFINED lowest_${generation})
      set(lowest_${generation} ${number})
      continue()
    endif()
    list(REMOVE_ITEM architectures ${real})
    set(code "--generate-code=arch=compute_${lowest_${generation}},code=[sm_${number}]")
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${code}>")
  endforeach()
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${architectures}")
endfunction()

# Passes the flags of this build to `source`, for minf_build_info(). The compiler names itself.
function(minference_define_build_flags source)
  string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
  list(JOIN minference_sanitize_flags " " sanitize_flags)
  string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${type}} ${sanitize_flags}" flags)
  string(REPLACE ";" "," cuda_build "${minference_cuda_build}")
  set_property(
    SOURCE ${source}
    APPEND
    PROPERTY
      COMPILE_DEFINITIONS
        "MINF_BUILD_TYPE=\"${CMAKE_BUILD_TYPE}\""
        "MINF_BUILD_FLAGS=\"${flags}\""
        "MINF_CUDA_BUILD=\"${cuda_build}\""
  )
endfunction()

# no-recover: undefined behaviour ends the test that runs into it. Frame pointers make reports
# readable. Assertions catch an index past a span or vector even where the memory happens to be
# ours.
set(minference_sanitize_flags "")
if(MINF_SANITIZE)
  set(
    minference_sanitize_flags
    -fsanitize=${MINF_SANITIZE}
    -fno-sanitize-recover=all
    -fno-omit-frame-pointer
    -D_GLIBCXX_ASSERTIONS
    -g
  )
endif()
