// Texts of the engine's reports about faulty kernels.
// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <string>

#include "engine.h"

namespace simt::engine {
namespace {

std::string text_of(uint3 index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," +
         std::to_string(index.z) + ")";
}

std::string output_of(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return "";
  std::string output;
  std::array<char, 512> chunk;
  while (fgets(chunk.data(), chunk.size(), pipe) != nullptr) output += chunk.data();
  pclose(pipe);
  return output;
}

/// The last two parts of the path, and the line, of "function at path:line (discriminator 3)".
std::string short_location(const std::string& line) {
  const std::size_t end = line.find(" (");
  const std::string location = line.substr(0, end);
  // Unknown, or from a library.
  if (location.find(":?") != std::string::npos || location.rfind("??", 0) == 0 ||
      location.rfind("/usr/", 0) == 0) {
    return "";
  }
  std::size_t slash = location.rfind('/');
  if (slash != std::string::npos && slash > 0) slash = location.rfind('/', slash - 1);
  return slash == std::string::npos ? location : location.substr(slash + 1);
}

}  // namespace

std::string source_lines(const void* code_address) {
  Dl_info module{};
  if (!simt::options().locate || code_address == nullptr || dladdr(code_address, &module) == 0 ||
      module.dli_fname == nullptr) {
    return "";
  }
  // The address is a return address, so one less lies in the call. Modules that are not linked at 0
  // count from their base.
  const auto address = reinterpret_cast<uintptr_t>(code_address) - 1;
  const auto base = reinterpret_cast<uintptr_t>(module.dli_fbase);
  const std::string path = module.dli_fname;
  if (path.find('\'') != std::string::npos) return "";
  std::array<char, 32> offset;
  std::snprintf(offset.data(), offset.size(), "0x%lx", static_cast<unsigned long>(address - base));
  const std::string output =
      output_of("addr2line -i -e '" + path + "' " + offset.data() + " 2>/dev/null");
  std::string lines;
  for (std::size_t begin = 0; begin < output.size();) {
    const std::size_t end = output.find('\n', begin);
    const std::string location = short_location(output.substr(begin, end - begin));
    // The library's own inline functions would not help the kernel's author.
    if (!location.empty() && location.rfind("simt/", 0) != 0) {
      lines += (lines.empty() ? "" : ", from ") + location;
    }
    if (end == std::string::npos) break;
    begin = end + 1;
  }
  return lines.empty() ? "" : " [" + lines + "]";
}

std::string lanes_text(uint32_t lanes) {
  if (lanes == kAllLanes) return "all lanes";
  std::string text = (lanes & (lanes - 1)) == 0 ? "lane " : "lanes ";
  bool first = true;
  for (int lane = 0; lane < 32; ++lane) {
    if ((lanes >> lane & 1) == 0) continue;
    int last = lane;
    while (last < 31 && (lanes >> (last + 1) & 1) != 0) ++last;
    text += (first ? "" : ", ") + std::to_string(lane);
    if (last > lane) text += "-" + std::to_string(last);
    first = false;
    lane = last;
  }
  return first ? "no lane" : text;
}

std::string Engine::describe_thread(const Thread& thread) const {
  return std::string("kernel '") + call_.name + "', block " + text_of(block_index_) + ", thread " +
         text_of(thread.index) + ": ";
}

void Engine::record_failure(const Thread& thread, const std::string& text,
                            const void* code_address) {
  failed_ = true;
  failed_address_ = code_address;
  failure_ = describe_thread(thread) + text;
}

void Engine::leave() {
  kernel_thread = nullptr;
  Fiber::switch_to(running_->fiber, launcher_, /*leaving=*/false);
  __builtin_unreachable();
}

std::string Engine::describe_wait(const Thread& thread) const {
  if (thread.barrier >= 0) return "wait at " + barriers_.describe(*this, thread.barrier);
  if (thread.in_collective) {
    return "wait in " + warps_[static_cast<std::size_t>(thread.warp)].describe(thread.lane);
  }
  if (thread.wait.describe) return "wait for " + thread.wait.describe();
  std::array<char, 256> text;
  std::snprintf(text.data(), text.size(), thread.wait.format, thread.wait.first,
                thread.wait.second);
  return std::string("wait for ") + text.data();
}

// Reports a place for each group of threads.
void Engine::fail_deadlock() {
  record_failure(first_waiting(), describe_deadlock(), nullptr);
  leave();
}

const Thread& Engine::first_waiting() const {
  std::size_t id = 0;
  while (threads_[id]->state == ThreadState::kFinished) ++id;
  return *threads_[id];
}

// Joins neighbouring threads with the same text into one group: "threads 0-31 wait at ...".
std::string Engine::describe_deadlock() const {
  constexpr int kMaxGroups = 12;
  std::string text = "deadlock:";
  int groups = 0;
  for (int id = 0; id < num_threads_; ++id) {
    const Thread& begin = *threads_[static_cast<std::size_t>(id)];
    if (begin.state == ThreadState::kFinished) continue;
    const std::string wait = describe_wait(begin);
    int last = id;
    while (last + 1 < num_threads_) {
      const Thread& next = *threads_[static_cast<std::size_t>(last) + 1];
      if (next.state == ThreadState::kFinished || describe_wait(next) != wait) break;
      ++last;
    }
    if (++groups <= kMaxGroups) {
      text += std::string(groups > 1 ? ";" : "") + " thread" + (last > id ? "s " : " ") +
              std::to_string(id) + (last > id ? "-" + std::to_string(last) : "") + " " + wait +
              source_lines(begin.code_address);
    }
    id = last;
  }
  return groups > kMaxGroups ? text + "; and others" : text;
}

std::string Engine::describe_shared(const SharedFault& fault, std::size_t size, Access kind) const {
  std::string text =
      std::to_string(size) + " bytes of shared memory at offset " + std::to_string(fault.offset);
  switch (fault.fault) {
    case Fault::kOutOfBounds:
      return text + ", out of bounds: the launch has " + std::to_string(shared_.bytes()) + " bytes";
    case Fault::kUninitialized:
      return text + ", which are uninitialised";
    case Fault::kPending:
      return text + ", the target of an asynchronous copy that has not been waited for";
    case Fault::kBeingRead:
      return text + ", which an asynchronous operation that has not been waited for reads";
    case Fault::kReserved:
      return text + ", where an mbarrier is";
    case Fault::kRace:
      break;
    case Fault::kNone:
      return text;
  }
  const int actor = actor_of(fault.other);
  const std::string who =
      actor < kMaxThreads ? "thread " + text_of(threads_[static_cast<std::size_t>(actor)]->index)
                          : "an asynchronous operation";
  const char* did = (fault.other & kAtomicBit) != 0 ? " atomically updated"
                    : fault.other_wrote             ? " wrote"
                                                    : " read";
  return text + ", a race: " + who + did + " them" + (is_read(kind) ? "" : " too") +
         ", and nothing orders the two";
}

}  // namespace simt::engine
