/* A program that was built against the header of 0.2.0 runs against the library of today: every
 * function whose arguments have a struct_size, with the structs as they were published, and, as
 * test_published_larger, with structs that have more fields than this library may know.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef LARGER
#define MINF_LATER_FIELDS unsigned char later[4096];
#endif
#include "published/minference_0_2_0.h"

enum { SEQLEN = 200, HEADS = 3, HEAD_DIM = 16, SIZE = SEQLEN * HEADS * HEAD_DIM };
enum { ROW_BLOCKS = (SEQLEN + 63) / 64, VERTICAL = 20, SLASH = 30, TOP_K = 3 };

static int num_failures = 0;

static void expect(int holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "failed: %s (last error: %s)\n", what, minf_last_error());
  ++num_failures;
}

/* [1, HEADS, a, b] int32 as an index tensor of `ndim` dimensions; tokens where ndim is 0. */
static minf_tensor tensor_of(void* data, int32_t ndim, int64_t a, int64_t b) {
  minf_tensor tensor = {0};
  const int64_t tokens[MINF_MAX_DIMS] = {1, SEQLEN, HEADS, HEAD_DIM};
  const int64_t lists[MINF_MAX_DIMS] = {1, HEADS, a, b};
  int64_t stride = 1;
  int32_t dim;
  tensor.data = data;
  tensor.dtype = ndim == 0 ? MINF_FLOAT32 : MINF_INT32;
  tensor.ndim = ndim == 0 ? 4 : ndim;
  for (dim = tensor.ndim - 1; dim >= 0; --dim) {
    tensor.shape[dim] = ndim == 0 ? tokens[dim] : lists[dim];
    tensor.stride[dim] = stride;
    stride *= tensor.shape[dim];
  }
  return tensor;
}

static float* random_tokens(unsigned seed) {
  float* data = malloc(SIZE * sizeof(float));
  int i;
  for (i = 0; i < SIZE; ++i) {
    seed = seed * 1664525u + 1013904223u;
    data[i] = (float)(seed >> 8) / (float)(1 << 23) - 1;
  }
  return data;
}

/* out = softmax(scale q k^T) v, causal, all keys. */
static double largest_error(const float* q, const float* k, const float* v, double scale,
                            const float* out) {
  double largest = 0;
  int head, row, key, dim;
  for (head = 0; head < HEADS; ++head) {
    for (row = 0; row < SEQLEN; ++row) {
      double want[HEAD_DIM] = {0}, sum = 0;
      for (key = 0; key <= row; ++key) {
        double dot = 0, weight;
        for (dim = 0; dim < HEAD_DIM; ++dim) {
          dot += (double)q[(row * HEADS + head) * HEAD_DIM + dim] *
                 k[(key * HEADS + head) * HEAD_DIM + dim];
        }
        weight = exp(scale * dot);
        sum += weight;
        for (dim = 0; dim < HEAD_DIM; ++dim) {
          want[dim] += weight * v[(key * HEADS + head) * HEAD_DIM + dim];
        }
      }
      for (dim = 0; dim < HEAD_DIM; ++dim) {
        const double error = fabs(want[dim] / sum - out[(row * HEADS + head) * HEAD_DIM + dim]);
        if (error > largest) largest = error;
      }
    }
  }
  return largest;
}

static minf_exec exec_of_size(size_t size) {
  minf_exec exec;
  memset(&exec, 0, sizeof exec);
  exec.struct_size = size;
  exec.num_threads = 2;
  return exec;
}

