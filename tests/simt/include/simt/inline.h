// Words that call the library are part of the kernel at every level of optimisation: violations
// then name the kernel's source lines.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define SIMT_INLINE inline __attribute__((always_inline))
