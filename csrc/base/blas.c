#include "blas.h"

#include <dlfcn.h>
#include <stdio.h>

typedef void (*sgemm_function)(int order, int transpose_a, int transpose_b, int M, int N, int K,
                               float alpha, const float *a, int lda, const float *b, int ldb,
                               float beta, float *c, int ldc);
typedef const char *(*text_function)(void);
typedef void (*threads_function)(int count);

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };

static sgemm_function sgemm;
static text_function config_text, core_text;

static void *find(void *library, const char *name)
{
    static const char *const prefixes[] = {"scipy_", ""};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        char full[64];
        snprintf(full, sizeof full, "%s%s", prefixes[i], name);
        void *symbol = dlsym(library, full);
        if (symbol)
            return symbol;
    }
    return NULL;
}

/* Whether small products come out right, to the bit, in each combination of transpositions. */
static bool multiplies_right(sgemm_function candidate)
{
    enum { M = 33, N = 47, K = 29, LD = 50 };
    float a[LD * LD], b[LD * LD], c[M * N] = {0};
    for (int i = 0; i < LD * LD; i++) {
        a[i] = (float)(i * 7 % 11 - 5);
        b[i] = (float)(i * 5 % 13 - 6);
    }
    for (int both = 0; both < 4; both++) {
        const bool ta = both & 1, tb = both & 2;
        candidate(ROW_MAJOR, ta ? TRANSPOSE : NO_TRANSPOSE, tb ? TRANSPOSE : NO_TRANSPOSE, M, N, K,
                  1.0f, a, LD, b, LD, 0.0f, c, N);
        for (int i = 0; i < M * N; i++) {
            float sum = 0.0f;
            for (int k = 0; k < K; k++)
                sum += a[ta ? k * LD + i / N : i / N * LD + k] *
                       b[tb ? i % N * LD + k : k * LD + i % N];
            if (!(sum == c[i]))
                return false;
        }
    }
    return true;
}

attn_status attn_blas_load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return attn_fail(ATTN_BAD_STATE, "OpenBLAS could not be loaded: %s", dlerror());
    sgemm_function found = (sgemm_function)find(library, "cblas_sgemm");
    if (!found) {
        dlclose(library);
        return attn_fail(ATTN_BAD_STATE, "%s has no cblas_sgemm", path);
    }
    text_function core = (text_function)find(library, "openblas_get_corename");
    threads_function set_threads = (threads_function)find(library, "openblas_set_num_threads");
    if (set_threads)
        set_threads(1);
    if (!multiplies_right(found)) /* one that was loaded before stays in use */
        return attn_fail(ATTN_BAD_STATE,
                         "%s multiplies wrongly with its core type %s: set OPENBLAS_CORETYPE to "
                         "another one, or ATTNNET_OPENBLAS to another library", path,
                         core ? core() : "");
    sgemm = found;
    config_text = (text_function)find(library, "openblas_get_config");
    core_text = core;
    return ATTN_OK;
}

const char *attn_blas_config(void) { return config_text ? config_text() : ""; }
const char *attn_blas_core(void) { return core_text ? core_text() : ""; }

void attn_sgemm(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K, float alpha,
                const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                int64_t ldc)
{
    if (M == 0 || N == 0)
        return;
    if (K == 0) {
        for (int64_t i = 0; i < M; i++)
            for (int64_t j = 0; j < N; j++)
                c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
        return;
    }
    sgemm(ROW_MAJOR, transpose_a ? TRANSPOSE : NO_TRANSPOSE, transpose_b ? TRANSPOSE : NO_TRANSPOSE,
          (int)M, (int)N, (int)K, alpha, a, (int)attn_max(lda, 1), b, (int)attn_max(ldb, 1), beta, c,
          (int)attn_max(ldc, 1));
}
