// wgmma of the running block: see hopper_products.h.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_products.h"

#include <simt/hopper.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine.h"
#include "hopper_matrix_product.h"
#include "hopper_units.h"

namespace simt::engine {
namespace {

// A NaN that arithmetic does not produce.
constexpr uint32_t kUnfinished = 0x7fc5a5a5;

constexpr std::size_t kChunkBytes = 16;

bool is_untouched(const float* registers, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, registers + i, sizeof bits);
    if (bits != kUnfinished) return false;
  }
  return true;
}

void mark_unfinished(float* registers, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) std::memcpy(registers + i, &kUnfinished, sizeof(float));
}

bool overlap(const float* a, std::size_t size_a, const float* b, std::size_t size_b) {
  const auto begin_a = reinterpret_cast<uintptr_t>(a);
  const auto begin_b = reinterpret_cast<uintptr_t>(b);
  return begin_a < begin_b + size_b * sizeof(float) && begin_b < begin_a + size_a * sizeof(float);
}

std::size_t index_in_warpgroup(const Thread& thread) {
  return static_cast<std::size_t>(thread.id % 128);
}

const ProductCall& call_of(const Collective& collective, int lane) {
  return *static_cast<const ProductCall*>(collective.items[static_cast<std::size_t>(lane)]);
}

}  // namespace

bool ProductCall::same_as(const ProductCall& other) const {
  return n == other.n && descriptor_a == other.descriptor_a && descriptor_b == other.descriptor_b &&
         (a == nullptr) == (other.a == nullptr) && accumulate == other.accumulate &&
         transposed_b == other.transposed_b && bf16 == other.bf16;
}

void Warpgroup::start_block(int number) {
  number_ = number;
  first_ = 0;
  products_.clear();
  warps_ = {};
  waited_ = {};
  for (auto& accumulators : accumulators_) accumulators.clear();
}

int Warpgroup::agent() const { return kFirstWarpgroupAgent + number_; }

// ---- Issue --------------------------------------------------------------------------------------

void Warpgroup::issue(Engine& engine, int warp, const Collective& collective) {
  const Thread& last = engine.current();
  WarpState& state = warps_[static_cast<std::size_t>(warp)];
  const ProductCall& call = call_of(collective, last.lane);
  check_call(engine, last, call);
  for (int lane = 0; lane < 32; ++lane) {
    if (call_of(collective, lane).same_as(call)) continue;
    engine.fail(last, "issues a wgmma that is not the same in all lanes of its warp");
  }
  const int64_t number = state.issued++;
  const bool first_warp = number == end();
  if (first_warp) {
    products_.push_back(std::make_unique<Product>());
    products_.back()->call = call;
    products_.back()->group = state.group;
  }
  Product& product = this->product(number);
  if (!product.call.same_as(call) || product.group != state.group) {
    engine.fail(last,
                "issues a wgmma that is not the same in all warps of its warpgroup: "
                "descriptors, shape, type or group differ");
  }
  for (int lane = 0; lane < 32; ++lane) {
    const Thread& thread = engine.thread_at(last.warp * 32 + lane);
    const ProductCall& own = call_of(collective, lane);
    Product::PerThread& part = product.threads[index_in_warpgroup(thread)];
    part.accumulators = &take(engine, thread, own, number);
    part.a = own.a;
    if (own.a != nullptr) std::copy_n(own.a, 4, part.a_values.begin());
  }
  read_operands(engine, last, warp, product, first_warp);
  product.issued_by |= 1U << warp;
  if (product.issued_by != 0xf) return;
  engine.notify();
  const auto complete = [this, &engine, number] { execute_through(engine, number); };
  const uint64_t operation = engine.start_async({complete, "a wgmma", last.id});
  if (!product.done) product.operation = operation;
}

