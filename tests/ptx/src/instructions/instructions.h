// Functions that decode each family of instructions; the table (instruction_set.cpp) refers to
// them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace ptxsim {

class Decoder;

// ---- Integer arithmetic: integer.cpp, bits.cpp --------------------------------------------------
void decode_add(Decoder& decoder);
void decode_sub(Decoder& decoder);
void decode_add_sat(Decoder& decoder);
void decode_mul(Decoder& decoder);
void decode_mul_wide(Decoder& decoder);
void decode_mul24(Decoder& decoder);
void decode_mad(Decoder& decoder);
void decode_mad_sat(Decoder& decoder);
void decode_mad_wide(Decoder& decoder);
void decode_sad(Decoder& decoder);
void decode_dp4a(Decoder& decoder);
void decode_div(Decoder& decoder);
void decode_rem(Decoder& decoder);
void decode_min(Decoder& decoder);
void decode_max(Decoder& decoder);
void decode_abs(Decoder& decoder);
void decode_neg(Decoder& decoder);
void decode_add_carry(Decoder& decoder);
void decode_mad_carry(Decoder& decoder);
void decode_and(Decoder& decoder);
void decode_or(Decoder& decoder);
void decode_xor(Decoder& decoder);
void decode_not(Decoder& decoder);
void decode_cnot(Decoder& decoder);
void decode_lop3(Decoder& decoder);
void decode_shl(Decoder& decoder);
void decode_shr(Decoder& decoder);
void decode_shf(Decoder& decoder);
void decode_prmt(Decoder& decoder);
void decode_bfe(Decoder& decoder);
void decode_bfi(Decoder& decoder);
void decode_bfind(Decoder& decoder);
void decode_bmsk(Decoder& decoder);
void decode_szext(Decoder& decoder);
void decode_brev(Decoder& decoder);
void decode_clz(Decoder& decoder);
void decode_popc(Decoder& decoder);

// ---- Floating point: floating.cpp, half.cpp -----------------------------------------------------
void decode_add_f32(Decoder& decoder);
void decode_mul_f32(Decoder& decoder);
void decode_fma_f32(Decoder& decoder);
void decode_arithmetic_f64(Decoder& decoder);
void decode_div_f32(Decoder& decoder);
void decode_rcp_f32(Decoder& decoder);
void decode_sqrt_f32(Decoder& decoder);
void decode_function_f32(Decoder& decoder);
void decode_abs_float(Decoder& decoder);
void decode_neg_float(Decoder& decoder);
void decode_min_float(Decoder& decoder);
void decode_max_float(Decoder& decoder);
void decode_copysign(Decoder& decoder);
void decode_testp(Decoder& decoder);
void decode_add_half(Decoder& decoder);
void decode_mul_half(Decoder& decoder);
void decode_fma_half(Decoder& decoder);
void decode_ex2_half(Decoder& decoder);
void decode_tanh_half(Decoder& decoder);
void decode_min_half(Decoder& decoder);
void decode_abs_half(Decoder& decoder);
void decode_neg_half(Decoder& decoder);

// ---- Comparison, selection, moves, conversion: compare.cpp, move.cpp, convert.cpp ---------------
void decode_setp(Decoder& decoder);
void decode_set(Decoder& decoder);
void decode_selp(Decoder& decoder);
void decode_slct(Decoder& decoder);
void decode_mov(Decoder& decoder);
void decode_mov_pred(Decoder& decoder);
void decode_cvta(Decoder& decoder);
void decode_isspacep(Decoder& decoder);
void decode_cvt_integers(Decoder& decoder);
void decode_cvt_to_integer(Decoder& decoder);
void decode_cvt_from_integer(Decoder& decoder);
void decode_cvt_floats(Decoder& decoder);
void decode_cvt_pair(Decoder& decoder);
void decode_cvt_tf32(Decoder& decoder);

// ---- Control flow: control.cpp, call.cpp --------------------------------------------------------
void decode_bra(Decoder& decoder);
void decode_brx(Decoder& decoder);
void decode_call(Decoder& decoder);
void decode_exit(Decoder& decoder);
void decode_trap(Decoder& decoder);
void decode_nanosleep(Decoder& decoder);
void decode_griddepcontrol(Decoder& decoder);
void decode_pmevent(Decoder& decoder);

// ---- Warps and barriers: warp.cpp, barrier.cpp --------------------------------------------------
void decode_shfl(Decoder& decoder);
void decode_vote(Decoder& decoder);
void decode_ballot(Decoder& decoder);
void decode_match_any(Decoder& decoder);
void decode_match_all(Decoder& decoder);
void decode_redux(Decoder& decoder);
void decode_elect(Decoder& decoder);
void decode_activemask(Decoder& decoder);
void decode_warp_barrier(Decoder& decoder);
void decode_barrier(Decoder& decoder);
void decode_cluster_barrier(Decoder& decoder);
void decode_setmaxnreg(Decoder& decoder);

// ---- Loads, stores, atomics: load_store.cpp, atomic.cpp -----------------------------------------
void decode_ld(Decoder& decoder);
void decode_st(Decoder& decoder);
void decode_prefetch(Decoder& decoder);
void decode_prefetch_tensormap(Decoder& decoder);
void decode_atom(Decoder& decoder);
void decode_red(Decoder& decoder);

// ---- Asynchronous copies, mbarriers, fences: thread_copy.cpp, bulk_copy.cpp, tensor_copy.cpp,
// ---- mbarrier.cpp, fence.cpp --------------------------------------------------------------------
void decode_cp_async(Decoder& decoder);
void decode_cp_async_commit_group(Decoder& decoder);
void decode_cp_async_wait(Decoder& decoder);
void decode_cp_async_mbarrier_arrive(Decoder& decoder);
void decode_bulk_load(Decoder& decoder);
void decode_bulk_store(Decoder& decoder);
void decode_bulk_prefetch(Decoder& decoder);
void decode_tensor_load(Decoder& decoder);
void decode_tensor_store(Decoder& decoder);
void decode_tensor_prefetch(Decoder& decoder);
void decode_bulk_commit_group(Decoder& decoder);
void decode_bulk_wait_group(Decoder& decoder);
void decode_createpolicy(Decoder& decoder);
void decode_mbarrier_init(Decoder& decoder);
void decode_mbarrier_inval(Decoder& decoder);
void decode_mbarrier_expect_tx(Decoder& decoder);
void decode_mbarrier_complete_tx(Decoder& decoder);
void decode_mbarrier_arrive(Decoder& decoder);
void decode_mbarrier_arrive_expect_tx(Decoder& decoder);
void decode_mbarrier_arrive_no_complete(Decoder& decoder);
void decode_mbarrier_wait(Decoder& decoder);
void decode_mbarrier_pending_count(Decoder& decoder);
void decode_fence(Decoder& decoder);
void decode_fence_mbarrier_init(Decoder& decoder);
void decode_fence_proxy_async(Decoder& decoder);
void decode_fence_tensormap(Decoder& decoder);
void decode_mapa(Decoder& decoder);
void decode_getctarank(Decoder& decoder);

// ---- Matrices: matrix.cpp, mma.cpp, wgmma.cpp ---------------------------------------------------

void decode_ldmatrix(Decoder& decoder);
void decode_stmatrix(Decoder& decoder);
void decode_mma(Decoder& decoder);
void decode_wgmma(Decoder& decoder);
void decode_wgmma_fence(Decoder& decoder);
void decode_wgmma_commit_group(Decoder& decoder);
void decode_wgmma_wait_group(Decoder& decoder);

}  // namespace ptxsim
