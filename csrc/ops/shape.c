/* Reshape, permute, slice, pad, concatenate: values move, none changes. Nothing is saved.
 * Slices, pads and concatenations that cut no block of 16 channels stay in BLOCKED16. */
#include "ops.h"

#include "../base/memory.h"
#include "../tensor/extent.h"

#include <string.h>

/* What backward needs: where a part lies in a whole. */
typedef struct {
    int ndim;
    attn_layout layout;
    int64_t whole[ATTN_MAX_DIMS], part[ATTN_MAX_DIMS];
    int64_t start[ATTN_MAX_DIMS], step[ATTN_MAX_DIMS];
    float value; /* pad: outside the part */
} placement;

/* Offset and strides of the part's elements inside the whole's memory. */
static int64_t locate(int64_t *stride, const placement *p)
{
    attn_extent e = attn_extent_of(p->ndim, p->whole, p->layout);
    int64_t offset = 0;
    bool blocked = p->layout == ATTN_BLOCKED16;
    for (int i = 0; i < e.ndim; i++) {
        bool lane = blocked && i == 4;
        int64_t start = lane ? 0 : blocked && i == 1 ? p->start[1] / ATTN_LANES : p->start[i];
        offset += start * e.stride[i];
        stride[i] = e.stride[i] * (lane ? 1 : p->step[i]);
    }
    return offset;
}

static void read_part(float *part, const float *whole, const placement *p)
{
    int64_t stride[ATTN_EXTENT_DIMS];
    attn_extent own = attn_extent_of(p->ndim, p->part, p->layout);
    int64_t offset = locate(stride, p);
    attn_strided_copy(part, own.stride, whole + offset, stride, own.ndim, own.shape);
}

static void write_part(float *whole, const float *part, const placement *p)
{
    int64_t stride[ATTN_EXTENT_DIMS];
    attn_extent own = attn_extent_of(p->ndim, p->part, p->layout);
    int64_t offset = locate(stride, p);
    attn_strided_copy(whole + offset, stride, part, own.stride, own.ndim, own.shape);
}

static bool keeps_blocks(const placement *p)
{
    return attn_can_block(p->ndim, p->whole) && attn_can_block(p->ndim, p->part) &&
           p->start[1] % ATTN_LANES == 0 && p->step[1] == 1;
}

static attn_status finish(attn_tensor **y, attn_tensor *out, const attn_operation *operation,
                          int count, attn_tensor *const *inputs, const void *parameters)
{
    attn_status status = attn_record(operation, count, inputs, 1, &out, parameters, NULL, 0);
    if (status != ATTN_OK) {
        attn_tensor_release(out);
        return status;
    }
    *y = out;
    return ATTN_OK;
}

/* reshape */

static attn_status reshape_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    attn_tensor *plain;
    ATTN_TRY(attn_tensor_as_plain(&plain, dy[0]));
    attn_status status =
        attn_tensor_view(&dx[0], plain, node->inputs[0]->ndim, node->inputs[0]->shape);
    attn_tensor_release(plain);
    return status;
}

attn_status attn_reshape(attn_tensor **y, attn_tensor *x, int ndim, const int64_t *shape)
{
    static const attn_operation operation = {"reshape", reshape_backward, 0};
    char from[160], to[160];
    int64_t size;
    if (!attn_count(&size, ndim, shape))
        return attn_fail(ATTN_BAD_VALUE, "reshape: shape %s is too large for x of shape %s",
                         attn_shape_text(to, ndim, shape),
                         attn_shape_text(from, x->ndim, x->shape));
    if (size != x->size)
        return attn_fail(ATTN_BAD_VALUE, "reshape: shape %s has %lld elements, x of shape %s has "
                         "%lld", attn_shape_text(to, ndim, shape), (long long)size,
                         attn_shape_text(from, x->ndim, x->shape), (long long)x->size);
    attn_tensor *plain, *out = NULL;
    ATTN_TRY(attn_tensor_as_plain(&plain, x));
    attn_status status = attn_tensor_view(&out, plain, ndim, shape);
    attn_tensor_release(plain);
    return status == ATTN_OK ? finish(y, out, &operation, 1, &x, NULL) : status;
}

/* permute */

typedef struct {
    int order[ATTN_MAX_DIMS];
} permutation;

