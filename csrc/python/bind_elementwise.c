/* unary(x, kind), clamp, binary(a, b, kind), reduce: kinds by their names. */
#include "binding.h"

#include "../ops/ops.h"

#include <string.h>

static int find_name(arguments *a, const char *what, const char *const *names, int count)
{
    const char *text = take_text(a, what);
    for (int i = 0; text && i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    if (text) {
        PyErr_Format(PyExc_ValueError, "%s: %s %s is unknown", a->function, what, text);
        a->failed = true;
    }
    return 0;
}

static PyObject *py_unary(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const names[ATTN_UNARY_COUNT] = {"relu", "sigmoid", "tanh", "exp",
                                                        "log",  "sqrt",    "abs",  "neg"};
    ARGUMENTS("unary");
    int kind = find_name(&a, "kind", names, ATTN_UNARY_COUNT);
    a.function = a.failed ? a.function : names[kind];
    attn_tensor *x = take_tensor(&a, "x");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_unary(&y, x, (attn_unary_kind)kind));
    return give(status, y);
}

static PyObject *py_clamp(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("clamp");
    attn_tensor *x = take_tensor(&a, "x");
    double low = take_double(&a, "min"), high = take_double(&a, "max");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_clamp(&y, x, (float)low, (float)high));
    return give(status, y);
}

static PyObject *py_binary(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const names[ATTN_BINARY_COUNT] = {"add", "sub", "mul", "div", "pow"};
    ARGUMENTS("binary");
    int kind = find_name(&a, "kind", names, ATTN_BINARY_COUNT);
    a.function = a.failed ? a.function : names[kind];
    attn_tensor *left = take_tensor(&a, "a"), *right = take_tensor(&a, "b");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_binary(&y, left, right, (attn_binary_kind)kind));
    return give(status, y);
}

static PyObject *py_reduce(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const names[] = {"sum", "mean", "amax", "amin", "var"};
    ARGUMENTS("reduce");
    int kind = find_name(&a, "kind", names, 5);
    a.function = a.failed ? a.function : names[kind];
    attn_tensor *x = take_tensor(&a, "x");
    int64_t dims[ATTN_MAX_DIMS];
    int given = take_ints(&a, "dim", dims, ATTN_MAX_DIMS);
    bool keepdim = take_bool(&a, "keepdim");
    int64_t correction = take_int(&a, "correction");
    if (!take_end(&a))
        return NULL;
    bool axes[ATTN_MAX_DIMS] = {0};
    for (int i = 0; i < given; i++) {
        int64_t axis = dims[i] < 0 ? dims[i] + x->ndim : dims[i];
        if (axis < 0 || axis >= x->ndim || axes[axis])
            return report(attn_fail(ATTN_BAD_VALUE, axis >= 0 && axis < x->ndim
                                    ? "%s: dim %lld comes twice (x has %d dimensions)"
                                    : "%s: dim %lld is out of range for x of %d dimensions",
                                    names[kind], (long long)dims[i], x->ndim));
        axes[axis] = true;
    }
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_reduce(&y, x, (attn_reduction)kind, axes, keepdim, correction));
    return give(status, y);
}

PyMethodDef bind_elementwise_functions[] = {
    FAST("unary", py_unary),
    FAST("clamp", py_clamp),
    FAST("binary", py_binary),
    FAST("reduce", py_reduce),
    {0},
};
