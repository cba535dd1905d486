// Included before everything else in instrumented sources: sends their calls of memcpy() and its
// like to functions that check both ranges, since compilers do not instrument these calls. Copies
// that compilers turn into one load and one store stay what they are: those are instrumented.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#undef _FORTIFY_SOURCE  // It brings definitions of the same functions.
#include <cstring>

extern "C" {

void* simt_memcpy(void* to, const void* from, std::size_t bytes);
void* simt_memmove(void* to, const void* from, std::size_t bytes);
void* simt_memset(void* to, int value, std::size_t bytes);

// gnu_inline: these are no definitions, so the C library's functions keep their names.
#define SIMT_REPLACEMENT inline __attribute__((always_inline, gnu_inline, artificial))

extern SIMT_REPLACEMENT void* memcpy(void* to, const void* from, std::size_t bytes) noexcept {
  if (__builtin_constant_p(bytes) && bytes <= 16 && (bytes & (bytes - 1)) == 0) {
    return __builtin_memcpy(to, from, bytes);
  }
  return simt_memcpy(to, from, bytes);
}
extern SIMT_REPLACEMENT void* memmove(void* to, const void* from, std::size_t bytes) noexcept {
  return simt_memmove(to, from, bytes);
}
extern SIMT_REPLACEMENT void* memset(void* to, int value, std::size_t bytes) noexcept {
  return simt_memset(to, value, bytes);
}

#undef SIMT_REPLACEMENT
}
