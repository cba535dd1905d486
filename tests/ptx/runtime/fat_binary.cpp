// The format is not documented. cuobjdump prints it, and it is the same from nvcc 11 to 13.
// SPDX-License-Identifier: Apache-2.0
#include "fat_binary.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "types.h"

namespace ptxsim::runtime {
namespace {

struct Header {
  u32 magic;
  u16 version, header_bytes;
  u64 bytes;  // Total of all entries.
};
struct Entry {
  u16 kind, attributes;
  u32 header_bytes;
  u64 bytes;  // Size of what follows the header.
  u32 compressed_bytes, options;
  u16 minor, major;
  u32 architecture;
};
constexpr u32 kMagic = 0xba55ed50;
constexpr u16 kPtx = 1;
constexpr u32 kNewestArchitecture = 90;

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// PTXSIM_FILTER: a command that reads PTX from its input and prints the PTX to run instead. The
/// planted faults use it.
std::string filtered(const std::string& text) {
  const char* command = std::getenv("PTXSIM_FILTER");
  if (command == nullptr) return text;
  char path[] = "/tmp/ptxsim-XXXXXX";
  const int file = mkstemp(path);
  if (file < 0) throw Error("PTXSIM_FILTER: no temporary file");
  const std::string from = path, to = from + ".out";
  std::ofstream(from) << text;
  const int status = std::system((std::string(command) + " <" + from + " >" + to).c_str());
  std::string result = read_file(to);
  std::remove(from.c_str());
  std::remove(to.c_str());
  if (status != 0) throw Error(std::string("PTXSIM_FILTER failed: ") + command);
  return result;
}

}  // namespace

std::string ptx_of(const void* fat_binary) {
  const auto* header = static_cast<const Header*>(fat_binary);
  if (header->magic != kMagic) throw Error("not a fat binary");
  const u8* at = static_cast<const u8*>(fat_binary) + header->header_bytes;
  const u8* const end = at + header->bytes;
  const Entry* best = nullptr;
  while (at < end) {
    const auto* entry = reinterpret_cast<const Entry*>(at);
    const bool fits = entry->kind == kPtx && entry->architecture <= kNewestArchitecture;
    if (fits && (best == nullptr || entry->architecture > best->architecture)) best = entry;
    at += entry->header_bytes + entry->bytes;
  }
  if (best == nullptr)
    throw Error(
        "no PTX of sm_90 or earlier in the program: build with -gencode "
        "arch=compute_90a,code=compute_90a or the like");
  if (best->compressed_bytes != 0) throw Error("compressed PTX: build with --compress-mode=none");
  const char* text = reinterpret_cast<const char*>(best) + best->header_bytes;
  return filtered(std::string(text, strnlen(text, best->bytes)));
}

}  // namespace ptxsim::runtime
