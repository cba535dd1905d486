// The parts of a drawn call: its legality, work memory, threads, sizes, patterns.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <vector>

#include "fuzz_input.h"

namespace fuzz {

inline constexpr int64_t kBlock = 64;
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// What is known of a call before it is made.
enum class Legality { kLegal, kUnknown, kIllegal };

struct Call {
  Legality legality = Legality::kLegal;

  void is_illegal_if(bool condition) {
    if (condition) legality = Legality::kIllegal;
  }

  /// Sometimes corrupts one of `tensors`. Those from `num_required` on may also be absent.
  void corrupt_one(Input& input, std::initializer_list<Tensor*> tensors, int64_t num_required) {
    if (!input.one_in(4)) return;
    const int64_t index = input.below(static_cast<int64_t>(tensors.size()));
    Tensor& tensor = *tensors.begin()[index];
    tensor.corrupt(input);
    const bool is_absent = index >= num_required && tensor.is_absent();
    if (legality == Legality::kLegal) legality = Legality::kUnknown;
    is_illegal_if(tensor.is_illegal() && !is_absent);
  }

  /// Returns whether the call succeeded.
  bool check(minf_status status, std::initializer_list<const Tensor*> outputs) const {
    FUZZ_REQUIRE(status >= MINF_OK && status < MINF_ERROR_INTERNAL);
    FUZZ_REQUIRE(legality != Legality::kLegal || status == MINF_OK);
    FUZZ_REQUIRE(legality != Legality::kIllegal || status != MINF_OK);
    if (status == MINF_OK) return true;
    FUZZ_REQUIRE(*minf_last_error() != '\0');
    for (const Tensor* output : outputs) FUZZ_REQUIRE(output->holds_canary());
    return false;
  }
};

/// Work memory that ends where it says, at a drawn alignment, and that is sometimes a byte too
/// short.
class Workspace {
 public:
  Workspace(Input& input, std::size_t bytes, Call& call) : bytes_(bytes) {
    if (bytes_ > 0 && input.one_in(16)) {
      --bytes_;
      call.is_illegal_if(true);
    }
    const auto shift = static_cast<std::size_t>(input.below(3));
    memory_ = std::make_unique<std::byte[]>(bytes_ + shift);
    data_ = memory_.get() + shift;
  }
  void* data() { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_;
  std::unique_ptr<std::byte[]> memory_;
  std::byte* data_;
};

/// Makes a call that needs work memory: query(&bytes), then run(data, bytes).
template <typename Query, typename Run>
inline bool check_with_workspace(Input& input, Call& call,
                                 std::initializer_list<const Tensor*> outputs, const Query& query,
                                 const Run& run) {
  std::size_t bytes = 0;
  const minf_status status = query(&bytes);
  FUZZ_REQUIRE(status == MINF_OK || call.legality != Legality::kLegal);
  // A call must refuse what its query refuses. The reverse does not hold, because the call sees
  // more arguments.
  call.is_illegal_if(status != MINF_OK);
  Workspace workspace(input, bytes, call);
  return call.check(run(workspace.data(), workspace.bytes()), outputs);
}

/// The simplest thread pool of a host: backwards, on the calling thread.
inline void run_backwards(int64_t num_tasks, minf_task task, void* task_context, void*) {
  for (int64_t i = num_tasks - 1; i >= 0; --i) task(i, task_context);
}

inline minf_exec draw_exec(Input& input) {
  minf_exec exec{};
  exec.struct_size = sizeof(exec);
  exec.num_threads = static_cast<int32_t>(input.below(4));
  if (input.one_in(2)) exec.parallel_for = &run_backwards;
  return exec;
}

inline void draw_isa(Input& input) {
  minf_capability isa{};
  FUZZ_REQUIRE(minf_cpu_isa(static_cast<int32_t>(input.below(minf_cpu_isa_count())), &isa) ==
               MINF_OK);
  FUZZ_REQUIRE((minf_set_cpu_isa(isa.name) == MINF_OK) == (isa.available != 0));
}

// ---- Shapes and patterns -----------------------------------------------------------------------

struct Sizes {
  minf_dtype dtype;
  int64_t batch, seqlen_q, seqlen_k, num_heads_q, num_heads_kv, head_dim, head_dim_v;

