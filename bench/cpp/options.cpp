// The command line of minference_bench. An option is --name value or --name=value; most take a
// list.
// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include <charconv>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>

namespace bench {

namespace mi = minference;

const char* const kUsage = R"(minference_bench: times the stages of minference, without torch.

  --seqlen N,...       tokens (8192)
  --pattern P,...      dense  a_shape:SINK:WINDOW  tri_shape:SINK:WINDOW:LAST
                       vertical_slash:COLUMNS:DISTANCES  block_sparse:TOP_K
                       mixed: a quarter of the heads each dense, a_shape:128:1024,
                       vertical_slash:1000:6096, block_sparse:100
                       (dense,vertical_slash:1000:6096; none if --density is given)
  --density D,...      attention alone, over index lists of about this density, in (0, 0.5]: runs,
                       columns, blocks
  --stage S,...        of the patterns: prefill (all stages), estimate (with plan), attention (prefill)
  --head_dim N,...     multiples of 8 up to 256 (128)
  --heads Q/KV         query and KV heads (32/8)
  --dtype T,...        bf16, fp16, fp32 (bf16)
  --device cpu|cuda    (cuda where library and machine have it, else cpu)
  --threads N          CPU threads (all that the process may run on)
  --help               this text, then that of Google Benchmark, whose options can all be given:
                       --benchmark_out=FILE --benchmark_out_format=json, --benchmark_filter=REGEX, ...

)";

const char* name_of(Stage stage) {
  switch (stage) {
    case Stage::kPrefill:
      return "prefill";
    case Stage::kEstimate:
      return "estimate";
    case Stage::kAttention:
      return "attention";
  }
  return "?";
}

const char* name_of(mi::DType dtype) {
  switch (dtype) {
    case mi::DType::kBFloat16:
      return "bf16";
    case mi::DType::kFloat16:
      return "fp16";
    case mi::DType::kFloat32:
      return "fp32";
    default:
      return "?";
  }
}

const char* name_of(mi::DeviceType device) {
  return device == mi::DeviceType::kCuda ? "cuda" : "cpu";
}

