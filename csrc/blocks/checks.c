/* Argument checks of the block operations: each message names the argument, what came and what was
 * expected. */
#include "shared.h"

#include <stdio.h>

attn_status attn_block_check_input(const char *block, const attn_tensor *x)
{
    char got[160];
    if (x->ndim != 4)
        return attn_fail(ATTN_BAD_VALUE, "%s: x has shape %s, expected (N, C, H, W)", block,
                         attn_shape_text(got, x->ndim, x->shape));
    if (x->shape[1] < 1 || x->shape[2] < 1 || x->shape[3] < 1)
        return attn_fail(ATTN_BAD_VALUE,
                         "%s: x has shape %s, expected at least one channel and one pixel", block,
                         attn_shape_text(got, 4, x->shape));
    if (x->shape[1] > INT32_MAX || x->shape[2] * x->shape[3] > INT32_MAX)
        return attn_fail(ATTN_BAD_VALUE, "%s: x has shape %s, more than 2^31 - 1 channels or pixels",
                         block, attn_shape_text(got, 4, x->shape));
    return ATTN_OK;
}

attn_status attn_block_check_vector(const char *block, const char *name, const attn_tensor *v,
                                    int64_t size)
{
    char got[160];
    if (!v)
        return attn_fail(ATTN_BAD_VALUE, "%s: %s is None, expected a tensor of shape (%lld,)", block,
                         name, (long long)size);
    if (v->ndim != 1 || v->size != size)
        return attn_fail(ATTN_BAD_VALUE, "%s: %s has shape %s, expected (%lld,)", block, name,
                         attn_shape_text(got, v->ndim, v->shape), (long long)size);
    return ATTN_OK;
}

attn_status attn_block_check_matrix(const char *block, const char *name, const attn_tensor *w,
                                    int64_t rows, int64_t columns)
{
    char got[160], wanted[32];
    bool fits = w->ndim == 2 || (w->ndim == 4 && w->shape[2] == 1 && w->shape[3] == 1);
    if (fits && w->shape[1] == columns && w->shape[0] == rows)
        return ATTN_OK;
    if (fits && w->shape[1] == columns && rows < 0 && w->shape[0] > 0)
        return ATTN_OK;
    attn_shape_text(got, w->ndim, w->shape);
    if (fits && rows < 0 && w->shape[0] == 0)
        return attn_fail(ATTN_BAD_VALUE,
                         "%s: %s has shape %s: %lld channels are too few, their reduction leaves "
                         "none; expected (K, %lld) with K at least 1",
                         block, name, got, (long long)columns, (long long)columns);
    if (rows < 0)
        snprintf(wanted, sizeof wanted, "K");
    else
        snprintf(wanted, sizeof wanted, "%lld", (long long)rows);
    return attn_fail(ATTN_BAD_VALUE, "%s: %s has shape %s, expected (%s, %lld) or (%s, %lld, 1, 1)",
                     block, name, got, wanted, (long long)columns, wanted, (long long)columns);
}

attn_status attn_block_check_kernel(const char *block, const char *name, const attn_tensor *w,
                                    const int64_t shape[4])
{
    char got[160], wanted[160];
    bool same = w->ndim == 4;
    for (int i = 0; same && i < 4; i++)
        same = w->shape[i] == shape[i];
    if (same)
        return ATTN_OK;
    return attn_fail(ATTN_BAD_VALUE, "%s: %s has shape %s, expected %s", block, name,
                     attn_shape_text(got, w->ndim, w->shape), attn_shape_text(wanted, 4, shape));
}

attn_gates attn_block_geometry(const attn_tensor *x, bool relu)
{
    attn_gates gates = {
        .C = x->shape[1],
        .HW = x->shape[2] * x->shape[3],
        .blocked = attn_can_block(x->ndim, x->shape),
        .stream = x->size * (int64_t)sizeof(float) >= ATTN_STREAM_BYTES,
        .relu = relu,
    };
    return gates;
}

attn_status attn_block_ready(attn_tensor **x_ready, attn_tensor *x)
{
    return attn_tensor_as(x_ready, x, attn_can_block(x->ndim, x->shape) ? ATTN_BLOCKED16 : ATTN_PLAIN);
}
