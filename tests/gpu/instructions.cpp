// Runs every case and compares its output with the instruction's definition and, if a file is
// given, with the output of another build of this program:
//
//     emulated build   instructions_emulated --dump FILE       checks the emulation
//     GPU build        instructions --expected FILE            checks the hardware, then both
//
// One line per case. Exit status: 0 all agree, 1 some do not, 77 no GPU.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <string>

#if defined(MINF_SIMT)
#include "simt/simt.h"
#endif

#include "case.h"
#include "cuda/check.h"
#include "hopper.h"

namespace minference::gpu_test {
namespace {

constexpr int kExitNoGpu = 77;
constexpr uint8_t kPoison = 0xa5;

using Words = std::vector<uint32_t>;
using Dump = std::map<std::string, Words>;

CaseList all_cases() {
  CaseList cases;
  for (const auto list :
       {&copy_cases, &matrix_cases, &matrix_sm90_cases, &number_cases, &thread_cases}) {
    const CaseList some = list();
    cases.insert(cases.end(), some.begin(), some.end());
  }
  for (Case one : hopper_cases()) {
    one.max_arch = 90;  // Code for sm_90a runs on sm_90 only.
    cases.push_back(one);
  }
  return cases;
}

// ---- Dumps: per case a line "name words", then the words; case names contain no newlines --------

void write_dump(const std::string& path, const Dump& dump) {
  std::ofstream file(path, std::ios::binary);
  for (const auto& [name, words] : dump) {
    file << words.size() << ' ' << name << '\n';
    file.write(reinterpret_cast<const char*>(words.data()),
               static_cast<std::streamsize>(words.size() * sizeof(uint32_t)));
  }
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

Dump read_dump(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  Dump dump;
  std::size_t count = 0;
  std::string name;
  while (file >> count && file.get() == ' ' && std::getline(file, name)) {
    Words words(count);
    file.read(reinterpret_cast<char*>(words.data()),
              static_cast<std::streamsize>(count * sizeof(uint32_t)));
    if (!file) throw std::runtime_error(path + " is cut short");
    dump[name] = std::move(words);
  }
  return dump;
}

// ---- Running and comparing ----------------------------------------------------------------------

/// Device memory for the duration of a scope.
class DeviceWords {
 public:
  explicit DeviceWords(std::size_t count) {
    MINF_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(uint32_t)));
  }
  ~DeviceWords() { cudaFree(data_); }
  DeviceWords(const DeviceWords&) = delete;
  DeviceWords& operator=(const DeviceWords&) = delete;
  uint32_t* data() const { return data_; }

 private:
  uint32_t* data_ = nullptr;
};

/// Gives emulated threads the shared memory of the case's architecture.
void set_machine([[maybe_unused]] const Case& one) {
#if defined(MINF_SIMT)
  simt::options().max_shared_bytes = (one.min_arch >= 90 ? 227 : 99) * 1024;
#endif
}

Words outputs_of(const Case& one, const Words& input) {
  set_machine(one);
  const DeviceWords device_input(input.size());
  const auto output_words = static_cast<std::size_t>(one.output_words);
  const DeviceWords device_output(output_words);
  Words output(output_words);
  MINF_CUDA(cudaMemcpy(device_input.data(), input.data(), input.size() * sizeof(uint32_t),
                       cudaMemcpyHostToDevice));
  MINF_CUDA(cudaMemset(device_output.data(), kPoison, output_words * sizeof(uint32_t)));
  one.launch(device_input.data(), device_output.data(), /*stream=*/nullptr);
  MINF_CUDA(cudaDeviceSynchronize());
  MINF_CUDA(cudaMemcpy(output.data(), device_output.data(), output_words * sizeof(uint32_t),
                       cudaMemcpyDeviceToHost));
  return output;
}

bool agree(uint32_t got, uint32_t want, const Expected& expected, double bound) {
  if (got == want) return true;
  if (expected.format == Format::kBits) return false;
  if (expected.format != Format::kFloat32 && (got | want) >> 16 != 0) return false;
  const double a = decode(got, expected.format);
  const double b = decode(want, expected.format);
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return bound > 0 && std::fabs(a - b) <= bound;  // 0 requires the same bits: -0 is not 0.
}

struct Difference {
  int64_t count = 0;
  std::size_t first = 0;
};

/// `want` is null: compares with the definition. Two outputs that are each within the bound may
/// differ by twice it.
Difference compare(const Words& got, const Words* want, const std::vector<Expected>& expected) {
  Difference difference;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool same = want == nullptr
                          ? agree(got[i], expected[i].word, expected[i], expected[i].bound)
                          : agree(got[i], (*want)[i], expected[i], 2 * expected[i].bound);
    if (!same && difference.count++ == 0) difference.first = i;
  }
  return difference;
}

