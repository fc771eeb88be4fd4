/* batch_norm, pools, softmax, cross_entropy, matmul, linear, dropout. */
#include "binding.h"

#include "../ops/ops.h"

static PyObject *py_batch_norm(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("batch_norm");
    attn_tensor *x = take_tensor(&a, "x");
    attn_tensor *weight = take_optional_tensor(&a, "weight");
    attn_tensor *bias = take_optional_tensor(&a, "bias");
    attn_tensor *running_mean = take_optional_tensor(&a, "running_mean");
    attn_tensor *running_var = take_optional_tensor(&a, "running_var");
    attn_tensor *residual = take_optional_tensor(&a, "residual");
    attn_batch_norm_options options = {0};
    options.training = take_bool(&a, "training");
    options.relu = take_bool(&a, "relu");
    options.momentum = (float)take_double(&a, "momentum");
    options.eps = (float)take_double(&a, "eps");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_batch_norm(&y, x, weight, bias, running_mean, running_var, residual,
                                  &options));
    return give(status, y);
}

static attn_tensor *take_pool(arguments *a, attn_pool_options *options)
{
    attn_tensor *x = take_tensor(a, "x");
    *options = (attn_pool_options){0};
    take_exact_ints(a, "kernel_size", options->window, 2);
    take_exact_ints(a, "stride", options->stride, 2);
    take_exact_ints(a, "padding", options->padding, 2);
    return x;
}

static PyObject *py_max_pool(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("max_pool2d");
    attn_pool_options options;
    attn_tensor *x = take_pool(&a, &options);
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_max_pool(&y, x, &options));
    return give(status, y);
}

static PyObject *py_average_pool(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("avg_pool2d");
    attn_pool_options options;
    attn_tensor *x = take_pool(&a, &options);
    options.count_padding = take_bool(&a, "count_include_pad");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_average_pool(&y, x, &options));
    return give(status, y);
}

static PyObject *py_adaptive_pool(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("adaptive_pool2d");
    attn_tensor *x = take_tensor(&a, "x");
    int64_t P = take_int(&a, "output_size"), Q = take_int(&a, "output_size");
    bool maximum = take_bool(&a, "maximum");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_adaptive_pool(&y, x, P, Q, maximum));
    return give(status, y);
}

static PyObject *py_softmax(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("softmax");
    attn_tensor *x = take_tensor(&a, "x");
    int64_t dim = take_int(&a, "dim");
    bool logarithm = take_bool(&a, "log");
    if (!take_end(&a))
        return NULL;
    if (dim < -x->ndim || dim >= x->ndim)
        return report(attn_fail(ATTN_BAD_VALUE, "%s: dim is %lld, out of range for x of %d "
                                "dimensions", logarithm ? "log_softmax" : "softmax",
                                (long long)dim, x->ndim));
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_softmax(&y, x, (int)(dim < 0 ? dim + x->ndim : dim), logarithm));
    return give(status, y);
}

static PyObject *py_cross_entropy(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("cross_entropy");
    attn_tensor *logits = take_tensor(&a, "logits");
    PyArrayObject *target = take_int64_array(&a, "target", 1);
    double smoothing = take_double(&a, "label_smoothing");
    attn_tensor *loss = NULL;
    attn_status status = ATTN_OK;
    if (!take_end(&a)) {
        Py_XDECREF(target);
        return NULL;
    }
    char got[160];
    if (logits->ndim == 2 && PyArray_DIM(target, 0) != logits->shape[0])
        status = attn_fail(ATTN_BAD_VALUE, "cross_entropy: target has shape (%lld,), expected "
                           "(%lld,) to fit logits of shape %s",
                           (long long)PyArray_DIM(target, 0), (long long)logits->shape[0],
                           attn_shape_text(got, logits->ndim, logits->shape));
    else
        WORK(status = attn_cross_entropy(&loss, logits, PyArray_DATA(target),
                                         (float)smoothing));
    Py_DECREF(target);
    return give(status, loss);
}

static PyObject *py_matmul(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("matmul");
    attn_tensor *left = take_tensor(&a, "a"), *right = take_tensor(&a, "b");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_matmul(&y, left, right));
    return give(status, y);
}

static PyObject *py_linear(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("linear");
    attn_tensor *x = take_tensor(&a, "x"), *weight = take_tensor(&a, "weight");
    attn_tensor *bias = take_optional_tensor(&a, "bias");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_linear(&y, x, weight, bias));
    return give(status, y);
}

static PyObject *py_dropout(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("dropout");
    attn_tensor *x = take_tensor(&a, "x");
    double p = take_double(&a, "p");
    uint64_t seed = take_uint64(&a, "seed"), counter = take_uint64(&a, "counter");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_dropout(&y, x, (float)p, seed, counter));
    return give(status, y);
}

PyMethodDef bind_dense_functions[] = {
    FAST("batch_norm", py_batch_norm),
    FAST("max_pool2d", py_max_pool),
    FAST("avg_pool2d", py_average_pool),
    FAST("adaptive_pool2d", py_adaptive_pool),
    FAST("softmax", py_softmax),
    FAST("cross_entropy", py_cross_entropy),
    FAST("matmul", py_matmul),
    FAST("linear", py_linear),
    FAST("dropout", py_dropout),
    {0},
};
