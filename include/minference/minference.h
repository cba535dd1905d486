/* minference: sparse prefill attention. The C surface, and the binary boundary of libminference.
 *
 *     q, k ----> estimate ----> indices ----> plan ----> runs ----> compute ----> out, lse
 *                (stage 1)                    (stage 2)             (stage 3)
 *                which columns, distances     distances -> runs     exact softmax over
 *                or blocks matter             per head              the selected keys
 *
 * minf_build_index() does the first two, minf_prefill_attention() all three; the stages can also be
 * called one by one. A C++17 surface over this one is in minference.hpp. Nothing here needs torch,
 * Python or CUDA headers.
 *
 * Conventions, said once:
 * - Layout: q [batch, seqlen_q, num_heads_q, head_dim]; k [batch, seqlen_k, num_heads_kv,
 *   head_dim]; v like k and out like q, with head_dim_v, which may differ from head_dim;
 *   lse [batch, num_heads_q, seqlen_q] float32, natural logarithm. Strides are in elements. Only
 *   the innermost stride must be 1; the others may be any positive number, and 0 for inputs. Query
 *   head h reads KV head h / (num_heads_q / num_heads_kv).
 * - Causal, bottom-right aligned: row i is at position p_i = i + seqlen_k - seqlen_q and sees
 *   keys j <= p_i. seqlen_q > seqlen_k is an error.
 * - Granularity: row block r is query rows [64 r, 64 r + 64), end_r = 64 r + 64 + seqlen_k -
 *   seqlen_q; key block n is keys [64 n, 64 n + 64).
 * - A row without a visible key yields out = 0 and lse = -inf. NaN or inf in one row of q reaches
 *   that row only.
 * - dtypes: float32, bfloat16, float16. head_dim and head_dim_v: each a multiple of 8, 8 to 256;
 *   other numbers up to 256 are MINF_ERROR_UNSUPPORTED, 0 and larger ones
 *   MINF_ERROR_INVALID_ARGUMENT.
 * - Limits: every size at most 2^30, batch * num_heads_q at most 2^20.
 * - Every function returns a status. Nothing is written before all arguments have been checked.
 *   The text of the last failure on the calling thread is minf_last_error().
 * - A null pointer to options or to minf_exec means the defaults.
 * - The library never prints, never exits and never allocates device memory. Work memory comes from
 *   the caller (workspace); each *_workspace_bytes function says how many bytes a call needs. None
 *   sees v: the size serves every head_dim_v. On the CPU, from head_dim 40 on, it is the size that
 *   head_dim_v == head_dim needs.
 * - Calls are thread-safe, and deterministic: the same input gives the same bits with any number
 *   of threads.
 *
 * CUDA, said once. All functions serve GPUs from compute capability 8.0 on.
 * - All tensors of a call and its workspace are memory of one GPU, the tensors' device_index;
 *   managed and registered host memory will do where the GPU can use the same address. Patterns,
 *   options and minf_exec are host memory, and may be freed when the call has returned.
 * - A call enqueues on minf_exec.stream, a stream of that GPU (null: the default stream), and
 *   returns; it never waits, allocates or copies from host memory. Tensors and workspace must stay
 *   valid until that work has run. The thread's current device does not change.
 * - Calls can be captured into a CUDA graph, which then replays with the same pointers, sizes and
 *   patterns. Workspace sizes depend on shapes, patterns and the GPU, never on the values in
 *   tensors.
 * - Dtypes: bfloat16 and float16. Rows of q, k, v and out, and of merged outs, must be aligned to
 *   16 bytes: data is aligned so, and strides are multiples of 8 elements. Anything else is
 *   MINF_ERROR_UNSUPPORTED.
 * - Index tensors are untrusted, and no entry is read before the launch: an entry out of range is
 *   ignored, and nothing is read or written out of bounds, whatever they hold.
 *
 * Source: MInference (arXiv:2407.02490); online softmax as in FlashAttention-2 (arXiv:2307.08691).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MINFERENCE_MINFERENCE_H_
#define MINFERENCE_MINFERENCE_H_

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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status and errors ------------------------------------------------------------------- */

