/* Sums, means, largest and smallest values over axes. Computed in PLAIN, or in BLOCKED16 where the
 * result needs no channel reordering (pools over H and W, reductions over C).
 * Saved: for amax and amin the memory offset of the chosen element of each output, as int32; ties go
 * to the first in row-major order. The variance is composed of the others.
 */
#include "ops.h"

#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "../tensor/extent.h"

#include <string.h>

typedef struct {
    int kind;
    bool axes[ATTN_MAX_DIMS];
    int ndim;
    int64_t shape[ATTN_MAX_DIMS]; /* of x */
    attn_layout layout;
    double scale; /* 1, or 1 / count for the mean */
} options;

typedef struct {
    int ndim;
    int64_t shape[ATTN_EXTENT_DIMS], stride[ATTN_EXTENT_DIMS];
    int64_t count; /* product of shape */
} axis_group;

typedef struct {
    float *y;
    int32_t *chosen;
    const float *x;
    axis_group kept, reduced;
    int64_t columns, outputs_a_task; /* columns: outputs whose elements are neighbours */
    int kind;
    double scale;
} job;

static void group_add(axis_group *g, int64_t size, int64_t stride)
{
    if (size == 1)
        return;
    int last = g->ndim - 1;
    g->count *= size;
    if (g->ndim > 0 && g->stride[last] == size * stride) {
        g->shape[last] *= size;
        g->stride[last] = stride;
        return;
    }
    g->shape[g->ndim] = size;
    g->stride[g->ndim++] = stride;
}

static int64_t group_offset(const axis_group *g, int dims, int64_t index)
{
    int64_t at = 0;
    for (int i = dims - 1; i >= 0; i--) {
        at += index % g->shape[i] * g->stride[i];
        index /= g->shape[i];
    }
    return at;
}

/* The rows of one output: the last reduced axis, neighbouring or strided. */
static double sum_output(const job *w, const float *x)
{
    const axis_group *r = &w->reduced;
    if (r->ndim == 0)
        return (double)*x;
    int last = r->ndim - 1;
    int64_t n = r->shape[last], stride = r->stride[last];
    double sum = 0.0;
    for (int64_t row = 0; row < r->count / n; row++) {
        const float *start = x + group_offset(r, last, row);
        if (stride == 1)
            sum += attn_kernel->sum_row(start, n);
        else
            for (int64_t i = 0; i < n; i++)
                sum += (double)start[i * stride];
    }
    return sum;
}

static int64_t choose_output(const job *w, const float *x)
{
    const axis_group *r = &w->reduced;
    int last = r->ndim - 1;
    int64_t n = r->ndim ? r->shape[last] : 1, stride = r->ndim ? r->stride[last] : 0, chosen = -1;
    float best = 0.0f;
    for (int64_t row = 0; row < r->count / n; row++) {
        int64_t start = group_offset(r, last, row);
        for (int64_t i = 0; i < n; i++) {
            float value = x[start + i * stride];
            bool better = w->kind == ATTN_AMAX ? value > best : value < best;
            if (chosen < 0 || better || (value != value && best == best)) { /* NaN wins, and stays */
                best = value;
                chosen = start + i * stride;
            }
        }
    }
    return chosen;
}

static void reduce_outputs(void *context, int64_t task, int worker)
{
    (void)worker;
    const job *w = context;
    int64_t end = attn_min(w->kept.count, (task + 1) * w->outputs_a_task);
    for (int64_t i = task * w->outputs_a_task; i < end; i++) {
        int64_t base = group_offset(&w->kept, w->kept.ndim, i);
        if (w->chosen) {
            int64_t at = base + choose_output(w, w->x + base);
            w->chosen[i] = (int32_t)at;
            w->y[i] = w->x[at];
        } else {
            w->y[i] = (float)(sum_output(w, w->x + base) * w->scale);
        }
    }
}

enum { MOST_COLUMNS = 256 }; /* what the kernel takes at once */