/* A head of each kind of list: prefill is build_index and attention, to the bit. */
static void test_prefill(const float* q_data, const float* k_data, const float* v_data) {
  float* out_data = malloc(SIZE * sizeof(float));
  float* again_data = malloc(SIZE * sizeof(float));
  const minf_tensor q = tensor_of((void*)q_data, 0, 0, 0), k = tensor_of((void*)k_data, 0, 0, 0),
                    v = tensor_of((void*)v_data, 0, 0, 0), out = tensor_of(out_data, 0, 0, 0),
                    again = tensor_of(again_data, 0, 0, 0);
  const double scale = 0.5;
  const minf_exec exec = exec_of_size(sizeof exec);
  minf_pattern patterns[HEADS];
  minf_attention_options options;
  minf_sparse_index index;
  size_t prefill_bytes = 0, index_bytes = 0, build_bytes = 0, attention_bytes = 0;
  void *workspace, *lists, *attention_workspace;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.softmax_scale = &scale;
  memset(&index, 0, sizeof index);
  index.struct_size = sizeof index;
  patterns[0] = minf_pattern_default(MINF_VERTICAL_SLASH);
  patterns[0].as.vertical_slash.vertical_size = VERTICAL;
  patterns[0].as.vertical_slash.slash_size = SLASH;
  patterns[0].as.vertical_slash.local = 5;
  patterns[1] = minf_pattern_default(MINF_BLOCK_SPARSE);
  patterns[1].as.block_sparse.top_k = TOP_K;
  patterns[2] = minf_pattern_default(MINF_DENSE);

  expect(minf_prefill_attention_workspace_bytes(&q, &k, patterns, HEADS, &exec, &prefill_bytes) ==
             MINF_OK,
         "bytes of prefill");
  workspace = malloc(prefill_bytes);
  memset(out_data, 0x7f, SIZE * sizeof(float));
  expect(minf_prefill_attention(&q, &k, &v, patterns, HEADS, &options, &out, NULL, NULL, workspace,
                                prefill_bytes, &exec) == MINF_OK,
         "prefill");

  expect(
      minf_build_index_bytes(&q, &k, patterns, HEADS, &exec, &index_bytes, &build_bytes) == MINF_OK,
      "bytes of build_index");
  expect(build_bytes <= prefill_bytes, "one workspace serves both");
  lists = malloc(index_bytes);
  expect(minf_build_index(&q, &k, patterns, HEADS, &options, &index, lists, index_bytes, workspace,
                          prefill_bytes, &exec) == MINF_OK,
         "build_index");
  expect(index.struct_size == sizeof index && index.patterns == patterns &&
             index.vertical_index.ndim == 3 && index.block_index.ndim == 4,
         "the index has its patterns and lists");
  expect(minf_sparse_attention_workspace_bytes(&q, &k, &index, &exec, &attention_bytes) == MINF_OK,
         "bytes of attention");
  attention_workspace = malloc(attention_bytes);
  memset(again_data, 0x7f, SIZE * sizeof(float));
  expect(minf_sparse_attention(&q, &k, &v, &index, &options, &again, NULL, attention_workspace,
                               attention_bytes, &exec) == MINF_OK,
         "attention");
  expect(memcmp(out_data, again_data, SIZE * sizeof(float)) == 0, "the same bits");

  patterns[2].kind = MINF_DENSE;
  expect(minf_prefill_attention(&q, &k, &v, &patterns[2], 1, &options, &out, NULL, NULL, workspace,
                                prefill_bytes, &exec) == MINF_OK,
         "dense prefill");
  expect(largest_error(q_data, k_data, v_data, scale, out_data) < 1e-5, "dense attention");
  free(attention_workspace);
  free(lists);
  free(workspace);
  free(again_data);
  free(out_data);
}

/* The estimates alone: forced entries come out first, and lists ascend. */
static void test_estimates(const float* q_data, const float* k_data) {
  static int32_t vertical[HEADS * VERTICAL], slash[HEADS * SLASH],
      blocks[HEADS * ROW_BLOCKS * TOP_K];
  const minf_tensor q = tensor_of((void*)q_data, 0, 0, 0), k = tensor_of((void*)k_data, 0, 0, 0),
                    vertical_index = tensor_of(vertical, 3, VERTICAL, 0),
                    slash_index = tensor_of(slash, 3, SLASH, 0),
                    block_index = tensor_of(blocks, 4, ROW_BLOCKS, TOP_K);
  minf_vertical_slash_options lines = minf_vertical_slash_options_default();
  minf_block_sparse_options mass = minf_block_sparse_options_default();
  size_t bytes = 0;
  void* workspace;
  int i;
  lines.sink = 4;
  lines.local = 6;
  mass.top_p = 0.9;
  expect(minf_estimate_vertical_slash_workspace_bytes(&q, &k, &lines, NULL, &bytes) == MINF_OK,
         "bytes of vertical-slash");
  workspace = malloc(bytes);
  expect(minf_estimate_vertical_slash(&q, &k, &lines, &vertical_index, &slash_index, workspace,
                                      bytes, NULL) == MINF_OK,
         "vertical-slash");
  free(workspace);
  for (i = 0; i < 4; ++i) expect(vertical[i] == i, "the sink is kept");
  for (i = 0; i < 6; ++i) expect(slash[i] == i, "the local distances are kept");
  for (i = 1; i < VERTICAL; ++i) expect(vertical[i] > vertical[i - 1], "columns ascend");

  expect(minf_estimate_block_sparse_workspace_bytes(&q, &k, &mass, NULL, &bytes) == MINF_OK,
         "bytes of block-sparse");
  workspace = malloc(bytes);
  expect(minf_estimate_block_sparse(&q, &k, &mass, &block_index, workspace, bytes, NULL) == MINF_OK,
         "block-sparse");
  free(workspace);
  expect(blocks[0] == 0 && blocks[1] == -1, "the first row block has one block");
}

#ifdef LARGER
/* A newer program that uses what this library does not know is refused, not misunderstood. */
static void test_unknown_fields(const float* q_data) {
  const minf_tensor q = tensor_of((void*)q_data, 0, 0, 0);
  const minf_pattern pattern = minf_pattern_default(MINF_DENSE);
  minf_exec exec = exec_of_size(sizeof exec);
  size_t bytes = 0;
  exec.later[sizeof exec.later - 1] = 1;
  expect(minf_prefill_attention_workspace_bytes(&q, &q, &pattern, 1, &exec, &bytes) ==
             MINF_ERROR_INVALID_ARGUMENT,
         "an unknown field of exec");
  expect(strstr(minf_last_error(), "exec") != NULL, "its name in the message");
}
#endif

int main(void) {
  float *q = random_tokens(1), *k = random_tokens(2), *v = random_tokens(3);
  test_prefill(q, k, v);
  test_estimates(q, k);
#ifdef LARGER
  test_unknown_fields(q);
#endif
  free(v);
  free(k);
  free(q);
  return num_failures == 0 ? 0 : 1;
}
