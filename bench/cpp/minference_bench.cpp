// minference_bench: times minference from C++, without torch, on the CPU or on a GPU. Batch 1, 32
// query heads on 8 KV heads, bf16. It times every pattern as a whole call, and patterns with an
// estimate also stage by stage. Rows are not paired: for a claim use the Python programs.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "minference/minference.hpp"

#ifdef MINF_BENCH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace {

namespace mi = minference;

constexpr int64_t kHeads = 32, kHeadsKv = 8, kBlock = 64;
constexpr int32_t kColumns = 1000, kDistances = 6096, kTopK = 100;
constexpr std::size_t kMinSamples = 3;

const char* const kUsage = R"(minference_bench [--option value]...
  --device cpu|cuda   default: a GPU if one can be used
  --seqlen N          tokens (default 8192)
  --head_dim N        a multiple of 8 up to 256 (default 128)
  --threads N         on the CPU (default 0: all that the process may run on)
  --seconds N         time for the samples of a row (default 1); 3 samples at least
  --only TEXT         rows whose name holds it
  --json FILE         write everything measured
)";

// ---- GPU, if the program was built with the CUDA runtime

namespace gpu {
#ifdef MINF_BENCH_CUDA

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}
constexpr bool kBuilt = true;
std::string description() {
  cudaDeviceProp properties{};
  int driver = 0, khz = 0;
  check(cudaGetDeviceProperties(&properties, /*device=*/0));
  check(cudaDriverGetVersion(&driver));
  check(cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, /*device=*/0));
  std::ostringstream text;
  text << properties.name << ", " << properties.multiProcessorCount << " multiprocessors, up to "
       << khz / 1000 << " MHz, driver for CUDA " << driver / 1000 << "." << driver % 1000 / 10;
  return text.str();
}
void* allocate(std::size_t bytes) {
  void* data = nullptr;
  check(cudaMalloc(&data, bytes));
  return data;
}
void release(void* data) { cudaFree(data); }
void copy(void* to, const void* from, std::size_t bytes) {
  check(cudaDeviceSynchronize());
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault));
}
cudaStream_t stream() {
  static const cudaStream_t kStream = [] {
    cudaStream_t created = nullptr;
    check(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking));
    return created;
  }();
  return kStream;
}
/// Time between two events, after the L2 was overwritten: the call reads its inputs from memory, as
/// it would after another layer's work. The overwriting also keeps the GPU busy while the host
/// enqueues.
double time_seconds(const std::function<void()>& call) {
  constexpr std::size_t kFlushBytes = std::size_t{512} << 20;
  static void* const kFlush = allocate(kFlushBytes);
  static int fill = 0;
  cudaEvent_t events[2];
  for (cudaEvent_t& event : events) check(cudaEventCreate(&event));
  check(cudaMemsetAsync(kFlush, 1 + ++fill % 100, kFlushBytes, stream()));
  check(cudaEventRecord(events[0], stream()));
  call();
  check(cudaEventRecord(events[1], stream()));
  check(cudaEventSynchronize(events[1]));
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, events[0], events[1]));
  for (const cudaEvent_t event : events) check(cudaEventDestroy(event));
  return static_cast<double>(milliseconds) / 1e3;
}

#else

constexpr bool kBuilt = false;
std::string description() { return ""; }
void* allocate(std::size_t) { return nullptr; }
void release(void*) {}
void copy(void*, const void*, std::size_t) {}
void* stream() { return nullptr; }
double time_seconds(const std::function<void()>&) { return 0; }

#endif
}  // namespace gpu

// ---- Tensors

