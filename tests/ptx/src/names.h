// What names mean inside a function: registers, variables and labels of nested braces. An inner
// name hides an outer one; a label may be used before its position is known.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ptx.h"

namespace ptxsim {

class Names {
 public:
  Names() { open(); }

  void open() { scopes_.emplace_back(); }
  void close();
  std::size_t depth() const { return scopes_.size(); }

  // Return false if the innermost braces already declare the name.
  bool declare_register(std::string_view name, Reg reg);
  /// Declares prefix0, prefix1, ...: `count` consecutive registers from `first`.
  bool declare_registers(std::string_view prefix, u32 count, Reg first);
  bool declare_variable(std::string_view name, const Variable& variable);

  std::optional<Reg> find_register(std::string_view name) const;
  const Variable* find_variable(std::string_view name) const;

  /// A label's number. Which label it is gets resolved when its braces close.
  u32 use_label(std::string_view name);
  bool place_label(std::string_view name, std::size_t instruction);
  /// Sets `places` to each label's instruction. @return the name of a label without a position;
  /// empty if there is none.
  std::string finish_labels(std::vector<s64>& places);

 private:
  template <class T>
  using ByName = std::map<std::string, T, std::less<>>;
  struct Range {
    u32 count = 0;
    Reg first;
  };
  struct Scope {
    ByName<Reg> registers;
    ByName<Range> ranges;  // Keyed by prefix.
    ByName<Variable> variables;
    ByName<u32> labels;
  };

  std::vector<Scope> scopes_;
  std::vector<s64> places_;                       // Per label; -1: not known yet.
  std::vector<std::pair<u32, u32>> same_labels_;  // Inner number, outer number; braces add them.
};

}  // namespace ptxsim
