// Cases that combine Hopper's instructions: the pipeline of hopper_pipeline.h. Elements are -1, 0
// and 1, so that sums are exact in 16 bits and in any order.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_pipeline.h"
#include "hopper_pipeline_call.h"

namespace minference::gpu_test {
namespace {

template <Operand kOperandA>
Case pipeline_case(const char* name) {
  using Traits = PipelineTraits<kOperandA, Defect::kNone>;
  return {.name = name,
          .min_arch = 90,
          .input_words = kPipelineInputWords,
          .output_words = kPipelineOutputWords,
          .fill = &fill_pipeline<Traits>,
          .launch = &launch_pipeline<Traits>,
          .expect = &expect_pipeline<Traits>,
          .max_arch = 90};
}

}  // namespace

CaseList hopper_pipeline_cases() {
  return {pipeline_case<Operand::kShared>("pipeline, A in shared memory"),
          pipeline_case<Operand::kRegisters>("pipeline, A in registers")};
}

}  // namespace minference::gpu_test
