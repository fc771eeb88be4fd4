/* reshape, permute, slice, pad, concatenate, to_layout: axes and bounds are checked here. */
#include "binding.h"

#include "../ops/ops.h"

#include <string.h>

static PyObject *py_reshape(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("reshape");
    attn_tensor *x = take_tensor(&a, "x");
    int64_t shape[ATTN_MAX_DIMS], others[ATTN_MAX_DIMS], known;
    int ndim = take_ints(&a, "shape", shape, ATTN_MAX_DIMS), unknown = -1;
    if (!take_end(&a))
        return NULL;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < -1 || (shape[i] == -1 && unknown >= 0))
            return report(attn_fail(ATTN_BAD_VALUE, "reshape: sizes must be 0 or more, with at most "
                                                    "one -1"));
        if (shape[i] == -1)
            unknown = i;
        others[i] = shape[i] == -1 ? 1 : shape[i];
    }
    if (unknown >= 0)
        shape[unknown] = attn_count(&known, ndim, others) && known > 0 ? x->size / known : 0;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_reshape(&y, x, ndim, shape));
    return give(status, y);
}

static PyObject *py_permute(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("permute");
    attn_tensor *x = take_tensor(&a, "x");
    int64_t dims[ATTN_MAX_DIMS];
    int given = take_ints(&a, "dims", dims, ATTN_MAX_DIMS), order[ATTN_MAX_DIMS];
    if (!take_end(&a))
        return NULL;
    bool seen[ATTN_MAX_DIMS] = {0}, fits = given == x->ndim;
    for (int i = 0; fits && i < given; i++) {
        int64_t axis = dims[i] < 0 ? dims[i] + x->ndim : dims[i];
        fits = axis >= 0 && axis < x->ndim && !seen[axis];
        if (fits) {
            seen[axis] = true;
            order[i] = (int)axis;
        }
    }
    if (!fits) {
        char text[160];
        return report(attn_fail(ATTN_BAD_VALUE, "permute: dims must name each of the %d dimensions "
                                                "of x once, got %s",
                                x->ndim, attn_shape_text(text, given, dims)));
    }
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_permute(&y, x, order));
    return give(status, y);
}

static PyObject *py_slice(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("slice");
    attn_tensor *x = take_tensor(&a, "x");
    int ndim = x ? x->ndim : 0;
    int64_t start[ATTN_MAX_DIMS], step[ATTN_MAX_DIMS], size[ATTN_MAX_DIMS];
    take_exact_ints(&a, "start", start, ndim);
    take_exact_ints(&a, "step", step, ndim);
    take_exact_ints(&a, "size", size, ndim);
    if (!take_end(&a))
        return NULL;
    for (int i = 0; i < ndim; i++) {
        int64_t last = 0;
        bool countable = size[i] <= 0 ||
                         (!__builtin_mul_overflow(size[i] - 1, step[i], &last) &&
                          !__builtin_add_overflow(last, start[i], &last));
        bool inside = size[i] == 0 || (start[i] >= 0 && last >= 0 && start[i] < x->shape[i] &&
                                       last < x->shape[i]);
        if (size[i] < 0 || step[i] == 0 || !countable || !inside)
            return report(attn_fail(ATTN_BAD_VALUE, "slice: dimension %d of size %lld has no %lld "
                                    "elements from %lld in steps of %lld", i,
                                    (long long)x->shape[i], (long long)size[i],
                                    (long long)start[i], (long long)step[i]));
        if (size[i] == 0)
            start[i] = 0;
        if (size[i] <= 1)
            step[i] = 1; /* never taken, and it may be huge */
    }
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_slice(&y, x, start, step, size));
    return give(status, y);
}

static PyObject *py_pad(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("pad");
    attn_tensor *x = take_tensor(&a, "x");
    int ndim = x ? x->ndim : 0;
    int64_t before[ATTN_MAX_DIMS], after[ATTN_MAX_DIMS];
    take_exact_ints(&a, "before", before, ndim);
    take_exact_ints(&a, "after", after, ndim);
    double value = take_double(&a, "value");
    if (!take_end(&a))
        return NULL;
    for (int i = 0; i < ndim; i++)
        if (before[i] < 0 || after[i] < 0)
            return report(attn_fail(ATTN_BAD_VALUE, "pad: sizes must be 0 or more; use a slice to "
                                                    "cut"));
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_pad(&y, x, before, after, (float)value));
    return give(status, y);
}

static PyObject *py_concatenate(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("cat");
    int how_many;
    attn_tensor **x = take_tensors(&a, "tensors", false, &how_many);
    for (int i = 0; i < how_many; i++)
        attn_tensor_retain(x[i]); /* the list may change: in another thread, or in dim's __index__ */
    int64_t axis = take_int(&a, "dim");
    PyObject *result = NULL;
    if (!take_end(&a))
        goto done;
    if (how_many > 0) {
        int ndim = x[0]->ndim;
        if (axis < -ndim || axis >= ndim) {
            report(attn_fail(ATTN_BAD_VALUE, "cat: dim %lld is out of range for %d dimensions",
                             (long long)axis, ndim));
            goto done;
        }
        axis = axis < 0 ? axis + ndim : axis;
    }
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_concatenate(&y, x, how_many, (int)axis));
    result = give(status, y);
done:
    for (int i = 0; i < how_many; i++)
        attn_tensor_release(x[i]);
    PyMem_Free(x);
    return result;
}

/* The same values in the named layout, without a place on the tape: for tests and benchmarks. */
static PyObject *py_to_layout(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("to_layout");
    attn_tensor *x = take_tensor(&a, "x");
    const char *name = take_text(&a, "layout");
    if (!take_end(&a))
        return NULL;
    attn_layout layout = strcmp(name, "blocked16") == 0 ? ATTN_BLOCKED16 : ATTN_PLAIN;
    attn_tensor *converted = NULL, *y = NULL;
    attn_status status;
    WORK(status = attn_tensor_as(&converted, x, layout));
    if (status == ATTN_OK)
        status = attn_detach(&y, converted);
    attn_tensor_release(converted);
    return give(status, y);
}

PyMethodDef bind_shape_functions[] = {
    FAST("reshape", py_reshape),         FAST("permute", py_permute),
    FAST("slice", py_slice),             FAST("pad", py_pad),
    FAST("concatenate", py_concatenate), FAST("to_layout", py_to_layout),
    {0},
};
