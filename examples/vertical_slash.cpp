// Vertical-slash attention from C++. Keeping as many columns as there are keys keeps everything, so
// the result must equal that of the dense pattern, which prefill_attention computes another way.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "minference/minference.hpp"

constexpr int kSeqlen = 512, kHeads = 2, kDim = 64;

int main() try {
  std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  std::vector<float> q(kSeqlen * kHeads * kDim), k(q), v(q);
  for (auto* values : {&q, &k, &v}) {
    std::generate(values->begin(), values->end(), [&] { return normal(generator); });
  }
  const minference::Dims shape = {1, kSeqlen, kHeads, kDim};
  const auto attend = [&](minference::Pattern pattern) {
    std::vector<float> out(q.size());
    minference::prefill_attention({q.data(), shape}, {k.data(), shape}, {v.data(), shape},
                                  {pattern}, {out.data(), shape});
    return out;
  };

  const std::vector<float> dense = attend(minference::dense());
  const std::vector<float> sparse =
      attend(minference::vertical_slash(/*vertical_size=*/kSeqlen, /*slash_size=*/100));
  float error = 0;
  for (std::size_t i = 0; i < dense.size(); ++i) {
    error = std::max(error, std::fabs(dense[i] - sparse[i]));
  }
  std::printf("largest difference from dense: %.1e: %s\n", error, error < 1e-5f ? "ok" : "WRONG");
  return error < 1e-5f ? 0 : 1;
} catch (const minference::Error& error) {
  std::fprintf(stderr, "minference: %s\n", error.what());
  return 1;
}