typedef enum minf_status {
  MINF_OK = 0,
  MINF_ERROR_INVALID_ARGUMENT = 1,    /* The caller passed something wrong; the text says what. */
  MINF_ERROR_UNSUPPORTED = 2,         /* Correct, but not (yet) served by any built backend. */
  MINF_ERROR_WORKSPACE_TOO_SMALL = 3, /* workspace is null or shorter than *_workspace_bytes. */
  MINF_ERROR_OUT_OF_MEMORY = 4,       /* A host allocation failed. */
  MINF_ERROR_INTERNAL = 5,            /* A bug of this library. */
  MINF_ERROR_NO_DEVICE = 6,           /* CUDA: no GPU, or no driver. */
  MINF_ERROR_DRIVER_TOO_OLD = 7,      /* CUDA: the driver is older than the runtime needs. */
  MINF_ERROR_ARCH_NOT_BUILT = 8,      /* CUDA: this build has no code for the GPU. */
  MINF_ERROR_WRONG_DEVICE = 9,        /* CUDA: memory is not where its tensor says. */
  MINF_ERROR_WRONG_STREAM = 10,       /* CUDA: the stream belongs to another device. */
  MINF_ERROR_LAUNCH_FAILED = 11,      /* CUDA: a kernel could not be launched. */
  MINF_ERROR_CUDA = 12                /* CUDA: another call of the runtime failed. */
} minf_status;

/* Returns the text of the last failed call on this thread: argument, what was expected, what came.
 * Never null; empty when nothing has failed. Valid until the next call on this thread. */
MINF_API const char* minf_last_error(void);

/* ---- Tensors ----------------------------------------------------------------------------- */

typedef enum minf_dtype {
  MINF_FLOAT32 = 0,
  MINF_BFLOAT16 = 1,
  MINF_FLOAT16 = 2,
  MINF_INT32 = 3, /* Index tensors. */
  MINF_INT64 = 4  /* Tile counts. */
} minf_dtype;

typedef enum minf_device_type { MINF_DEVICE_CPU = 0, MINF_DEVICE_CUDA = 1 } minf_device_type;

enum { MINF_MAX_DIMS = 4 };

/* A borrowed view of a tensor. The library keeps no pointer after a call returns (CPU) or after
 * the work it enqueued has run (CUDA). */
typedef struct minf_tensor {
  void* data;                    /* First element. May be null when a dimension is 0. */
  int32_t dtype;                 /* minf_dtype */
  int32_t device_type;           /* minf_device_type */
  int32_t device_index;          /* CUDA ordinal. CPU: ignored. */
  int32_t ndim;                  /* 0 marks an absent tensor where one is optional. */
  int64_t shape[MINF_MAX_DIMS];  /* Elements. */
  int64_t stride[MINF_MAX_DIMS]; /* Elements. */
} minf_tensor;

/* Query rows of a row block, and keys of a key block. */
#define MINF_BLOCK 64
/* The largest head_dim and head_dim_v. */
#define MINF_MAX_HEAD_DIM 256

/* ---- Patterns ---------------------------------------------------------------------------- */

typedef enum minf_pattern_kind {
  MINF_DENSE = 0,          /* All keys. */
  MINF_A_SHAPE = 1,        /* j < sink or p_i - j < window. */
  MINF_VERTICAL_SLASH = 2, /* Columns and distances that the last rows attend most. */
  MINF_BLOCK_SPARSE = 3,   /* Key blocks with the largest mean-pooled score, per row block. */
  MINF_TRI_SHAPE = 4       /* A-shape, and the last rows of the call are dense. */
} minf_pattern_kind;

/* The values that MInference chose, and that minf_pattern_default() gives. */
#define MINF_DEFAULT_LAST_Q 64
#define MINF_DEFAULT_SINK 30
#define MINF_DEFAULT_LOCAL 100

typedef struct minf_a_shape {
  int32_t sink;   /* First keys. Tokens, >= 0. */
  int32_t window; /* Last keys, the row's own included. Tokens, >= 0. */
} minf_a_shape;

typedef struct minf_tri_shape {
  int32_t sink; /* Both as in minf_a_shape. */
  int32_t window;
  int32_t last; /* Rows at the end of the call that are dense. >= 0. */
} minf_tri_shape;

/* See minf_estimate_vertical_slash(). */
typedef struct minf_vertical_slash {
  int32_t vertical_size; /* Columns, at most: >= 0. At least `sink` are kept. */
  int32_t slash_size;    /* Distances, at most: >= 0. At least `local` are kept. */
  int32_t last_q;        /* Rows that estimate, counted from the end; 1 to 64. */
  int32_t sink;          /* First columns, always kept. >= 0. */
  int32_t local;         /* Distances [0, local), always kept. >= 0. */
  int32_t reserved;      /* 0 */
  double vertical_p;     /* In (0, 1]: keep the smallest set of columns whose score sum reaches this
                            share of the total, capped by the size. 1 = off. */
  double slash_p;        /* The same for distances. */
} minf_vertical_slash;