void Warpgroup::check_call(Engine& engine, const Thread& thread, const ProductCall& call) const {
  if (call.n % 8 != 0 || call.n < 8 || call.n > 256) {
    engine.fail(thread, [&] { return "issues a wgmma with N = " + std::to_string(call.n); });
  }
  const auto check = [&](uint64_t bits, bool mn_major, const char* name) {
    const char* error = descriptor_error(MatrixDescriptor(bits), mn_major);
    if (error == nullptr) return;
    engine.fail(thread, [&] {
      return "issues a wgmma whose descriptor of " + std::string(name) + " " + error;
    });
  };
  if (call.a == nullptr) check(call.descriptor_a, /*mn_major=*/false, "A");
  check(call.descriptor_b, call.transposed_b, "B");
}

// The agent knows what one lane of each warp knows: all of the lanes must be ordered after whoever
// wrote the operands.
void Warpgroup::read_operands(Engine& engine, const Thread& thread, int warp,
                              const Product& product, bool first_warp) {
  engine.clocks().inherit(agent(), thread.id);
  const auto read = [&](uint32_t address, uint32_t, uint32_t) {
    const char* pointer = engine.shared().base() + address - SharedMemory::kFirstAddress;
    const UnfencedAccess unfenced = find_unfenced_write(engine, agent(), pointer, kChunkBytes);
    engine.begin_read(thread, agent(), pointer, kChunkBytes);
    report_unfenced(engine, thread, unfenced, "issues a wgmma that reads");
  };
  const ProductCall& call = product.call;
  const auto first_row = static_cast<uint32_t>(16 * warp);
  if (call.a == nullptr) {
    for_each_chunk(MatrixDescriptor(call.descriptor_a), false, first_row, first_row + 16, read);
  }
  if (first_warp) {
    for_each_chunk(MatrixDescriptor(call.descriptor_b), call.transposed_b, 0,
                   static_cast<uint32_t>(call.n), read);
  }
}

Accumulators& Warpgroup::take(Engine& engine, const Thread& thread, const ProductCall& call,
                              int64_t number) {
  const std::size_t index = index_in_warpgroup(thread);
  const auto count = static_cast<std::size_t>(call.n / 2);
  const bool fenced = warps_[index / 32].fenced;
  auto& all = accumulators_[index];
  if (!fenced && call.a != nullptr) {
    engine.fail(thread,
                "issues a wgmma with A in registers and no wgmma.fence since its last wait");
  }
  for (auto& held : all) {
    if (!overlap(held->registers, held->values.size(), call.d, count)) continue;
    const bool same = held->registers == call.d && held->values.size() == count;
    const bool finished = held->last_product < waited_[index];
    if (same && is_untouched(call.d, count)) {
      held->last_product = number;
      return *held;
    }
    if (!finished) {
      engine.fail(thread, same ? "has written accumulators of a wgmma that it has not waited for"
                               : "issues a wgmma on accumulators of another that it has not waited "
                                 "for, of another shape");
    }
    held->values.clear();  // Nobody asked for its contents, which are lost.
    held->registers = nullptr;
  }
  if (!fenced) {
    engine.fail(thread,
                "issues a wgmma on new accumulators and no wgmma.fence since its last wait");
  }
  std::erase_if(all, [](const auto& held) { return held->registers == nullptr; });
  auto& held = all.emplace_back(std::make_unique<Accumulators>());
  held->registers = call.d;
  held->values.assign(call.d, call.d + count);
  held->last_product = number;
  mark_unfinished(call.d, count);
  return *held;
}

void Warpgroup::commit(int warp) {
  WarpState& state = warps_[static_cast<std::size_t>(warp)];
  ++state.group;
  state.group_ends.push_back(state.issued);
}

// ---- Execution ----------------------------------------------------------------------------------

void Warpgroup::execute_through(Engine& engine, int64_t number) {
  for (int64_t i = first_; i <= number; ++i) {
    if (!product(i).done) execute(engine, product(i));
  }
}

