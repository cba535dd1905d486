// Shared by simt's own tests: a check that counts, device arrays, and the text of a violation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <simt/simt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <string>
#include <vector>

namespace simt::test {

inline int num_checks = 0;
inline int num_failed = 0;

template <typename... Values>
void check(bool holds, const char* file, int line, const char* condition, const Values&... values) {
  ++num_checks;
  constexpr int kMaxReports = 20;
  if (holds || ++num_failed > kMaxReports) return;
  std::cout << file << ":" << line << ": does not hold: " << condition;
  ((std::cout << " [" << values << "]"), ...);
  std::cout << '\n' << std::flush;
}

/// main() returns its result.
inline int finish() {
  std::cout << num_checks << " checks, " << num_failed << " failed\n";
  return num_checks > 0 && num_failed == 0 ? 0 : 1;
}

/// Device memory with the contents of a vector, or uninitialised.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size)
      : data_(static_cast<T*>(device_malloc(size * sizeof(T)))), size_(size) {}
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    std::copy(values.begin(), values.end(), data_);
    mark_initialized(data_, size_ * sizeof(T));
  }
  DeviceArray(std::size_t size, T value) : DeviceArray(std::vector<T>(size, value)) {}
  ~DeviceArray() { device_free(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) const { return data_[i]; }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + size_); }

 private:
  T* data_;
  std::size_t size_;
};

/// The text of the violation that `launches` raise; empty if they raise none.
inline std::string violation_of(const std::function<void()>& launches) {
  try {
    launches();
  } catch (const Violation& violation) {
    return violation.what();
  }
  return "";
}

inline bool contains(const std::string& text, std::initializer_list<const char*> parts) {
  return std::all_of(parts.begin(), parts.end(),
                     [&](const char* part) { return text.find(part) != std::string::npos; });
}

/// Calls `body` once for every combination of schedule and copy timing, random ones with several
/// seeds, and restores the options afterwards.
inline void for_all_schedules(const std::function<void()>& body) {
  constexpr uint64_t kNumSeeds = 5;
  const Options before = options();
  for (Schedule schedule : {Schedule::kRoundRobin, Schedule::kRandom}) {
    for (AsyncCopies async : {AsyncCopies::kLate, AsyncCopies::kEager, AsyncCopies::kRandom}) {
      const bool random = schedule == Schedule::kRandom || async == AsyncCopies::kRandom;
      for (uint64_t seed = 0; seed < (random ? kNumSeeds : 1); ++seed) {
        options() = before;
        options().schedule = schedule;
        options().async = async;
        options().seed = seed;
        body();
      }
    }
  }
  options() = before;
}

}  // namespace simt::test

#define CHECK(condition, ...) \
  simt::test::check((condition), __FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__)

/// Checks that the launches raise a violation whose text has all the parts.
#define CHECK_VIOLATION(launches, ...)                                               \
  do {                                                                               \
    const std::string text = simt::test::violation_of([&] { launches; });            \
    simt::test::check(simt::test::contains(text, {__VA_ARGS__}), __FILE__, __LINE__, \
                      #launches " is the violation " #__VA_ARGS__, text);            \
  } while (false)
