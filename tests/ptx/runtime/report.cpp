// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <string>

#include "options.h"

namespace ptxsim::runtime {
namespace {

struct KernelReport {
  const Kernel* kernel = nullptr;
  u64 launches = 0;
  Counts counts;
};

/// FNV-1a hash of a module's text, which names the module.
std::string hash_of(const std::string& text) {
  u64 hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<u8>(c)) * 0x100000001b3;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

class Report {
 public:
  explicit Report(std::filesystem::path folder) : folder_(std::move(folder)) {
    std::filesystem::create_directories(folder_);
  }
  ~Report() { write(); }
  Report(const Report&) = delete;
  Report& operator=(const Report&) = delete;

  void add(const RegisteredKernel& registered, const Kernel& kernel, const Counts& counts) {
    const std::lock_guard lock(mutex_);
    std::string& module = module_names_[registered.module];
    if (module.empty()) {
      module = hash_of(registered.module->text());
      write_module(module, registered.module->text());
    }
    KernelReport& report = kernels_[{module, registered.name}];
    report.kernel = &kernel;
    ++report.launches;
    report.counts.add(counts);
  }

 private:
  /// Writes a temporary file and renames it, because several processes may write the same module.
  void write_module(const std::string& name, const std::string& text) {
    const auto path = folder_ / (name + ".ptx");
    if (std::filesystem::exists(path)) return;
    const auto temporary = folder_ / (name + "." + std::to_string(getpid()));
    std::ofstream(temporary) << text;
    std::filesystem::rename(temporary, path);
  }

  void write() {
    std::ofstream out(folder_ / (std::to_string(getpid()) + ".json"));
    out << "{\"kernels\": [";
    const char* separator = "\n";
    for (const auto& [key, report] : kernels_) {
      out << separator << "{\"module\": \"" << key.first << "\", \"name\": \"" << key.second
          << "\", \"launches\": " << report.launches;
      write_counts(out, report.counts);
      write_instructions(out, report);
      out << "}";
      separator = ",\n";
    }
    out << "\n]}\n";
  }

  static void write_counts(std::ofstream& out, const Counts& counts) {
    const std::pair<const char*, u64> fields[] = {
        {"warp_instructions", counts.warp_instructions},
        {"thread_instructions", counts.thread_instructions},
        {"polls_failed", counts.polls_failed},
        {"shared_accesses", counts.shared_accesses},
        {"shared_wavefronts", counts.shared_wavefronts},
        {"shared_wavefronts_ideal", counts.shared_wavefronts_ideal},
        {"global_accesses", counts.global_accesses},
        {"global_sectors", counts.global_sectors},
        {"global_bytes", counts.global_bytes},
        {"tma_loads", counts.tma_loads},
        {"tma_load_bytes", counts.tma_load_bytes},
        {"tma_store_bytes", counts.tma_store_bytes},
        {"cp_async_bytes", counts.cp_async_bytes},
        {"wgmma_flops", counts.wgmma_flops},
        {"mma_flops", counts.mma_flops},
    };
    for (const auto& [name, value] : fields) out << ", \"" << name << "\": " << value;
  }

  /// [line of the module's text, opcode, how often it ran].
  static void write_instructions(std::ofstream& out, const KernelReport& report) {
    out << ", \"instructions\": [";
    const char* separator = "";
    for (std::size_t i = 0; i < report.kernel->ops.size(); ++i) {
      const Op& op = report.kernel->ops[i];
      if (op.source == nullptr) continue;
      const u64 ran = i < report.counts.ops.size() ? report.counts.ops[i] : 0;
      out << separator << "[" << op.source->line << ",\"" << op.source->opcode << "\"," << ran
          << "]";
      separator = ",";
    }
    out << "]";
  }

  std::filesystem::path folder_;
  std::mutex mutex_;
  std::map<const LoadedModule*, std::string> module_names_;
  std::map<std::pair<std::string, std::string>, KernelReport> kernels_;
};

Report* report() {
  static const std::unique_ptr<Report> kReport = [] {
    const char* folder = std::getenv("PTXSIM_REPORT");
    return folder != nullptr ? std::make_unique<Report>(folder) : nullptr;
  }();
  return kReport.get();
}

}  // namespace

void report_launch(const RegisteredKernel& registered, const Kernel& kernel, const Counts& counts) {
  if (Report* to = report(); to != nullptr) to->add(registered, kernel, counts);
}

}  // namespace ptxsim::runtime
