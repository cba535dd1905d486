// Key sets of all heads: see head_keys.h.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/common/head_keys.h"
#include "cuda/common/load_head_keys.h"

namespace minference::cuda {
namespace {

/// One block per head, bound by the latency of reading its lists: 1024 threads read 4 KiB at a
/// time.
struct HeadKeysTraits {
  static constexpr int kThreads = 1024;
  using Group = device::BlockGroup<kThreads>;
  struct SharedStorage {
    LoadStorage<Group> load;
  };
};

/// Grid: batch * chunk.num_heads.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    prepare_head_keys_kernel(const __grid_constant__ HeadChunk chunk, int32_t num_heads_q,
                             HeadKeys* heads) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const HeadPlace place(chunk);
  const HeadKeys keys = load_head_keys<typename Traits::Group>(storage.load, chunk, place);
  if (threadIdx.x == 0) heads[int64_t{place.batch} * num_heads_q + place.head] = keys;
}

}  // namespace

void prepare_head_keys(const Shape& shape, std::span<const HeadKeys> patterns,
                       const IndexLists& index, HeadKeys* heads, cudaStream_t stream) {
  for_each_head_chunk(shape, patterns, index, [&](const HeadChunk& chunk) {
    arch::launch("prepare_head_keys", &prepare_head_keys_kernel<HeadKeysTraits>,
                 {dim3(static_cast<unsigned>(shape.batch * chunk.num_heads)),
                  dim3(HeadKeysTraits::kThreads), sizeof(HeadKeysTraits::SharedStorage)},
                 stream, chunk, shape.num_heads_q, heads);
  });
}

}  // namespace minference::cuda
