// The one table of instructions.
// SPDX-License-Identifier: Apache-2.0
#include "instruction_set.h"

#include "instructions/instructions.h"

namespace ptxsim {
namespace {

constexpr Form kForms[] = {
    // ---- Integer arithmetic (9.7.1)
    // ---------------------------------------------------------------------

    // ---- Floating point (9.7.3, 9.7.4, 9.7.5)
    // -----------------------------------------------------------

    // ---- Comparison and selection (9.7.6, 9.7.7)
    // --------------------------------------------------------

    // ---- Logic and shifts (9.7.8)
    // -----------------------------------------------------------------------

    // ---- Data movement and conversion (9.7.9)
    // -----------------------------------------------------------

    // ---- Loads, stores, atomics (9.7.9, 9.7.13)
    // ---------------------------------------------------------
    {"ld{.weak}{.const|.global|.local|.param|.param::entry|.param::func|.shared|"
     ".shared::cta|.shared::cluster}{.ca|.cg|.cs|.lu|.cv}{.L1::evict_normal|"
     ".L1::evict_unchanged|.L1::evict_first|.L1::evict_last|.L1::no_allocate}"
     "{.L2::cache_hint}{.L2::64B|.L2::128B|.L2::256B}{.v2|.v4|.v8}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld(.ca|.cg|.cs|.lu|.cv){.const|.global|.local|.param|.param::entry|.param::func|"
     ".shared|.shared::cta|.shared::cluster}{.v2|.v4|.v8}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld.volatile{.const|.global|.local|.param|.param::entry|.param::func|.shared|"
     ".shared::cta|.shared::cluster}{.L2::64B|.L2::128B|.L2::256B}{.v2|.v4|.v8}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld(.relaxed|.acquire)(.cta|.cluster|.gpu|.sys)"
     "{.global|.shared|.shared::cta|.shared::cluster}{.L1::evict_normal|"
     ".L1::evict_unchanged|.L1::evict_first|.L1::evict_last|.L1::no_allocate}"
     "{.L2::cache_hint}{.L2::64B|.L2::128B|.L2::256B}{.v2|.v4|.v8}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld.global(.relaxed|.acquire)(.cta|.cluster|.gpu|.sys){.v2|.v4|.v8}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.8", decode_ld},
    {"ld.global{.ca|.cg|.cs}.nc{.L1::evict_normal|.L1::evict_unchanged|.L1::evict_first|"
     ".L1::evict_last|.L1::no_allocate}{.L2::cache_hint}{.L2::64B|.L2::128B|.L2::256B}"
     "{.v2|.v4|.v8}(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.9", decode_ld},
    {"ldu{.global}{.v2|.v4}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.10", decode_ld},
    {"st{.weak}{.global|.local|.param|.param::func|.shared|.shared::cta|.shared::cluster}"
     "{.wb|.cg|.cs|.wt}{.L1::evict_normal|.L1::evict_unchanged|.L1::evict_first|"
     ".L1::evict_last|.L1::no_allocate}{.L2::cache_hint}{.v2|.v4|.v8}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.11", decode_st},
    {"st.volatile{.global|.local|.param|.param::func|.shared|.shared::cta|.shared::cluster}"
     "{.v2|.v4|.v8}(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.11", decode_st},
    {"st(.relaxed|.release)(.cta|.cluster|.gpu|.sys)"
     "{.global|.shared|.shared::cta|.shared::cluster}{.L1::evict_normal|"
     ".L1::evict_unchanged|.L1::evict_first|.L1::evict_last|.L1::no_allocate}"
     "{.L2::cache_hint}{.v2|.v4|.v8}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.11", decode_st},
    {"st.global(.relaxed|.release)(.cta|.cluster|.gpu|.sys){.v2|.v4|.v8}"
     "(.b8|.b16|.b32|.b64|.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f32|.f64)",
     "9.7.9.11", decode_st},

    // ---- Asynchronous copies (9.7.9.25)
    // -----------------------------------------------------------------

    // ---- Control flow (9.7.12)
    // --------------------------------------------------------------------------

    // ---- Warps and barriers (9.7.13)
    // --------------------------------------------------------------------

    // ---- mbarrier and fences (9.7.13.15, 9.7.13.4)
    // ------------------------------------------------------

    // ---- Matrices (9.7.14, 9.7.15)
    // ----------------------------------------------------------------------

    // ---- Stack, video, miscellaneous (9.7.17 to 9.7.19)
    // -------------------------------------------------
};

}  // namespace

std::span<const Form> instruction_set() { return kForms; }

}  // namespace ptxsim
