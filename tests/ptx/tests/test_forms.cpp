// The table of instructions: how a syntax is matched, what an error names, and that no opcode has
// two meanings.
// SPDX-License-Identifier: Apache-2.0
#include <set>
#include <string>
#include <vector>

#include "instruction_set.h"
#include "test.h"

using namespace ptxsim;
using namespace ptxsim::test;

namespace {

std::vector<std::string> words_of(const std::string& opcode) {
  std::vector<std::string> words = {""};
  for (const char c : opcode) {
    if (c == '.') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

bool matches(const char* syntax, const std::string& opcode) {
  return match(syntax, words_of(opcode)).matches;
}

void test_match() {
  CHECK(matches("ret", "ret"));
  CHECK(!matches("ret", "ret.uni"));
  CHECK(matches("add{.rn|.rz}{.ftz}.f32", "add.f32"));
  CHECK(matches("add{.rn|.rz}{.ftz}.f32", "add.rz.ftz.f32"));
  CHECK(!matches("add{.rn|.rz}{.ftz}.f32", "add.ftz.rz.f32"));
  CHECK(!matches("add{.rn|.rz}{.ftz}.f32", "add.rn.rz.f32"));
  CHECK(!matches("add{.rn|.rz}{.ftz}.f32", "add.rn"));
  CHECK(matches("and(.b16|.b32)", "and.b32"));
  CHECK(!matches("and(.b16|.b32)", "and"));
  CHECK(!matches("and(.b16|.b32)", "and.b16.b32"));
  // Alternatives of several words, and nested choices.
  CHECK(matches("cvt(.f16.f32|.f32{.x}.f64).y", "cvt.f32.x.f64.y"));
  CHECK(matches("cvt(.f16.f32|.f32{.x}.f64).y", "cvt.f16.f32.y"));
  CHECK(!matches("cvt(.f16.f32|.f32{.x}.f64).y", "cvt.f16.x.f32.y"));
  // The first choice that fits need not be the right one.
  CHECK(matches("a{.b}{.b.c}.c", "a.b.c"));
  CHECK(matches("a{.b}{.b.c}.c", "a.b.b.c.c"));
  CHECK(matches("cp.async(.mbarrier::complete_tx::bytes|.bulk_group)",
                "cp.async.mbarrier::complete_tx::bytes"));
  CHECK(match("add{.rn}.f32", words_of("add.rn.f64")).num_words == 2);
  CHECK(match("add{.rn}.f32", words_of("sub.rn.f64")).num_words == 0);
}

std::string error_for(const std::string& opcode) {
  Instruction instruction;
  instruction.opcode = opcode;
  instruction.words = words_of(opcode);
  instruction.line = 12;
  return error_of([&] { find_form(instruction); });
}

void test_errors() {
  CHECK(error_for("add.s32").empty());
  CHECK(error_for("add.foo.s32") == "PTX line 12: add.foo.s32: '.foo' is not known here",
        error_for("add.foo.s32"));
  CHECK(contains(error_for("frob.s32"), {"line 12", "'frob'", "not known"}));
  CHECK(contains(error_for("add.rn.ftz.s32"), {"'.s32'"}));
  CHECK(contains(error_for("add.ftz.rn.f32"), {"'.rn'"}));
  CHECK(contains(error_for("mul.lo"), {"missing"}));
  CHECK(contains(error_for("mul"), {"missing"}));
  CHECK(contains(error_for("add.s32.s32"), {"'.s32'"}));
}

/// An opcode that a syntax allows, with the first or the last of each choice.
std::string written(const std::string& syntax, bool takes_last, bool takes_optional) {
  std::string opcode;
  std::vector<std::size_t> begins;  // Index in `opcode` where each open choice begins.
  std::vector<char> kinds;
  std::vector<bool> done;
  for (const char c : syntax) {
    if (c == '{' || c == '(') {
      begins.push_back(opcode.size());
      kinds.push_back(c);
      done.push_back(false);
    } else if (c == '|') {
      if (takes_last) {
        opcode.resize(begins.back());
      } else {
        done.back() = true;
      }
    } else if (c == '}' || c == ')') {
      if (c == '}' && !takes_optional) opcode.resize(begins.back());
      begins.pop_back();
      kinds.pop_back();
      done.pop_back();
    } else if (std::none_of(done.begin(), done.end(), [](bool is_done) { return is_done; })) {
      opcode += c;
    }
  }
  return opcode;
}

void test_table() {
  std::set<std::string> syntaxes;
  for (const Form& form : instruction_set()) {
    CHECK(syntaxes.insert(form.syntax).second, form.syntax);
    CHECK(form.decode != nullptr, form.syntax);
    CHECK(std::string(form.section).starts_with("9.7."), form.syntax, form.section);
    for (const bool takes_last : {false, true}) {
      for (const bool takes_optional : {false, true}) {
        const std::string opcode = written(form.syntax, takes_last, takes_optional);
        CHECK(matches(form.syntax, opcode), form.syntax, opcode);
        for (const Form& other : instruction_set()) {
          // If two rows match the opcode, both must mean the same.
          const bool is_alike = other.decode == form.decode || !matches(other.syntax, opcode);
          CHECK(is_alike, form.syntax, other.syntax, opcode);
        }
      }
    }
  }
}

}  // namespace

int main() {
  test_match();
  test_errors();
  test_table();
  return finish();
}
