/* minference.h as it was published in 0.2.0, without its comments. It never changes: programs were
 * built against it, and test_published.c is one of them. Where MINF_LATER_FIELDS is defined the
 * structs that may grow end with it, as they will in a newer version.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MINFERENCE_PUBLISHED_0_2_0_H_
#define MINFERENCE_PUBLISHED_0_2_0_H_

#include <stddef.h>
#include <stdint.h>

#define MINF_VERSION_MAJOR 0
#define MINF_VERSION_MINOR 2
#define MINF_VERSION_PATCH 0

#if defined(_WIN32)
#define MINF_API
#else
#define MINF_API __attribute__((visibility("default")))
#endif

#ifndef MINF_LATER_FIELDS
#define MINF_LATER_FIELDS
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum minf_status {
  MINF_OK = 0,
  MINF_ERROR_INVALID_ARGUMENT = 1,
  MINF_ERROR_UNSUPPORTED = 2,
  MINF_ERROR_WORKSPACE_TOO_SMALL = 3,
  MINF_ERROR_OUT_OF_MEMORY = 4,
  MINF_ERROR_INTERNAL = 5,
  MINF_ERROR_NO_DEVICE = 6,
  MINF_ERROR_DRIVER_TOO_OLD = 7,
  MINF_ERROR_ARCH_NOT_BUILT = 8,
  MINF_ERROR_WRONG_DEVICE = 9,
  MINF_ERROR_WRONG_STREAM = 10,
  MINF_ERROR_LAUNCH_FAILED = 11,
  MINF_ERROR_CUDA = 12
} minf_status;

MINF_API const char* minf_last_error(void);

typedef enum minf_dtype {
  MINF_FLOAT32 = 0,
  MINF_BFLOAT16 = 1,
  MINF_FLOAT16 = 2,
  MINF_INT32 = 3,
  MINF_INT64 = 4
} minf_dtype;

typedef enum minf_device_type { MINF_DEVICE_CPU = 0, MINF_DEVICE_CUDA = 1 } minf_device_type;

enum { MINF_MAX_DIMS = 4 };

typedef struct minf_tensor {
  void* data;
  int32_t dtype;
  int32_t device_type;
  int32_t device_index;
  int32_t ndim;
  int64_t shape[MINF_MAX_DIMS];
  int64_t stride[MINF_MAX_DIMS];
} minf_tensor;

#define MINF_BLOCK 64

#define MINF_MAX_HEAD_DIM 256

typedef enum minf_pattern_kind {
  MINF_DENSE = 0,
  MINF_A_SHAPE = 1,
  MINF_VERTICAL_SLASH = 2,
  MINF_BLOCK_SPARSE = 3,
  MINF_TRI_SHAPE = 4
} minf_pattern_kind;

#define MINF_DEFAULT_LAST_Q 64
#define MINF_DEFAULT_SINK 30
#define MINF_DEFAULT_LOCAL 100

typedef struct minf_a_shape {
  int32_t sink;
  int32_t window;
} minf_a_shape;

typedef struct minf_tri_shape {
  int32_t sink;
  int32_t window;
  int32_t last;
} minf_tri_shape;

typedef struct minf_vertical_slash {
  int32_t vertical_size;
  int32_t slash_size;
  int32_t last_q;
  int32_t sink;
  int32_t local;
  int32_t reserved;
  double vertical_p;
  double slash_p;
} minf_vertical_slash;

typedef struct minf_block_sparse {
  int32_t top_k;
  int32_t reserved;
  double top_p;
} minf_block_sparse;

typedef struct minf_pattern {
  int32_t kind;
  int32_t reserved;
  union {
    unsigned char bytes[56];
    minf_a_shape a_shape;
    minf_tri_shape tri_shape;
    minf_vertical_slash vertical_slash;
    minf_block_sparse block_sparse;
  } as;
} minf_pattern;

MINF_API minf_pattern minf_pattern_default(int32_t kind);

MINF_API const char* minf_pattern_name(int32_t kind);

MINF_API minf_status minf_pattern_from_numbers(const double* numbers, int64_t num_numbers,
                                               minf_pattern* pattern);

typedef void (*minf_task)(int64_t task, void* task_context);
typedef void (*minf_parallel_for)(int64_t num_tasks, minf_task task, void* task_context,
                                  void* context);

typedef struct minf_exec {
  size_t struct_size;
  void* stream;
  int32_t num_threads;
  int32_t reserved;
  minf_parallel_for parallel_for;
  void* parallel_for_context;
  MINF_LATER_FIELDS
} minf_exec;

typedef struct minf_vertical_slash_options {
  size_t struct_size;
  const double* softmax_scale;
  int32_t last_q;
  int32_t sink;
  int32_t local;
  int32_t reserved;
  double vertical_p;
  double slash_p;
  MINF_LATER_FIELDS
} minf_vertical_slash_options;

static inline minf_vertical_slash_options minf_vertical_slash_options_default(void) {
  const minf_vertical_slash_options options = {sizeof(minf_vertical_slash_options),
                                               NULL,
                                               MINF_DEFAULT_LAST_Q,
                                               MINF_DEFAULT_SINK,
                                               MINF_DEFAULT_LOCAL,
                                               0,
                                               1,
                                               1};
  return options;
}

MINF_API minf_status minf_estimate_vertical_slash(const minf_tensor* q, const minf_tensor* k,
                                                  const minf_vertical_slash_options* options,
                                                  const minf_tensor* vertical_index,
                                                  const minf_tensor* slash_index, void* workspace,
                                                  size_t workspace_bytes, const minf_exec* exec);
MINF_API minf_status minf_estimate_vertical_slash_workspace_bytes(
    const minf_tensor* q, const minf_tensor* k, const minf_vertical_slash_options* options,
    const minf_exec* exec, size_t* bytes);

typedef struct minf_block_sparse_options {
  size_t struct_size;
  const double* softmax_scale;
  double top_p;
  MINF_LATER_FIELDS
} minf_block_sparse_options;

static inline minf_block_sparse_options minf_block_sparse_options_default(void) {
  const minf_block_sparse_options options = {sizeof(minf_block_sparse_options), NULL, 1};
  return options;
}

MINF_API minf_status minf_estimate_block_sparse(const minf_tensor* q, const minf_tensor* k,
                                                const minf_block_sparse_options* options,
                                                const minf_tensor* block_index, void* workspace,
                                                size_t workspace_bytes, const minf_exec* exec);
MINF_API minf_status minf_estimate_block_sparse_workspace_bytes(
    const minf_tensor* q, const minf_tensor* k, const minf_block_sparse_options* options,
    const minf_exec* exec, size_t* bytes);

MINF_API int64_t minf_max_runs(int64_t slash_size, int64_t seqlen_k);

MINF_API minf_status minf_plan_vertical_slash(const minf_tensor* slash_index, int64_t seqlen_k,
                                              const minf_tensor* runs, const minf_tensor* run_count,
                                              const minf_exec* exec);

typedef struct minf_sparse_index {
  size_t struct_size;
  const minf_pattern* patterns;
  int64_t num_patterns;
  minf_tensor vertical_index;
  minf_tensor runs;
  minf_tensor run_count;
  minf_tensor block_index;
  MINF_LATER_FIELDS
} minf_sparse_index;

typedef struct minf_attention_options {
  size_t struct_size;
  const double* softmax_scale;
  MINF_LATER_FIELDS
} minf_attention_options;

MINF_API minf_status minf_sparse_attention(const minf_tensor* q, const minf_tensor* k,
                                           const minf_tensor* v, const minf_sparse_index* index,
                                           const minf_attention_options* options,
                                           const minf_tensor* out, const minf_tensor* lse,
                                           void* workspace, size_t workspace_bytes,
                                           const minf_exec* exec);
MINF_API minf_status minf_sparse_attention_workspace_bytes(const minf_tensor* q,
                                                           const minf_tensor* k,
                                                           const minf_sparse_index* index,
                                                           const minf_exec* exec, size_t* bytes);

MINF_API minf_status minf_count_key_tiles(int64_t batch, int64_t num_heads_q, int64_t seqlen_q,
                                          int64_t seqlen_k, const minf_sparse_index* index,
                                          const minf_tensor* tiles, const minf_exec* exec);

MINF_API minf_status minf_build_index(const minf_tensor* q, const minf_tensor* k,
                                      const minf_pattern* patterns, int64_t num_patterns,
                                      const minf_attention_options* options,
                                      minf_sparse_index* index, void* index_memory,
                                      size_t index_bytes, void* workspace, size_t workspace_bytes,
                                      const minf_exec* exec);

MINF_API minf_status minf_build_index_bytes(const minf_tensor* q, const minf_tensor* k,
                                            const minf_pattern* patterns, int64_t num_patterns,
                                            const minf_exec* exec, size_t* index_bytes,
                                            size_t* workspace_bytes);

MINF_API minf_status minf_prefill_attention(const minf_tensor* q, const minf_tensor* k,
                                            const minf_tensor* v, const minf_pattern* patterns,
                                            int64_t num_patterns,
                                            const minf_attention_options* options,
                                            const minf_tensor* out, const minf_tensor* lse,
                                            const minf_tensor* tiles, void* workspace,
                                            size_t workspace_bytes, const minf_exec* exec);
MINF_API minf_status minf_prefill_attention_workspace_bytes(const minf_tensor* q,
                                                            const minf_tensor* k,
                                                            const minf_pattern* patterns,
                                                            int64_t num_patterns,
                                                            const minf_exec* exec, size_t* bytes);

MINF_API minf_status minf_merge_attention(const minf_tensor* out_a, const minf_tensor* lse_a,
                                          const minf_tensor* out_b, const minf_tensor* lse_b,
                                          const minf_tensor* out, const minf_tensor* lse,
                                          const minf_exec* exec);

MINF_API const char* minf_version(void);

MINF_API const char* minf_build_info(void);

typedef struct minf_capability {
  const char* name;
  int32_t available;
  int32_t selected;
  const char* reason;
} minf_capability;

MINF_API int32_t minf_backend_count(void);
MINF_API minf_status minf_backend(int32_t backend, minf_capability* capability);
MINF_API int32_t minf_cpu_isa_count(void);
MINF_API minf_status minf_cpu_isa(int32_t isa, minf_capability* capability);

MINF_API minf_status minf_set_cpu_isa(const char* name);

MINF_API minf_status minf_set_backend(const char* name);

MINF_API minf_status minf_attention_implementation(const minf_tensor* q, const minf_tensor* k,
                                                   const minf_tensor* v,
                                                   const minf_pattern* patterns,
                                                   int64_t num_patterns, const minf_tensor* out,
                                                   const minf_exec* exec, int32_t implementation,
                                                   minf_capability* capability);
MINF_API minf_status minf_attention_implementation_count(int32_t device_type, int32_t device_index,
                                                         int32_t* count);

MINF_API minf_status minf_min_sparse_seqlen(int32_t device_type, int32_t device_index,
                                            int32_t* seqlen);

#ifdef __cplusplus
}
#endif

#endif