/// Memory and its view. On the CPU it is zeroed, which maps every page before anything is timed.
struct Tensor {
  Tensor(bool on_gpu, mi::DType dtype, const mi::Dims& shape) {
    bytes = dtype == mi::DType::kInt64 ? 8 : dtype == mi::DType::kBFloat16 ? 2 : 4;
    for (int32_t i = 0; i < shape.count(); ++i) bytes *= static_cast<std::size_t>(shape[i]);
    memory = on_gpu ? std::shared_ptr<void>(gpu::allocate(bytes), gpu::release)
                    : std::shared_ptr<std::byte[]>(new std::byte[bytes]());
    const auto type = on_gpu ? mi::DeviceType::kCuda : mi::DeviceType::kCpu;
    view = mi::TensorView(memory.get(), dtype, shape, mi::Device{type, 0});
  }
  std::size_t bytes;
  std::shared_ptr<void> memory;
  mi::TensorView view;
};

void copy(bool on_gpu, void* to, const void* from, std::size_t bytes) {
  on_gpu ? gpu::copy(to, from, bytes) : void(std::memcpy(to, from, bytes));
}

struct Inputs {
  Tensor q, k, v;
};

/// Rotary heads that each look back to a few distances of their own. With random tensors the kept
/// runs would cover everything. This is a simpler draw than that of bench/inputs.py, which says
/// more.
Inputs draw_inputs(bool on_gpu, int64_t seqlen, int64_t dim) {
  using Spectrum = std::vector<std::complex<double>>;  // One number per rotary frequency.
  std::mt19937 random(/*seed=*/0);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<double> frequency, amplitude;
  double square = 0;
  for (double i = 0; i < static_cast<double>(dim); i += 2) {
    frequency.push_back(std::pow(5e5, -i / static_cast<double>(dim)));
    amplitude.push_back(1 / (1 + 64 * frequency.back()));  // What turns fast fades.
    square += amplitude.back() * amplitude.back();
  }
  const double norm = std::sqrt(9 * std::sqrt(static_cast<double>(dim)) / square);  // Logit 9.
  std::vector<Spectrum> heads(kHeads, Spectrum(frequency.size()));
  for (Spectrum& head : heads) {
    for (int peak = 0; peak < 12; ++peak) {  // Drawn uniformly in the distance's logarithm.
      const double distance = std::pow(static_cast<double>(seqlen) / 2, uniform(random));
      for (std::size_t i = 0; i < head.size(); ++i) {
        head[i] += std::polar(0.4, -distance * frequency[i]);
      }
    }
  }
  std::vector<uint16_t> q, k, v;
  const auto push = [&](std::vector<uint16_t>& to, std::complex<double> value) {
    for (const double part : {value.real(), value.imag()}) {
      const auto drawn = static_cast<float>(part + 1.7 * (uniform(random) - 0.5));
      to.push_back(static_cast<uint16_t>((std::bit_cast<uint32_t>(drawn) + 0x8000) >> 16));
    }
  };
  for (int64_t position = 0; position < seqlen; ++position) {
    Spectrum turn;
    for (std::size_t i = 0; i < frequency.size(); ++i) {
      const double angle = static_cast<double>(position) * frequency[i];
      turn.push_back(std::polar(norm * amplitude[i], angle));
    }
    for (const Spectrum& head : heads) {
      for (std::size_t i = 0; i < turn.size(); ++i) push(q, turn[i] * head[i]);
    }
    for (int64_t i = 0; i < kHeadsKv * dim / 2; ++i) {
      push(k, turn[static_cast<std::size_t>(i) % turn.size()]);
      push(v, 0);
    }
  }
  const auto upload = [&](int64_t num_heads, const std::vector<uint16_t>& values) {
    Tensor tensor(on_gpu, mi::DType::kBFloat16, {1, seqlen, num_heads, dim});
    copy(on_gpu, tensor.memory.get(), values.data(), tensor.bytes);
    return tensor;
  };
  return {upload(kHeads, q), upload(kHeadsKv, k), upload(kHeadsKv, v)};
}

// ---- Rows

struct Row {
  std::string name;
  std::vector<mi::Pattern> patterns;
  std::function<void(const mi::Exec&)> before, call;
  std::size_t workspace_bytes = 0, bytes_read = 0;  // Read: of q and k, by a stage that only reads.
  std::vector<double> seconds = {};                 // Sorted.
};