/* See minf_estimate_block_sparse(). */
typedef struct minf_block_sparse {
  int32_t top_k;    /* Key blocks per row block, at most: >= 1. */
  int32_t reserved; /* 0 */
  double top_p;     /* In (0, 1]: keep the smallest set of blocks whose softmax mass (over the
                       allowed blocks) reaches this, capped by top_k. 1 = off. */
} minf_block_sparse;

/* The pattern of one query head, with the options of its estimator. Only the struct that `kind`
 * names is read; every other byte must be 0. Heads of a call that have the same options are
 * estimated together. */
typedef struct minf_pattern {
  int32_t kind;     /* minf_pattern_kind */
  int32_t reserved; /* 0 */
  union {
    unsigned char bytes[56]; /* First, so that {0} clears them all. */
    minf_a_shape a_shape;
    minf_tri_shape tri_shape;
    minf_vertical_slash vertical_slash;
    minf_block_sparse block_sparse;
  } as;
} minf_pattern;

/* A pattern of this kind whose options are the defaults and whose sizes are 0. An unknown kind
 * gives a pattern that every call refuses. */
MINF_API minf_pattern minf_pattern_default(int32_t kind);

/* "dense", "a_shape", ...: what messages and files call a kind. Null for an unknown one: kinds are
 * numbered from 0 without gaps, so a loop up to the first null names all that this library has. */
MINF_API const char* minf_pattern_name(int32_t kind);

/* Reads a pattern from numbers, as bindings and files store it: numbers[0] is the kind, then come
 * the fields of its struct in their order, without the `reserved` ones. Fields that are not given
 * keep their defaults; numbers beyond the last field must be 0. This checks only that an integer
 * field gets an int32; the calls that take the pattern check that each field is in its range. */
MINF_API minf_status minf_pattern_from_numbers(const double* numbers, int64_t num_numbers,
                                               minf_pattern* pattern);

/* ---- Execution --------------------------------------------------------------------------- */

/* Runs task(0, task_context) .. task(num_tasks - 1, task_context), each exactly once, in any order
 * and on any threads, and returns when all have returned. */
typedef void (*minf_task)(int64_t task, void* task_context);
typedef void (*minf_parallel_for)(int64_t num_tasks, minf_task task, void* task_context,
                                  void* context);

/* Where and with what a call runs. Zero-initialise, then set struct_size. Structs with struct_size
 * grow at the end only, and every size since 0.2.0 is accepted: a program built against an older
 * header keeps working. One built against a newer header works as long as the fields that this
 * library does not know are 0. */
typedef struct minf_exec {
  size_t struct_size;             /* sizeof(minf_exec) */
  void* stream;                   /* CUDA: cudaStream_t to enqueue on. CPU: ignored. */
  int32_t num_threads;            /* CPU: threads, at most 4096; 0 = all the process may run on. */
  int32_t reserved;               /* 0 */
  minf_parallel_for parallel_for; /* CPU: the host's thread pool; null = the library's own. */
  void* parallel_for_context;     /* Passed to parallel_for. */
} minf_exec;

/* ---- Stage 1: estimate ------------------------------------------------------------------- */

typedef struct minf_vertical_slash_options {
  size_t struct_size;          /* sizeof(minf_vertical_slash_options) */
  const double* softmax_scale; /* Multiplies q.k; null selects head_dim ** -0.5. Finite. */
  int32_t last_q;              /* From here on as in minf_vertical_slash. */
  int32_t sink;
  int32_t local;
  int32_t reserved; /* 0 */
  double vertical_p;
  double slash_p;
} minf_vertical_slash_options;

/* NOLINTBEGIN(modernize-use-nullptr): this is C. */
/* MINF_DEFAULT_*, no mass budget, default scale. Inline, as is the other default below: the size is
 * that of the struct the program was built with. */
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
/* NOLINTEND(modernize-use-nullptr) */

