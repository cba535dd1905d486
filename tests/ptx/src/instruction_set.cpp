// The one table of instructions.
// SPDX-License-Identifier: Apache-2.0
#include "instruction_set.h"

#include "instructions/instructions.h"

namespace ptxsim {
namespace {

#define WGMMA_SHAPES                                                                        \
  "(.m64n8k16|.m64n16k16|.m64n24k16|.m64n32k16|.m64n40k16|.m64n48k16|.m64n56k16|.m64n64k16" \
  "|.m64n72k16|.m64n80k16|.m64n88k16|.m64n96k16|.m64n104k16|.m64n112k16|.m64n120k16"        \
  "|.m64n128k16|.m64n136k16|.m64n144k16|.m64n152k16|.m64n160k16|.m64n168k16|.m64n176k16"    \
  "|.m64n184k16|.m64n192k16|.m64n200k16|.m64n208k16|.m64n216k16|.m64n224k16|.m64n232k16"    \
  "|.m64n240k16|.m64n248k16|.m64n256k16)"

constexpr Form kForms[] = {
    // ---- Integer arithmetic (9.7.1)
    // ---------------------------------------------------------------------
    {"add(.u16|.u32|.u64|.s16|.s32|.s64|.u16x2|.s16x2)", "9.7.1.1", decode_add},
    {"add.sat.s32", "9.7.1.1", decode_add_sat},
    {"sub(.u16|.u32|.u64|.s16|.s32|.s64)", "9.7.1.2", decode_sub},
    {"sub.sat.s32", "9.7.1.2", decode_add_sat},
    {"mul(.lo|.hi)(.u16|.u32|.u64|.s16|.s32|.s64)", "9.7.1.3", decode_mul},
    {"mul.wide(.u16|.u32|.s16|.s32)", "9.7.1.3", decode_mul_wide},
    {"mad(.lo|.hi)(.u16|.u32|.u64|.s16|.s32|.s64)", "9.7.1.4", decode_mad},
    {"mad.hi.sat.s32", "9.7.1.4", decode_mad_sat},
    {"mad.wide(.u16|.u32|.s16|.s32)", "9.7.1.4", decode_mad_wide},
    {"mul24(.lo|.hi)(.u32|.s32)", "9.7.1.5", decode_mul24},
    {"sad(.u16|.u32|.u64|.s16|.s32|.s64)", "9.7.1.7", decode_sad},
    {"div(.u16|.u32|.u64|.s16|.s32|.s64)", "9.7.1.8", decode_div},
    {"rem(.u16|.u32|.u64|.s16|.s32|.s64)", "9.7.1.9", decode_rem},
    {"abs(.s16|.s32|.s64)", "9.7.1.10", decode_abs},
    {"neg(.s16|.s32|.s64)", "9.7.1.11", decode_neg},
    {"min(.u16|.u32|.u64|.s16|.s32|.s64|.u16x2|.s16x2)", "9.7.1.12", decode_min},
    {"max(.u16|.u32|.u64|.s16|.s32|.s64|.u16x2|.s16x2)", "9.7.1.13", decode_max},
    {"popc(.b32|.b64)", "9.7.1.14", decode_popc},
    {"clz(.b32|.b64)", "9.7.1.15", decode_clz},
    {"bfind{.shiftamt}(.u32|.u64|.s32|.s64)", "9.7.1.16", decode_bfind},
    {"brev(.b32|.b64)", "9.7.1.18", decode_brev},
    {"bfe(.u32|.u64|.s32|.s64)", "9.7.1.19", decode_bfe},
    {"bfi(.b32|.b64)", "9.7.1.20", decode_bfi},
    {"szext(.clamp|.wrap)(.u32|.s32)", "9.7.1.21", decode_szext},
    {"bmsk(.clamp|.wrap).b32", "9.7.1.22", decode_bmsk},
    {"dp4a(.u32|.s32)(.u32|.s32)", "9.7.1.23", decode_dp4a},
    {"add.cc(.u32|.s32|.u64|.s64)", "9.7.2.1", decode_add_carry},
    {"sub.cc(.u32|.s32|.u64|.s64)", "9.7.2.3", decode_add_carry},
    {"addc{.cc}(.u32|.s32|.u64|.s64)", "9.7.2.2", decode_add_carry},
    {"subc{.cc}(.u32|.s32|.u64|.s64)", "9.7.2.4", decode_add_carry},
    {"mad(.lo|.hi).cc(.u32|.s32|.u64|.s64)", "9.7.2.5", decode_mad_carry},
    {"madc(.lo|.hi){.cc}(.u32|.s32|.u64|.s64)", "9.7.2.6", decode_mad_carry},

    // ---- Floating point (9.7.3, 9.7.4, 9.7.5)
    // -----------------------------------------------------------
    {"testp(.finite|.infinite|.number|.notanumber|.normal|.subnormal)(.f32|.f64)", "9.7.3.1",
     decode_testp},
    {"copysign(.f32|.f64)", "9.7.3.2", decode_copysign},
    {"add{.rn|.rz|.rm|.rp}{.ftz}{.sat}.f32", "9.7.3.3", decode_add_f32},
    {"add{.rn}.f64", "9.7.3.3", decode_arithmetic_f64},
    {"sub{.rn|.rz|.rm|.rp}{.ftz}{.sat}.f32", "9.7.3.4", decode_add_f32},
    {"sub{.rn}.f64", "9.7.3.4", decode_arithmetic_f64},
    {"mul{.rn|.rz|.rm|.rp}{.ftz}{.sat}.f32", "9.7.3.5", decode_mul_f32},
    {"mul{.rn}.f64", "9.7.3.5", decode_arithmetic_f64},
    {"fma(.rn|.rz|.rm|.rp){.ftz}{.sat}.f32", "9.7.3.6", decode_fma_f32},
    {"fma.rn.f64", "9.7.3.6", decode_arithmetic_f64},
    {"mad(.rn|.rz|.rm|.rp){.ftz}{.sat}.f32", "9.7.3.7", decode_fma_f32},
    {"mad.rn.f64", "9.7.3.7", decode_arithmetic_f64},
    {"div(.approx|.full){.ftz}.f32", "9.7.3.8", decode_div_f32},
    {"div(.rn|.rz|.rm|.rp){.ftz}.f32", "9.7.3.8", decode_div_f32},
    {"div.rn.f64", "9.7.3.8", decode_arithmetic_f64},
    {"abs{.ftz}.f32", "9.7.3.9", decode_abs_float},
    {"abs.f64", "9.7.3.9", decode_abs_float},
    {"neg{.ftz}.f32", "9.7.3.10", decode_neg_float},
    {"neg.f64", "9.7.3.10", decode_neg_float},
    {"min{.ftz}{.NaN}{.xorsign.abs}.f32", "9.7.3.11", decode_min_float},
    {"min.f64", "9.7.3.11", decode_min_float},
    {"max{.ftz}{.NaN}{.xorsign.abs}.f32", "9.7.3.12", decode_max_float},
    {"max.f64", "9.7.3.12", decode_max_float},
    {"rcp(.approx|.rn|.rz|.rm|.rp){.ftz}.f32", "9.7.3.13", decode_rcp_f32},
    {"rcp.rn.f64", "9.7.3.13", decode_arithmetic_f64},
    {"sqrt(.approx|.rn|.rz|.rm|.rp){.ftz}.f32", "9.7.3.15", decode_sqrt_f32},
    {"sqrt.rn.f64", "9.7.3.15", decode_arithmetic_f64},
    {"rsqrt.approx{.ftz}.f32", "9.7.3.16", decode_function_f32},
    {"rsqrt.approx.f64", "9.7.3.16", decode_arithmetic_f64},
    {"sin.approx{.ftz}.f32", "9.7.3.18", decode_function_f32},
    {"cos.approx{.ftz}.f32", "9.7.3.19", decode_function_f32},
    {"lg2.approx{.ftz}.f32", "9.7.3.20", decode_function_f32},
    {"ex2.approx{.ftz}.f32", "9.7.3.21", decode_function_f32},
    {"tanh.approx.f32", "9.7.3.22", decode_function_f32},
    {"add{.rn}{.ftz}{.sat}(.f16|.f16x2)", "9.7.4.1", decode_add_half},
    {"add{.rn}(.bf16|.bf16x2)", "9.7.4.1", decode_add_half},
    {"sub{.rn}{.ftz}{.sat}(.f16|.f16x2)", "9.7.4.2", decode_add_half},
    {"sub{.rn}(.bf16|.bf16x2)", "9.7.4.2", decode_add_half},
    {"mul{.rn}{.ftz}{.sat}(.f16|.f16x2)", "9.7.4.3", decode_mul_half},
    {"mul{.rn}(.bf16|.bf16x2)", "9.7.4.3", decode_mul_half},
    {"fma.rn{.ftz}{.sat|.relu}(.f16|.f16x2)", "9.7.4.4", decode_fma_half},
    {"fma.rn{.relu}(.bf16|.bf16x2)", "9.7.4.4", decode_fma_half},
    {"neg{.ftz}(.f16|.f16x2|.bf16|.bf16x2)", "9.7.4.5", decode_neg_half},
    {"abs{.ftz}(.f16|.f16x2|.bf16|.bf16x2)", "9.7.4.6", decode_abs_half},
    {"min{.ftz}{.NaN}{.xorsign.abs}(.f16|.f16x2)", "9.7.4.7", decode_min_half},
    {"min{.NaN}{.xorsign.abs}(.bf16|.bf16x2)", "9.7.4.7", decode_min_half},
    {"max{.ftz}{.NaN}{.xorsign.abs}(.f16|.f16x2)", "9.7.4.8", decode_min_half},
    {"max{.NaN}{.xorsign.abs}(.bf16|.bf16x2)", "9.7.4.8", decode_min_half},
    {"tanh.approx(.f16|.f16x2|.bf16|.bf16x2)", "9.7.4.9", decode_tanh_half},
    {"ex2.approx(.f16|.f16x2)", "9.7.4.10", decode_ex2_half},
    {"ex2.approx.ftz(.bf16|.bf16x2)", "9.7.4.10", decode_ex2_half},

    // ---- Comparison and selection (9.7.6, 9.7.7)
    // --------------------------------------------------------
    {"setp(.eq|.ne){.and|.or|.xor}(.b16|.b32|.b64)", "9.7.6.2", decode_setp},
    {"setp(.eq|.ne|.lt|.le|.gt|.ge){.and|.or|.xor}(.s16|.s32|.s64)", "9.7.6.2", decode_setp},
    {"setp(.eq|.ne|.lt|.le|.gt|.ge|.lo|.ls|.hi|.hs){.and|.or|.xor}(.u16|.u32|.u64)", "9.7.6.2",
     decode_setp},
    {"setp(.eq|.ne|.lt|.le|.gt|.ge|.equ|.neu|.ltu|.leu|.gtu|.geu|.num|.nan){.and|.or|.xor}({.ftz}."
     "f32|.f64)",
     "9.7.6.2", decode_setp},
    {"setp(.eq|.ne|.lt|.le|.gt|.ge|.equ|.neu|.ltu|.leu|.gtu|.geu|.num|.nan){.and|.or|.xor}(.f16|."
     "bf16)",
     "9.7.7.2", decode_setp},
    {"set(.eq|.ne)(.u32|.s32|.f32)(.b16|.b32|.b64)", "9.7.6.1", decode_set},
    {"set(.eq|.ne|.lt|.le|.gt|.ge)(.u32|.s32|.f32)(.s16|.s32|.s64)", "9.7.6.1", decode_set},
    {"set(.eq|.ne|.lt|.le|.gt|.ge|.lo|.ls|.hi|.hs)(.u32|.s32|.f32)(.u16|.u32|.u64)", "9.7.6.1",
     decode_set},
    {"set(.eq|.ne|.lt|.le|.gt|.ge|.equ|.neu|.ltu|.leu|.gtu|.geu|.num|.nan){.ftz}(.u32|.s32|.f32)(."
     "f32|.f64)",
     "9.7.6.1", decode_set},
    {"selp(.b16|.b32|.b64|.u16|.u32|.u64|.s16|.s32|.s64|.f32|.f64)", "9.7.6.3", decode_selp},
    {"slct(.b16|.b32|.b64|.u16|.u32|.u64|.s16|.s32|.s64|.f32|.f64).s32", "9.7.6.4", decode_slct},
    {"slct{.ftz}(.b16|.b32|.b64|.u16|.u32|.u64|.s16|.s32|.s64|.f32|.f64).f32", "9.7.6.4",
     decode_slct},

    // ---- Logic and shifts (9.7.8)
    // -----------------------------------------------------------------------
    {"and(.pred|.b16|.b32|.b64)", "9.7.8.1", decode_and},
    {"or(.pred|.b16|.b32|.b64)", "9.7.8.2", decode_or},
    {"xor(.pred|.b16|.b32|.b64)", "9.7.8.3", decode_xor},
    {"not(.pred|.b16|.b32|.b64)", "9.7.8.4", decode_not},
    {"cnot(.b16|.b32|.b64)", "9.7.8.5", decode_cnot},
    {"lop3.b32", "9.7.8.6", decode_lop3},
    {"shf(.l|.r)(.clamp|.wrap).b32", "9.7.8.7", decode_shf},
    {"shl(.b16|.b32|.b64)", "9.7.8.8", decode_shl},
    {"shr(.b16|.b32|.b64|.u16|.u32|.u64|.s16|.s32|.s64)", "9.7.8.9", decode_shr},

    // ---- Data movement and conversion (9.7.9)
    // -----------------------------------------------------------
    {"mov(.b16|.b32|.b64|.u16|.u32|.u64|.s16|.s32|.s64|.f32|.f64)", "9.7.9.3", decode_mov},
    {"mov.pred", "9.7.9.3", decode_mov_pred},
    {"prmt.b32", "9.7.9.7", decode_prmt},
    {"isspacep(.global|.local|.shared|.shared::cta|.shared::cluster)", "9.7.9.19", decode_isspacep},
    {"cvta(.global|.local|.shared|.shared::cta|.shared::cluster|.const|.param).u64", "9.7.9.20",
     decode_cvta},
    {"cvta.to(.global|.local|.shared|.shared::cta|.shared::cluster|.const|.param).u64", "9.7.9.20",
     decode_cvta},
    {"cvt{.sat}(.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64)(.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64)",
     "9.7.9.21", decode_cvt_integers},
    {"cvt(.rni|.rzi|.rmi|.rpi){.ftz}{.sat}(.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64)(.f16|.bf16|.f32|."
     "f64)",
     "9.7.9.21", decode_cvt_to_integer},
    {"cvt(.rn|.rz|.rm|.rp){.sat}(.f16|.bf16|.f32)(.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64)",
     "9.7.9.21", decode_cvt_from_integer},
    {"cvt.rn{.sat}.f64(.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64)", "9.7.9.21",
     decode_cvt_from_integer},
    {"cvt(.rn|.rz|.rm|.rp){.ftz}{.sat}(.f16.f32|.f16.f64|.bf16.f64|.f32.f64)", "9.7.9.21",
     decode_cvt_floats},
    {"cvt(.rm|.rp).bf16.f32", "9.7.9.21", decode_cvt_floats},
    {"cvt(.rn|.rz){.relu}.bf16.f32", "9.7.9.21", decode_cvt_floats},
    {"cvt(.rn|.rz).relu.f16.f32", "9.7.9.21", decode_cvt_floats},
    {"cvt{.ftz}{.sat}(.f32.f16|.f32.bf16|.f64.f16|.f64.bf16|.f64.f32|.f32.f32|.f64.f64|.f16.f16|."
     "bf16.bf16)",
     "9.7.9.21", decode_cvt_floats},
    {"cvt(.rni|.rzi|.rmi|.rpi){.ftz}{.sat}(.f32.f32|.f64.f64|.f16.f16|.bf16.bf16)", "9.7.9.21",
     decode_cvt_floats},
    {"cvt(.rn|.rz){.relu}(.f16x2|.bf16x2).f32", "9.7.9.21", decode_cvt_pair},
    {"cvt.rna.tf32.f32", "9.7.9.21", decode_cvt_tf32},
    {"cvt(.rn|.rz){.relu}.tf32.f32", "9.7.9.21", decode_cvt_tf32},

    // ---- Loads, stores, atomics (9.7.9, 9.7.13)
    // ---------------------------------------------------------
    {"ld{.weak}{.const|.global|.local|.param|.param::entry|.param::func|.shared|"
     ".shared::cta|.shared::cluster}{.ca|.cg|.cs|.lu|.cv}{.L1::evict_normal|"
     ".L1::evict_unchanged|.L1::evict_first|.L1::evict_last|.L1::no_allocate}"
     "{.L2::cache_hint}{.L2::64B|.L2::128B|.L2::256B}{.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld(.ca|.cg|.cs|.lu|.cv){.const|.global|.local|.param|.param::entry|.param::func|"
     ".shared|.shared::cta|.shared::cluster}{.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld.volatile{.const|.global|.local|.param|.param::entry|.param::func|.shared|"
     ".shared::cta|.shared::cluster}{.L2::64B|.L2::128B|.L2::256B}{.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld(.relaxed|.acquire)(.cta|.cluster|.gpu|.sys)"
     "{.global|.shared|.shared::cta|.shared::cluster}{.L1::evict_normal|"
     ".L1::evict_unchanged|.L1::evict_first|.L1::evict_last|.L1::no_allocate}"
     "{.L2::cache_hint}{.L2::64B|.L2::128B|.L2::256B}{.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld.global(.relaxed|.acquire)(.cta|.cluster|.gpu|.sys){.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld.global{.ca|.cg|.cs}.nc{.L1::evict_normal|.L1::evict_unchanged|.L1::evict_first|"
     ".L1::evict_last|.L1::no_allocate}{.L2::cache_hint}{.L2::64B|.L2::128B|.L2::256B}"
     "{.v2|.v4}(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.9", decode_ld},
    {"ldu{.global}{.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.10", decode_ld},
    {"st{.weak}{.global|.local|.param|.param::func|.shared|.shared::cta|.shared::cluster}"
     "{.wb|.cg|.cs|.wt}{.L1::evict_normal|.L1::evict_unchanged|.L1::evict_first|"
     ".L1::evict_last|.L1::no_allocate}{.L2::cache_hint}{.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.11", decode_st},
    {"st.volatile{.global|.local|.param|.param::func|.shared|.shared::cta|.shared::cluster}"
     "{.v2|.v4}(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.11", decode_st},
    {"st(.relaxed|.release)(.cta|.cluster|.gpu|.sys)"
     "{.global|.shared|.shared::cta|.shared::cluster}{.L1::evict_normal|"
     ".L1::evict_unchanged|.L1::evict_first|.L1::evict_last|.L1::no_allocate}"
     "{.L2::cache_hint}{.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.11", decode_st},
    {"st.global(.relaxed|.release)(.cta|.cluster|.gpu|.sys){.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.11", decode_st},
    {"prefetch{.global|.local}(.L1|.L2|.L2::evict_last|.L2::evict_normal)", "9.7.9.15",
     decode_prefetch},
    {"prefetchu.L1", "9.7.9.15", decode_prefetch},
    {"prefetch{.param|.const}.tensormap", "9.7.9.15", decode_prefetch_tensormap},
    {"atom{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}.add{.noftz}{.L2::cache_hint}"
     "(.u32|.u64|.s32|.s64|.f32|.f64|.f16|.f16x2|.bf16|.bf16x2)",
     "9.7.13.5", decode_atom},
    {"atom{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}(.min|.max){.L2::cache_hint}"
     "(.u32|.u64|.s32|.s64)",
     "9.7.13.5", decode_atom},
    {"atom{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}(.and|.or|.xor){.L2::cache_hint}"
     "(.b32|.b64)",
     "9.7.13.5", decode_atom},
    {"atom{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}(.inc|.dec){.L2::cache_hint}.u32",
     "9.7.13.5", decode_atom},
    {"red{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}.add{.noftz}{.L2::cache_hint}"
     "(.u32|.u64|.s32|.s64|.f32|.f64|.f16|.f16x2|.bf16|.bf16x2)",
     "9.7.13.6", decode_red},
    {"red{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}(.min|.max){.L2::cache_hint}"
     "(.u32|.u64|.s32|.s64)",
     "9.7.13.6", decode_red},
    {"red{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}(.and|.or|.xor){.L2::cache_hint}"
     "(.b32|.b64)",
     "9.7.13.6", decode_red},
    {"red{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}(.inc|.dec){.L2::cache_hint}.u32",
     "9.7.13.6", decode_red},
    {"atom{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}.exch{.L2::cache_hint}(.b32|.b64)",
     "9.7.13.5", decode_atom},
    {"atom{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}"
     "{.global|.shared|.shared::cta|.shared::cluster}.cas{.L2::cache_hint}(.b16|.b32|.b64)",
     "9.7.13.5", decode_atom},

    // ---- Asynchronous copies (9.7.9.25)
    // -----------------------------------------------------------------
    {"cp.async(.ca|.cg)(.shared|.shared::cta).global{.L2::cache_hint}"
     "{.L2::64B|.L2::128B|.L2::256B}",
     "9.7.9.25.3.1", decode_cp_async},
    {"cp.async.commit_group", "9.7.9.25.3.2", decode_cp_async_commit_group},
    {"cp.async(.wait_group|.wait_all)", "9.7.9.25.3.3", decode_cp_async_wait},
    {"cp.async.mbarrier.arrive{.noinc}{.shared|.shared::cta}.b64", "9.7.13.15.17",
     decode_cp_async_mbarrier_arrive},
    {"cp.async.bulk(.shared::cta|.shared::cluster).global.mbarrier::complete_tx::bytes"
     "{.multicast::cluster}{.L2::cache_hint}",
     "9.7.9.25.4.1", decode_bulk_load},
    {"cp.async.bulk.global.shared::cta.bulk_group{.L2::cache_hint}", "9.7.9.25.4.1",
     decode_bulk_store},
    {"cp.async.bulk.prefetch.L2.global{.L2::cache_hint}", "9.7.9.25.4.3", decode_bulk_prefetch},
    {"cp.async.bulk.tensor(.1d|.2d|.3d|.4d|.5d)(.shared::cta|.shared::cluster).global{.tile}"
     ".mbarrier::complete_tx::bytes{.multicast::cluster}{.L2::cache_hint}",
     "9.7.9.25.5.2", decode_tensor_load},
    {"cp.async.bulk.tensor(.1d|.2d|.3d|.4d|.5d).global.shared::cta{.tile}.bulk_group"
     "{.L2::cache_hint}",
     "9.7.9.25.5.2", decode_tensor_store},
    {"cp.async.bulk.prefetch.tensor(.1d|.2d|.3d|.4d|.5d).L2.global{.tile}{.L2::cache_hint}",
     "9.7.9.25.5.4", decode_tensor_prefetch},
    {"cp.async.bulk.commit_group", "9.7.9.25.6.1", decode_bulk_commit_group},
    {"cp.async.bulk.wait_group{.read}", "9.7.9.25.6.2", decode_bulk_wait_group},
    {"createpolicy.fractional"
     "(.L2::evict_last|.L2::evict_normal|.L2::evict_first|.L2::evict_unchanged)"
     "{.L2::evict_first|.L2::evict_unchanged}.b64",
     "9.7.9.18", decode_createpolicy},

    // ---- Control flow (9.7.12)
    // --------------------------------------------------------------------------
    {"bra{.uni}", "9.7.12.3", decode_bra},
    {"brx.idx{.uni}", "9.7.12.4", decode_brx},
    {"call{.uni}", "9.7.12.5", decode_call},
    {"ret{.uni}", "9.7.12.6", decode_exit},
    {"exit", "9.7.12.7", decode_exit},

    // ---- Warps and barriers (9.7.13)
    // --------------------------------------------------------------------
    {"shfl.sync(.up|.down|.bfly|.idx).b32", "9.7.9.6", decode_shfl},
    {"bar{.cta}.sync", "9.7.13.1", decode_barrier},
    {"barrier{.cta}.sync{.aligned}", "9.7.13.1", decode_barrier},
    {"bar{.cta}.arrive", "9.7.13.1", decode_barrier},
    {"barrier{.cta}.arrive{.aligned}", "9.7.13.1", decode_barrier},
    {"bar{.cta}.red.popc.u32", "9.7.13.1", decode_barrier},
    {"barrier{.cta}.red.popc{.aligned}.u32", "9.7.13.1", decode_barrier},
    {"bar{.cta}.red(.and|.or).pred", "9.7.13.1", decode_barrier},
    {"barrier{.cta}.red(.and|.or){.aligned}.pred", "9.7.13.1", decode_barrier},
    {"bar.warp.sync", "9.7.13.2", decode_warp_barrier},
    {"barrier.cluster.arrive{.release|.relaxed}{.aligned}", "9.7.13.3", decode_cluster_barrier},
    {"barrier.cluster.wait{.acquire}{.aligned}", "9.7.13.3", decode_cluster_barrier},
    {"vote.sync(.all|.any|.uni).pred", "9.7.13.9", decode_vote},
    {"vote.sync.ballot.b32", "9.7.13.9", decode_ballot},
    {"match.any.sync(.b32|.b64)", "9.7.13.10", decode_match_any},
    {"match.all.sync(.b32|.b64)", "9.7.13.10", decode_match_all},
    {"activemask.b32", "9.7.13.11", decode_activemask},
    {"redux.sync(.add|.min|.max)(.u32|.s32)", "9.7.13.12", decode_redux},
    {"redux.sync(.and|.or|.xor).b32", "9.7.13.12", decode_redux},
    {"griddepcontrol(.launch_dependents|.wait)", "9.7.13.13", decode_griddepcontrol},
    {"elect.sync", "9.7.13.14", decode_elect},

    // ---- mbarrier and fences (9.7.13.15, 9.7.13.4)
    // ------------------------------------------------------
    {"mbarrier.init{.shared|.shared::cta}.b64", "9.7.13.15.9", decode_mbarrier_init},
    {"mbarrier.inval{.shared|.shared::cta}.b64", "9.7.13.15.10", decode_mbarrier_inval},
    {"mbarrier.expect_tx{.relaxed}{.cta|.cluster}{.shared|.shared::cta|.shared::cluster}.b64",
     "9.7.13.15.11", decode_mbarrier_expect_tx},
    {"mbarrier.complete_tx{.relaxed}{.cta|.cluster}{.shared|.shared::cta|.shared::cluster}"
     ".b64",
     "9.7.13.15.12", decode_mbarrier_complete_tx},
    {"mbarrier.complete_tx.shared::cluster.relaxed.cluster.b64", "9.7.13.15.12",
     decode_mbarrier_complete_tx},
    {"mbarrier.arrive{.release|.relaxed}{.cta|.cluster}"
     "{.shared|.shared::cta|.shared::cluster}.b64",
     "9.7.13.15.13", decode_mbarrier_arrive},
    {"mbarrier.arrive.expect_tx{.release|.relaxed}{.cta|.cluster}"
     "{.shared|.shared::cta|.shared::cluster}.b64",
     "9.7.13.15.13", decode_mbarrier_arrive_expect_tx},
    {"mbarrier.arrive.noComplete{.release}{.cta}{.shared|.shared::cta}.b64", "9.7.13.15.13",
     decode_mbarrier_arrive_no_complete},
    {"mbarrier(.test_wait|.try_wait){.acquire|.relaxed}{.cta|.cluster}{.shared|.shared::cta}"
     ".b64",
     "9.7.13.15.16", decode_mbarrier_wait},
    {"mbarrier(.test_wait|.try_wait).parity{.acquire|.relaxed}{.cta|.cluster}"
     "{.shared|.shared::cta}.b64",
     "9.7.13.15.16", decode_mbarrier_wait},
    {"mbarrier.pending_count.b64", "9.7.13.15.18", decode_mbarrier_pending_count},
    {"fence{.acquire|.release|.acq_rel|.sc}(.cta|.cluster|.gpu|.sys)", "9.7.13.4", decode_fence},
    {"membar(.cta|.gl|.sys)", "9.7.13.4", decode_fence},
    {"fence.mbarrier_init.release.cluster", "9.7.13.4", decode_fence_mbarrier_init},
    {"fence.proxy.async{.global|.shared::cta|.shared::cluster}", "9.7.13.4",
     decode_fence_proxy_async},
    {"fence.proxy.alias", "9.7.13.4", decode_fence},
    {"fence.proxy.tensormap::generic(.acquire|.release)(.cta|.cluster|.gpu|.sys)", "9.7.13.4",
     decode_fence_tensormap},
    {"mapa{.shared::cluster}(.u32|.u64)", "9.7.9.23", decode_mapa},
    {"getctarank{.shared::cluster}(.u32|.u64)", "9.7.9.24", decode_getctarank},

    // ---- Matrices (9.7.14, 9.7.15)
    // ----------------------------------------------------------------------
    {"mma.sync.aligned(.m16n8k8|.m16n8k16).row.col.f16.f16.f16.f16", "9.7.14.5.14", decode_mma},
    {"mma.sync.aligned(.m16n8k8|.m16n8k16).row.col.f32(.f16.f16|.bf16.bf16).f32", "9.7.14.5.14",
     decode_mma},
    // In the manual's order, and in the other that ptxas accepts.
    {"ldmatrix.sync.aligned.m8n8(.x1|.x2|.x4){.trans}(.shared|.shared::cta).b16", "9.7.14.5.15",
     decode_ldmatrix},
    {"ldmatrix.sync.aligned(.x1|.x2|.x4){.trans}.m8n8(.shared|.shared::cta).b16", "9.7.14.5.15",
     decode_ldmatrix},
    {"stmatrix.sync.aligned.m8n8(.x1|.x2|.x4){.trans}(.shared|.shared::cta).b16", "9.7.14.5.16",
     decode_stmatrix},
    {"stmatrix.sync.aligned(.x1|.x2|.x4){.trans}.m8n8(.shared|.shared::cta).b16", "9.7.14.5.16",
     decode_stmatrix},
    {"wgmma.mma_async.sync.aligned" WGMMA_SHAPES "(.f16|.f32).f16.f16", "9.7.15.5.2", decode_wgmma},
    {"wgmma.mma_async.sync.aligned" WGMMA_SHAPES ".f32.bf16.bf16", "9.7.15.5.2", decode_wgmma},
    {"wgmma.fence.sync.aligned", "9.7.15.7.1", decode_wgmma_fence},
    {"wgmma.commit_group.sync.aligned", "9.7.15.7.2", decode_wgmma_commit_group},
    {"wgmma.wait_group.sync.aligned", "9.7.15.7.3", decode_wgmma_wait_group},

    // ---- Stack, video, miscellaneous (9.7.17 to 9.7.19)
    // -------------------------------------------------
    {"brkpt", "9.7.19.1", decode_trap},
    {"nanosleep.u32", "9.7.19.2", decode_nanosleep},
    {"pmevent{.mask}", "9.7.19.3", decode_pmevent},
    {"trap", "9.7.19.4", decode_trap},
    {"setmaxnreg(.inc|.dec).sync.aligned.u32", "9.7.19.5", decode_setmaxnreg},
};

}  // namespace

std::span<const Form> instruction_set() { return kForms; }

}  // namespace ptxsim
