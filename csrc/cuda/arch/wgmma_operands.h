// wgmma.mma_async as text: the instruction for each N, its accumulators' operand numbers and
// operands. PTX names every register, so a list per N is needed; in steps of 16 columns, 8
// registers. For wgmma.h only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

// clang-format off
#define MINF_WGMMA_D8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define MINF_WGMMA_D16 MINF_WGMMA_D8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define MINF_WGMMA_D24 MINF_WGMMA_D16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define MINF_WGMMA_D32 MINF_WGMMA_D24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define MINF_WGMMA_D40 MINF_WGMMA_D32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define MINF_WGMMA_D48 MINF_WGMMA_D40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define MINF_WGMMA_D56 MINF_WGMMA_D48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define MINF_WGMMA_D64 MINF_WGMMA_D56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define MINF_WGMMA_D72 MINF_WGMMA_D64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define MINF_WGMMA_D80 MINF_WGMMA_D72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define MINF_WGMMA_D88 MINF_WGMMA_D80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define MINF_WGMMA_D96 MINF_WGMMA_D88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define MINF_WGMMA_D104 MINF_WGMMA_D96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define MINF_WGMMA_D112 MINF_WGMMA_D104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define MINF_WGMMA_D120 MINF_WGMMA_D112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define MINF_WGMMA_D128 MINF_WGMMA_D120 ", %120, %121, %122, %123, %124, %125, %126, %127"

#define MINF_WGMMA_OPERANDS_FROM(i)                                                            \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
  "+f"(d[i + 6]), "+f"(d[i + 7])
#define MINF_WGMMA_OPERANDS8 MINF_WGMMA_OPERANDS_FROM(0)
#define MINF_WGMMA_OPERANDS16 MINF_WGMMA_OPERANDS8, MINF_WGMMA_OPERANDS_FROM(8)
#define MINF_WGMMA_OPERANDS24 MINF_WGMMA_OPERANDS16, MINF_WGMMA_OPERANDS_FROM(16)
#define MINF_WGMMA_OPERANDS32 MINF_WGMMA_OPERANDS24, MINF_WGMMA_OPERANDS_FROM(24)
#define MINF_WGMMA_OPERANDS40 MINF_WGMMA_OPERANDS32, MINF_WGMMA_OPERANDS_FROM(32)
#define MINF_WGMMA_OPERANDS48 MINF_WGMMA_OPERANDS40, MINF_WGMMA_OPERANDS_FROM(40)
#define MINF_WGMMA_OPERANDS56 MINF_WGMMA_OPERANDS48, MINF_WGMMA_OPERANDS_FROM(48)
#define MINF_WGMMA_OPERANDS64 MINF_WGMMA_OPERANDS56, MINF_WGMMA_OPERANDS_FROM(56)
#define MINF_WGMMA_OPERANDS72 MINF_WGMMA_OPERANDS64, MINF_WGMMA_OPERANDS_FROM(64)
#define MINF_WGMMA_OPERANDS80 MINF_WGMMA_OPERANDS72, MINF_WGMMA_OPERANDS_FROM(72)
#define MINF_WGMMA_OPERANDS88 MINF_WGMMA_OPERANDS80, MINF_WGMMA_OPERANDS_FROM(80)
#define MINF_WGMMA_OPERANDS96 MINF_WGMMA_OPERANDS88, MINF_WGMMA_OPERANDS_FROM(88)
#define MINF_WGMMA_OPERANDS104 MINF_WGMMA_OPERANDS96, MINF_WGMMA_OPERANDS_FROM(96)
#define MINF_WGMMA_OPERANDS112 MINF_WGMMA_OPERANDS104, MINF_WGMMA_OPERANDS_FROM(104)
#define MINF_WGMMA_OPERANDS120 MINF_WGMMA_OPERANDS112, MINF_WGMMA_OPERANDS_FROM(112)
#define MINF_WGMMA_OPERANDS128 MINF_WGMMA_OPERANDS120, MINF_WGMMA_OPERANDS_FROM(120)

// Of the enclosing function: d, a, b, scale_d, kTransposedB. The numbers o0, o1... are those of the
// operands after the `count` accumulators. Scales of a and b are 1, a is K-major.
#define MINF_WGMMA_SHARED_TYPE(n, count, type, o0, o1, o2, o3)                            \
  asm volatile("{.reg .pred p;\n setp.ne.b32 p, %" #o2 ", 0;\n"                           \
               " wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type           \
               " {" MINF_WGMMA_D##count "}, %" #o0 ", %" #o1 ", p, 1, 1, 0, %" #o3 ";}"   \
               : MINF_WGMMA_OPERANDS##count                                               \
               : "l"(a.bits), "l"(b.bits), "r"(scale_d), "n"(kTransposedB)                \
               : "memory")