/* Selects, per query head, the key columns and the distances that the last rows attend most.
 *
 *     P = softmax(scale * q[last n rows] k^T), causal, n = min(last_q, seqlen_q)
 *     vertical[j] = sum_i P[i, j]          slash[d] = sum_i P[i, p_i - d]
 *
 *     q               [batch, seqlen_q, num_heads_q, head_dim]
 *     k               [batch, seqlen_k, num_heads_kv, head_dim]    dtype and device of q
 *     vertical_index  [batch, num_heads_q, min(seqlen_k, max(vertical_size, sink))]   int32, out
 *     slash_index     [batch, num_heads_q, min(seqlen_k, max(slash_size, local))]     int32, out
 *
 * The sizes are those of the outputs' last dimension, which must be at least min(seqlen_k, sink)
 * and min(seqlen_k, local), and at most seqlen_k. Selected are the forced entries, then the largest
 * scores; ties go to the smaller index. Written ascending, without duplicates; with a mass budget,
 * -1 fills the end. A row of P that is not finite contributes nothing.
 *
 * Source: MInference, section 3.2 and Algorithm 1. */
MINF_API minf_status minf_estimate_vertical_slash(const minf_tensor* q, const minf_tensor* k,
                                                  const minf_vertical_slash_options* options,
                                                  const minf_tensor* vertical_index,
                                                  const minf_tensor* slash_index, void* workspace,
                                                  size_t workspace_bytes, const minf_exec* exec);
MINF_API minf_status minf_estimate_vertical_slash_workspace_bytes(
    const minf_tensor* q, const minf_tensor* k, const minf_vertical_slash_options* options,
    const minf_exec* exec, size_t* bytes);

typedef struct minf_block_sparse_options {
  size_t struct_size;          /* sizeof(minf_block_sparse_options) */
  const double* softmax_scale; /* Only the mass budget uses it. Null selects head_dim ** -0.5. */
  double top_p;                /* As in minf_block_sparse. */
} minf_block_sparse_options;

/* NOLINTBEGIN(modernize-use-nullptr): this is C. */
static inline minf_block_sparse_options minf_block_sparse_options_default(void) {
  const minf_block_sparse_options options = {sizeof(minf_block_sparse_options), NULL, 1};
  return options;
}
/* NOLINTEND(modernize-use-nullptr) */

/* Selects, per query head and row block, the key blocks with the largest mean-pooled score.
 *
 *     score[r, n] = mean(q rows of row block r) . mean(k rows of key block n)
 *
 *     q, k         as above
 *     block_index  [batch, num_heads_q, ceil(seqlen_q / 64), top_k]   int32, out
 *
 * A partial block averages its valid rows. Allowed are the blocks whose first key is visible to
 * some row of r. Key block 0 and the blocks that hold any of the keys [end_r - 64, end_r) are
 * always kept and count; the rest are the largest scores, ties to the smaller block. Written
 * ascending; -1 fills the end.
 *
 * Source: MInference, section 3.2 and Algorithm 2; the forced blocks are this library's. */
MINF_API minf_status minf_estimate_block_sparse(const minf_tensor* q, const minf_tensor* k,
                                                const minf_block_sparse_options* options,
                                                const minf_tensor* block_index, void* workspace,
                                                size_t workspace_bytes, const minf_exec* exec);
MINF_API minf_status minf_estimate_block_sparse_workspace_bytes(
    const minf_tensor* q, const minf_tensor* k, const minf_block_sparse_options* options,
    const minf_exec* exec, size_t* bytes);

/* ---- Stage 2: plan ----------------------------------------------------------------------- */

/* Returns the most runs that slash_size distances over seqlen_k keys can become. */
MINF_API int64_t minf_max_runs(int64_t slash_size, int64_t seqlen_k);

/* Merges each head's distances into runs, the form that stage 3 reads.
 *
 * Distance d touches, in row block r, keys [end_r - 64 - d, end_r - d). Near to far, distances
 * whose 64-wide spans touch or overlap form one run [lo, hi); hi - lo is rounded up to a multiple
 * of 64, and a run that then reaches the next one takes it in. Row block r attends, for each run,
 * keys [end_r - hi, end_r - lo), clipped to [0, seqlen_k).
 *
 *     slash_index  [batch, num_heads_q, slash_size]   int32, ascending; -1 may fill the end
 *     runs         [batch, num_heads_q, max_runs, 2]  int32, out: (lo, hi), ascending
 *     run_count    [batch, num_heads_q]               int32, out
 *
 * max_runs must be at least minf_max_runs(slash_size, seqlen_k); the pairs of a head lie one after
 * the other (stride 2), and (0, 0) fills their end. On the CPU a distance that is negative (before
 * the fill), >= seqlen_k, unsorted or repeated is an error; on a GPU a distance counts if it is in
 * range and larger than all before it. */
