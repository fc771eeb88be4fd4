/* y = a op b with broadcasting. Computed in BLOCKED16 where an operand of full size has it (a gate
 * of shape (N, C, 1, 1) or a mask (N, 1, H, W) needs no conversion), else in PLAIN.
 * Saved: what the other operand's gradient needs; gradients are summed back to their shapes. */
#include "ops.h"

#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "../tensor/extent.h"

#include <string.h>

static const char *const names[ATTN_BINARY_COUNT] = {"add", "sub", "mul", "div", "pow"};

static attn_status broadcast_shape(int *ndim, int64_t *shape, const attn_tensor *a,
                                   const attn_tensor *b, attn_binary_kind kind)
{
    char left[160], right[160];
    *ndim = (int)attn_max(a->ndim, b->ndim);
    for (int i = 0; i < *ndim; i++) {
        int ia = i - (*ndim - a->ndim), ib = i - (*ndim - b->ndim);
        int64_t sa = ia < 0 ? 1 : a->shape[ia], sb = ib < 0 ? 1 : b->shape[ib];
        if (sa != sb && sa != 1 && sb != 1)
            return attn_fail(ATTN_BAD_VALUE, "%s: shapes %s and %s do not broadcast (%lld against "
                             "%lld)", names[kind], attn_shape_text(left, a->ndim, a->shape),
                             attn_shape_text(right, b->ndim, b->shape), (long long)sa,
                             (long long)sb);
        shape[i] = sa == 1 ? sb : sa;
    }
    return ATTN_OK;
}

/* The operand with memory that suits the layout of the result. */
static attn_status prepare(attn_tensor **out, attn_tensor *x, attn_layout layout)
{
    if (layout == ATTN_BLOCKED16 && x->ndim == 3 && x->shape[0] > 1) {
        /* (C, H, W) joins as (1, C, H, W) */
        attn_tensor *four;
        int64_t shape[4] = {1, x->shape[0], x->shape[1], x->shape[2]};
        ATTN_TRY(attn_tensor_view(&four, x, 4, shape));
        attn_status status = attn_tensor_as(out, four, layout);
        attn_tensor_release(four);
        return status;
    }
    return attn_tensor_as(out, x, layout);
}

typedef struct {
    float *y;
    const float *a, *b;
    int kind, ndim;
    int64_t shape[ATTN_EXTENT_DIMS], a_stride[ATTN_EXTENT_DIMS], b_stride[ATTN_EXTENT_DIMS];
    int64_t rows_a_task, tasks_a_slab;
} job;

/* A slab is the last two axes; a task is some of its rows. */
static void compute(void *context, int64_t task, int worker)
{
    (void)worker;
    const job *w = context;
    int row_axis = w->ndim - 2;
    int64_t rows = w->shape[row_axis], columns = w->shape[row_axis + 1];
    int64_t slab = task / w->tasks_a_slab, first = task % w->tasks_a_slab * w->rows_a_task;
    int64_t rest = slab, a_at = first * w->a_stride[row_axis], b_at = first * w->b_stride[row_axis];
    for (int i = row_axis - 1; i >= 0; i--) {
        int64_t index = rest % w->shape[i];
        rest /= w->shape[i];
        a_at += index * w->a_stride[i];
        b_at += index * w->b_stride[i];
    }
    attn_kernel->binary_forward(w->y + (slab * rows + first) * columns, w->a + a_at, w->b + b_at,
                                attn_min(w->rows_a_task, rows - first), columns,
                                w->a_stride + row_axis, w->b_stride + row_axis, w->kind);
}

/* Joins axes along which both operands step alike, so that rows get long. */
static void collapse(job *w, const attn_extent *a, const attn_extent *b)
{
    w->ndim = 0;
    for (int i = 0; i < a->ndim; i++) {
        if (a->shape[i] == 1)
            continue;
        int last = w->ndim - 1;
        bool joins = w->ndim > 0 && w->a_stride[last] == a->shape[i] * a->stride[i] &&
                     w->b_stride[last] == a->shape[i] * b->stride[i];
        if (joins) {
            w->shape[last] *= a->shape[i];
        } else {
            last = w->ndim++;
            w->shape[last] = a->shape[i];
        }
        w->a_stride[last] = a->stride[i];
        w->b_stride[last] = b->stride[i];
    }
    while (w->ndim < 2) { /* rows and columns are always there */
        memmove(w->shape + 1, w->shape, sizeof w->shape - sizeof *w->shape);
        memmove(w->a_stride + 1, w->a_stride, sizeof w->a_stride - sizeof *w->a_stride);
        memmove(w->b_stride + 1, w->b_stride, sizeof w->b_stride - sizeof *w->b_stride);
        if (w->ndim == 0)
            w->shape[1] = 1;
        w->shape[0] = 1;
        w->a_stride[0] = w->b_stride[0] = 0;
        w->ndim++;
    }
}