std::vector<Row> make_rows(const Inputs& inputs, const Tensor& out, const mi::Exec& exec) {
  const mi::TensorView q = inputs.q.view, k = inputs.k.view, v = inputs.v.view, o = out.view;
  const bool on_gpu = q.device().type == mi::DeviceType::kCuda;
  const int64_t seqlen = q.shape(1), num_blocks = (seqlen + kBlock - 1) / kBlock;
  std::vector<Row> rows;
  const auto add_prefill = [&](const std::string& name, const std::vector<mi::Pattern>& patterns) {
    rows.push_back(
        {"prefill/" + name,
         patterns,
         {},
         [=](const mi::Exec& on) { mi::prefill_attention(q, k, v, patterns, o, {}, on); },
         mi::prefill_attention_workspace_bytes(q, k, patterns, exec)});
  };
  // Adds the stages of a pattern that has them. `estimate` fills `index`, and reads `bytes_read`.
  const auto add_stages = [&](const std::string& name, const mi::SparseIndex& index,
                              const auto& estimate, std::size_t bytes, std::size_t bytes_read) {
    add_prefill(name, index.patterns);
    rows.push_back({"estimate/" + name, index.patterns, {}, estimate, bytes, bytes_read});
    rows.push_back(
        {"attention/" + name, index.patterns, estimate,
         [=](const mi::Exec& on) { mi::sparse_attention(q, k, v, index, o, {}, {}, on); },
         mi::sparse_attention_workspace_bytes(q, k, index, exec)});
  };
  const auto list = [&](const mi::Dims& shape) { return Tensor(on_gpu, mi::DType::kInt32, shape); };

  const mi::Pattern dense = mi::dense(), a_shape = mi::a_shape(128, 1024);
  const mi::Pattern slash = mi::vertical_slash(kColumns, kDistances);
  const mi::Pattern block_sparse = mi::block_sparse(kTopK);
  add_prefill("dense", {dense});
  add_prefill("a_shape", {a_shape});
  add_prefill("tri_shape", {mi::tri_shape(128, 1024, 128)});
  const int64_t num_distances = std::min<int64_t>(seqlen, kDistances);
  const Tensor columns = list({1, kHeads, std::min<int64_t>(seqlen, kColumns)});
  const Tensor distances = list({1, kHeads, num_distances}), run_count = list({1, kHeads});
  const Tensor runs = list({1, kHeads, mi::max_runs(num_distances, seqlen), 2});
  add_stages(
      "vertical_slash", {{slash}, columns.view, runs.view, run_count.view, {}},
      [=](const mi::Exec& on) {
        mi::estimate_vertical_slash(q, k, columns.view, distances.view, {}, on);
        mi::plan_vertical_slash(distances.view, seqlen, runs.view, run_count.view, on);
      },
      mi::estimate_vertical_slash_workspace_bytes(q, k, {}, exec), inputs.k.bytes);
  const Tensor blocks = list({1, kHeads, num_blocks, std::min<int64_t>(num_blocks, kTopK)});
  add_stages(
      "block_sparse", {{block_sparse}, {}, {}, {}, blocks.view},
      [=](const mi::Exec& on) { mi::estimate_block_sparse(q, k, blocks.view, {}, on); },
      mi::estimate_block_sparse_workspace_bytes(q, k, {}, exec), inputs.q.bytes + inputs.k.bytes);
  std::vector<mi::Pattern> mixed;
  for (const mi::Pattern& pattern : {dense, a_shape, slash, block_sparse}) {
    mixed.insert(mixed.end(), kHeads / 4, pattern);
  }
  add_prefill("mixed", mixed);
  return rows;
}

using Figures = std::vector<std::pair<std::string, double>>;