/* Sums where the last axis is kept: whole stretches of outputs at a time. */
static void sum_column_strip(void *context, int64_t task, int worker)
{
    (void)worker;
    const job *w = context;
    int64_t strips = attn_ceil_div(w->columns, MOST_COLUMNS);
    int64_t outer = task / strips, first = task % strips * MOST_COLUMNS;
    int64_t columns = attn_min(MOST_COLUMNS, w->columns - first);
    const axis_group *r = &w->reduced;
    const float *x = w->x + group_offset(&w->kept, w->kept.ndim - 1, outer) + first;
    double sums[MOST_COLUMNS] = {0};
    int last = r->ndim - 1;
    int64_t n = r->ndim ? r->shape[last] : 1, stride = r->ndim ? r->stride[last] : 0;
    for (int64_t row = 0; row < r->count / n; row++)
        attn_kernel->sum_columns(sums, x + group_offset(r, last, row), n, columns, stride);
    for (int64_t c = 0; c < columns; c++)
        w->y[outer * w->columns + first + c] = (float)(sums[c] * w->scale);
}

/* BLOCKED16 serves where C is kept without H and W, or reduced. */
static bool stays_blocked(const attn_tensor *x, const bool *axes)
{
    return x->layout == ATTN_BLOCKED16 && (axes[1] || (axes[2] && axes[3]));
}

static void split_axes(job *w, const attn_tensor *x, const bool *axes)
{
    attn_extent e = attn_extent_of(x->ndim, x->shape, x->layout);
    w->kept.count = w->reduced.count = 1;
    if (x->layout != ATTN_BLOCKED16) {
        for (int i = 0; i < e.ndim; i++)
            group_add(axes[i] ? &w->reduced : &w->kept, e.shape[i], e.stride[i]);
        return;
    }
    static const int logical[5] = {0, 1, 4, 2, 3}; /* N, C/16, 16, H, W: the order of the indices */
    static const int axis_of[5] = {0, 1, 2, 3, 1};
    for (int k = 0; k < 5; k++) {
        int i = logical[k];
        group_add(axes[axis_of[i]] ? &w->reduced : &w->kept, e.shape[i], e.stride[i]);
    }
}

static void run(job *w)
{
    enum { TASK_ELEMENTS = 1 << 14 };
    int last = w->kept.ndim - 1;
    if (!w->chosen && w->kept.ndim > 0 && w->kept.stride[last] == 1 && w->reduced.count > 1) {
        w->columns = w->kept.shape[last];
        int64_t strips = attn_ceil_div(w->columns, MOST_COLUMNS);
        attn_parallel(sum_column_strip, w, w->kept.count / w->columns * strips);
        return;
    }
    w->outputs_a_task = attn_max(1, TASK_ELEMENTS / w->reduced.count);
    attn_parallel(reduce_outputs, w, attn_ceil_div(w->kept.count, w->outputs_a_task));
}

static int reduced_shape(int64_t *shape, const attn_tensor *x, const bool *axes, bool keepdim)
{
    int ndim = 0;
    for (int i = 0; i < x->ndim; i++)
        if (!axes[i] || keepdim)
            shape[ndim++] = axes[i] ? 1 : x->shape[i];
    return ndim;
}

static attn_status sum_backward(const options *o, attn_tensor *dy, attn_tensor **dx)
{
    attn_tensor *factor = NULL;
    ATTN_TRY(attn_scalar(&factor, (float)o->scale));
    attn_status status = attn_broadcast(dx, dy, factor, ATTN_MUL, o->ndim, o->shape, o->layout);
    attn_tensor_release(factor);
    return status;
}

static attn_status choose_backward(attn_node *node, const options *o, attn_tensor *dy,
                                   attn_tensor **dx)
{
    ATTN_TRY(attn_tensor_zeros(dx, o->ndim, o->shape, o->layout));
    const int32_t *chosen = (const int32_t *)attn_data(node->saved[0]);
    const float *d = attn_data(dy);
    for (int64_t i = 0; i < dy->size; i++)
        attn_data(*dx)[chosen[i]] = d[i];
    return ATTN_OK;
}

static attn_status reduce_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const options *o = node->parameters;
    int64_t shape[ATTN_MAX_DIMS];
    attn_tensor *plain, *d = NULL;
    for (int i = 0; i < o->ndim; i++)
        shape[i] = o->axes[i] ? 1 : o->shape[i];
    ATTN_TRY(attn_tensor_as_plain(&plain, dy[0]));
    attn_status status = attn_tensor_view(&d, plain, o->ndim, shape);
    if (status == ATTN_OK)
        status = node->saved[0] ? choose_backward(node, o, d, &dx[0]) : sum_backward(o, d, &dx[0]);
    attn_tensor_release(d);
    attn_tensor_release(plain);
    return status;
}

