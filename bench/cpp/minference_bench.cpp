// minference_bench: the stages of minference timed by Google Benchmark, on the CPU or on a GPU.
// One benchmark per pattern (or index list), stage, shape and dtype of the command line.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "gpu.h"
#include "inputs.h"
#include "minference/minference.hpp"
#include "options.h"
#include "selection.h"
#include "tensor.h"

namespace bench {
namespace {

namespace mi = minference;

/// A row of the report.
struct Case {
  std::string name;
  Shape shape;
  mi::DType dtype;
  mi::DeviceType device;
  int32_t num_threads;
  Stage stage;
  PatternOption pattern;  // Unused where `list` is.
  std::optional<ListKind> list;
  double density = 0;  // Of `list`.
};

/// A case with all memory that its call needs.
class Prepared {
 public:
  Prepared(const Case& row, const Qkv& qkv)
      : exec_(exec_of(row.device, row.num_threads)),
        selection_(row.list ? list_selection(row.shape, *row.list, row.density, row.device)
                            : pattern_selection(qkv, row.pattern, exec_)),
        out_(row.device, row.dtype,
             {1, row.shape.seqlen, row.shape.num_heads_q, row.shape.head_dim}),
        workspace_(row.device, workspace_bytes(row, qkv)) {
    exec_.workspace = {workspace_.data(), workspace_.bytes()};
    selection_.estimate(exec_);
    tiles_ = count_tiles(row.shape, selection_.index, row.device, exec_);
    mi::SparseIndex dense;
    dense.patterns = {mi::dense()};
    dense_tiles_ = count_tiles(row.shape, dense, mi::DeviceType::kCpu, {});
    call_ = call_of(row.stage, qkv);
    if (row.device == mi::DeviceType::kCuda) call_();  // Loads the kernels.
  }
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  const std::function<void()>& call() const { return call_; }
  int64_t tiles() const { return tiles_; }
  int64_t dense_tiles() const { return dense_tiles_; }
  std::size_t estimate_bytes() const { return selection_.estimate_bytes; }

 private:
  std::size_t workspace_bytes(const Case& row, const Qkv& qkv) const {
    const mi::TensorView &q = qkv.q.view(), &k = qkv.k.view();
    const mi::SparseIndex& index = selection_.index;
    std::size_t bytes = selection_.workspace_bytes;
    if (row.stage == Stage::kPrefill) {
      bytes =
          std::max(bytes, mi::prefill_attention_workspace_bytes(q, k, index.patterns, {}, exec_));
    } else if (row.stage == Stage::kAttention) {
      bytes = std::max(bytes, mi::sparse_attention_workspace_bytes(q, k, index, exec_));
    }
    return bytes;
  }

  std::function<void()> call_of(Stage stage, const Qkv& qkv) const {
    const mi::TensorView q = qkv.q.view(), k = qkv.k.view(), v = qkv.v.view();
    switch (stage) {
      case Stage::kEstimate:
        return [this] { selection_.estimate(exec_); };
      case Stage::kAttention:
        return [=, this] {
          mi::sparse_attention(q, k, v, selection_.index, out_.view(), {}, {}, exec_);
        };
      default:
        return [=, this] {
          mi::prefill_attention(q, k, v, selection_.index.patterns, out_.view(), {}, exec_);
        };
    }
  }

