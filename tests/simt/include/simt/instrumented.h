// Included before everything else in instrumented sources. Sends their calls of memcpy() and
// similar functions to versions that check both ranges, because compilers do not instrument these
// calls. Copies that the compiler turns into one load and one store are left alone: it instruments
// those.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#undef _FORTIFY_SOURCE  // Its headers define the same functions.
#include <cstring>

extern "C" {

void* simt_memcpy(void* to, const void* from, std::size_t bytes);
void* simt_memmove(void* to, const void* from, std::size_t bytes);
void* simt_memset(void* to, int value, std::size_t bytes);

// gnu_inline: these are not definitions, so the C library's functions keep their names.
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
