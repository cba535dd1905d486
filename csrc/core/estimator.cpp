// From the arguments of any estimator to those of one: see estimator.h.
// SPDX-License-Identifier: Apache-2.0
#include "core/estimator.h"

namespace minference {

EstimateVerticalSlashArgs vertical_slash_args(const EstimateArgs& args,
                                              std::vector<VerticalSlashTarget>& targets) {
  targets.reserve(args.targets.size());
  for (const EstimateTarget& target : args.targets) {
    targets.push_back({.batch = target.batch,
                       .head = target.head,
                       .vertical_size = target.sizes.columns,
                       .slash_size = target.sizes.distances,
                       .vertical_index = target.columns,
                       .slash_index = target.distances});
  }
  const minf_vertical_slash& options = args.pattern.as.vertical_slash;
  const Lengths& lengths = args.shape.lengths;
  return {.shape = args.shape,
          .q = args.q,
          .k = args.k,
          .softmax_scale = args.softmax_scale,
          .last_q = std::min(options.last_q, lengths.seqlen_q),
          .sink = std::min(options.sink, lengths.seqlen_k),
          .local = std::min(options.local, lengths.seqlen_k),
          .vertical_p = options.vertical_p,
          .slash_p = options.slash_p,
          .targets = targets};
}

EstimateBlockSparseArgs block_sparse_args(const EstimateArgs& args,
                                          std::vector<BlockSparseTarget>& targets) {
  targets.reserve(args.targets.size());
  for (const EstimateTarget& target : args.targets) {
    targets.push_back({.batch = target.batch,
                       .head = target.head,
                       .top_k = target.sizes.blocks,
                       .row_stride = target.block_row_stride,
                       .block_index = target.blocks});
  }
  return {.shape = args.shape,
          .q = args.q,
          .k = args.k,
          .softmax_scale = args.softmax_scale,
          .top_p = args.pattern.as.block_sparse.top_p,
          .targets = targets};
}

}  // namespace minference