MINF_API minf_status minf_plan_vertical_slash(const minf_tensor* slash_index, int64_t seqlen_k,
                                              const minf_tensor* runs, const minf_tensor* run_count,
                                              const minf_exec* exec);

/* ---- Stage 3: compute -------------------------------------------------------------------- */

/* The keys that each head attends. A tensor that no head needs may be absent (ndim 0). Dimension 1
 * of a list tensor holds all query heads, or only those whose pattern reads it, in the same order:
 * vertical-slash heads for the first three, block-sparse heads for block_index. */
typedef struct minf_sparse_index {
  size_t struct_size;           /* sizeof(minf_sparse_index) */
  const minf_pattern* patterns; /* [num_patterns], host memory. For vertical-slash and block-sparse
                                   heads only the kind is read: the tensors below have the keys. */
  int64_t num_patterns;         /* num_heads_q, or 1: the same pattern for all heads. */
  minf_tensor vertical_index;   /* int32 [batch, heads, any], ascending, -1 may fill the end. */
  minf_tensor runs;             /* int32 [batch, heads, max_runs, 2], from stage 2; stride 2
                                   between the pairs of a head. */
  minf_tensor run_count;        /* int32 [batch, heads] */
  minf_tensor block_index;      /* int32 [batch, heads, ceil(seqlen_q / 64), any], ascending, -1 may
                                   fill the end. */
} minf_sparse_index;

typedef struct minf_attention_options {
  size_t struct_size;          /* sizeof(minf_attention_options) */
  const double* softmax_scale; /* Multiplies q.k before softmax; null selects head_dim ** -0.5. */
} minf_attention_options;

/* Computes exact softmax attention over the keys that `index` selects.
 *
 *     out[i] = sum_j softmax_j(scale * q[i].k[j]) v[j],  j in K(h, r(i)) and j <= p_i
 *     lse[i] = log sum_j exp(scale * q[i].k[j])
 *
 *     q    [batch, seqlen_q, num_heads_q,  head_dim]    float32 | bfloat16 | float16
 *     k    [batch, seqlen_k, num_heads_kv, head_dim]    dtype and device of q
 *     v    [batch, seqlen_k, num_heads_kv, head_dim_v]  dtype and device of q
 *     out  [batch, seqlen_q, num_heads_q,  head_dim_v]  dtype of q; overlaps no input, nor lse
 *     lse  [batch, num_heads_q, seqlen_q]               float32; ndim 0 to skip
 *
 * No key counts twice: a column inside a run is skipped. A key that no row attends has no effect,
 * even if it holds NaN. Index tensors are untrusted: on the CPU an entry that is out of range,
 * unsorted or repeated is an error. seqlen_q == 0 is not an error. Accumulates in float32. */
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

/* Counts the 64-row x 64-key tiles that stage 3 computes for `index`; density is this over the same
 * count for MINF_DENSE.
 *
 *     tiles  [batch, num_heads_q]  int64, out, on the device of the index tensors; without any, its
 *                                  own device counts */
MINF_API minf_status minf_count_key_tiles(int64_t batch, int64_t num_heads_q, int64_t seqlen_q,
                                          int64_t seqlen_k, const minf_sparse_index* index,
                                          const minf_tensor* tiles, const minf_exec* exec);

/* ---- All stages -------------------------------------------------------------------------- */

/* Runs stages 1 and 2 for heads that each have their own pattern: estimates the lists that the
 * patterns need, and plans them.
 *
 *     q, k          as in minf_estimate_vertical_slash()
 *     patterns      [num_patterns], host memory; num_patterns is num_heads_q, or 1 for all heads
 *     options       of stage 3; null: the defaults
 *     index         out, with struct_size set. Its patterns are the caller's, and must stay
 *                   valid; its tensors are views of index_memory, of only the heads that read them
 *     index_memory  index_bytes of memory of q's device, of any alignment
 *
 * -1 fills the end of a list that turns out shorter. With the index, minf_sparse_attention()
 * computes what minf_prefill_attention() does, and minf_count_key_tiles() counts its tiles. */
MINF_API minf_status minf_build_index(const minf_tensor* q, const minf_tensor* k,
                                      const minf_pattern* patterns, int64_t num_patterns,
                                      const minf_attention_options* options,
                                      minf_sparse_index* index, void* index_memory,
                                      size_t index_bytes, void* workspace, size_t workspace_bytes,
                                      const minf_exec* exec);