namespace {

[[noreturn]] void fail(const std::string& option, const std::string& expected,
                       std::string_view got) {
  throw UsageError(option + ": expected " + expected + ", got '" + std::string(got) + "'");
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

/// Whether all of `text` is a number, then in `value`.
template <typename T>
bool parse_number(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

constexpr int64_t kMaxSize = int64_t{1} << 30;

int64_t parse_size(const std::string& option, const std::string& text, int64_t least = 1,
                   int64_t most = kMaxSize) {
  int64_t value = 0;
  if (!parse_number(text, value) || value < least || value > most) {
    fail(option, "a whole number from " + std::to_string(least) + " to " + std::to_string(most),
         text);
  }
  return value;
}

double parse_density(const std::string& option, const std::string& text) {
  double value = 0;
  if (!parse_number(text, value) || !(value > 0 && value <= 0.5)) {
    fail(option, "a number in (0, 0.5] (the runs never touch)", text);
  }
  return value;
}

int64_t parse_head_dim(const std::string& option, const std::string& text) {
  const int64_t value = parse_size(option, text, 8, 256);
  if (value % 8 != 0) fail(option, "a multiple of 8 from 8 to 256", text);
  return value;
}

template <typename T>
struct Named {
  const char* name;
  T value;
};

constexpr Named<mi::DType> kDTypes[] = {
    {"bf16", mi::DType::kBFloat16}, {"fp16", mi::DType::kFloat16}, {"fp32", mi::DType::kFloat32}};
constexpr Named<Stage> kStages[] = {
    {"prefill", Stage::kPrefill}, {"estimate", Stage::kEstimate}, {"attention", Stage::kAttention}};
constexpr Named<mi::DeviceType> kDevices[] = {{"cpu", mi::DeviceType::kCpu},
                                              {"cuda", mi::DeviceType::kCuda}};

template <typename T, std::size_t kCount>
T parse_name(const std::string& option, const std::string& text, const Named<T> (&names)[kCount]) {
  std::string expected;
  for (const Named<T>& entry : names) {
    if (text == entry.name) return entry.value;
    expected += (expected.empty() ? "" : " or ") + std::string(entry.name);
  }
  fail(option, expected, text);
}

/// What a pattern is called, and its sizes: an X in `form` for each.
struct PatternForm {
  const char* name;
  const char* form;
  int32_t kind;
  std::size_t num_sizes;
};

constexpr PatternForm kPatternForms[] = {
    {"dense", "dense", MINF_DENSE, 0},
    {"a_shape", "a_shape:SINK:WINDOW", MINF_A_SHAPE, 2},
    {"tri_shape", "tri_shape:SINK:WINDOW:LAST", MINF_TRI_SHAPE, 3},
    {"vertical_slash", "vertical_slash:COLUMNS:DISTANCES", MINF_VERTICAL_SLASH, 2},
    {"block_sparse", "block_sparse:TOP_K", MINF_BLOCK_SPARSE, 1},
};

PatternOption parse_pattern(const std::string& option, const std::string& text) {
  if (text == "mixed") {
    return {text,
            {mi::dense(), mi::a_shape(128, 1024), mi::vertical_slash(1000, 6096),
             mi::block_sparse(100)}};
  }
  const std::vector<std::string> parts = split(text, ':');
  for (const PatternForm& form : kPatternForms) {
    if (parts[0] != form.name) continue;
    if (parts.size() != form.num_sizes + 1) fail(option, form.form, text);
    int32_t sizes[3] = {};
    const int64_t least = form.kind == MINF_BLOCK_SPARSE ? 1 : 0;
    for (std::size_t i = 0; i < form.num_sizes; ++i) {
      sizes[i] = static_cast<int32_t>(parse_size(option + " " + form.form, parts[i + 1], least));
    }
    return {text, {{form.kind, sizes[0], sizes[1], sizes[2]}}};
  }
  std::string expected;
  for (const PatternForm& form : kPatternForms) expected += std::string(form.form) + ", ";
  fail(option, expected + "or mixed", text);
}

void parse_heads(const std::string& option, const std::string& text, Options& options) {
  const std::vector<std::string> parts = split(text, '/');
  if (parts.size() != 2) fail(option, "query and KV heads, such as 32/8", text);
  options.num_heads_q = parse_size(option, parts[0]);
  options.num_heads_kv = parse_size(option, parts[1]);
  if (options.num_heads_q % options.num_heads_kv != 0) {
    fail(option, "query heads that are a multiple of the KV heads", text);
  }
}

using Parse = std::function<void(const std::string& option, const std::string& value)>;

template <typename T, typename ParseOne>
Parse list_of(std::vector<T>& values, ParseOne parse_one) {
  return [&values, parse_one](const std::string& option, const std::string& text) {
    values.clear();
    for (const std::string& part : split(text, ',')) values.push_back(parse_one(option, part));
  };
}

/// A quarter of the heads must be whole groups, or lie within one: they are estimated by quarters.
void check_mixed(const Options& options) {
  const int64_t quarter = options.num_heads_q / 4;
  const int64_t group = options.num_heads_q / options.num_heads_kv;
  const bool divides =
      options.num_heads_q % 4 == 0 && (quarter % group == 0 || group % quarter == 0);
  for (const PatternOption& pattern : options.patterns) {
    if (pattern.quarters.size() == 1 || divides) continue;
    fail("--heads", "heads that divide into quarters, for --pattern mixed",
         std::to_string(options.num_heads_q) + "/" + std::to_string(options.num_heads_kv));
  }
}

}  // namespace

Options parse_options(std::vector<char*>& args) {
  Options options;
  const auto size = [](const std::string& option, const std::string& text) {
    return parse_size(option, text);
  };
  const std::vector<std::pair<std::string, Parse>> known = {
      {"--seqlen", list_of(options.seqlens, size)},
      {"--pattern", list_of(options.patterns, parse_pattern)},
      {"--density", list_of(options.densities, parse_density)},
      {"--head_dim", list_of(options.head_dims, parse_head_dim)},
      {"--dtype", list_of(options.dtypes,
                          [](const std::string& option, const std::string& text) {
                            return parse_name(option, text, kDTypes);
                          })},
      {"--stage", list_of(options.stages,
                          [](const std::string& option, const std::string& text) {
                            return parse_name(option, text, kStages);
                          })},
      {"--heads", [&](const std::string& option,
                      const std::string& text) { parse_heads(option, text, options); }},
      {"--device",
       [&](const std::string& option, const std::string& text) {
         options.device = parse_name(option, text, kDevices);
       }},
      {"--threads",
       [&](const std::string& option, const std::string& text) {
         options.num_threads = static_cast<int32_t>(parse_size(option, text, 1, 4096));
       }},
  };

  std::vector<char*> others;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string arg = args[i];
    const std::size_t equals = arg.find('=');
    const std::string option = arg.substr(0, equals);
    options.help = options.help || arg == "--help";
    const Parse* parse = nullptr;
    for (const auto& [name, parse_value] : known) {
      if (name == option) parse = &parse_value;
    }
    if (parse == nullptr) {
      others.push_back(args[i]);
    } else if (equals != std::string::npos) {
      (*parse)(option, arg.substr(equals + 1));
    } else if (i + 1 < args.size()) {
      (*parse)(option, args[++i]);
    } else {
      throw UsageError(option + ": expected a value, got none");
    }
  }
  args = std::move(others);
  if (options.patterns.empty() && options.densities.empty()) {
    options.patterns = {parse_pattern("", "dense"), parse_pattern("", "vertical_slash:1000:6096")};
  }
  check_mixed(options);
  return options;
}

}  // namespace bench
