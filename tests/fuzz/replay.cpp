// Runs a fuzz target without libFuzzer, under any compiler: on the files named (folders are
// walked), then on as many random inputs as --random N says. Inputs that once made a fuzzer fail
// are kept in corpus/.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size);

namespace {

constexpr std::size_t kRandomBytes = 512;

void run_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  std::printf("%s\n", path.c_str());
  std::fflush(stdout);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

void run_random(long count) {
  std::mt19937 generator;  // Gives the same inputs every time: a test must be repeatable.
  std::vector<uint8_t> bytes(kRandomBytes);
  for (long i = 0; i < count; ++i) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%ld random inputs\n", count);
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--random") == 0 && i + 1 < argc) {
      run_random(std::strtol(argv[++i], nullptr, 10));
    } else if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
        if (entry.is_regular_file()) run_file(entry.path());
      }
    } else {
      run_file(argv[i]);
    }
  }
}