void Warpgroup::execute(Engine& engine, Product& product) {
  product.done = true;
  MatrixProduct work(product.call);
  const char* window = engine.shared().base() - SharedMemory::kFirstAddress;
  work.load_b(window);
  if (product.call.a == nullptr) work.load_a(window);
  for (std::size_t thread = 0; thread < product.threads.size(); ++thread) {
    const Product::PerThread& part = product.threads[thread];
    if (product.call.a != nullptr) work.load_a(thread, part.a_values);
    work.load_d(thread, part.accumulators->values);
  }
  work.multiply();
  for (std::size_t thread = 0; thread < product.threads.size(); ++thread) {
    work.store_d(thread, product.threads[thread].accumulators->values);
  }
}

// ---- Waits --------------------------------------------------------------------------------------

int64_t Warpgroup::wait_target(int warp, int pending) const {
  const auto& ends = warps_[static_cast<std::size_t>(warp)].group_ends;
  const auto left = static_cast<std::size_t>(pending);
  return ends.size() <= left ? 0 : ends[ends.size() - 1 - left];
}

bool Warpgroup::issued_by_all(int64_t target) const {
  return std::all_of(warps_.begin(), warps_.end(),
                     [target](const WarpState& warp) { return warp.issued >= target; });
}

void Warpgroup::wait(Engine& engine, const Thread& thread, int64_t target) {
  const std::size_t index = index_in_warpgroup(thread);
  warps_[index / 32].fenced = false;
  for (int64_t& number = waited_[index]; number < target; ++number) {
    Product& product = this->product(number);
    if (!product.done) engine.complete_async(product.operation);
    product.waited_by |= 1u << (index / 32);
    clear_readers(engine, product);
    engine.clocks().inherit_count(thread.id, agent());
    const Product::PerThread& part = product.threads[index];
    if (part.a != nullptr && !std::equal(part.a_values.begin(), part.a_values.end(), part.a)) {
      engine.fail(thread, "has written the register operand of a wgmma before waiting for it");
    }
  }
  forget_old();
}

/// Frees the shared operands once every warp has waited: each waits for its own part.
void Warpgroup::clear_readers(Engine& engine, Product& product) {
  if (product.readers_cleared || product.waited_by != 0xF) return;
  product.readers_cleared = true;
  const auto finish = [&](uint32_t address, uint32_t, uint32_t) {
    engine.finish_read(engine.shared().base() + address - SharedMemory::kFirstAddress, kChunkBytes);
  };
  const ProductCall& call = product.call;
  if (call.a == nullptr) for_each_chunk(MatrixDescriptor(call.descriptor_a), false, 0, 64, finish);
  for_each_chunk(MatrixDescriptor(call.descriptor_b), call.transposed_b, 0,
                 static_cast<uint32_t>(call.n), finish);
}

void Warpgroup::forget_old() {
  const int64_t oldest = *std::min_element(waited_.begin(), waited_.end());
  for (; first_ < oldest; ++first_) products_.pop_front();
}

void Warpgroup::keep(Engine& engine, const Thread& thread, float* registers, int count) {
  const std::size_t index = index_in_warpgroup(thread);
  auto& all = accumulators_[index];
  const auto found = std::find_if(all.begin(), all.end(), [registers](const auto& held) {
    return held->registers == registers;
  });
  if (found == all.end()) return;
  Accumulators& held = **found;
  if (held.last_product >= waited_[index]) {
    engine.fail(thread, "keeps accumulators of a wgmma that it has not waited for");
  }
  const auto size = static_cast<std::size_t>(count);
  if (held.values.size() != size) {
    engine.fail(thread, "keeps accumulators that are not all of a wgmma's");
  }
  if (is_untouched(registers, size)) std::copy_n(held.values.begin(), size, registers);
  all.erase(found);
}

