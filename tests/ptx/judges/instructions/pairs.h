// Kernels in pairs: one around a function of csrc/cuda/arch, one around CUTLASS's function for the
// same instruction. compare_instructions.py pairs them by name and compares nvcc's output.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define OURS(name) extern "C" __global__ void ours_##name
#define CUTLASS(name) extern "C" __global__ void cutlass_##name
