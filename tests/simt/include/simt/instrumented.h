// Included before everything else in instrumented sources: sends their calls of memcpy() and its
// like to functions that check both ranges. Compilers do not instrument these calls.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

extern "C" {
void* memcpy(void* to, const void* from, std::size_t bytes) noexcept __asm__("simt_memcpy");
void* memmove(void* to, const void* from, std::size_t bytes) noexcept __asm__("simt_memmove");
void* memset(void* to, int value, std::size_t bytes) noexcept __asm__("simt_memset");
}
