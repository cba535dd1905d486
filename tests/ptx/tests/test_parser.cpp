// PTX text as data: names and their scopes, labels, numbers, variables, parameters, directives, and
// the line that an error names.
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cstring>

#include "ptx.h"
#include "run_ptx.h"
#include "test.h"

using namespace ptxsim;
using namespace ptxsim::test;

namespace {

const std::string kHeader = ".version 9.0\n.target sm_90a\n.address_size 64\n";

std::unique_ptr<Module> parse_body(const std::string& body, const std::string& before = "") {
  return parse(kHeader + before + ".visible .entry f()\n{\n" + body + "\n}\n");
}
const Function& function_of(const Module& module) { return *module.functions.at("f"); }

void test_module() {
  const auto module =
      parse(kHeader +
            "/* a comment\nof lines */ // another\n"
            ".extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);\n"
            ".func helper(.param .b32 x) { .reg .b32 %r; { nonsense; } ret; }\n"
            ".visible .entry f(.param .u32 a, .param .u64 .ptr .global .align 1 b,\n"
            "  .param .align 64 .b8 c[130], .param .u8 d)\n"
            ".maxntid 128, 2, 1\n.minnctapersm 2\n.maxnreg 168\n"
            ".reqnctapercluster 2\n{\nret;\n}\n"
            ".section .debug_str { .b8 1 }\n");
  CHECK(module->target == "sm_90a");
  CHECK(module->functions.size() == 1);
  const Function& f = function_of(*module);
  CHECK(f.parameters.size() == 4 && f.parameter_bytes == 195, f.parameter_bytes);
  CHECK(f.parameters[1].offset == 8 && f.parameters[1].bytes == 8, f.parameters[1].offset);
  CHECK(f.parameters[2].offset == 64 && f.parameters[2].bytes == 130);
  CHECK(f.parameters[3].offset == 194);
  CHECK(f.max_threads == 256 && f.min_blocks == 2 && f.max_registers == 168);
  CHECK(f.cluster[0] == 2 && f.cluster[1] == 1 && f.cluster[2] == 1);
}

void test_variables() {
  const auto module = parse(
      kHeader +
      ".global .align 8 .u32 words[4] = {1, 0x20, -1};\n"
      ".const .align 4 .b8 text[6] = {104, 105, 0};\n"
      ".global .align 8 .u64 pointers[2] = {words, generic(words)+4};\n"
      ".global .f32 one = 0f3F800000;\n.global .align 256 .b8 aligned[1];\n"
      ".shared .align 16 .b8 mine[24];\n.extern .shared .align 128 .b8 dynamic[];\n"
      ".visible .entry f()\n{\n.shared .align 8 .b8 own[3];\n.local .align 16 .b8 stack[40];\n"
      ".reg .b64 %a<4>;\nmov.u64 %a0, own;\nmov.u64 %a1, mine;\nmov.u64 %a2, dynamic;\n"
      "mov.u64 %a3, stack;\nret;\n}\n");
  const auto at = [&](const char* name) {
    return reinterpret_cast<const u8*>(module->variables.at(name).offset);
  };
  const u32 words[] = {1, 0x20, 0xffffffff, 0};
  CHECK(std::memcmp(at("words"), words, sizeof words) == 0);
  CHECK(module->variables.at("words").bytes == 16);
  CHECK(std::memcmp(at("text"), "hi\0\0\0", 6) == 0);
  const u64 pointers[] = {module->variables.at("words").offset,
                          module->variables.at("words").offset + 4};
  CHECK(std::memcmp(at("pointers"), pointers, sizeof pointers) == 0);
  const u32 one = std::bit_cast<u32>(1.0f);
  CHECK(std::memcmp(at("one"), &one, sizeof one) == 0);
  CHECK(module->variables.at("aligned").offset % 256 == 0);
  const Function& f = function_of(*module);
  CHECK(f.shared_bytes == 40, f.shared_bytes);  // 3 bytes, then 24 bytes at offset 16.
  CHECK(f.local_bytes == 40 && f.dynamic_shared_align == 128);
  int num_shared = 0;
  for (const Initial& initial : f.initial) {
    num_shared += initial.source == Source::kShared;
    if (initial.source == Source::kShared && initial.reg.number == 5) CHECK(initial.value == 16);
  }
  CHECK(num_shared == 2);
}

void test_registers() {
  const auto module = parse_body(
      ".reg .b32 %r<12>;\n.reg .b32 %r1<3>;\n.reg .pred %p<2>, q;\n.reg .b16 h;\n"
      "add.s32 %r2, %r11, %r12;\n{ .reg .b64 %r2; mov.b64 %r2, %r2; }\nmov.b32 %r2, %r2;\n"
      "@!q mov.b16 h, h;\nsetp.eq.s32 %p0|%p1, %r0, 1;\nsetp.eq.s32 _|q, %r0, 1;\n");
  const auto& code = function_of(*module).code;
  CHECK(code.size() == 6);
  // %r12 is number 2 of %r1<3>: %r<12> ends at %r11.
  CHECK(code[0].operands[1].reg.number == 11 && code[0].operands[2].reg.number == 14);
  CHECK(code[1].operands[0].reg.bytes == 8 && code[2].operands[0].reg.bytes == 4);
  CHECK(code[3].has_guard && code[3].guard_negated && code[3].guard.bytes == 0);
  CHECK(code[4].operands[0].parts.size() == 1);
  CHECK(code[5].operands[0].kind == Operand::Kind::kSink && code[5].operands[0].parts.size() == 1);
  CHECK(code[0].text == "add.s32 %r2, %r11, %r12" && code[0].line == 10, code[0].text,
        code[0].line);
}

void test_operands() {
  const auto module = parse_body(
      ".reg .b32 %r<4>;\n.reg .b64 %d<2>;\n.shared .b8 s[64];\n"
      "ld.shared.v2.b32 {%r0, %r1}, [s+-4+12];\nld.b32 %r0, [%d0+-8];\nld.b32 %r0, [%d0-8];\n"
      "ld.b32 %r0, [64];\ncp.async.bulk.tensor.2d.x [s], [%d0, {%r0, 5}], [%r2];\n"
      "mov.u32 %r0, %tid.x;\nmov.u32 %r0, %tid.x;\nmov.u64 %d0, %clock64;\n",
      "");
  const auto& code = function_of(*module).code;
  CHECK(code[0].operands[0].kind == Operand::Kind::kVector);
  CHECK(code[0].operands[1].kind == Operand::Kind::kAddress);
  CHECK(code[0].operands[1].value == 8 && code[0].operands[1].space == Space::kShared);
  CHECK(code[1].operands[1].value == -8 && code[2].operands[1].value == -8);
  CHECK(code[3].operands[1].kind == Operand::Kind::kAddress);
  const Operand& tensor = code[4].operands[1];
  CHECK(tensor.parts.size() == 1 && tensor.parts[0].parts.size() == 2);
  CHECK(tensor.parts[0].parts[1].kind == Operand::Kind::kImmediate);
  CHECK(code[5].operands[1].reg.number == code[6].operands[1].reg.number);
  CHECK(code[7].operands[1].kind == Operand::Kind::kClock);
}

/// Inner labels hide outer ones, whether used before or after them.
void test_labels() {
  const auto module = parse_body(
      ".reg .b32 %i;\nA:\nmov.b32 %i, 1;\n{\nbra A;\nbra B;\n{\nbra A;\nbra C;\n}\nA:\n"
      "mov.b32 %i, 2;\n}\nbra A;\nB:\nmov.b32 %i, 3;\nC:\n"
      "T: .branchtargets A, B;\nbrx.idx %i, T;\nret;\n");
  const Function& f = function_of(*module);
  const auto target = [&](std::size_t instruction) {
    return f.labels[static_cast<std::size_t>(f.code[instruction].operands[0].value)];
  };
  CHECK(target(1) == 5, target(1));
  CHECK(target(2) == 7, target(2));
  CHECK(target(3) == 5, target(3));
  CHECK(target(4) == 8, target(4));
  CHECK(target(6) == 0, target(6));
  const Operand& table = f.code[8].operands[1];
  CHECK(table.is_table && f.targets[static_cast<std::size_t>(table.value)].size() == 2);
  CHECK(f.labels[f.targets[0][0]] == 0 && f.labels[f.targets[0][1]] == 7);
}

void test_calls() {
  const auto module = parse_body(
      ".reg .b64 %d;\n{\n.param .b64 param0;\n.param .b64 param1;\n.param .b32 retval0;\n"
      "call.uni (retval0), vprintf, (param0, param1);\n}\ncall.uni stop;\n");
  const auto& code = function_of(*module).code;
  CHECK(code[0].operands[0].kind == Operand::Kind::kFunction);
  CHECK(code[0].operands[0].name == "vprintf" && code[0].operands[0].parts.size() == 2);
  CHECK(code[0].operands.size() == 2 && code[0].operands[1].name == "retval0");
  CHECK(code[1].operands[0].name == "stop" && code[1].operands.size() == 1);
}

void test_errors() {
  CHECK_ERROR(parse_body(".reg .b32 %r;\nmov.b32 %r, %x;"), "PTX line 7", "'%x'");
  CHECK_ERROR(parse_body("bra NOWHERE;"), "NOWHERE");
  CHECK_ERROR(parse_body("{ IN: }\nbra IN;"), "IN");
  CHECK_ERROR(parse_body("A:\nA:\nret;"), "'A'", "twice");
  CHECK_ERROR(parse_body(".reg .b32 %r, %r;"), "'%r'", "twice");
  CHECK_ERROR(parse_body(".reg .b128 %r;"), ".b128");
  CHECK_ERROR(parse_body("ret"), "PTX line 7", "expected");
  CHECK_ERROR(parse(kHeader + ".visible .entry f()\n{\nret;\n"), "expected '}'");
  CHECK_ERROR(parse(kHeader + ".texref t;\n"), "line 4", ".texref");
  CHECK_ERROR(parse(kHeader + ".entry f()\n.fastest\n{\nret;\n}\n"), ".fastest");
  CHECK_ERROR(parse_body(".frob;"), ".frob");
  CHECK_ERROR(parse_body(".reg .b32 %r;\nmov.b32 %r, 0f12;"), "hexadecimal");
  CHECK_ERROR(parse_body(".reg .b32 %r;\n@%r mov.b32 %r, 1;"), "guard");
  CHECK_ERROR(parse_body("ret;", ".global .u32 x[2] = {1, 2, 3};\n"), "more initial values");
  CHECK_ERROR(parse_body("ret;", ".global .u64 x = y;\n"), "initial value");
  CHECK_ERROR(parse_body("ret;", ".global .align 3 .u64 x;\n"), "power of two");
  CHECK_ERROR(parse_body("call (x), f;"), "parameter of a call");
}

}  // namespace

int main() {
  test_module();
  test_variables();
  test_registers();
  test_operands();
  test_labels();
  test_calls();
  test_errors();
  return finish();
}
