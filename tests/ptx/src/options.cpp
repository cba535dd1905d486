// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include <unistd.h>

#include <cstdlib>
#include <set>
#include <string>

namespace ptxsim {
namespace {

bool flag_of(const char* name, bool otherwise) {
  const char* const value = std::getenv(name);
  if (value == nullptr) return otherwise;
  const std::string text = value;
  if (text == "0") return false;
  if (text == "1") return true;
  throw Error(std::string(name) + "=" + text + ": expected 0 or 1");
}

u64 number_of(const char* name, u64 otherwise) {
  const char* const value = std::getenv(name);
  if (value == nullptr) return otherwise;
  char* end = nullptr;
  const u64 number = std::strtoull(value, &end, 10);
  if (end == value || *end != '\0') throw Error(std::string(name) + "=" + value + ": no number");
  return number;
}

Landing landing_of(const char* name) {
  const char* const value = std::getenv(name);
  const std::string text = value == nullptr ? "at_once" : value;
  if (text == "at_once") return Landing::kAtOnce;
  if (text == "late") return Landing::kLate;
  if (text == "random") return Landing::kRandom;
  throw Error(std::string(name) + "=" + text + ": expected at_once, late or random");
}

/// A misspelt name would otherwise run with other options than intended.
void refuse_unknown_names() {
  const std::set<std::string> known = {
      "PTXSIM_LANDING",         "PTXSIM_SEED",    "PTXSIM_CHECK",           "PTXSIM_COUNT",
      "PTXSIM_WARPGROUPS_MEET", "PTXSIM_THREADS", "PTXSIM_MULTIPROCESSORS", "PTXSIM_REPORT",
      "PTXSIM_FILTER"};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    const std::string name = text.substr(0, text.find('='));
    if (name.starts_with("PTXSIM_") && !known.contains(name)) {
      throw Error(name + ": no such option");
    }
  }
}

Options from_environment() {
  refuse_unknown_names();
  Options options;
  options.landing = landing_of("PTXSIM_LANDING");
  options.seed = number_of("PTXSIM_SEED", options.seed);
  options.check = flag_of("PTXSIM_CHECK", options.check);
  options.count = flag_of("PTXSIM_COUNT", options.count);
  options.warpgroups_meet = flag_of("PTXSIM_WARPGROUPS_MEET", options.warpgroups_meet);
  options.num_threads = static_cast<u32>(number_of("PTXSIM_THREADS", options.num_threads));
  options.num_multiprocessors =
      static_cast<u32>(number_of("PTXSIM_MULTIPROCESSORS", options.num_multiprocessors));
  return options;
}

}  // namespace

Options& options() {
  static Options chosen = from_environment();
  return chosen;
}

}  // namespace ptxsim
