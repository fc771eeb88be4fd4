/* Convolution, and what its tests and tools need to know of its plans. */
#include "binding.h"

#include "../conv/kept.h"

#define KEPT "attnnet.kept_weights" /* the name of a capsule that holds an attn_conv_kept */

static void take_options(arguments *a, attn_convolution_options *options)
{
    take_exact_ints(a, "stride", options->stride, 2);
    take_exact_ints(a, "padding", options->padding, 2);
    options->groups = take_int(a, "groups");
}

static PyObject *py_conv2d(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("conv2d");
    attn_tensor *x = take_tensor(&a, "x"), *weight = take_tensor(&a, "weight");
    attn_tensor *bias = take_optional_tensor(&a, "bias");
    attn_convolution_options options = {0};
    take_options(&a, &options);
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_convolution(&y, x, weight, bias, &options));
    return give(status, y);
}

static void free_kept(PyObject *capsule)
{
    attn_conv_kept_free(PyCapsule_GetPointer(capsule, KEPT));
}

/* (weight) -> what conv2d_fused takes in its place: it keeps the forms in which it is read. The
 * weight may not be written to any more. */
static PyObject *py_keep_weights(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("keep_weights");
    attn_tensor *weight = take_tensor(&a, "weight");
    if (!take_end(&a))
        return NULL;
    attn_conv_kept *kept;
    attn_status status = attn_conv_kept_new(&kept, weight);
    if (status != ATTN_OK)
        return report(status);
    PyObject *capsule = PyCapsule_New(kept, KEPT, free_kept);
    if (!capsule)
        attn_conv_kept_free(kept);
    return capsule;
}

/* NULL where the next argument is something else. */
static attn_conv_kept *take_kept(arguments *a)
{
    if (a->failed || a->at >= a->count || !PyCapsule_IsValid(a->items[a->at], KEPT))
        return NULL;
    return PyCapsule_GetPointer(a->items[a->at++], KEPT);
}

static PyObject *py_conv2d_fused(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("conv2d_fused");
    attn_tensor *x = take_tensor(&a, "x"), *weight = NULL;
    attn_conv_kept *kept = take_kept(&a);
    if (kept)
        note_tensor(&a, attn_conv_kept_weight(kept));
    else
        weight = take_tensor(&a, "weight");
    attn_tensor *bias = take_optional_tensor(&a, "bias");
    attn_tensor *residual = take_optional_tensor(&a, "residual");
    bool relu = take_bool(&a, "relu");
    attn_convolution_options options = {0};
    take_options(&a, &options);
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    if (kept)
        WORK(status = attn_convolution_kept(&y, x, kept, bias, residual, relu, &options));
    else
        WORK(status = attn_convolution_fused(&y, x, weight, bias, residual, relu, &options));
    return give(status, y);
}

/* (x, weight, bias, x's constants or None, stride, padding, groups, norm's weight, bias, running mean
 * and variance, residual, training, momentum, relu, eps, defer) -> (y, its constants or None). */
static PyObject *py_conv2d_batch_norm(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("conv2d_batch_norm");
    attn_convolution_norm o = {.x = take_tensor(&a, "x")};
    o.weight = take_tensor(&a, "weight");
    o.bias = take_optional_tensor(&a, "bias");
    o.x_constants = take_optional_tensor(&a, "x_constants");
    take_options(&a, &o.options);
    o.norm.weight = take_optional_tensor(&a, "norm weight");
    o.norm.bias = take_optional_tensor(&a, "norm bias");
    o.norm.running_mean = take_optional_tensor(&a, "running_mean");
    o.norm.running_var = take_optional_tensor(&a, "running_var");
    o.residual = take_optional_tensor(&a, "residual");
    o.norm_options.training = take_bool(&a, "training");
    o.norm_options.momentum = (float)take_double(&a, "momentum");
    o.norm_options.relu = take_bool(&a, "relu");
    o.norm_options.eps = (float)take_double(&a, "eps");
    o.defer = take_bool(&a, "defer");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL, *constants = NULL;
    attn_status status;
    WORK(status = attn_convolution_norm_run(&y, &constants, &o));
    if (status != ATTN_OK)
        return report(status);
    if (!constants)
        return Py_BuildValue("(NO)", tensor_wrap(y), Py_None);
    return Py_BuildValue("(NN)", tensor_wrap(y), tensor_wrap(constants));
}