static attn_status permute_copy(attn_tensor **y, attn_tensor *x, const int *order)
{
    attn_tensor *plain;
    int64_t shape[ATTN_MAX_DIMS], stride[ATTN_EXTENT_DIMS];
    ATTN_TRY(attn_tensor_as_plain(&plain, x));
    attn_extent e = attn_extent_of(plain->ndim, plain->shape, ATTN_PLAIN);
    for (int i = 0; i < x->ndim; i++) {
        shape[i] = x->shape[order[i]];
        stride[i] = e.stride[order[i]];
    }
    attn_status status = attn_tensor_empty(y, x->ndim, shape, ATTN_PLAIN);
    if (status == ATTN_OK) {
        attn_extent own = attn_extent_of(x->ndim, shape, ATTN_PLAIN);
        attn_strided_copy(attn_data(*y), own.stride, attn_data(plain), stride, x->ndim, shape);
    }
    attn_tensor_release(plain);
    return status;
}

static attn_status permute_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const permutation *p = node->parameters;
    int inverse[ATTN_MAX_DIMS];
    for (int i = 0; i < dy[0]->ndim; i++)
        inverse[p->order[i]] = i;
    return permute_copy(&dx[0], dy[0], inverse);
}

attn_status attn_permute(attn_tensor **y, attn_tensor *x, const int *order)
{
    static const attn_operation operation = {"permute", permute_backward, sizeof(permutation)};
    permutation p = {{0}};
    attn_tensor *out;
    memcpy(p.order, order, (size_t)x->ndim * sizeof *order);
    ATTN_TRY(permute_copy(&out, x, order));
    return finish(y, out, &operation, 1, &x, &p);
}

/* slice */

static attn_status slice_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const placement *p = node->parameters;
    attn_tensor *d;
    ATTN_TRY(attn_tensor_as(&d, dy[0], p->layout));
    attn_status status = attn_tensor_zeros(&dx[0], p->ndim, p->whole, p->layout);
    if (status == ATTN_OK)
        write_part(attn_data(dx[0]), attn_data(d), p);
    attn_tensor_release(d);
    return status;
}

attn_status attn_slice(attn_tensor **y, attn_tensor *x, const int64_t *start, const int64_t *step,
                       const int64_t *size)
{
    static const attn_operation operation = {"slice", slice_backward, sizeof(placement)};
    placement p = {.ndim = x->ndim};
    size_t bytes = (size_t)x->ndim * sizeof *start;
    memcpy(p.whole, x->shape, bytes);
    memcpy(p.part, size, bytes);
    memcpy(p.start, start, bytes);
    memcpy(p.step, step, bytes);
    p.layout = x->layout == ATTN_BLOCKED16 && keeps_blocks(&p) ? ATTN_BLOCKED16 : ATTN_PLAIN;
    attn_tensor *source, *out = NULL;
    ATTN_TRY(attn_tensor_as(&source, x, p.layout));
    attn_status status = attn_tensor_empty(&out, p.ndim, p.part, p.layout);
    if (status == ATTN_OK)
        read_part(attn_data(out), attn_data(source), &p);
    attn_tensor_release(source);
    return status == ATTN_OK ? finish(y, out, &operation, 1, &x, &p) : status;
}

/* pad */

static attn_status pad_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const placement *p = node->parameters;
    attn_tensor *d;
    ATTN_TRY(attn_tensor_as(&d, dy[0], p->layout));
    attn_status status = attn_tensor_empty(&dx[0], p->ndim, p->part, p->layout);
    if (status == ATTN_OK)
        read_part(attn_data(dx[0]), attn_data(d), p);
    attn_tensor_release(d);
    return status;
}

attn_status attn_pad(attn_tensor **y, attn_tensor *x, const int64_t *before, const int64_t *after,
                     float value)
{
    static const attn_operation operation = {"pad", pad_backward, sizeof(placement)};
    placement p = {.ndim = x->ndim, .value = value};
    for (int i = 0; i < x->ndim; i++) {
        p.part[i] = x->shape[i];
        if (__builtin_add_overflow(before[i], x->shape[i], &p.whole[i]) ||
            __builtin_add_overflow(p.whole[i], after[i], &p.whole[i]))
            return attn_fail(ATTN_NO_MEMORY, "pad: %lld before and %lld after dimension %d are more "
                             "than memory can hold", (long long)before[i], (long long)after[i], i);
        p.start[i] = before[i];
        p.step[i] = 1;
    }
    p.layout = x->layout == ATTN_BLOCKED16 && keeps_blocks(&p) ? ATTN_BLOCKED16 : ATTN_PLAIN;
    attn_tensor *source, *out = NULL;
    ATTN_TRY(attn_tensor_as(&source, x, p.layout));
    attn_status status = attn_tensor_empty(&out, p.ndim, p.whole, p.layout);
    if (status == ATTN_OK) {
        for (int64_t i = 0; i < out->size; i++)
            attn_data(out)[i] = value;
        write_part(attn_data(out), attn_data(source), &p);
    }
    attn_tensor_release(source);
    return status == ATTN_OK ? finish(y, out, &operation, 1, &x, &p) : status;
}

