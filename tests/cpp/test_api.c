/* The C surface as a C99 program sees it: versions, capabilities, one call, one refusal.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minference/minference.h"

enum { SEQLEN = 100, HEADS = 2, HEAD_DIM = 64, SIZE = SEQLEN * HEADS * HEAD_DIM };

static int num_failures = 0;

static void expect(int holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "failed: %s (last error: %s)\n", what, minf_last_error());
  ++num_failures;
}

static minf_tensor tokens(float* data) {
  minf_tensor tensor = {data, MINF_FLOAT32, MINF_DEVICE_CPU, 0, 4, {1, SEQLEN, HEADS, HEAD_DIM},
                        {0}};
  tensor.stride[0] = SIZE;
  tensor.stride[1] = HEADS * HEAD_DIM;
  tensor.stride[2] = HEAD_DIM;
  tensor.stride[3] = 1;
  return tensor;
}

static void test_information(void) {
  char version[32];
  minf_capability capability;
  int32_t i, num_selected = 0;
  snprintf(version, sizeof version, "%d.%d.%d", MINF_VERSION_MAJOR, MINF_VERSION_MINOR,
           MINF_VERSION_PATCH);
  expect(strcmp(minf_version(), version) == 0, "version agrees with the header");
  expect(strlen(minf_build_info()) > 0, "build info");
  for (i = 0; i < minf_cpu_isa_count(); ++i) {
    expect(minf_cpu_isa(i, &capability) == MINF_OK, "minf_cpu_isa");
    expect((capability.available == 1) == (strlen(capability.reason) == 0),
           "reason if unavailable");
    num_selected += capability.selected;
  }
  expect(num_selected == 1, "one instruction set is selected");
  expect(minf_backend_count() >= 1 && minf_backend(0, &capability) == MINF_OK, "minf_backend");
  expect(minf_backend(-1, &capability) == MINF_ERROR_INVALID_ARGUMENT, "no backend -1");
  expect(minf_cpu_isa(minf_cpu_isa_count(), &capability) == MINF_ERROR_INVALID_ARGUMENT,
         "no such instruction set");
  expect(minf_cpu_isa(0, NULL) == MINF_ERROR_INVALID_ARGUMENT, "null capability");
}

static void test_forcing_an_instruction_set(void) {
  minf_capability capability;
  const int32_t last = minf_cpu_isa_count() - 1;
  expect(minf_set_cpu_isa("portable") == MINF_OK, "portable is always there");
  expect(minf_cpu_isa(last, &capability) == MINF_OK && capability.selected == 1,
         "portable, the last one, is selected");
  expect(minf_set_cpu_isa("abacus") == MINF_ERROR_INVALID_ARGUMENT, "unknown instruction set");
  expect(strstr(minf_last_error(), "abacus") != NULL, "its name in the message");
  expect(minf_set_cpu_isa(NULL) == MINF_OK, "back to the best");
}

static void test_pattern_names(void) {
  expect(strcmp(minf_pattern_name(MINF_DENSE), "dense") == 0, "the first kind's name");
  expect(strcmp(minf_pattern_name(MINF_TRI_SHAPE), "tri_shape") == 0, "another kind's name");
  expect(minf_pattern_name(-1) == NULL, "no kind -1");
  expect(minf_pattern_name(MINF_TRI_SHAPE + 1) == NULL, "no kind past the last");
}

/* q = 0: every key weighs the same, so row i of a dense head is the mean of v[0..i]. */
static void test_prefill(void) {
  float* q_data = calloc(SIZE, sizeof(float));
  float* v_data = malloc(SIZE * sizeof(float));
  float* out_data = malloc(SIZE * sizeof(float));
  minf_tensor q = tokens(q_data), v = tokens(v_data), out = tokens(out_data);
  minf_pattern pattern = {0};
  size_t bytes = 0;
  void* workspace;
  double sum = 0;
  int i;
  expect(pattern.kind == MINF_DENSE, "a pattern of zeros is dense");
  for (i = 0; i < SIZE; ++i) v_data[i] = (float)(i % 17);

  expect(minf_prefill_attention_workspace_bytes(&q, &q, &pattern, 1, NULL, &bytes) == MINF_OK,
         "workspace bytes");
  workspace = malloc(bytes);
  expect(minf_prefill_attention(&q, &q, &v, &pattern, 1, NULL, &out, NULL, NULL, workspace, bytes,
                                NULL) == MINF_OK,
         "prefill");
  for (i = 0; i < SEQLEN; ++i) {
    sum += v_data[i * HEADS * HEAD_DIM];
    expect(fabs(out_data[i * HEADS * HEAD_DIM] - sum / (i + 1)) < 1e-5,
           "mean of the values so far");
  }

  pattern.kind = 9;
  expect(minf_prefill_attention(&q, &q, &v, &pattern, 1, NULL, &out, NULL, NULL, workspace, bytes,
                                NULL) == MINF_ERROR_INVALID_ARGUMENT,
         "kind 9 is refused");
  expect(strcmp(minf_last_error(), "patterns[0]: expected a kind in [0, 4], got 9") == 0,
         "argument, expected, got");
  free(workspace);
  free(q_data);
  free(v_data);
  free(out_data);
}

int main(void) {
  test_information();
  test_forcing_an_instruction_set();
  test_pattern_names();
  test_prefill();
  return num_failures == 0 ? 0 : 1;
}
