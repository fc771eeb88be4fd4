#include "extent.h"

#include "../base/threads.h"

#include <string.h>

static void set_dense_strides(attn_extent *e)
{
    int64_t stride = 1;
    for (int i = e->ndim - 1; i >= 0; i--) {
        e->stride[i] = stride;
        stride *= e->shape[i];
    }
}

attn_extent attn_extent_of(int ndim, const int64_t *shape, attn_layout layout)
{
    attn_extent e = {.ndim = ndim};
    for (int i = 0; i < ndim; i++)
        e.shape[i] = shape[i];
    if (layout == ATTN_BLOCKED16) {
        e.ndim = 5;
        e.shape[1] = shape[1] / ATTN_LANES;
        e.shape[4] = ATTN_LANES;
    }
    set_dense_strides(&e);
    return e;
}

attn_extent attn_extent_broadcast(const attn_tensor *operand, int ndim, const int64_t *shape,
                                  attn_layout layout)
{
    int64_t own[ATTN_MAX_DIMS] = {0};
    int missing = ndim - operand->ndim;
    for (int i = 0; i < ndim; i++)
        own[i] = i < missing ? 1 : operand->shape[i - missing];
    attn_extent e = attn_extent_of(ndim, own, ATTN_PLAIN);
    if (layout == ATTN_BLOCKED16) {
        bool one_channel = own[1] == 1;
        if (!one_channel)
            e = attn_extent_of(ndim, own, ATTN_BLOCKED16);
        e.ndim = 5;
        if (one_channel)
            e.shape[4] = 1;
    }
    attn_extent full = attn_extent_of(ndim, shape, layout);
    for (int i = 0; i < e.ndim; i++)
        if (e.shape[i] == 1)
            e.stride[i] = 0;
    memcpy(e.shape, full.shape, sizeof e.shape);
    return e;
}

typedef struct {
    float *y;
    const float *x;
    int ndim;
    int64_t shape[ATTN_EXTENT_DIMS], y_stride[ATTN_EXTENT_DIMS], x_stride[ATTN_EXTENT_DIMS];
    int64_t rows_a_task, rows;
} copy_job;

/* A row is the last axis; its number gives the other indices. */
static void copy_rows(void *context, int64_t task, int worker)
{
    (void)worker;
    const copy_job *job = context;
    int last = job->ndim - 1;
    int64_t n = job->shape[last], ys = job->y_stride[last], xs = job->x_stride[last];
    int64_t end = attn_min(job->rows, (task + 1) * job->rows_a_task);
    for (int64_t row = task * job->rows_a_task; row < end; row++) {
        int64_t rest = row, y_at = 0, x_at = 0;
        for (int i = last - 1; i >= 0; i--) {
            int64_t index = rest % job->shape[i];
            rest /= job->shape[i];
            y_at += index * job->y_stride[i];
            x_at += index * job->x_stride[i];
        }
        float *y = job->y + y_at;
        const float *x = job->x + x_at;
        if (ys == 1 && xs == 1)
            memcpy(y, x, (size_t)n * sizeof(float));
        else
            for (int64_t i = 0; i < n; i++)
                y[i * ys] = x[i * xs];
    }
}

void attn_strided_copy(float *y, const int64_t *y_stride, const float *x, const int64_t *x_stride,
                       int ndim, const int64_t *shape)
{
    copy_job job = {.y = y, .x = x};
    int64_t size = 1;
    /* Axes that lie next to each other in both become one. */
    for (int i = 0; i < ndim; i++) {
        size *= shape[i];
        if (shape[i] == 1)
            continue;
        int last = job.ndim - 1;
        if (job.ndim > 0 && job.y_stride[last] == shape[i] * y_stride[i] &&
            job.x_stride[last] == shape[i] * x_stride[i]) {
            job.shape[last] *= shape[i];
        } else {
            last = job.ndim++;
            job.shape[last] = shape[i];
        }
        job.y_stride[last] = y_stride[i];
        job.x_stride[last] = x_stride[i];
    }
    if (size == 0)
        return;
    if (job.ndim == 0) {
        *y = *x;
        return;
    }
    enum { TASK_ELEMENTS = 1 << 14 };
    int64_t n = job.shape[job.ndim - 1];
    job.rows = size / n;
    job.rows_a_task = attn_max(1, TASK_ELEMENTS / n);
    attn_parallel(copy_rows, &job, attn_ceil_div(job.rows, job.rows_a_task));
}
