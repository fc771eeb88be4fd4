/* OpenBLAS, single-threaded, called from our own threads.
 *
 * It is loaded at import (attn_blas_load), not linked: the wheel needs no copy of it, and its core
 * type can be chosen before it starts. Row-major; c = alpha * op(a) op(b) + beta * c.
 */
#ifndef ATTN_BLAS_H
#define ATTN_BLAS_H

#include "../attnnet.h"

/* Loads the library at `path` and looks for cblas_sgemm with the prefixes it may carry. */
attn_status attn_blas_load(const char *path);
const char *attn_blas_config(void); /* what the library says of itself, "" before it is loaded */
const char *attn_blas_core(void);   /* its core type, for example "SkylakeX" */

/* Leading dimensions are those of the matrices as stored. M, N, K as in c(M,N) = a(M,K) b(K,N). */
void attn_sgemm(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K, float alpha,
                const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                int64_t ldc);

#endif
