// The pipeline of tests/gpu/hopper_pipeline.h on emulated threads. It is correct under every
// schedule and copy timing. Each defect that the header lists is reported as a violation that names
// kernel, block and thread, under every schedule.
// SPDX-License-Identifier: Apache-2.0
#include <initializer_list>
#include <string>

#include "../tests/test.h"
#include "hopper_pipeline.h"
#include "hopper_pipeline_call.h"

namespace minference::gpu_test {
namespace {

using simt::test::DeviceArray;

constexpr std::size_t kHopperSharedBytes = 227 * 1024;

template <typename Traits>
class Pipeline {
 public:
  Pipeline() : input_(random_input()), output_(kPipelineOutputWords) {}

  void run() const { launch_pipeline<Traits>(input_.data(), output_.data(), nullptr); }

  /// Number of wrong words.
  int64_t num_wrong() const {
    std::vector<Expected> expected(static_cast<std::size_t>(kPipelineOutputWords));
    expect_pipeline<Traits>({input_.data(), input_.size()}, expected);
    int64_t wrong = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) wrong += output_[i] != expected[i].word;
    return wrong;
  }

 private:
  static std::vector<uint32_t> random_input() {
    std::vector<uint32_t> words(static_cast<std::size_t>(kPipelineInputWords));
    fill_pipeline<Traits>(words);
    return words;
  }

  DeviceArray<uint32_t> input_;
  DeviceArray<uint32_t> output_;
};

template <Operand kOperandA>
void test_right() {
  const Pipeline<PipelineTraits<kOperandA, Defect::kNone>> pipeline;
  simt::test::for_all_schedules([&] {
    const std::string violation = simt::test::violation_of([&] { pipeline.run(); });
    CHECK(violation.empty(), violation);
    CHECK(pipeline.num_wrong() == 0);
  });
}

/// Calls `body` for every combination of schedule and copy timing, with two seeds each.
template <typename Body>
void for_some_schedules(const Body& body) {
  const simt::Options before = simt::options();
  for (const auto schedule : {simt::Schedule::kRoundRobin, simt::Schedule::kRandom}) {
    for (const auto async :
         {simt::AsyncCopies::kLate, simt::AsyncCopies::kEager, simt::AsyncCopies::kRandom}) {
      for (const uint64_t seed : {0, 1}) {
        simt::options().schedule = schedule;
        simt::options().async = async;
        simt::options().seed = seed;
        body();
      }
    }
  }
  simt::options() = before;
}

/// The violation's text must hold at least one of `says`: which one depends on who comes first.
template <Operand kOperandA, Defect kDefect>
void test_broken(const char* defect, std::initializer_list<const char*> says) {
  const Pipeline<PipelineTraits<kOperandA, kDefect>> pipeline;
  for_some_schedules([&] {
    const std::string text = simt::test::violation_of([&] { pipeline.run(); });
    const bool named = simt::test::contains(text, {"kernel 'pipeline', block (", "thread ("});
    const bool said = std::any_of(says.begin(), says.end(), [&](const char* part) {
      return text.find(part) != std::string::npos;
    });
    CHECK(named && said, defect, text, static_cast<int>(simt::options().schedule),
          static_cast<int>(simt::options().async), simt::options().seed);
  });
}

constexpr const char* kDeadlock = "deadlock";
constexpr const char* kRace = "a race";
constexpr const char* kPending = "the target of an asynchronous copy";
constexpr const char* kUninitialized = "uninitialised";
constexpr const char* kBeingRead =
    "which an asynchronous operation that has not been waited for reads";

template <Operand kOperandA>
void test_all_broken() {
  using enum Defect;
  test_broken<kOperandA, kNoInitFence>("kNoInitFence", {"has not been fenced"});
  test_broken<kOperandA, kNoInitBarrier>("kNoInitBarrier",
                                         {"nothing orders that after its init", "not initialised"});
  test_broken<kOperandA, kNoWaitForFull>("kNoWaitForFull", {kPending, kRace, kUninitialized});
  test_broken<kOperandA, kNoWaitForEmpty>("kNoWaitForEmpty",
                                          {kRace, kDeadlock, "arrives once too often"});
  test_broken<kOperandA, kTooFewBytes>("kTooFewBytes", {"-128 bytes outstanding"});
  test_broken<kOperandA, kTooManyBytes>("kTooManyBytes", {" 128 bytes outstanding"});
  test_broken<kOperandA, kWrongFullParity>("kWrongFullParity",
                                           {kPending, kRace, kUninitialized, kDeadlock});
  test_broken<kOperandA, kWrongEmptyParity>("kWrongEmptyParity", {"8 of 8 arrivals missing"});
  test_broken<kOperandA, kReleaseBeforeProducts>("kReleaseBeforeProducts", {kBeingRead, kRace});
  test_broken<kOperandA, kMissingRelease>("kMissingRelease", {"1 of 8 arrivals missing"});
  test_broken<kOperandA, kNoProxyFence>("kNoProxyFence", {"with no proxy fence"});
  test_broken<kOperandA, kNoTileBarrier>("kNoTileBarrier", {kRace, kUninitialized, "no proxy"});
  test_broken<kOperandA, kReuseBeforeRead>("kReuseBeforeRead", {kBeingRead, kRace});
  test_broken<kOperandA, kNoStoreWait>("kNoStoreWait", {"exits with bulk copies"});
  test_broken<kOperandA, kNoProductFence>("kNoProductFence", {"no wgmma.fence"});
  test_broken<kOperandA, kUnequalProducts>("kUnequalProducts", {"not the same in all warps"});
}

}  // namespace
}  // namespace minference::gpu_test

int main() {
  using namespace minference::gpu_test;
  simt::options().max_shared_bytes = kHopperSharedBytes;
  simt::options().locate = false;  // Finding lines takes longer than the launches.
  test_right<Operand::kShared>();
  test_right<Operand::kRegisters>();
  test_all_broken<Operand::kShared>();
  test_all_broken<Operand::kRegisters>();
  test_broken<Operand::kShared, Defect::kNoProductWait>("kNoProductWait", {"has not waited for"});
  test_broken<Operand::kRegisters, Defect::kReleaseBeforeLoads>("kReleaseBeforeLoads", {kRace});
  test_broken<Operand::kRegisters, Defect::kNoReadFence>("kNoReadFence",
                                                         {"read with no proxy fence"});
  test_broken<Operand::kRegisters, Defect::kOperandOverwritten>(
      "kOperandOverwritten", {"has written the register operand"});
  return simt::test::finish();
}