/* One long row becomes rows of this many elements, so that threads share it. */
static void cut_long_row(job *w)
{
    enum { ROW = 1 << 13 };
    int c = w->ndim - 1, r = w->ndim - 2;
    if (w->shape[r] != 1 || w->shape[c] < 2 * ROW || w->shape[c] % ROW)
        return;
    w->shape[r] = w->shape[c] / ROW;
    w->shape[c] = ROW;
    w->a_stride[r] = w->a_stride[c] * ROW;
    w->b_stride[r] = w->b_stride[c] * ROW;
}

attn_status attn_broadcast(attn_tensor **y, attn_tensor *a, attn_tensor *b, attn_binary_kind kind,
                           int ndim, const int64_t *shape, attn_layout layout)
{
    attn_tensor *left = NULL, *right = NULL, *out = NULL;
    attn_status status;
    if (layout == ATTN_BLOCKED16 && !attn_can_block(ndim, shape))
        layout = ATTN_PLAIN;
    ATTN_GOTO(prepare(&left, a, layout));
    ATTN_GOTO(prepare(&right, b, layout));
    ATTN_GOTO(attn_tensor_empty(&out, ndim, shape, layout));
    attn_extent ea = attn_extent_broadcast(left, ndim, shape, layout);
    attn_extent eb = attn_extent_broadcast(right, ndim, shape, layout);
    job work = {.y = attn_data(out), .a = attn_data(left), .b = attn_data(right), .kind = kind};
    if (out->size > 0) {
        enum { TASK_ELEMENTS = 1 << 14 };
        collapse(&work, &ea, &eb);
        cut_long_row(&work);
        int64_t rows = work.shape[work.ndim - 2], columns = work.shape[work.ndim - 1];
        work.rows_a_task = attn_max(1, TASK_ELEMENTS / columns);
        work.tasks_a_slab = attn_ceil_div(rows, work.rows_a_task);
        attn_parallel(compute, &work, out->size / (rows * columns) * work.tasks_a_slab);
    }
    *y = out;
    out = NULL;
done:
    attn_tensor_release(left);
    attn_tensor_release(right);
    attn_tensor_release(out);
    return status;
}

/* *dx = gradient summed over the axes along which x was broadcast. Takes gradient over. */
static attn_status sum_to(attn_tensor **dx, attn_tensor *gradient, const attn_variable *x)
{
    bool axes[ATTN_MAX_DIMS] = {0}, any = false;
    int missing = gradient->ndim - x->ndim;
    for (int i = 0; i < gradient->ndim; i++) {
        axes[i] = i < missing || (x->shape[i - missing] == 1 && gradient->shape[i] != 1);
        any = any || axes[i];
    }
    if (!any) {
        *dx = gradient;
        return ATTN_OK;
    }
    attn_tensor *summed = NULL;
    attn_status status = attn_reduce(&summed, gradient, ATTN_SUM, axes, true, 0);
    attn_tensor_release(gradient);
    if (status == ATTN_OK)
        status = attn_reshape(dx, summed, x->ndim, x->shape);
    attn_tensor_release(summed);
    return status;
}

/* *out = d * factor (either may be a result that is not needed any more). */
static attn_status times(attn_tensor **out, attn_tensor *d, attn_tensor *factor,
                         attn_binary_kind kind)
{
    return attn_broadcast(out, d, factor, kind, d->ndim, d->shape, d->layout);
}

static attn_status scaled(attn_tensor **out, attn_tensor *d, float factor)
{
    attn_tensor *one = NULL;
    ATTN_TRY(attn_scalar(&one, factor));
    attn_status status = times(out, d, one, ATTN_MUL);
    attn_tensor_release(one);
    return status;
}

