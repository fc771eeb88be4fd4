#include "optimise.h"

#include "../base/memory.h"
#include "../base/threads.h"
#include "../kernels/kernels.h"

#include <math.h>
#include <string.h>

/* Elements a task: large enough that a task's cost hides its start, small enough to share. */
enum { CHUNK = 1 << 15 };

/* What one pass works on. Chunks are numbered through all tensors; first_chunk finds the tensor. */
typedef struct {
    int64_t count, chunks;
    int64_t *first_chunk;  /* count + 1 entries */
    attn_tensor *const *w; /* the tensors that set the sizes */
    attn_tensor **g;       /* gradients, each in the layout of its w; owned */
    attn_tensor *const *a, *const *b; /* velocities; or means and squares */
    const bool *first;
    double *partial; /* a sum a chunk */
    sgd_constants sgd;
    adamw_constants adamw;
    float value;
} pass;

/* The part of tensor `at` that chunk `index` covers. */
typedef struct {
    int64_t at, start, size;
} span;

static span span_of(const pass *p, int64_t index)
{
    int64_t low = 0, high = p->count - 1; /* the last tensor whose first chunk is <= index */
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (p->first_chunk[middle] <= index)
            low = middle;
        else
            high = middle - 1;
    }
    int64_t start = (index - p->first_chunk[low]) * CHUNK;
    return (span){low, start, attn_min(CHUNK, p->w[low]->size - start)};
}

static attn_status pass_open(pass *p, int64_t count, attn_tensor *const *w)
{
    *p = (pass){.count = count, .w = w};
    ATTN_TRY(attn_alloc((void **)&p->first_chunk, (size_t)(count + 1) * sizeof(int64_t)));
    for (int64_t i = 0; i < count; i++) {
        p->first_chunk[i] = p->chunks;
        p->chunks += attn_ceil_div(w[i]->size, CHUNK);
    }
    p->first_chunk[count] = p->chunks;
    return ATTN_OK;
}

static void pass_close(pass *p)
{
    for (int64_t i = 0; p->g && i < p->count; i++)
        attn_tensor_release(p->g[i]);
    attn_free(p->g);
    attn_free(p->partial);
    attn_free(p->first_chunk);
}

static attn_status same_shapes(int64_t i, const attn_tensor *w, const attn_tensor *other,
                               const char *what)
{
    if (attn_same_shape(w, other))
        return ATTN_OK;
    char wanted[160], got[160];
    return attn_fail(ATTN_BAD_VALUE, "parameter %lld has shape %s, but its %s has %s", (long long)i,
                     attn_shape_text(wanted, w->ndim, w->shape), what,
                     attn_shape_text(got, other->ndim, other->shape));
}

/* State that the optimiser keeps beside a parameter must match it in layout too. */
static attn_status check_state(const pass *p, attn_tensor *const *state, const char *what)
{
    for (int64_t i = 0; state && i < p->count; i++) {
        ATTN_TRY(same_shapes(i, p->w[i], state[i], what));
        if (state[i]->layout != p->w[i]->layout)
            return attn_fail(ATTN_BAD_VALUE, "the %s of parameter %lld has another layout", what,
                             (long long)i);
    }
    return ATTN_OK;
}

static attn_status take_gradients(pass *p, attn_tensor *const *g)
{
    size_t bytes = (size_t)attn_max(p->count, 1) * sizeof(attn_tensor *);
    ATTN_TRY(attn_alloc((void **)&p->g, bytes));
    memset(p->g, 0, bytes);
    for (int64_t i = 0; i < p->count; i++) {
        ATTN_TRY(same_shapes(i, p->w[i], g[i], "gradient"));
        ATTN_TRY(attn_tensor_as(&p->g[i], g[i], p->w[i]->layout));
    }
    return ATTN_OK;
}

static void run(pass *p, attn_task task)
{
    attn_parallel(task, p, p->chunks);
}

static void touch_all(int64_t count, attn_tensor *const *x)
{
    for (int64_t i = 0; x && i < count; i++)
        attn_tensor_touch(x[i]);
}

/* ---- SGD ------------------------------------------------------------------------------------ */

static void sgd_chunk(void *context, int64_t index, int worker)
{
    (void)worker;
    const pass *p = context;
    span s = span_of(p, index);
    sgd_constants constants = p->sgd;
    constants.first = p->first && p->first[s.at];
    attn_kernel->sgd_update(attn_data(p->w[s.at]) + s.start,
                            p->a ? attn_data(p->a[s.at]) + s.start : NULL,
                            attn_data(p->g[s.at]) + s.start, s.size, &constants);
}

attn_status attn_sgd_step(int64_t count, attn_tensor *const *w, attn_tensor *const *g,
                          attn_tensor *const *velocity, const bool *first,
                          const attn_sgd_options *options)
{
    pass p;
    attn_status status;
    ATTN_TRY(pass_open(&p, count, w));
    p.a = velocity;
    p.first = first;
    p.sgd = (sgd_constants){.rate = (float)options->rate,
                            .momentum = (float)options->momentum,
                            .decay = (float)options->decay,
                            .nesterov = options->nesterov};
    ATTN_GOTO(check_state(&p, velocity, "momentum"));
    ATTN_GOTO(take_gradients(&p, g));
    run(&p, sgd_chunk);
    touch_all(count, w);
    touch_all(count, velocity);
done:
    pass_close(&p);
    return status;
}

