// SPDX-License-Identifier: Apache-2.0
#include "names.h"

#include <charconv>

namespace ptxsim {
namespace {

/// The number that `digits` spell, if it has no leading zeros.
std::optional<u32> number_of(std::string_view digits) {
  if (digits.empty() || (digits[0] == '0' && digits.size() > 1)) return {};
  u32 value = 0;
  const char* begin = &digits[0];
  const char* end = begin + digits.size();
  const auto result = std::from_chars(begin, end, value);
  if (result.ec != std::errc() || result.ptr != end) return {};
  return value;
}

}  // namespace

void Names::close() {
  Scope closed = std::move(scopes_.back());
  scopes_.pop_back();
  if (scopes_.empty()) return;
  for (const auto& [name, number] : closed.labels) {
    if (places_[number] >= 0) continue;
    const auto [outer, is_new] = scopes_.back().labels.try_emplace(name, number);
    if (!is_new) same_labels_.emplace_back(number, outer->second);
  }
}

bool Names::declare_register(std::string_view name, Reg reg) {
  return scopes_.back().registers.try_emplace(std::string(name), reg).second;
}

bool Names::declare_registers(std::string_view prefix, u32 count, Reg first) {
  return scopes_.back().ranges.try_emplace(std::string(prefix), Range{count, first}).second;
}

bool Names::declare_variable(std::string_view name, const Variable& variable) {
  return scopes_.back().variables.try_emplace(std::string(name), variable).second;
}

std::optional<Reg> Names::find_register(std::string_view name) const {
  const std::size_t last_letter = name.find_last_not_of("0123456789");
  const std::size_t first_digit = last_letter == name.npos ? 0 : last_letter + 1;
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    if (const auto found = scope->registers.find(name); found != scope->registers.end()) {
      return found->second;
    }
    // "%r12" may be number 12 of %r<20> or number 2 of %r1<5>.
    for (std::size_t cut = first_digit; cut < name.size(); ++cut) {
      const auto range = scope->ranges.find(name.substr(0, cut));
      if (range == scope->ranges.end()) continue;
      const std::optional<u32> number = number_of(name.substr(cut));
      if (!number || *number >= range->second.count) continue;
      Reg reg = range->second.first;
      reg.number += *number;
      reg.offset += *number * (reg.bytes == 0 ? u32{sizeof(u32)} : kWarpSize * reg.bytes);
      return reg;
    }
  }
  return {};
}

const Variable* Names::find_variable(std::string_view name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->variables.find(name);
    if (found != scope->variables.end()) return &found->second;
  }
  return nullptr;
}

u32 Names::use_label(std::string_view name) {
  const auto [found, is_new] =
      scopes_.back().labels.try_emplace(std::string(name), static_cast<u32>(places_.size()));
  if (is_new) places_.push_back(-1);
  return found->second;
}

bool Names::place_label(std::string_view name, std::size_t instruction) {
  s64& place = places_[use_label(name)];
  if (place >= 0) return false;
  place = static_cast<s64>(instruction);
  return true;
}

std::string Names::finish_labels(std::vector<s64>& places) {
  // Outer braces close later: what they know must reach the inner labels.
  for (auto same = same_labels_.rbegin(); same != same_labels_.rend(); ++same) {
    places_[same->first] = places_[same->second];
  }
  for (const auto& [name, number] : scopes_.front().labels) {
    if (places_[number] < 0) return name;
  }
  places = std::move(places_);
  return {};
}

}  // namespace ptxsim