/// Times a row for `seconds`; returns the figures to print, by name.
Figures measure(Row& row, const Inputs& inputs, const Tensor& out, const mi::Exec& exec,
                double seconds) {
  const mi::TensorView& q = inputs.q.view;
  const auto seqlen = static_cast<double>(q.shape(1)), dim = static_cast<double>(q.shape(3));
  const auto row_blocks = static_cast<double>((q.shape(1) + kBlock - 1) / kBlock);
  const bool on_gpu = q.device().type == mi::DeviceType::kCuda;
  // Tiles of 64 rows and keys that a whole call computes; counting them also warms up.
  const Tensor counted(on_gpu, mi::DType::kInt64, {1, kHeads});
  mi::PrefillOptions counting;
  counting.tiles = counted.view;
  mi::prefill_attention(q, inputs.k.view, inputs.v.view, row.patterns, out.view, counting, exec);
  std::vector<int64_t> counts(kHeads);
  copy(on_gpu, counts.data(), counted.memory.get(), counted.bytes);
  const auto tiles = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  if (row.before) row.before(exec);
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto since = [&](auto start) { return std::chrono::duration<double>(now() - start); };
  row.call(exec);
  for (const auto start = now();
       row.seconds.size() < kMinSamples || since(start).count() < seconds;) {
    const auto before = now();
    if (on_gpu) {
      row.seconds.push_back(gpu::time_seconds([&] { row.call(exec); }));
    } else {
      row.call(exec);
      row.seconds.push_back(since(before).count());
    }
  }
  std::sort(row.seconds.begin(), row.seconds.end());
  const double median = row.seconds[row.seconds.size() / 2];
  Figures figures = {{"median_ms", 1e3 * median},
                     {"half_range", (row.seconds.back() - row.seconds.front()) / 2 / median},
                     {"density", tiles / (kHeads * row_blocks * (row_blocks + 1) / 2)},
                     {"workspace_MiB", static_cast<double>(row.workspace_bytes) / 0x1p20}};
  if (row.bytes_read > 0) {
    figures.emplace_back("GB/s", static_cast<double>(row.bytes_read) / median / 1e9);
  } else {  // Two products, a multiply and an add each.
    figures.emplace_back("executed_TFLOP/s", tiles * 4 * kBlock * kBlock * dim / median / 1e12);
    const double dense_flops = 2 * seqlen * seqlen * dim * kHeads;
    figures.emplace_back("dense_equivalent_TFLOP/s", dense_flops / median / 1e12);
  }
  return figures;
}

// ---- Command line, environment, report

using Options = std::map<std::string, std::string>;

Options parse_options(const std::vector<std::string>& arguments) {
  Options options = {{"--device", ""},   {"--seqlen", "8192"}, {"--head_dim", "128"},
                     {"--threads", "0"}, {"--seconds", "1"},   {"--only", ""},
                     {"--json", ""}};
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    const auto option = options.find(arguments[i]);
    if (option == options.end() || i + 1 == arguments.size()) {
      throw std::invalid_argument(arguments[i] + ": no such option, or no value; --help");
    }
    option->second = arguments[i + 1];
  }
  return options;
}

int64_t number(const Options& options, const std::string& name) {
  const std::string& text = options.at(name);
  if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != text.npos) {
    throw std::invalid_argument(name + ": expected a whole number, got '" + text + "'");
  }
  return std::stoll(text);
}

bool choose_gpu(const std::string& device) {
  if (device == "cpu") return false;
  if (device != "cuda" && !device.empty()) {
    throw std::invalid_argument("--device: expected cpu or cuda, got '" + device + "'");
  }
  std::string reason = "libminference has no CUDA backend";
  for (const mi::Capability& backend : mi::backends()) {
    if (backend.name == "cpu") continue;
    reason = backend.reason;
    if (backend.available) break;
  }
  if (!gpu::kBuilt) reason = "minference_bench was built without the CUDA toolkit";
  if (device == "cuda" && !reason.empty()) throw std::runtime_error("--device cuda: " + reason);
  return reason.empty();
}