/* concatenate */

typedef struct {
    int axis;
    attn_layout layout;
    int64_t sizes[]; /* of the parts along the axis */
} join;

static placement part_of_join(const join *j, int ndim, const int64_t *whole, const int64_t *part,
                              int64_t start)
{
    placement p = {.ndim = ndim, .layout = j->layout};
    memcpy(p.whole, whole, (size_t)ndim * sizeof *whole);
    memcpy(p.part, part, (size_t)ndim * sizeof *part);
    p.start[j->axis] = start;
    for (int i = 0; i < ndim; i++)
        p.step[i] = 1;
    return p;
}

static attn_status concatenate_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const join *j = node->parameters;
    attn_tensor *d;
    attn_status status = ATTN_OK;
    int64_t start = 0, part[ATTN_MAX_DIMS];
    ATTN_TRY(attn_tensor_as(&d, dy[0], j->layout));
    memcpy(part, d->shape, sizeof part);
    for (int i = 0; i < node->input_count; start += j->sizes[i], i++) {
        if (!attn_node_wants(node, i))
            continue;
        part[j->axis] = j->sizes[i];
        ATTN_GOTO(attn_tensor_empty(&dx[i], d->ndim, part, j->layout));
        placement p = part_of_join(j, d->ndim, d->shape, part, start);
        read_part(attn_data(dx[i]), attn_data(d), &p);
    }
done:
    attn_tensor_release(d);
    return status;
}

static attn_status check_parts(int64_t *whole, attn_tensor *const *x, int count, int axis)
{
    char first[160], other[160];
    if (count < 1)
        return attn_fail(ATTN_BAD_VALUE, "cat: at least one tensor is expected, got none");
    memcpy(whole, x[0]->shape, sizeof x[0]->shape);
    for (int i = 1; i < count; i++) {
        bool fits = x[i]->ndim == x[0]->ndim;
        for (int k = 0; fits && k < x[0]->ndim; k++)
            fits = k == axis || x[i]->shape[k] == x[0]->shape[k];
        if (!fits)
            return attn_fail(ATTN_BAD_VALUE, "cat: tensor %d has shape %s, which does not fit %s "
                             "along dimension %d", i,
                             attn_shape_text(other, x[i]->ndim, x[i]->shape),
                             attn_shape_text(first, x[0]->ndim, x[0]->shape), axis);
        if (__builtin_add_overflow(whole[axis], x[i]->shape[axis], &whole[axis]))
            return attn_fail(ATTN_NO_MEMORY, "cat: the sum of dimension %d is more than memory can "
                             "hold", axis);
    }
    return ATTN_OK;
}

/* All parts into their places; j->sizes as well. */
static attn_status write_parts(attn_tensor *out, join *j, attn_tensor *const *x, int count)
{
    int64_t start = 0;
    for (int i = 0; i < count; start += j->sizes[i], i++) {
        attn_tensor *source;
        ATTN_TRY(attn_tensor_as(&source, x[i], j->layout));
        placement p = part_of_join(j, out->ndim, out->shape, x[i]->shape, start);
        write_part(attn_data(out), attn_data(source), &p);
        attn_tensor_release(source);
        j->sizes[i] = x[i]->shape[j->axis];
    }
    return ATTN_OK;
}

attn_status attn_concatenate(attn_tensor **y, attn_tensor *const *x, int count, int axis)
{
    static const attn_operation operation = {"cat", concatenate_backward, 0};
    int64_t whole[ATTN_MAX_DIMS];
    ATTN_TRY(check_parts(whole, x, count, axis));
    int ndim = x[0]->ndim;
    bool any_blocked = false, all_can = true;
    for (int i = 0; i < count; i++) {
        any_blocked = any_blocked || x[i]->layout == ATTN_BLOCKED16;
        all_can = all_can && attn_can_block(ndim, x[i]->shape);
    }
    const size_t bytes = sizeof(join) + (size_t)count * sizeof(int64_t);
    join *j = attn_object(1, bytes);
    if (!j)
        return ATTN_NO_MEMORY;
    j->axis = axis;
    j->layout = any_blocked && all_can ? ATTN_BLOCKED16 : ATTN_PLAIN;
    attn_tensor *out = NULL;
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_empty(&out, ndim, whole, j->layout));
    ATTN_GOTO(write_parts(out, j, x, count));
    ATTN_GOTO(attn_record_sized(&operation, count, x, 1, &out, j, bytes, NULL, 0));
    *y = out;
    out = NULL;
done:
    attn_tensor_release(out);
    attn_object_free(j);
    return status;
}
