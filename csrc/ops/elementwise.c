/* Operations on single elements: y[i] = f(x[i]), in x's layout.
 * Saved: y for relu, sigmoid, tanh, exp, sqrt; x for log, abs, clamp; nothing for neg. */
#include "ops.h"

#include "../base/threads.h"
#include "../kernels/kernels.h"

enum { CHUNK = 1 << 14 }; /* elements a task: a multiple of 16 */

typedef struct {
    int kind;
    float low, high;
} options;

typedef struct {
    float *out;
    const float *dy, *x, *y;
    int64_t size;
    options o;
} job;

static int64_t chunk_of(const job *work, int64_t i)
{
    return attn_min(CHUNK, work->size - i * CHUNK);
}

static void forward_chunk(void *context, int64_t i, int worker)
{
    (void)worker;
    const job *w = context;
    attn_kernel->unary_forward(w->out + i * CHUNK, w->x + i * CHUNK, chunk_of(w, i), w->o.kind);
}

static void backward_chunk(void *context, int64_t i, int worker)
{
    (void)worker;
    const job *w = context;
    int64_t at = i * CHUNK;
    attn_kernel->unary_backward(w->out + at, w->dy + at, w->x ? w->x + at : NULL,
                                w->y ? w->y + at : NULL, chunk_of(w, i), w->o.kind);
}

static void run(attn_task task, job *work)
{
    attn_parallel(task, work, attn_ceil_div(work->size, CHUNK));
}

static attn_status unary_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const options *o = node->parameters;
    attn_tensor *kept = node->saved[0], *d = NULL;
    attn_layout layout = kept ? kept->layout : dy[0]->layout;
    ATTN_TRY(attn_tensor_as(&d, dy[0], layout));
    attn_status status = attn_tensor_empty_like(&dx[0], d);
    if (status == ATTN_OK) {
        bool keeps_x = o->kind == ATTN_LOG || o->kind == ATTN_ABS;
        const float *data = kept ? attn_data(kept) : NULL;
        job work = {attn_data(dx[0]), attn_data(d), keeps_x ? data : NULL, keeps_x ? NULL : data,
                    d->size, *o};
        run(backward_chunk, &work);
    }
    attn_tensor_release(d);
    return status;
}

static const attn_operation operations[ATTN_UNARY_COUNT] = {
    [ATTN_RELU] = {"relu", unary_backward, sizeof(options)},
    [ATTN_SIGMOID] = {"sigmoid", unary_backward, sizeof(options)},
    [ATTN_TANH] = {"tanh", unary_backward, sizeof(options)},
    [ATTN_EXP] = {"exp", unary_backward, sizeof(options)},
    [ATTN_LOG] = {"log", unary_backward, sizeof(options)},
    [ATTN_SQRT] = {"sqrt", unary_backward, sizeof(options)},
    [ATTN_ABS] = {"abs", unary_backward, sizeof(options)},
    [ATTN_NEG] = {"neg", unary_backward, sizeof(options)},
};

attn_status attn_unary(attn_tensor **y, attn_tensor *x, attn_unary_kind kind)
{
    attn_tensor *out;
    ATTN_TRY(attn_tensor_empty_like(&out, x));
    job work = {attn_data(out), NULL, attn_data(x), NULL, x->size, {kind, 0, 0}};
    run(forward_chunk, &work);
    attn_tensor *saved = kind == ATTN_LOG || kind == ATTN_ABS ? x : kind == ATTN_NEG ? NULL : out;
    attn_status status = attn_record(&operations[kind], 1, &x, 1, &out, &work.o, &saved, 1);
    if (status != ATTN_OK) {
        attn_tensor_release(out);
        return status;
    }
    *y = out;
    return ATTN_OK;
}

static void clamp_chunk(void *context, int64_t i, int worker)
{
    (void)worker;
    const job *w = context;
    int64_t at = i * CHUNK;
    if (w->dy)
        attn_kernel->clamp_backward(w->out + at, w->dy + at, w->x + at, chunk_of(w, i), w->o.low,
                                    w->o.high);
    else
        attn_kernel->clamp_forward(w->out + at, w->x + at, chunk_of(w, i), w->o.low, w->o.high);
}

static attn_status clamp_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    attn_tensor *x = node->saved[0], *d;
    ATTN_TRY(attn_tensor_as(&d, dy[0], x->layout));
    attn_status status = attn_tensor_empty_like(&dx[0], x);
    if (status == ATTN_OK) {
        job work = {attn_data(dx[0]), attn_data(d), attn_data(x), NULL, x->size,
                    *(const options *)node->parameters};
        run(clamp_chunk, &work);
    }
    attn_tensor_release(d);
    return status;
}

/* y = low where x < low, high where x > high, else x; dx = dy where low <= x <= high. */
attn_status attn_clamp(attn_tensor **y, attn_tensor *x, float low, float high)
{
    static const attn_operation operation = {"clamp", clamp_backward, sizeof(options)};
    attn_tensor *out;
    ATTN_TRY(attn_tensor_empty_like(&out, x));
    job work = {attn_data(out), NULL, attn_data(x), NULL, x->size, {0, low, high}};
    run(clamp_chunk, &work);
    attn_status status = attn_record(&operation, 1, &x, 1, &out, &work.o, &x, 1);
    if (status != ATTN_OK) {
        attn_tensor_release(out);
        return status;
    }
    *y = out;
    return ATTN_OK;
}

static void add_chunk(void *context, int64_t i, int worker)
{
    (void)worker;
    const job *w = context;
    attn_kernel->add_into(w->out + i * CHUNK, w->x + i * CHUNK, chunk_of(w, i));
}

void attn_add_into(attn_tensor *y, const attn_tensor *x)
{
    job work = {attn_data(y), NULL, attn_data(x), NULL, y->size, {0}};
    run(add_chunk, &work);
}
