# Sources of the CUDA backends, for nvcc and, in tests/simt/kernels, for emulated threads: absolute paths.
# minference_cuda_sources are those of all backends, minference_<backend>_sources those of one.
# SPDX-License-Identifier: Apache-2.0
set(minference_cuda_backends sm80 sm90)
set(
  minference_cuda_sources
  check.cpp
  machine.cpp
  common/combine_splits.cu
  common/estimate_block_sparse.cu
  common/estimate_vertical_slash.cu
  common/gather_columns.cu
  common/head_keys.cu
  common/merge_attention.cu
  common/plan.cu
  common/select_rows.cu
  common/table.cu
  common/work_table.cu
)
set(
  minference_sm80_sources
  sm80/attention.cu
  sm80/backend.cpp
  sm80/estimate_vertical_slash.cu
)
# For Hopper alone: they need sm_90a.
set(
  minference_sm90_sources
  sm90/attention.cu
  sm90/backend.cpp
  sm90/estimate_vertical_slash.cu
  tma/attention_maps.cpp
  tma/tensor_maps.cpp
)
foreach(name IN ITEMS cuda ${minference_cuda_backends})
  list(TRANSFORM minference_${name}_sources PREPEND "${CMAKE_CURRENT_LIST_DIR}/")
endforeach()

# Kernels: a translation unit for each backend, stage and padded head_dim, so that they compile side by
# side. common/head_dims.h has the dims: kHeadDims[] = {64, ...}, kAttentionDims[] = {{192, 128}, ...}.
file(READ "${CMAKE_CURRENT_LIST_DIR}/common/head_dims.h" minference_text)
set_property(
  DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/common/head_dims.h"
)
string(REGEX MATCH "kHeadDims\\[\\] = {([^;]*)}" minference_match "${minference_text}")
string(REGEX MATCHALL "[0-9]+" minference_head_dims "${CMAKE_MATCH_1}")
string(REGEX MATCH "kAttentionDims\\[\\] = {([^;]*)}" minference_match "${minference_text}")
string(REGEX MATCHALL "[0-9]+, [0-9]+" minference_attention_dims "${CMAKE_MATCH_1}")
if(minference_head_dims STREQUAL "" OR minference_attention_dims STREQUAL "")
  message(FATAL_ERROR "common/head_dims.h: no dims found")
endif()

# Adds <stage>'s kernels for the dims to the sources of each backend that has such kernels.
function(minference_add_instances stage dim dim_v)
  set(dims ${dim})
  if(NOT dim STREQUAL dim_v)
    set(dims ${dim}_${dim_v})
  endif()
  foreach(backend IN LISTS minference_cuda_backends)
    file(GLOB kernels "${minference_SOURCE_DIR}/csrc/cuda/${backend}/${stage}_kernel*.h")
    if(kernels STREQUAL "")
      continue()
    endif()
    set(instance "${minference_BINARY_DIR}/csrc/cuda/${backend}/${stage}_d${dims}.cu")
    configure_file("${minference_SOURCE_DIR}/csrc/cuda/instances/${stage}.cu.in" "${instance}" @ONLY)
    list(APPEND minference_${backend}_sources "${instance}")
    set(minference_${backend}_sources "${minference_${backend}_sources}" PARENT_SCOPE)
  endforeach()
endfunction()
foreach(pair IN LISTS minference_attention_dims)
  string(REGEX MATCHALL "[0-9]+" pair "${pair}")
  list(GET pair 0 dim)
  list(GET pair 1 dim_v)
  minference_add_instances(attention ${dim} ${dim_v})
endforeach()
foreach(dim IN LISTS minference_head_dims)
  minference_add_instances(estimate_block_sparse ${dim} ${dim})
  minference_add_instances(estimate_vertical_slash ${dim} ${dim})
endforeach()