std::string selected(const std::vector<mi::Capability>& capabilities, bool cpu) {
  for (const mi::Capability& c : capabilities) {
    if (c.selected && (c.name == "cpu") == cpu) return c.name;
  }
  return "none";
}

/// Names and values, as JSON.
std::string environment(const Options& options, bool on_gpu) {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line, cpu = "unknown";
  while (cpu == "unknown" && std::getline(cpuinfo, line)) {
    if (line.starts_with("model name")) cpu = line.substr(line.find(": ") + 2);
  }
  std::ostringstream json;
  json << "{\"minference\": \"" << mi::version() << "\", \"build_info\": \"" << mi::build_info()
       << "\", \"cpu\": \"" << cpu << "\", \"device\": \"" << (on_gpu ? gpu::description() : "cpu")
       << "\", \"backend\": \"" << selected(mi::backends(), !on_gpu) << "\", \"cpu_isa\": \""
       << selected(mi::cpu_isas(), /*cpu=*/false) << "\"";
  for (const char* const name : {"--threads", "--seqlen", "--head_dim"}) {
    json << ", \"" << name + 2 << "\": " << number(options, name);
  }
  json << ", \"heads\": " << kHeads << ", \"heads_kv\": " << kHeadsKv << ", \"dtype\": \"bf16\"}";
  return json.str();
}

void run(const Options& options) {
  const bool on_gpu = choose_gpu(options.at("--device"));
  const int64_t seqlen = number(options, "--seqlen"), head_dim = number(options, "--head_dim");
  const auto seconds = static_cast<double>(number(options, "--seconds"));
  const std::string only = options.at("--only"), line = environment(options, on_gpu);
  std::printf("%s\n", line.c_str());
  mi::Exec exec;
  exec.num_threads = static_cast<int32_t>(number(options, "--threads"));
  if (on_gpu) exec.stream = gpu::stream();
  const Inputs inputs = draw_inputs(on_gpu, seqlen, head_dim);
  const Tensor out(on_gpu, mi::DType::kBFloat16, {1, seqlen, kHeads, head_dim});
  std::vector<Row> rows = make_rows(inputs, out, exec);
  std::size_t bytes = 0;
  for (const Row& row : rows) bytes = std::max(bytes, row.workspace_bytes);
  const Tensor workspace(on_gpu, mi::DType::kInt64, {static_cast<int64_t>(bytes / 8 + 1)});
  exec.workspace = {workspace.memory.get(), workspace.bytes};
  std::ostringstream json;
  json << "{\"environment\": " << line << ",\n \"rows\": [";
  const char* separator = "\n";
  for (Row& row : rows) {
    if (row.name.find(only) == std::string::npos) continue;
    std::printf("%-26s", row.name.c_str());
    json << separator << "  {\"name\": \"" << row.name << "\"";
    separator = ",\n";
    for (const auto& [name, value] : measure(row, inputs, out, exec, seconds)) {
      std::printf("  %s %.4g", name.c_str(), value);
      json << ", \"" << name << "\": " << value;
    }
    std::printf("\n");
    std::fflush(stdout);
    json << ", \"samples\": " << row.seconds.size() << "}";
  }
  if (*separator == '\n') throw std::invalid_argument("--only: no row's name holds '" + only + "'");
  json << "\n]}\n";
  const std::string& file = options.at("--json");
  if (!file.empty() && !(std::ofstream(file) << json.str())) {
    throw std::runtime_error("cannot write " + file);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments[0] == "--help") return std::fputs(kUsage, stdout) < 0;
  run(parse_options(arguments));
  return 0;
} catch (const std::invalid_argument& error) {
  std::fprintf(stderr, "minference_bench: %s\n", error.what());
  return 2;
} catch (const std::exception& error) {
  std::fprintf(stderr, "minference_bench: %s\n", error.what());
  return 1;
}
