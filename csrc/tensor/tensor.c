#include "tensor.h"

#include "../base/memory.h"
#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "tape.h"

#include <stdio.h>
#include <string.h>

static attn_status storage_new(attn_storage **storage, int64_t size)
{
    attn_storage *s = attn_object(1, sizeof *s);
    if (!s)
        return ATTN_NO_MEMORY;
    attn_status status = attn_alloc((void **)&s->data, (size_t)size * sizeof(float));
    if (status != ATTN_OK) {
        attn_object_free(s);
        return status;
    }
    s->references = 1;
    s->bytes = size * (int64_t)sizeof(float);
    *storage = s;
    return ATTN_OK;
}

static void storage_release(attn_storage *s)
{
    if (s && atomic_fetch_sub(&s->references, 1) == 1) {
        attn_free(s->data);
        attn_object_free(s);
    }
}

bool attn_count(int64_t *size, int ndim, const int64_t *shape)
{
    int64_t product = 1;
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] > (INT64_MAX >> 4) / product)
            return false;
        empty = empty || shape[i] == 0;
        product *= attn_max(shape[i], 1);
    }
    *size = empty ? 0 : product;
    return true;
}

/* A tensor without storage. */
static attn_status shell_new(attn_tensor **y, int ndim, const int64_t *shape, attn_layout layout)
{
    if (ndim < 0 || ndim > ATTN_MAX_DIMS)
        return attn_fail(ATTN_BAD_VALUE, "a tensor has at most %d dimensions, got %d",
                         ATTN_MAX_DIMS, ndim);
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0)
            return attn_fail(ATTN_BAD_VALUE, "negative size %lld in a shape", (long long)shape[i]);
    int64_t size;
    if (!attn_count(&size, ndim, shape))
        return attn_fail(ATTN_NO_MEMORY, "a shape holds more elements than memory can");
    attn_tensor *t = attn_object(1, sizeof *t);
    if (!t)
        return ATTN_NO_MEMORY;
    t->references = 1;
    t->ndim = ndim;
    t->layout = layout;
    t->size = size;
    if (ndim)
        memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    *y = t;
    return ATTN_OK;
}

attn_status attn_tensor_empty(attn_tensor **y, int ndim, const int64_t *shape, attn_layout layout)
{
    if (layout == ATTN_BLOCKED16 && !attn_can_block(ndim, shape))
        layout = ATTN_PLAIN;
    attn_tensor *t;
    ATTN_TRY(shell_new(&t, ndim, shape, layout));
    attn_status status = storage_new(&t->storage, t->size);
    if (status != ATTN_OK) {
        attn_object_free(t);
        return status;
    }
    *y = t;
    return ATTN_OK;
}

attn_status attn_tensor_empty_like(attn_tensor **y, const attn_tensor *x)
{
    return attn_tensor_empty(y, x->ndim, x->shape, x->layout);
}

attn_status attn_tensor_zeros(attn_tensor **y, int ndim, const int64_t *shape, attn_layout layout)
{
    ATTN_TRY(attn_tensor_empty(y, ndim, shape, layout));
    memset(attn_data(*y), 0, (size_t)(*y)->storage->bytes);
    return ATTN_OK;
}

attn_status attn_tensor_view(attn_tensor **y, const attn_tensor *x, int ndim, const int64_t *shape)
{
    attn_tensor *t;
    ATTN_TRY(shell_new(&t, ndim, shape, ATTN_PLAIN));
    if (t->size != x->size) {
        attn_object_free(t);
        return attn_fail(ATTN_BAD_VALUE, "a view needs the same number of elements");
    }
    atomic_fetch_add(&x->storage->references, 1);
    t->storage = x->storage;
    *y = t;
    return ATTN_OK;
}

attn_status attn_detach(attn_tensor **y, const attn_tensor *x)
{
    ATTN_TRY(attn_tensor_view(y, x, x->ndim, x->shape));
    (*y)->layout = x->layout;
    return ATTN_OK;
}

