/* Dropout: y = x / (1 - p) with probability 1 - p, else 0, element by element.
 *
 * N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR
 * 2014. Whether an element stays is a pure function of seed, counter and its row-major index, so
 * neither the layout of x nor the number of threads changes it, and backward makes the mask again:
 * nothing is saved. Computed in PLAIN; y has the layout of x. dx = dy / (1 - p) where y was kept.
 *
 * Where several processes share the batch (base/peers.h) the index is that in the whole batch: each
 * drops what one process with all of it would have dropped there. x is taken for a part of the batch
 * where its first dimension is as long as that part.
 */
#include "../base/peers.h"
#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "ops.h"

#include <string.h>

enum { TASK_ELEMENTS = 16384 };

typedef struct {
    uint64_t seed, counter;
    uint32_t threshold; /* in 2^-24: random numbers below it drop their element */
    float scale;
    int64_t first; /* the index of x's first element */
} dropout_parameters;

typedef struct {
    const dropout_parameters *parameters;
    float *y;
    const float *x;
    int64_t size;
} dropout_job;

enum { WORDS = 4 }; /* random numbers that are made together, from an index that is a multiple */

/* y = dropped x, whose first element has the index `at`, a multiple of WORDS. */
static void drop_some(float *y, const float *x, const dropout_parameters *parameters, int64_t at,
                      int64_t count)
{
    attn_kernel->dropout_scale(y, x, parameters->threshold, parameters->scale, parameters->seed,
                               parameters->counter, at, count);
}

/* Tasks begin at multiples of WORDS: x's first elements up to one of these are the first task's. */
static void dropout_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const dropout_job *job = context;
    int64_t first = job->parameters->first, before = first % WORDS;
    int64_t begin = index * TASK_ELEMENTS - before;
    int64_t end = attn_min(begin + TASK_ELEMENTS, job->size);
    if (begin < 0) {
        float few[WORDS] = {0};
        int64_t count = attn_min(WORDS - before, job->size);
        memcpy(few + before, job->x, (size_t)count * sizeof *few);
        drop_some(few, few, job->parameters, first - before, WORDS);
        memcpy(job->y, few + before, (size_t)count * sizeof *few);
        begin += WORDS;
    }
    if (begin < end)
        drop_some(job->y + begin, job->x + begin, job->parameters, first + begin, end - begin);
}

/* Forward on x and backward on dy are the same map; *y gets the layout of x. */
static attn_status drop(attn_tensor **y, attn_tensor *x, const dropout_parameters *parameters)
{
    attn_tensor *plain = NULL, *dropped = NULL;
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_as_plain(&plain, x));
    ATTN_GOTO(attn_tensor_empty(&dropped, x->ndim, x->shape, ATTN_PLAIN));
    dropout_job job = {parameters, attn_data(dropped), attn_data(plain), x->size};
    attn_parallel(dropout_task, &job, attn_ceil_div(x->size + parameters->first % WORDS, TASK_ELEMENTS));
    ATTN_GOTO(attn_tensor_as(y, dropped, x->layout));
done:
    attn_tensor_release(plain);
    attn_tensor_release(dropped);
    return status;
}

static attn_status dropout_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    return drop(&dx[0], dy[0], node->parameters);
}

static const attn_operation dropout_op = {"dropout", dropout_backward, sizeof(dropout_parameters)};

attn_status attn_dropout(attn_tensor **y, attn_tensor *x, float p, uint64_t seed, uint64_t counter)
{
    if (!(p >= 0 && p <= 1))
        return attn_fail(ATTN_BAD_VALUE, "dropout: p is %g, expected 0 to 1", (double)p);
    const attn_peers *peers = attn_get_peers();
    bool part = peers && x->ndim > 0 && x->shape[0] == peers->images && peers->images > 0;
    dropout_parameters parameters = {seed, counter, (uint32_t)((double)p * 0x1p24),
                                     p < 1 ? (float)(1 / (1 - (double)p)) : 0,
                                     part ? x->size / x->shape[0] * peers->first : 0};
    attn_tensor *out;
    ATTN_TRY(drop(&out, x, &parameters));
    attn_status status = attn_record(&dropout_op, 1, &x, 1, &out, &parameters, NULL, 0);
    if (status != ATTN_OK) {
        attn_tensor_release(out);
        return status;
    }
    *y = out;
    return ATTN_OK;
}
