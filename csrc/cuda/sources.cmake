# Sources of the CUDA backends, for nvcc and, in tests/simt/kernels, for emulated threads. Paths are
# relative to csrc/.
# SPDX-License-Identifier: Apache-2.0
set(
  minference_cuda_sources
  cuda/check.cpp
  cuda/machine.cpp
  cuda/resources.cpp
  cuda/device/head_keys.cu
  cuda/device/select_rows.cu
  cuda/device/work_table.cu
  cuda/sm80/attention.cu
  cuda/sm80/backend.cpp
  cuda/sm80/combine_splits.cu
  cuda/sm80/count_key_tiles.cu
  cuda/sm80/estimate_block_sparse.cu
  cuda/sm80/estimate_vertical_slash.cu
  cuda/sm80/merge_attention.cu
  cuda/sm80/plan.cu
  cuda/sm80/instances/attention_d64.cu
  cuda/sm80/instances/attention_d96.cu
  cuda/sm80/instances/attention_d128.cu
  cuda/sm80/instances/attention_d192.cu
  cuda/sm80/instances/attention_d192_128.cu
  cuda/sm80/instances/attention_d256.cu
  cuda/sm80/instances/estimate_block_sparse_d64.cu
  cuda/sm80/instances/estimate_block_sparse_d96.cu
  cuda/sm80/instances/estimate_block_sparse_d128.cu
  cuda/sm80/instances/estimate_block_sparse_d192.cu
  cuda/sm80/instances/estimate_block_sparse_d256.cu
  cuda/sm80/instances/estimate_vertical_slash_bf16.cu
  cuda/sm80/instances/estimate_vertical_slash_fp16.cu
)
# For Hopper alone: they need sm_90a.
set(
  minference_sm90_sources
  cuda/sm90/attention.cu
  cuda/sm90/backend.cpp
  cuda/sm90/estimate_block_sparse.cu
  cuda/sm90/instances/estimate_block_sparse_d64.cu
  cuda/sm90/instances/estimate_block_sparse_d96.cu
  cuda/sm90/instances/estimate_block_sparse_d128.cu
  cuda/sm90/instances/estimate_block_sparse_d192.cu
  cuda/sm90/instances/estimate_block_sparse_d256.cu
)
