/* Vertical-slash attention from C. Keeping as many columns as there are keys keeps everything, so
 * the result must be dense causal attention: the last row is checked against that definition.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "minference/minference.h"

enum { SEQLEN = 300, HEADS = 2, DIM = 64, ROW = HEADS * DIM, SIZE = SEQLEN * ROW };

static float q[SIZE], k[SIZE], v[SIZE], out[SIZE];

static minf_tensor view(float* data) { /* [batch 1, SEQLEN, HEADS, DIM], contiguous */
  minf_tensor tensor = {
      data, MINF_FLOAT32, MINF_DEVICE_CPU, 0, 4, {1, SEQLEN, HEADS, DIM}, {SIZE, ROW, DIM, 1}};
  return tensor;
}

static int fail(void) {
  fprintf(stderr, "minference: %s\n", minf_last_error());
  return 1;
}

int main(void) {
  for (int i = 0; i < SIZE; ++i) {
    q[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    k[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    v[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  }
  minf_pattern pattern = minf_pattern_default(MINF_VERTICAL_SLASH);
  pattern.as.vertical_slash.vertical_size = SEQLEN;
  pattern.as.vertical_slash.slash_size = 100;
  const minf_tensor tq = view(q), tk = view(k), tv = view(v), tout = view(out);
  size_t bytes = 0;
  if (minf_prefill_attention_workspace_bytes(&tq, &tk, &pattern, 1, NULL, &bytes)) return fail();
  void* workspace = malloc(bytes);
  if (minf_prefill_attention(&tq, &tk, &tv, &pattern, 1, NULL, &tout, NULL, NULL, workspace, bytes,
                             NULL)) {
    return fail();
  }
  free(workspace);

  const float* last = q + SIZE - DIM; /* Last row, last head: sees all keys. */
  double sum = 0, want = 0;           /* Of its element 0. */
  for (int j = 0; j < SEQLEN; ++j) {
    double score = 0;
    for (int d = 0; d < DIM; ++d) score += (double)last[d] * (double)k[(j + 1) * ROW - DIM + d];
    sum += exp(score / sqrt(DIM));
    want += exp(score / sqrt(DIM)) * (double)v[(j + 1) * ROW - DIM];
  }
  const double error = fabs((double)out[SIZE - DIM] - want / sum);
  printf("out %.6f, expected %.6f: %s\n", (double)out[SIZE - DIM], want / sum,
         error < 1e-6 ? "ok" : "WRONG");
  return error < 1e-6 ? 0 : 1;
}