  int64_t row_blocks() const { return (seqlen_q + kBlock - 1) / kBlock; }
};

/// Small sizes, mostly legal; lengths cluster around the block size of 64.
inline Sizes draw_sizes(Input& input, Call& call) {
  Sizes sizes{};
  sizes.dtype = input.pick({MINF_FLOAT32, MINF_BFLOAT16, MINF_FLOAT16});
  sizes.batch = input.one_in(8) ? input.pick<int64_t>({0, 2}) : 1;
  sizes.seqlen_k =
      input.one_in(2) ? input.pick<int64_t>({1, 63, 64, 65, 127, 128, 129, 200}) : input.below(140);
  sizes.seqlen_q = input.one_in(2) ? sizes.seqlen_k : input.below(sizes.seqlen_k + 1);
  sizes.num_heads_kv = input.between(1, 2);
  sizes.num_heads_q = sizes.num_heads_kv * input.between(1, 3);
  const auto draw_head_dim = [&] {
    return input.pick<int64_t>({8, 16, 24, 64, 80, 128, 248, 256});
  };
  sizes.head_dim = draw_head_dim();
  if (input.one_in(16)) {
    switch (input.below(3)) {
      case 0:
        sizes.seqlen_q = sizes.seqlen_k + input.between(1, 70);
        break;
      case 1:
        sizes.num_heads_kv = sizes.num_heads_q + 1;
        break;
      default:
        sizes.head_dim = input.pick<int64_t>({0, 1, 12, 260, 264});
    }
    call.is_illegal_if(true);
  }
  sizes.head_dim_v = input.one_in(2) ? draw_head_dim() : sizes.head_dim;
  return sizes;
}

struct Inputs {
  Tensor q, k, v;
  bool is_finite = true;
  bool is_broadcast = false;  // Some elements share memory.
};

inline Inputs draw_inputs(Input& input, const Sizes& sizes) {
  Inputs inputs;
  inputs.q =
      Tensor(input, sizes.dtype, {sizes.batch, sizes.seqlen_q, sizes.num_heads_q, sizes.head_dim});
  inputs.k =
      Tensor(input, sizes.dtype, {sizes.batch, sizes.seqlen_k, sizes.num_heads_kv, sizes.head_dim});
  inputs.v = Tensor(input, sizes.dtype,
                    {sizes.batch, sizes.seqlen_k, sizes.num_heads_kv, sizes.head_dim_v});
  if (input.one_in(8)) {
    inputs.is_broadcast = true;
    input.pick({&inputs.k, &inputs.v})->broadcast(input.below(3));
  }
  Random random(input.below(1 << 16));
  inputs.q.fill_random(random, input.pick({1.0f, 8.0f, 0.0f}));
  inputs.k.fill_random(random, input.pick({1.0f, 8.0f, 0.0f}));
  inputs.v.fill_random(random, 1.0f);
  return inputs;
}

/// Puts a non-finite value into one row of q. Only that row of the result may change.
inline void poison_row(Input& input, const Sizes& sizes, Inputs& inputs) {
  if (sizes.batch * sizes.seqlen_q * sizes.head_dim == 0 || !input.one_in(8)) return;
  inputs.q.set_value(
      {input.below(sizes.batch), input.below(sizes.seqlen_q), input.below(sizes.num_heads_q),
       input.below(sizes.head_dim)},
      input.pick({std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                  -std::numeric_limits<float>::infinity()}));
  inputs.is_finite = false;
}

inline minf_pattern draw_pattern(Input& input) {
  minf_pattern pattern = minf_pattern_default(static_cast<int32_t>(input.below(5)));
  const auto size = [&] {
    return static_cast<int32_t>(input.one_in(2)
                                    ? input.pick<int64_t>({0, 1, 63, 64, 65, 127, 128, INT32_MAX})
                                    : input.below(150));
  };
  switch (pattern.kind) {
    case MINF_A_SHAPE:
      pattern.as.a_shape = {.sink = size(), .window = size()};
      break;
    case MINF_TRI_SHAPE:
      pattern.as.tri_shape = {.sink = size(), .window = size(), .last = size()};
      break;
    case MINF_BLOCK_SPARSE:
      pattern.as.block_sparse.top_k = std::max(size(), 1);
      break;
    case MINF_VERTICAL_SLASH:
      pattern.as.vertical_slash.vertical_size = size();
      pattern.as.vertical_slash.slash_size = size();
      break;
    default:
      break;
  }
  return pattern;
}

inline std::vector<minf_pattern> draw_patterns(Input& input, const Sizes& sizes, Call& call) {
  std::vector<minf_pattern> patterns;
  const int64_t count = input.one_in(2) ? 1 : sizes.num_heads_q;
  for (int64_t i = 0; i < count; ++i) patterns.push_back(draw_pattern(input));
  if (input.one_in(16)) {
    minf_pattern& pattern = patterns[static_cast<std::size_t>(input.below(count))];
    pattern.kind = static_cast<int32_t>(input.pick<int64_t>({-1, 5, INT32_MAX, INT32_MIN}));
    call.is_illegal_if(true);
  }
  return patterns;
}

inline const minf_pattern& pattern_of(const std::vector<minf_pattern>& patterns, int64_t head) {
  return patterns[patterns.size() == 1 ? 0 : static_cast<std::size_t>(head)];
}

inline minf_vertical_slash_options draw_estimate_options(Input& input, Call& call) {
  minf_vertical_slash_options options = minf_vertical_slash_options_default();
  if (input.one_in(2)) {
    options.last_q = static_cast<int32_t>(input.between(1, 64));
    options.sink = static_cast<int32_t>(input.below(150));
    options.local = static_cast<int32_t>(input.below(150));
    options.vertical_p = input.pick({1.0, 0.9, 1e-9});
    options.slash_p = input.pick({1.0, 0.9, 1e-9});
  }
  if (input.one_in(32)) {
    options.last_q = static_cast<int32_t>(input.pick<int64_t>({0, -1, 65, INT32_MAX}));
    call.is_illegal_if(true);
  }
  if (input.one_in(32)) {
    options.slash_p = input.pick({0.0, -1.0, 1.5, std::numeric_limits<double>::quiet_NaN()});
    call.is_illegal_if(true);
  }
  return options;
}

/// Each vertical-slash head has its own options.
inline void draw_options_of_patterns(Input& input, Call& call,
                                     std::vector<minf_pattern>& patterns) {
  for (minf_pattern& pattern : patterns) {
    if (pattern.kind != MINF_VERTICAL_SLASH) continue;
    const minf_vertical_slash_options options = draw_estimate_options(input, call);
    minf_vertical_slash& fields = pattern.as.vertical_slash;
    fields.last_q = options.last_q;
    fields.sink = options.sink;
    fields.local = options.local;
    fields.vertical_p = options.vertical_p;
    fields.slash_p = options.slash_p;
  }
}

struct Outputs {
  Tensor out, lse;
};

inline Outputs draw_outputs(Input& input, const Sizes& sizes) {
  Outputs outputs;
  outputs.out = Tensor(input, sizes.dtype,
                       {sizes.batch, sizes.seqlen_q, sizes.num_heads_q, sizes.head_dim_v});
  outputs.lse = Tensor(input, MINF_FLOAT32, {sizes.batch, sizes.num_heads_q, sizes.seqlen_q});
  return outputs;
}

/// A scale, or null for the default; `value` is the effective scale.
struct Scale {
  double value;
  const double* pointer;
};

inline void draw_scale(Input& input, const Sizes& sizes, Call& call, Scale& scale) {
  scale = {1 / std::sqrt(static_cast<double>(sizes.head_dim)), nullptr};
  if (!input.one_in(4)) return;
  scale.value = input.pick(
      {0.0, 0.5, -0.25, kInfinity, -kInfinity, std::numeric_limits<double>::quiet_NaN(), 1e300});
  scale.pointer = &scale.value;
  call.is_illegal_if(!(std::fabs(scale.value) <= 1e30));
}

}  // namespace fuzz