/* ---- AdamW ---------------------------------------------------------------------------------- */

static void adamw_chunk(void *context, int64_t index, int worker)
{
    (void)worker;
    const pass *p = context;
    span s = span_of(p, index);
    attn_kernel->adamw_update(attn_data(p->w[s.at]) + s.start, attn_data(p->a[s.at]) + s.start,
                              attn_data(p->b[s.at]) + s.start, attn_data(p->g[s.at]) + s.start,
                              s.size, &p->adamw);
}

attn_status attn_adamw_step(int64_t count, attn_tensor *const *w, attn_tensor *const *g,
                            attn_tensor *const *mean, attn_tensor *const *square,
                            const attn_adamw_options *options)
{
    if (options->step < 1)
        return attn_fail(ATTN_BAD_VALUE, "AdamW counts steps from 1, got %lld",
                         (long long)options->step);
    pass p;
    attn_status status;
    ATTN_TRY(pass_open(&p, count, w));
    p.a = mean;
    p.b = square;
    const double step = (double)options->step;
    p.adamw = (adamw_constants){
        .one_less_beta1 = (float)(1.0 - options->beta1),
        .beta2 = (float)options->beta2,
        .one_less_beta2 = (float)(1.0 - options->beta2),
        .keep = (float)(1.0 - options->rate * options->decay),
        .rate = (float)(options->rate / (1.0 - pow(options->beta1, step))),
        .root = (float)sqrt(1.0 - pow(options->beta2, step)),
        .eps = (float)options->eps,
    };
    ATTN_GOTO(check_state(&p, mean, "first moment"));
    ATTN_GOTO(check_state(&p, square, "second moment"));
    ATTN_GOTO(take_gradients(&p, g));
    run(&p, adamw_chunk);
    touch_all(count, w);
    touch_all(count, mean);
    touch_all(count, square);
done:
    pass_close(&p);
    return status;
}

/* ---- averages ------------------------------------------------------------------------------- */

/* SGD towards x: its gradient x + decay * average is x - average, its rate -share. */
attn_status attn_average_step(int64_t count, attn_tensor *const *average, attn_tensor *const *x,
                              double share)
{
    if (!(share >= 0.0 && share <= 1.0))
        return attn_fail(ATTN_BAD_VALUE, "the share in an average must be 0 to 1, got %g", share);
    const attn_sgd_options towards = {.rate = -share, .decay = -1.0};
    return attn_sgd_step(count, average, x, NULL, NULL, &towards);
}

/* ---- norm and clipping ---------------------------------------------------------------------- */

static void square_chunk(void *context, int64_t index, int worker)
{
    (void)worker;
    const pass *p = context;
    span s = span_of(p, index);
    p->partial[index] = attn_kernel->square_sum(attn_data(p->w[s.at]) + s.start, s.size);
}

attn_status attn_global_norm(double *norm, int64_t count, attn_tensor *const *x)
{
    pass p;
    attn_status status;
    ATTN_TRY(pass_open(&p, count, x));
    ATTN_GOTO(attn_alloc((void **)&p.partial, (size_t)attn_max(p.chunks, 1) * sizeof(double)));
    run(&p, square_chunk);
    double total = 0.0;
    for (int64_t i = 0; i < p.chunks; i++)
        total += p.partial[i];
    *norm = sqrt(total);
done:
    pass_close(&p);
    return status;
}

static void scale_chunk(void *context, int64_t index, int worker)
{
    (void)worker;
    const pass *p = context;
    span s = span_of(p, index);
    attn_kernel->scale_values(attn_data(p->w[s.at]) + s.start, s.size, p->value);
}

static void clip_chunk(void *context, int64_t index, int worker)
{
    (void)worker;
    const pass *p = context;
    span s = span_of(p, index);
    attn_kernel->clip_values(attn_data(p->w[s.at]) + s.start, s.size, p->value);
}

static attn_status change_all(int64_t count, attn_tensor *const *x, attn_task task, double value)
{
    pass p;
    ATTN_TRY(pass_open(&p, count, x));
    p.value = (float)value;
    run(&p, task);
    touch_all(count, x);
    pass_close(&p);
    return ATTN_OK;
}

attn_status attn_scale_all(int64_t count, attn_tensor *const *x, double factor)
{
    return change_all(count, x, scale_chunk, factor);
}

attn_status attn_clip_all(int64_t count, attn_tensor *const *x, double limit)
{
    if (!(limit >= 0.0))
        return attn_fail(ATTN_BAD_VALUE, "the largest gradient must be 0 or more, got %g", limit);
    return change_all(count, x, clip_chunk, limit);
}