#define MINF_WGMMA_REGISTERS_TYPE(n, count, type, o0, o1, o2, o3, o4, o5, o6)             \
  asm volatile("{.reg .pred p;\n setp.ne.b32 p, %" #o5 ", 0;\n"                           \
               " wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type           \
               " {" MINF_WGMMA_D##count "}, {%" #o0 ", %" #o1 ", %" #o2 ", %" #o3 "}, %"  \
               #o4 ", p, 1, 1, %" #o6 ";}"                                                \
               : MINF_WGMMA_OPERANDS##count                                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits), "r"(scale_d),   \
                 "n"(kTransposedB)                                                        \
               : "memory")
#define MINF_WGMMA_SHARED(n, count, ...)                                                  \
  if constexpr (kRegisters == count && std::is_same_v<Element, BFloat16>) {               \
    MINF_WGMMA_SHARED_TYPE(n, count, "bf16", __VA_ARGS__);                                \
  } else if constexpr (kRegisters == count) {                                             \
    MINF_WGMMA_SHARED_TYPE(n, count, "f16", __VA_ARGS__);                                 \
  }
#define MINF_WGMMA_REGISTERS(n, count, ...)                                               \
  if constexpr (kRegisters == count && std::is_same_v<Element, BFloat16>) {               \
    MINF_WGMMA_REGISTERS_TYPE(n, count, "bf16", __VA_ARGS__);                             \
  } else if constexpr (kRegisters == count) {                                             \
    MINF_WGMMA_REGISTERS_TYPE(n, count, "f16", __VA_ARGS__);                              \
  }

#define MINF_WGMMA_SHARED_EACH \
  MINF_WGMMA_SHARED(16, 8, 8, 9, 10, 11) \
  MINF_WGMMA_SHARED(32, 16, 16, 17, 18, 19) \
  MINF_WGMMA_SHARED(48, 24, 24, 25, 26, 27) \
  MINF_WGMMA_SHARED(64, 32, 32, 33, 34, 35) \
  MINF_WGMMA_SHARED(80, 40, 40, 41, 42, 43) \
  MINF_WGMMA_SHARED(96, 48, 48, 49, 50, 51) \
  MINF_WGMMA_SHARED(112, 56, 56, 57, 58, 59) \
  MINF_WGMMA_SHARED(128, 64, 64, 65, 66, 67) \
  MINF_WGMMA_SHARED(144, 72, 72, 73, 74, 75) \
  MINF_WGMMA_SHARED(160, 80, 80, 81, 82, 83) \
  MINF_WGMMA_SHARED(176, 88, 88, 89, 90, 91) \
  MINF_WGMMA_SHARED(192, 96, 96, 97, 98, 99) \
  MINF_WGMMA_SHARED(208, 104, 104, 105, 106, 107) \
  MINF_WGMMA_SHARED(224, 112, 112, 113, 114, 115) \
  MINF_WGMMA_SHARED(240, 120, 120, 121, 122, 123) \
  MINF_WGMMA_SHARED(256, 128, 128, 129, 130, 131)
#define MINF_WGMMA_REGISTERS_EACH \
  MINF_WGMMA_REGISTERS(16, 8, 8, 9, 10, 11, 12, 13, 14) \
  MINF_WGMMA_REGISTERS(32, 16, 16, 17, 18, 19, 20, 21, 22) \
  MINF_WGMMA_REGISTERS(48, 24, 24, 25, 26, 27, 28, 29, 30) \
  MINF_WGMMA_REGISTERS(64, 32, 32, 33, 34, 35, 36, 37, 38) \
  MINF_WGMMA_REGISTERS(80, 40, 40, 41, 42, 43, 44, 45, 46) \
  MINF_WGMMA_REGISTERS(96, 48, 48, 49, 50, 51, 52, 53, 54) \
  MINF_WGMMA_REGISTERS(112, 56, 56, 57, 58, 59, 60, 61, 62) \
  MINF_WGMMA_REGISTERS(128, 64, 64, 65, 66, 67, 68, 69, 70) \
  MINF_WGMMA_REGISTERS(144, 72, 72, 73, 74, 75, 76, 77, 78) \
  MINF_WGMMA_REGISTERS(160, 80, 80, 81, 82, 83, 84, 85, 86) \
  MINF_WGMMA_REGISTERS(176, 88, 88, 89, 90, 91, 92, 93, 94) \
  MINF_WGMMA_REGISTERS(192, 96, 96, 97, 98, 99, 100, 101, 102) \
  MINF_WGMMA_REGISTERS(208, 104, 104, 105, 106, 107, 108, 109, 110) \
  MINF_WGMMA_REGISTERS(224, 112, 112, 113, 114, 115, 116, 117, 118) \
  MINF_WGMMA_REGISTERS(240, 120, 120, 121, 122, 123, 124, 125, 126) \
  MINF_WGMMA_REGISTERS(256, 128, 128, 129, 130, 131, 132, 133, 134)
// clang-format on