bool report(const char* against, const Difference& difference, const Words& got,
            const std::vector<Expected>& expected, const Words* want) {
  if (difference.count == 0) return true;
  const std::size_t i = difference.first;
  std::printf(
      "    differs from %s in %lld of %zu words, first %zu: got %08x (%g), want %08x (%g), "
      "bound %g\n",
      against, static_cast<long long>(difference.count), got.size(), i, got[i],
      decode(got[i], expected[i].format), want == nullptr ? expected[i].word : (*want)[i],
      decode(want == nullptr ? expected[i].word : (*want)[i], expected[i].format),
      expected[i].bound);
  return false;
}

struct Options {
  std::string dump;
  std::string expected;
};

/// True if the case agrees with everything it is compared with.
bool check_case(const Case& one, const Dump* other, Dump& dump) {
  Words input(static_cast<std::size_t>(one.input_words));
  one.fill(input);
  std::vector<Expected> expected(static_cast<std::size_t>(one.output_words));
  one.expect(input, expected);
  const Words output = outputs_of(one, input);
  const Difference from_definition = compare(output, /*want=*/nullptr, expected);
  const Words* emulated = nullptr;
  Difference from_emulation;
  bool has_emulated = true;
  if (other != nullptr) {
    const auto found = other->find(one.name);
    has_emulated = found != other->end() && found->second.size() == output.size();
    if (has_emulated) {
      emulated = &found->second;
      from_emulation = compare(output, emulated, expected);
    }
  }
  const bool good = has_emulated && from_definition.count == 0 && from_emulation.count == 0;
  std::printf("%-44s %6s  %zu words\n", one.name, good ? "ok" : "FAILED", output.size());
  if (!has_emulated) std::printf("    not in the file of expected words\n");
  report("its definition", from_definition, output, expected, /*want=*/nullptr);
  report("the emulation", from_emulation, output, expected, emulated);
  dump[one.name] = output;
  return good;
}

/// Emulated threads implement every architecture.
#if defined(MINF_SIMT)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

/// 10 major + minor of the current GPU; 0 without one.
int device_arch() {
  int device = 0;
  int count = 0;
  int major = 0;
  int minor = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    std::printf("no GPU: %s\n", cudaGetErrorString(error));
    return 0;
  }
  MINF_CUDA(cudaGetDevice(&device));
  MINF_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  MINF_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  std::printf("GPU of sm_%d%d\n", major, minor);
  return 10 * major + minor;
}

int run(const Options& options) {
  const int arch = kEmulated ? 0 : device_arch();
  if (!kEmulated && arch == 0) return kExitNoGpu;
  Dump expected;
  if (!options.expected.empty()) expected = read_dump(options.expected);
  Dump dump;
  int failed = 0;
  int skipped = 0;
  const CaseList cases = all_cases();
  for (const Case& one : cases) {
    if (!kEmulated && (arch < one.min_arch || arch > one.max_arch)) {
      std::printf("%-44s skipped: needs sm_%d%s\n", one.name, one.min_arch,
                  arch < one.min_arch ? " or later" : "");
      ++skipped;
      continue;
    }
    try {
      if (!check_case(one, options.expected.empty() ? nullptr : &expected, dump)) ++failed;
    } catch (const std::exception& error) {  // After a device error all later cases fail.
      std::printf("%-44s FAILED  %s\n", one.name, error.what());
      ++failed;
    }
    std::fflush(stdout);
  }
  std::printf("%zu cases, %d failed, %d skipped\n", cases.size(), failed, skipped);
  if (!options.dump.empty()) write_dump(options.dump, dump);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace minference::gpu_test

int main(int argc, char** argv) {
  minference::gpu_test::Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--dump") == 0) options.dump = argv[i + 1];
    if (std::strcmp(argv[i], "--expected") == 0) options.expected = argv[i + 1];
  }
  try {
    return minference::gpu_test::run(options);
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