/* Saved: 0: a, 1: b, 2: y, as each kind needs them. */
static attn_status gradient_of_a(attn_tensor **g, const attn_node *node, attn_tensor *d, int kind)
{
    attn_tensor *a = node->saved[0], *b = node->saved[1], *slope = NULL;
    switch (kind) {
    case ATTN_MUL:
        return times(g, d, b, ATTN_MUL);
    case ATTN_DIV:
        return times(g, d, b, ATTN_DIV);
    case ATTN_POW:
        ATTN_TRY(attn_broadcast(&slope, a, b, ATTN_POW_SLOPE, d->ndim, d->shape, d->layout));
        break;
    default:
        *g = attn_tensor_retain(d);
        return ATTN_OK;
    }
    attn_status status = times(g, d, slope, ATTN_MUL);
    attn_tensor_release(slope);
    return status;
}

static attn_status gradient_of_b(attn_tensor **g, const attn_node *node, attn_tensor *d, int kind)
{
    attn_tensor *a = node->saved[0], *b = node->saved[1], *y = node->saved[2];
    attn_tensor *first = NULL, *second = NULL;
    attn_status status;
    switch (kind) {
    case ATTN_ADD:
        *g = attn_tensor_retain(d);
        return ATTN_OK;
    case ATTN_SUB:
        return scaled(g, d, -1.0f);
    case ATTN_MUL:
        return times(g, d, a, ATTN_MUL);
    case ATTN_DIV: /* -dy y / b */
        ATTN_GOTO(times(&first, d, y, ATTN_MUL));
        ATTN_GOTO(times(&second, first, b, ATTN_DIV));
        status = scaled(g, second, -1.0f);
        break;
    default:
        ATTN_GOTO(attn_broadcast(&first, a, b, ATTN_POW_GROWTH, d->ndim, d->shape, d->layout));
        status = times(g, d, first, ATTN_MUL);
    }
done:
    attn_tensor_release(first);
    attn_tensor_release(second);
    return status;
}

static attn_status binary_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    int kind = *(const int *)node->parameters;
    attn_tensor *g = NULL;
    if (attn_node_wants(node, 0)) {
        ATTN_TRY(gradient_of_a(&g, node, dy[0], kind));
        ATTN_TRY(sum_to(&dx[0], g, node->inputs[0]));
    }
    if (attn_node_wants(node, 1)) {
        ATTN_TRY(gradient_of_b(&g, node, dy[0], kind));
        ATTN_TRY(sum_to(&dx[1], g, node->inputs[1]));
    }
    return ATTN_OK;
}

attn_status attn_scalar(attn_tensor **y, float value)
{
    ATTN_TRY(attn_tensor_empty(y, 0, NULL, ATTN_PLAIN));
    attn_data(*y)[0] = value;
    return ATTN_OK;
}

attn_status attn_binary(attn_tensor **y, attn_tensor *a, attn_tensor *b, attn_binary_kind kind)
{
    static const attn_operation operations[ATTN_BINARY_COUNT] = {
        {"add", binary_backward, sizeof(int)}, {"sub", binary_backward, sizeof(int)},
        {"mul", binary_backward, sizeof(int)}, {"div", binary_backward, sizeof(int)},
        {"pow", binary_backward, sizeof(int)},
    };
    int ndim, number = kind;
    int64_t shape[ATTN_MAX_DIMS];
    ATTN_TRY(broadcast_shape(&ndim, shape, a, b, kind));
    bool blocked = a->layout == ATTN_BLOCKED16 || b->layout == ATTN_BLOCKED16;
    attn_tensor *out;
    ATTN_TRY(attn_broadcast(&out, a, b, kind, ndim, shape, blocked ? ATTN_BLOCKED16 : ATTN_PLAIN));
    attn_tensor *inputs[2] = {a, b}, *saved[3] = {NULL};
    bool of_a = attn_wanted(a), of_b = attn_wanted(b); /* whose gradient will be asked for */
    if (kind == ATTN_POW || (kind == ATTN_MUL && of_b))
        saved[0] = a;
    if (kind == ATTN_POW || kind == ATTN_DIV || (kind == ATTN_MUL && of_a))
        saved[1] = b;
    if (kind == ATTN_DIV && of_b)
        saved[2] = out;
    attn_status status = attn_record(&operations[kind], 2, inputs, 1, &out, &number, saved, 3);
    if (status != ATTN_OK) {
        attn_tensor_release(out);
        return status;
    }
    *y = out;
    return ATTN_OK;
}
