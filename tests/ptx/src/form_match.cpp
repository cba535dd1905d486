// Finds the table row that an opcode matches.
//
// Walks a syntax with the set of all positions in the opcode that it may have reached, as bits: bit
// i says that the first i words are used up.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <map>
#include <vector>

#include "instruction_set.h"

namespace ptxsim {
namespace {

using Places = u64;

class SyntaxWalk {
 public:
  SyntaxWalk(std::string_view syntax, std::span<const std::string> words)
      : syntax_(syntax), words_(words) {}

  Match run() {
    const Places end = walk_choices(/*from=*/1, /*closing=*/'\0');
    return {((end >> words_.size()) & 1) != 0, furthest_};
  }

 private:
  /// Alternatives, separated by '|', up to `closing`.
  Places walk_choices(Places from, char closing) {
    Places reached = 0;
    Places here = from;
    while (at_ < syntax_.size() && syntax_[at_] != closing) {
      const char c = syntax_[at_];
      if (c == '|') {
        reached |= here;
        here = from;
        ++at_;
      } else if (c == '{') {
        ++at_;
        here |= walk_choices(here, '}');
      } else if (c == '(') {
        ++at_;
        here = walk_choices(here, ')');
      } else {
        here = walk_word(here);
      }
    }
    ++at_;
    return reached | here;
  }

  Places walk_word(Places from) {
    if (syntax_[at_] == '.') ++at_;
    const std::size_t end = std::min(syntax_.find_first_of(".{}()|", at_), syntax_.size());
    const std::string_view word = syntax_.substr(at_, end - at_);
    at_ = end;
    Places to = 0;
    for (std::size_t i = 0; i < words_.size(); ++i) {
      if (((from >> i) & 1) == 0 || words_[i] != word) continue;
      to |= Places{1} << (i + 1);
      furthest_ = std::max(furthest_, i + 1);
    }
    return to;
  }

  std::string_view syntax_;
  std::span<const std::string> words_;
  std::size_t at_ = 0;
  std::size_t furthest_ = 0;
};

std::string_view root_of(std::string_view syntax) {
  return syntax.substr(0, syntax.find_first_of(".{("));
}

using FormsByRoot = std::map<std::string_view, std::vector<const Form*>>;

const FormsByRoot& forms_by_root() {
  static const FormsByRoot kForms = [] {
    FormsByRoot forms;
    for (const Form& form : instruction_set()) forms[root_of(form.syntax)].push_back(&form);
    return forms;
  }();
  return kForms;
}

}  // namespace

Match match(const char* syntax, std::span<const std::string> words) {
  constexpr std::size_t kMaxWords = 63;
  if (words.size() > kMaxWords) return {};
  return SyntaxWalk(syntax, words).run();
}

const Form& find_form(const Instruction& instruction) {
  const auto refuse = [&](const std::string& what) {
    throw Error("PTX line " + std::to_string(instruction.line) + ": " + instruction.opcode + ": " +
                what);
  };
  const auto forms = forms_by_root().find(instruction.words[0]);
  if (forms == forms_by_root().end()) {
    refuse("the instruction '" + instruction.words[0] + "' is not known here");
  }
  std::size_t furthest = 0;
  for (const Form* form : forms->second) {
    const Match found = match(form->syntax, instruction.words);
    if (found.matches) return *form;
    furthest = std::max(furthest, found.num_words);
  }
  if (furthest < instruction.words.size()) {
    refuse("'." + instruction.words[furthest] + "' is not known here");
  }
  refuse("a modifier or a type is missing");
  __builtin_unreachable();
}

}  // namespace ptxsim
