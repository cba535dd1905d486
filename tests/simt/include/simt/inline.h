// Built-ins that call the library are inlined into the kernel at every optimisation level, so that
// a violation names the kernel's source lines.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define SIMT_INLINE inline __attribute__((always_inline))