attn_tensor *attn_tensor_retain(attn_tensor *x)
{
    if (x)
        atomic_fetch_add_explicit(&x->references, 1, memory_order_relaxed);
    return x;
}

void attn_tensor_release(attn_tensor *x)
{
    if (!x || atomic_fetch_sub(&x->references, 1) != 1)
        return;
    storage_release(x->storage);
    attn_variable_release(x->variable);
    attn_variable_release(x->parked);
    attn_object_free(x);
}

/* Layout conversion and copies: one task a chunk of images or elements. */
typedef struct {
    float *y;
    const float *x;
    int64_t C, HW, size;
    bool to_blocked;
} copy_job;

enum { COPY_CHUNK = 1 << 16 };

static void convert_image(void *context, int64_t n, int worker)
{
    (void)worker;
    const copy_job *job = context;
    int64_t image = job->C * job->HW;
    if (job->to_blocked)
        attn_kernel->layout_block(job->y + n * image, job->x + n * image, job->C, job->HW);
    else
        attn_kernel->layout_unblock(job->y + n * image, job->x + n * image, job->C, job->HW);
}

static void copy_chunk(void *context, int64_t i, int worker)
{
    (void)worker;
    const copy_job *job = context;
    int64_t begin = i * COPY_CHUNK, count = attn_min(COPY_CHUNK, job->size - begin);
    memcpy(job->y + begin, job->x + begin, (size_t)count * sizeof(float));
}

void attn_tensor_copy_values(attn_tensor *y, const attn_tensor *x)
{
    copy_job job = {attn_data(y), attn_data(x), 0, 0, x->size, y->layout == ATTN_BLOCKED16};
    if (x->size == 0)
        return;
    if (y->layout == x->layout) {
        attn_parallel(copy_chunk, &job, attn_ceil_div(x->size, COPY_CHUNK));
        return;
    }
    job.C = x->shape[1];
    job.HW = x->shape[2] * x->shape[3];
    attn_parallel(convert_image, &job, x->shape[0]);
}

attn_status attn_tensor_copy(attn_tensor **y, const attn_tensor *x)
{
    ATTN_TRY(attn_tensor_empty_like(y, x));
    attn_tensor_copy_values(*y, x);
    return ATTN_OK;
}

attn_status attn_tensor_as(attn_tensor **y, attn_tensor *x, attn_layout layout)
{
    if (layout == ATTN_BLOCKED16 && !attn_can_block(x->ndim, x->shape))
        layout = ATTN_PLAIN;
    if (x->layout == layout) {
        *y = attn_tensor_retain(x);
        return ATTN_OK;
    }
    if (x->shape[2] * x->shape[3] == 1) { /* the same memory under either name */
        ATTN_TRY(attn_detach(y, x));
        (*y)->layout = layout;
        return ATTN_OK;
    }
    ATTN_TRY(attn_tensor_empty(y, x->ndim, x->shape, layout));
    attn_tensor_copy_values(*y, x);
    return ATTN_OK;
}

attn_status attn_tensor_as_plain(attn_tensor **y, attn_tensor *x)
{
    return attn_tensor_as(y, x, ATTN_PLAIN);
}

bool attn_same_shape(const attn_tensor *a, const attn_tensor *b)
{
    return a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]) == 0;
}

const char *attn_shape_text(char text[160], int ndim, const int64_t *shape)
{
    enum { ROOM = 160 }; /* too little for eight sizes of twenty digits: then the end is missing */
    int at = snprintf(text, ROOM, "(");
    for (int i = 0; i < ndim && at < ROOM; i++)
        at += snprintf(text + at, (size_t)(ROOM - at), ndim == 1 ? "%lld," : i ? ", %lld" : "%lld",
                       (long long)shape[i]);
    if (at < ROOM)
        snprintf(text + at, (size_t)(ROOM - at), ")");
    return text;
}
