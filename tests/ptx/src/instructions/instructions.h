// What decodes the instructions of each family; the table (instruction_set.cpp) names them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace ptxsim {

class Decoder;

// ---- Integer arithmetic: integer.cpp, bits.cpp
// --------------------------------------------------------

// ---- Floating point: floating.cpp
// ---------------------------------------------------------------------

// ---- Comparison, selection, moves, conversion: compare.cpp, move.cpp, convert.cpp
// ---------------------

// ---- Control flow: control.cpp
// ------------------------------------------------------------------------

// ---- Warps and barriers: warp.cpp, barrier.cpp
// --------------------------------------------------------

// ---- Loads, stores, atomics: load_store.cpp, atomic.cpp
// -----------------------------------------------
void decode_ld(Decoder& decoder);
void decode_st(Decoder& decoder);

// ---- Asynchronous copies, mbarriers, fences: thread_copy.cpp, bulk_copy.cpp, tensor_copy.cpp,
// ---- mbarrier.cpp, fence.cpp
// --------------------------------------------------------------------------

// ---- Matrices: matrix.cpp, wgmma.cpp
// ------------------------------------------------------------------

}  // namespace ptxsim
