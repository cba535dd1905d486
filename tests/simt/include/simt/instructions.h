// What CUDA reaches through PTX: asynchronous copies, matrix instructions, named barriers, 16-bit
// floats. Names and layouts are the PTX ISA's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt/inline.h"

namespace simt {

/// The launch's dynamic shared memory, aligned to 1024 bytes. Violation if the launch has fewer
/// than `bytes`, or `alignment` is larger.
void* dynamic_shared(std::size_t bytes, std::size_t alignment);

/// Address in the shared window, at least 1024. Violation if `pointer` does not point to shared
/// memory.
uint32_t shared_address(const void* pointer);

/// The reverse of shared_address().
void* shared_pointer(uint32_t address);

/// cp.async: copies `source_bytes` to shared memory and fills up to `bytes` (4, 8, 16) with zeros.
/// Both addresses are multiples of `bytes`. options().async says when it lands; nobody may read or
/// write the target until the calling thread has waited.
void cp_async(void* shared, const void* global, int bytes, int source_bytes);
void cp_async_commit();
void cp_async_wait(int pending);  // cp.async.wait_group: at most `pending` groups left.
void cp_async_wait_all();

// What the inline functions below call. They pass copies, so that the addresses of a kernel's own
// arrays do not escape: the compiler may then hold the arrays in registers, and instruments no
// access to them.
void warp_ldmatrix(uint32_t* fragment, int count, bool transposed, const void* row);
void warp_stmatrix(void* row, const uint32_t* fragment, int count, bool transposed);
void warp_mma_m16n8k16(float* c, const uint32_t* a, const uint32_t* b, bool bf16);

/// ldmatrix.x1, .x2, .x4 (`count`); the PTX ISA says which lane holds what. For the checker, lane l
/// reads row l % 8 of matrix l / 8, whichever lane receives it.
SIMT_INLINE void ldmatrix(uint32_t* fragment, int count, bool transposed, const void* row) {
  uint32_t words[4];
  warp_ldmatrix(words, count, transposed, row);
  for (int i = 0; i < count; ++i) fragment[i] = words[i];
}

/// The reverse. For the checker, lane l writes row l % 8 of matrix l / 8.
SIMT_INLINE void stmatrix(void* row, const uint32_t* fragment, int count, bool transposed) {
  uint32_t words[4] = {};
  for (int i = 0; i < count; ++i) words[i] = fragment[i];
  warp_stmatrix(row, words, count, transposed);
}

/// c += a b on the fragments of mma.m16n8k16.row.col, bf16 or fp16 in, float32 out. Products are
/// exact; sums are in float32, ascending k (hardware: other orders, truncation).
SIMT_INLINE void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              bool bf16) {
  float sum[4] = {c[0], c[1], c[2], c[3]};
  const uint32_t left[4] = {a[0], a[1], a[2], a[3]};
  const uint32_t right[2] = {b[0], b[1]};
  warp_mma_m16n8k16(sum, left, right, bf16);
  for (int i = 0; i < 4; ++i) c[i] = sum[i];
}

/// bar.sync, bar.arrive on barrier `id` (0 to 15) for `threads` threads, whole warps.
void named_barrier_sync(int id, int threads);
void named_barrier_arrive(int id, int threads);

/// bar.red.or: named_barrier_sync(); returns whether `predicate` is true in any of the threads.
bool named_barrier_or(int id, int threads, bool predicate);

/// cvt.rn.bf16x2.f32 and cvt.rn.f16x2.f32: `low` in the low half; a NaN becomes 0x7fff.
uint32_t pack_bf16x2(float low, float high);
uint32_t pack_f16x2(float low, float high);
float float_from_bits(uint32_t bits);
float float_from_f16(uint16_t bits);

/// ex2.approx.ftz.f32, as accurate as the host's exp2; inputs and results below 2^-126 count as 0.
float exp2_flushed(float x);

}  // namespace simt