/* Stores the bytes of index_memory, and of work memory that may be freed when the call has run. */
MINF_API minf_status minf_build_index_bytes(const minf_tensor* q, const minf_tensor* k,
                                            const minf_pattern* patterns, int64_t num_patterns,
                                            const minf_exec* exec, size_t* index_bytes,
                                            size_t* workspace_bytes);

/* Does minf_build_index() and minf_sparse_attention() in one call, with one workspace. The
 * arguments are theirs, and:
 *
 *     tiles  [batch, num_heads_q]  int64, device of q, out: tiles computed; null or ndim 0 to skip
 */
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

/* Merges attention over two disjoint key sets of the same rows.
 *
 *     lse = log(exp(lse_a) + exp(lse_b))      out = out_a exp(lse_a - lse) + out_b exp(lse_b - lse)
 *
 *     out_a, out_b, out  [batch, seqlen_q, num_heads_q, head_dim]  float32 | bfloat16 | float16
 *     lse_a, lse_b, lse  [batch, num_heads_q, seqlen_q]            float32
 *
 * A part with lse = -inf contributes nothing, whatever its out holds; two of them give 0 and -inf.
 * out may be out_a or out_b itself, and lse may be lse_a or lse_b itself; no other overlap is
 * allowed. */
MINF_API minf_status minf_merge_attention(const minf_tensor* out_a, const minf_tensor* lse_a,
                                          const minf_tensor* out_b, const minf_tensor* lse_b,
                                          const minf_tensor* out, const minf_tensor* lse,
                                          const minf_exec* exec);

/* ---- What this library is, and what it can use here ---------------------------------------- */

/* "0.2.0" */
MINF_API const char* minf_version(void);
/* Compiler, flags, build type and CUDA architectures, in one line. */
MINF_API const char* minf_build_info(void);

/* A backend ("sm80", "cpu", ...) or a CPU instruction set ("avx512_bf16", "avx512", "avx2",
 * "portable"). Strings are static. */
typedef struct minf_capability {
  const char* name;
  int32_t available;  /* 1: can be used on this machine. */
  int32_t selected;   /* 1: is used (instruction sets: for the next call). */
  const char* reason; /* Why not available; empty if it is. */
} minf_capability;

MINF_API int32_t minf_backend_count(void);
MINF_API minf_status minf_backend(int32_t backend, minf_capability* capability);
MINF_API int32_t minf_cpu_isa_count(void);
MINF_API minf_status minf_cpu_isa(int32_t isa, minf_capability* capability);

/* Forces the CPU instruction set of all later calls of the process; null or "" restores the best
 * available. Fails with MINF_ERROR_UNSUPPORTED if the machine lacks it. For tests and
 * benchmarks. */
MINF_API minf_status minf_set_cpu_isa(const char* name);

/* Forces the backend of all later calls of the process on devices of its kind; null or "" restores
 * the best for each device. A forced backend uses its own kernels for every call that they can
 * serve, even where another's are faster. Fails with MINF_ERROR_INVALID_ARGUMENT if this build has
 * no backend of that name, with the backend's own status if it cannot be used. No other call may
 * run at the same time. For tests and benchmarks. */
MINF_API minf_status minf_set_backend(const char* name);

/* Says how a call's attention would be computed. A backend has an ordered list of implementations.
 * The first that can serve a call, and is not slower for it than a later one, computes it.
 *
 *     q, k, v, patterns  those of minf_prefill_attention(); no memory is read
 *     out                may be null: out is contiguous then
 *     implementation     an index into the list of q's device
 *     capability         out: available is 1 if this one would serve the call if it were the first,
 *                        else reason says why not; selected is 1 if it will serve the call */
MINF_API minf_status minf_attention_implementation(const minf_tensor* q, const minf_tensor* k,
                                                   const minf_tensor* v,
                                                   const minf_pattern* patterns,
                                                   int64_t num_patterns, const minf_tensor* out,
                                                   const minf_exec* exec, int32_t implementation,
                                                   minf_capability* capability);
MINF_API minf_status minf_attention_implementation_count(int32_t device_type, int32_t device_index,
                                                         int32_t* count);

/* Stores the smallest seqlen_k at which vertical-slash prefill attention of sizes (500, 700) is
 * worth its estimate on a device: below, dense attention takes no longer. A constant of the
 * backend: measured for the CPU, estimated for GPUs until one has been timed. It is advice to
 * callers that choose patterns: the calls above compute the pattern they are given. */
MINF_API minf_status minf_min_sparse_seqlen(int32_t device_type, int32_t device_index,
                                            int32_t* seqlen);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* MINFERENCE_MINFERENCE_H_ */