void Warpgroup::thread_exits(Engine& engine, const Thread& thread) {
  const std::size_t index = index_in_warpgroup(thread);
  if (waited_[index] < warps_[index / 32].issued) {
    engine.fail(thread, "exits with a wgmma that it has not waited for");
  }
}

// ---- All warpgroups -----------------------------------------------------------------------------

void Products::start_block() {
  for (std::size_t i = 0; i < warpgroups_.size(); ++i) {
    warpgroups_[i].start_block(static_cast<int>(i));
  }
}

Warpgroup& Products::of(Engine& engine, const Thread& thread) {
  const int number = thread.id / 128;
  if ((number + 1) * 128 > engine.num_threads()) {
    engine.fail(thread, "executes a wgmma instruction outside a warpgroup of 128 threads");
  }
  return warpgroups_[static_cast<std::size_t>(number)];
}

void Products::thread_exits(Engine& engine, const Thread& thread) {
  warpgroups_[static_cast<std::size_t>(thread.id / 128)].thread_exits(engine, thread);
}

}  // namespace simt::engine

namespace simt {
namespace {

using engine::Collective;
using engine::Engine;
using engine::HopperUnits;
using engine::kAllLanes;
using engine::LibraryCall;
using engine::ProductCall;
using engine::Warpgroup;

Warpgroup& warpgroup(Engine& engine) {
  return HopperUnits::instance().products.of(engine, engine.current());
}

int warp_in_group(const Engine& engine) { return const_cast<Engine&>(engine).current().warp % 4; }

void issue(LibraryCall& call, ProductCall product) {
  Engine& engine = call.engine();
  warpgroup(engine);
  engine.warp_of(call.thread())
      .meet(engine, call.thread(), "wgmma.mma_async", kAllLanes, /*aligned=*/true, &product,
            [](Engine& at, Collective& collective) {
              warpgroup(at).issue(at, warp_in_group(at), collective);
            });
}

void meet(LibraryCall& call, const char* name, engine::Warp::Work work) {
  Engine& engine = call.engine();
  warpgroup(engine);
  engine.warp_of(call.thread())
      .meet(engine, call.thread(), name, kAllLanes, /*aligned=*/true, nullptr, work);
}

}  // namespace

void wgmma_shared(float* d, int n, uint64_t a, uint64_t b, bool accumulate, bool transposed_b,
                  bool bf16) {
  LibraryCall call;
  issue(call, {d, nullptr, n, a, b, accumulate, transposed_b, bf16});
}

void wgmma_registers(float* d, int n, const uint32_t* a, uint64_t b, bool accumulate,
                     bool transposed_b, bool bf16) {
  LibraryCall call;
  issue(call, {d, a, n, 0, b, accumulate, transposed_b, bf16});
}

void wgmma_fence() {
  LibraryCall call;
  meet(call, "wgmma.fence",
       [](Engine& engine, Collective&) { warpgroup(engine).fence(warp_in_group(engine)); });
}

void wgmma_commit_group() {
  LibraryCall call;
  meet(call, "wgmma.commit_group",
       [](Engine& engine, Collective&) { warpgroup(engine).commit(warp_in_group(engine)); });
}

void wgmma_wait(int pending) {
  LibraryCall call;
  Engine& engine = call.engine();
  meet(call, "wgmma.wait_group", nullptr);
  Warpgroup* group = &warpgroup(engine);
  const int64_t target = group->wait_target(call.thread().warp % 4, pending);
  engine.block_until([group, target] { return group->issued_by_all(target); },
                     {.format = "the other warps of its warpgroup to issue wgmma number %lld",
                      .first = static_cast<long long>(target - 1)});
  group->wait(engine, call.thread(), target);
}

void keep_registers(float* d, int count) {
  LibraryCall call;
  if ((call.thread().id / 128 + 1) * 128 > call.engine().num_threads()) return;
  warpgroup(call.engine()).keep(call.engine(), call.thread(), d, count);
}

}  // namespace simt
