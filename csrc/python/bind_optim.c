/* sgd_step, adamw_step, average_step, global_norm, scale_, clip_value_: in-place work on lists of tensors. */
#include "binding.h"

#include "../ops/optimise.h"

/* The lists of one call. Their tensors are retained, so that a list or a gradient that another
 * thread changes while the GIL is released does no harm. */
enum { MOST_LISTS = 4 };
typedef struct {
    attn_tensor **list[MOST_LISTS];
    int count[MOST_LISTS];
    int lists;
} tensor_lists;

/* Reads the next argument as a list as long as the first one; NULL where something failed. */
static attn_tensor **take_list(arguments *a, tensor_lists *all, const char *name)
{
    int count = 0;
    attn_tensor **list = take_tensors(a, name, false, &count);
    if (!list)
        return NULL;
    for (int i = 0; i < count; i++)
        attn_tensor_retain(list[i]);
    all->list[all->lists] = list;
    all->count[all->lists++] = count;
    if (count != all->count[0]) {
        PyErr_Format(PyExc_ValueError, "%s: %s holds %d tensors, expected %d, one a parameter",
                     a->function, name, count, all->count[0]);
        a->failed = true;
        return NULL;
    }
    return list;
}

static attn_tensor **take_optional_list(arguments *a, tensor_lists *all, const char *name)
{
    if (!a->failed && a->at < a->count && a->items[a->at] == Py_None) {
        a->at++;
        return NULL;
    }
    return take_list(a, all, name);
}

static void drop_lists(tensor_lists *all)
{
    for (int n = 0; n < all->lists; n++) {
        for (int i = 0; i < all->count[n]; i++)
            attn_tensor_release(all->list[n][i]);
        PyMem_Free(all->list[n]);
    }
}

/* A list of truth values, `wanted` of them, or None: an array to free with PyMem_Free, or NULL. */
static bool *take_flags(arguments *a, const char *name, int wanted)
{
    PyObject *object = take_object(a, name);
    if (!object || object == Py_None)
        return NULL;
    if (!PyList_Check(object) || PyList_GET_SIZE(object) != wanted) {
        PyErr_Format(PyExc_ValueError, "%s: %s must be a list of %d truth values, or None",
                     a->function, name, wanted);
        a->failed = true;
        return NULL;
    }
    bool *flags = PyMem_Calloc((size_t)wanted + 1, sizeof *flags);
    if (!flags) {
        PyErr_NoMemory();
        a->failed = true;
        return NULL;
    }
    for (int i = 0; i < wanted; i++)
        flags[i] = PyList_GET_ITEM(object, i) == Py_True;
    return flags;
}

static PyObject *none_or_error(attn_status status)
{
    if (status != ATTN_OK)
        return report(status);
    Py_RETURN_NONE;
}

static PyObject *py_sgd_step(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("sgd_step");
    tensor_lists all = {0};
    PyObject *result = NULL;
    attn_tensor **w = take_list(&a, &all, "params"), **g = take_list(&a, &all, "grads");
    attn_tensor **velocity = take_optional_list(&a, &all, "momenta");
    attn_sgd_options options = {0};
    options.rate = take_double(&a, "lr");
    options.momentum = take_double(&a, "momentum");
    options.decay = take_double(&a, "weight_decay");
    options.nesterov = take_bool(&a, "nesterov");
    bool *first = take_flags(&a, "first", all.count[0]);
    if (take_end(&a)) {
        attn_status status;
        WORK(status = attn_sgd_step(all.count[0], w, g, velocity, first, &options));
        result = none_or_error(status);
    }
    PyMem_Free(first);
    drop_lists(&all);
    return result;
}

static PyObject *py_adamw_step(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("adamw_step");
    tensor_lists all = {0};
    PyObject *result = NULL;
    attn_tensor **w = take_list(&a, &all, "params"), **g = take_list(&a, &all, "grads");
    attn_tensor **mean = take_list(&a, &all, "exp_avgs");
    attn_tensor **square = take_list(&a, &all, "exp_avg_sqs");
    attn_adamw_options options = {0};
    options.rate = take_double(&a, "lr");
    options.beta1 = take_double(&a, "beta1");
    options.beta2 = take_double(&a, "beta2");
    options.eps = take_double(&a, "eps");
    options.decay = take_double(&a, "weight_decay");
    options.step = take_int(&a, "step");
    if (take_end(&a)) {
        attn_status status;
        WORK(status = attn_adamw_step(all.count[0], w, g, mean, square, &options));
        result = none_or_error(status);
    }
    drop_lists(&all);
    return result;
}

static PyObject *py_average_step(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("average_step");
    tensor_lists all = {0};
    PyObject *result = NULL;
    attn_tensor **average = take_list(&a, &all, "averages"), **x = take_list(&a, &all, "values");
    double share = take_double(&a, "share");
    if (take_end(&a)) {
        attn_status status;
        WORK(status = attn_average_step(all.count[0], average, x, share));
        result = none_or_error(status);
    }
    drop_lists(&all);
    return result;
}

static PyObject *py_global_norm(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("global_norm");
    tensor_lists all = {0};
    PyObject *result = NULL;
    attn_tensor **x = take_list(&a, &all, "tensors");
    if (take_end(&a)) {
        attn_status status;
        double norm = 0.0;
        WORK(status = attn_global_norm(&norm, all.count[0], x));
        result = status == ATTN_OK ? PyFloat_FromDouble(norm) : report(status);
    }
    drop_lists(&all);
    return result;
}

typedef attn_status (*change)(int64_t count, attn_tensor *const *x, double value);

static PyObject *change_tensors(arguments a, const char *name, change work)
{
    tensor_lists all = {0};
    PyObject *result = NULL;
    attn_tensor **x = take_list(&a, &all, "tensors");
    double value = take_double(&a, name);
    if (take_end(&a)) {
        attn_status status;
        WORK(status = work(all.count[0], x, value));
        result = none_or_error(status);
    }
    drop_lists(&all);
    return result;
}

static PyObject *py_scale_(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("scale_");
    return change_tensors(a, "factor", attn_scale_all);
}

static PyObject *py_clip_value_(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("clip_value_");
    return change_tensors(a, "limit", attn_clip_all);
}

PyMethodDef bind_optim_functions[] = {
    FAST("sgd_step", py_sgd_step),
    FAST("adamw_step", py_adamw_step),
    FAST("average_step", py_average_step),
    FAST("global_norm", py_global_norm),
    FAST("scale_", py_scale_),
    FAST("clip_value_", py_clip_value_),
    {0},
};