/* sum((x - mean)^2) / (n - correction), from operations that know their own gradients. */
static attn_status variance(attn_tensor **y, attn_tensor *x, const bool *axes, bool keepdim,
                            int64_t correction)
{
    attn_tensor *mean = NULL, *centred = NULL, *square = NULL, *sum = NULL, *divisor = NULL;
    attn_status status;
    int64_t n = 1;
    for (int i = 0; i < x->ndim; i++)
        n *= axes[i] ? x->shape[i] : 1;
    if (n <= correction)
        return attn_fail(ATTN_BAD_VALUE, "var: %lld elements with correction=%lld leave nothing to "
                         "divide by", (long long)n, (long long)correction);
    ATTN_GOTO(attn_reduce(&mean, x, ATTN_MEAN, axes, true, 0));
    ATTN_GOTO(attn_binary(&centred, x, mean, ATTN_SUB));
    ATTN_GOTO(attn_binary(&square, centred, centred, ATTN_MUL));
    ATTN_GOTO(attn_reduce(&sum, square, ATTN_SUM, axes, keepdim, 0));
    ATTN_GOTO(attn_scalar(&divisor, (float)((double)n - (double)correction)));
    status = attn_binary(y, sum, divisor, ATTN_DIV);
done:
    attn_tensor_release(mean);
    attn_tensor_release(centred);
    attn_tensor_release(square);
    attn_tensor_release(sum);
    attn_tensor_release(divisor);
    return status;
}

static const attn_operation operations[] = {
    [ATTN_SUM] = {"sum", reduce_backward, sizeof(options)},
    [ATTN_MEAN] = {"mean", reduce_backward, sizeof(options)},
    [ATTN_AMAX] = {"amax", reduce_backward, sizeof(options)},
    [ATTN_AMIN] = {"amin", reduce_backward, sizeof(options)},
};

attn_status attn_reduce(attn_tensor **y, attn_tensor *x, attn_reduction kind, const bool *axes,
                        bool keepdim, int64_t correction)
{
    if (kind == ATTN_VAR)
        return variance(y, x, axes, keepdim, correction);
    bool chooses = kind == ATTN_AMAX || kind == ATTN_AMIN;
    int64_t shape[ATTN_MAX_DIMS];
    char text[160];
    int ndim = reduced_shape(shape, x, axes, keepdim);
    attn_tensor *source = NULL, *out = NULL, *chosen = NULL;
    attn_status status;
    ATTN_GOTO(attn_tensor_as(&source, x, stays_blocked(x, axes) ? ATTN_BLOCKED16 : ATTN_PLAIN));
    ATTN_GOTO(attn_tensor_empty(&out, ndim, shape, ATTN_PLAIN));
    job work = {.y = attn_data(out), .x = attn_data(source), .kind = kind, .scale = 1.0};
    split_axes(&work, source, axes);
    if (chooses) {
        if (x->size >= INT32_MAX) {
            status = attn_fail(ATTN_BAD_VALUE, "%s: %lld elements, expected less than 2^31 - 1",
                               operations[kind].name, (long long)x->size);
            goto done;
        }
        if (work.reduced.count == 0) {
            status = attn_fail(ATTN_BAD_VALUE, "%s: nothing to choose from in shape %s",
                               operations[kind].name, attn_shape_text(text, x->ndim, x->shape));
            goto done;
        }
        ATTN_GOTO(attn_tensor_empty(&chosen, ndim, shape, ATTN_PLAIN));
        work.chosen = (int32_t *)attn_data(chosen);
    }
    if (kind == ATTN_MEAN)
        work.scale = 1.0 / (double)work.reduced.count;
    if (out->size > 0 && work.reduced.count > 0)
        run(&work);
    else if (out->size > 0)
        for (int64_t i = 0; i < out->size; i++)
            work.y[i] = (float)(0.0 * work.scale);
    options o = {.kind = kind, .ndim = x->ndim, .layout = source->layout, .scale = work.scale};
    memcpy(o.axes, axes, (size_t)x->ndim * sizeof *axes);
    memcpy(o.shape, x->shape, sizeof o.shape);
    ATTN_GOTO(attn_record(&operations[kind], 1, &x, 1, &out, &o, &chosen, 1));
    *y = out;
    out = NULL;
done:
    attn_tensor_release(source);
    attn_tensor_release(out);
    attn_tensor_release(chosen);
    return status;
}