/* (y, its constants), as conv2d_batch_norm deferred it -> y as a tensor. */
static PyObject *py_compute_deferred(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("compute_deferred");
    attn_tensor *z = take_tensor(&a, "y"), *constants = take_tensor(&a, "constants");
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_deferred_compute(&y, z, constants));
    return give(status, y);
}

static PyObject *describe_pass(const attn_conv_pass *pass)
{
    const long long bytes = sizeof(float);
    return Py_BuildValue("{s:L,s:O,s:L,s:L}", "block", (long long)pass->block, "by_channels",
                         pass->by_channels ? Py_True : Py_False, "shared_bytes",
                         bytes * pass->shared, "worker_bytes", bytes * pass->worker);
}

/* (x shape, weight shape, stride, padding, groups, keep) -> what the engine would do, as a dict. */
static PyObject *py_convolution_plan(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("convolution_plan");
    int64_t x[ATTN_MAX_DIMS], weight[ATTN_MAX_DIMS];
    int x_ndim = take_ints(&a, "x_shape", x, ATTN_MAX_DIMS);
    int weight_ndim = take_ints(&a, "weight_shape", weight, ATTN_MAX_DIMS);
    attn_convolution_options options = {0};
    take_options(&a, &options);
    bool keep = take_bool(&a, "keep");
    if (!take_end(&a))
        return NULL;
    attn_conv_shape shape;
    attn_status status = attn_conv_shape_find(&shape, x_ndim, x, weight_ndim, weight, &options);
    if (status != ATTN_OK)
        return report(status);
    attn_conv_plan plan;
    attn_conv_plan_make(&plan, &shape, keep);
    return Py_BuildValue("{s:s,s:L,s:L,s:L,s:N,s:N}", "algorithm", plan.engine->name, "kept_bytes",
                         (long long)sizeof(float) * plan.form_size, "parts",
                         (long long)plan.parts, "splits", (long long)plan.splits, "forward",
                         describe_pass(&plan.forward), "backward", describe_pass(&plan.backward));
}

static PyObject *py_set_convolution_algorithm(PyObject *module, PyObject *const *args,
                                              Py_ssize_t count)
{
    ARGUMENTS("set_convolution_algorithm");
    PyObject *name = take_object(&a, "name");
    const char *text = NULL;
    if (name && name != Py_None) {
        a.at--;
        text = take_text(&a, "name");
    }
    if (!take_end(&a))
        return NULL;
    attn_status status = attn_conv_force(text);
    if (status != ATTN_OK)
        return report(status);
    Py_RETURN_NONE;
}

static PyObject *py_convolution_algorithms(PyObject *module, PyObject *const *args,
                                           Py_ssize_t count)
{
    ARGUMENTS("convolution_algorithms");
    if (!take_end(&a))
        return NULL;
    PyObject *names = PyList_New(0);
    for (int i = 0; names && attn_conv_engine_name(i); i++) {
        PyObject *name = PyUnicode_FromString(attn_conv_engine_name(i));
        if (!name || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

PyMethodDef bind_convolution_functions[] = {
    FAST("conv2d", py_conv2d),
    FAST("conv2d_fused", py_conv2d_fused),
    FAST("conv2d_batch_norm", py_conv2d_batch_norm),
    FAST("compute_deferred", py_compute_deferred),
    FAST("keep_weights", py_keep_weights),
    FAST("convolution_plan", py_convolution_plan),
    FAST("set_convolution_algorithm", py_set_convolution_algorithm),
    FAST("convolution_algorithms", py_convolution_algorithms),
    {0},
};