  mi::Exec exec_;
  Selection selection_;
  Tensor out_;
  Memory workspace_;
  int64_t tiles_ = 0;
  int64_t dense_tiles_ = 0;
  std::function<void()> call_;
};

/// Seconds of a call on the CPU.
double time_seconds(const std::function<void()>& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Runs cases, and keeps what the next one can use again: Google Benchmark calls a benchmark
/// several times, with more and more iterations, and cases of the same shape follow each other.
class Session {
 public:
  void run(benchmark::State& state, const Case& row) {
    try {
      prepare(row);
      double seconds = 0;
      for (auto _ : state) {
        const double sample = row.device == mi::DeviceType::kCuda
                                  ? gpu::time_seconds(prepared_->call())
                                  : time_seconds(prepared_->call());
        state.SetIterationTime(sample);
        seconds += sample;
      }
      report(state, row, seconds / static_cast<double>(state.iterations()));
    } catch (const std::exception& error) {
      failed_ = true;
      state.SkipWithError(error.what());
    }
  }

  bool failed() const { return failed_; }

 private:
  void prepare(const Case& row) {
    if (prepared_ && name_ == row.name) return;
    prepared_.reset();
    if (!qkv_ || !(shape_ == row.shape) || dtype_ != row.dtype) {
      qkv_.reset();  // Before the next: two of 128K tokens may not fit.
      qkv_ = std::make_unique<Qkv>(vertical_slash_qkv(row.shape, row.dtype, row.device));
      shape_ = row.shape;
      dtype_ = row.dtype;
    }
    prepared_ = std::make_unique<Prepared>(row, *qkv_);
    name_ = row.name;
  }

  /// Plain counters: to the name of a rate Google Benchmark would add another "/s".
  void report(benchmark::State& state, const Case& row, double seconds) const {
    const auto seqlen = static_cast<double>(row.shape.seqlen);
    const auto head_dim = static_cast<double>(row.shape.head_dim);
    const auto tiles = static_cast<double>(prepared_->tiles());
    state.counters["density"] = tiles / static_cast<double>(prepared_->dense_tiles());
    if (row.stage == Stage::kEstimate) {
      state.counters["GB/s"] = static_cast<double>(prepared_->estimate_bytes()) * 1e-9 / seconds;
      return;
    }
    const double tile_flops = 4 * 64 * 64 * head_dim;  // Two products, a multiply and an add each.
    const double dense_flops =
        2 * seqlen * seqlen * head_dim * static_cast<double>(row.shape.num_heads_q);
    state.counters["executed_TFLOP/s"] = tiles * tile_flops * 1e-12 / seconds;
    state.counters["dense_equivalent_TFLOP/s"] = dense_flops * 1e-12 / seconds;
  }

  Shape shape_{};
  mi::DType dtype_{};
  std::unique_ptr<Qkv> qkv_;
  std::unique_ptr<Prepared> prepared_;  // Of the case `name_`.
  std::string name_;
  bool failed_ = false;
};

// ---- What is run, and where --------------------------------------------------------------------

std::string shape_name(const Case& row) {
  std::ostringstream name;
  name << "/seqlen:" << row.shape.seqlen << "/head_dim:" << row.shape.head_dim
       << "/heads:" << row.shape.num_heads_q << ":" << row.shape.num_heads_kv << "/"
       << name_of(row.dtype) << "/" << name_of(row.device);
  return name.str();
}

void add_pattern_cases(const Options& options, Case row, std::vector<Case>& cases) {
  for (const PatternOption& pattern : options.patterns) {
    for (const Stage stage : options.stages) {
      if (stage == Stage::kEstimate && !is_estimated(pattern)) continue;
      row.stage = stage;
      row.pattern = pattern;
      row.name = std::string(name_of(stage)) + "/" + pattern.name + shape_name(row);
      cases.push_back(row);
    }
  }
}

void add_list_cases(const Options& options, Case row, std::vector<Case>& cases) {
  for (const double density : options.densities) {
    for (const ListKind kind : {ListKind::kRuns, ListKind::kColumns, ListKind::kBlocks}) {
      row.stage = Stage::kAttention;
      row.list = kind;
      row.density = density;
      std::ostringstream name;
      name << "attention/" << name_of(kind) << ":" << density << shape_name(row);
      row.name = name.str();
      cases.push_back(row);
    }
  }
}

std::vector<Case> cases_of(const Options& options, mi::DeviceType device) {
  std::vector<Case> cases;
  for (const int64_t seqlen : options.seqlens) {
    for (const int64_t head_dim : options.head_dims) {
      for (const mi::DType dtype : options.dtypes) {
        Case row{};
        row.shape = {seqlen, options.num_heads_q, options.num_heads_kv, head_dim};
        row.dtype = dtype;
        row.device = device;
        row.num_threads = options.num_threads;
        add_pattern_cases(options, row, cases);
        add_list_cases(options, row, cases);
      }
    }
  }
  return cases;
}

/// Why no GPU can be used, by this program or by the library; empty if one can.
std::string no_gpu_reason() {
  std::string reasons;
  for (const mi::Capability& backend : mi::backends()) {
    if (backend.name == "cpu") continue;
    if (backend.available) return gpu::unavailable_reason();
    reasons += (reasons.empty() ? "" : "; ") + backend.name + ": " + backend.reason;
  }
  return reasons.empty() ? "libminference has no CUDA backend" : reasons;
}

mi::DeviceType choose_device(const Options& options) {
  const std::string reason = no_gpu_reason();
  const mi::DeviceType found = reason.empty() ? mi::DeviceType::kCuda : mi::DeviceType::kCpu;
  const mi::DeviceType device = options.device.value_or(found);
  if (device == mi::DeviceType::kCuda && !reason.empty()) {
    throw std::runtime_error("--device cuda: " + reason);
  }
  if (device == mi::DeviceType::kCuda && options.num_threads != 0) {
    throw UsageError("--threads: on the CPU only; got a GPU (--device cpu chooses)");
  }
  return device;
}

std::string selected(const std::vector<mi::Capability>& capabilities, bool cpu) {
  for (const mi::Capability& c : capabilities) {
    if (c.selected && (c.name == "cpu") == cpu) return c.name;
  }
  return "none";
}

/// Of /proc/cpuinfo, which Google Benchmark's own context leaves out.
std::string cpu_model() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line)) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

void add_context(const Options& options, mi::DeviceType device) {
  benchmark::AddCustomContext("minference", mi::version());
  benchmark::AddCustomContext("build_info", mi::build_info());
  benchmark::AddCustomContext("cpu", cpu_model());
  if (device == mi::DeviceType::kCuda) {
    benchmark::AddCustomContext("backend", selected(mi::backends(), /*cpu=*/false));
    benchmark::AddCustomContext("gpu", gpu::description());
    return;
  }
  const int32_t threads = options.num_threads;
  benchmark::AddCustomContext("backend", selected(mi::backends(), /*cpu=*/true));
  benchmark::AddCustomContext("cpu_isa", selected(mi::cpu_isas(), /*cpu=*/false));
  benchmark::AddCustomContext("threads", threads == 0 ? "all" : std::to_string(threads));
}

int run(std::vector<char*> args) {
  const Options options = parse_options(args);
  if (options.help) std::fputs(kUsage, stdout);  // Initialize() adds its own, and exits.
  auto argc = static_cast<int>(args.size());
  args.push_back(nullptr);
  benchmark::Initialize(&argc, args.data());
  if (argc > 1) {
    throw UsageError("unknown option '" + std::string(args[1]) + "'; --help lists them");
  }

  const mi::DeviceType device = choose_device(options);
  const std::vector<Case> cases = cases_of(options, device);
  if (cases.empty()) throw UsageError("--stage estimate: none of the patterns is estimated");
  add_context(options, device);
  Session session;
  for (const Case& row : cases) {
    auto* registered = benchmark::RegisterBenchmark(
        row.name.c_str(), [&session, row](benchmark::State& state) { session.run(state, row); });
    registered->Unit(benchmark::kMillisecond)->UseManualTime();
  }
  const std::size_t num_chosen = benchmark::RunSpecifiedBenchmarks();  // 0: by --benchmark_filter.
  benchmark::Shutdown();
  return session.failed() || num_chosen == 0 ? 1 : 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) try {
  return bench::run(std::vector<char*>(argv, argv + argc));
} catch (const bench::UsageError& error) {
  std::fprintf(stderr, "minference_bench: %s\n", error.what());
  return 2;
} catch (const std::exception& error) {
  std::fprintf(stderr, "minference_bench: %s\n", error.what());
  return 1;
}
