/* Threads, memory, instruction sets, OpenBLAS, random numbers, grad mode. */
#include "binding.h"

#include "../base/blas.h"
#include "../base/cpu.h"
#include "../base/memory.h"
#include "../base/peers.h"
#include "../base/random.h"
#include "../base/threads.h"

static PyObject *py_set_grad_enabled(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("set_grad_enabled");
    bool enabled = take_bool(&a, "enabled");
    if (!take_end(&a))
        return NULL;
    bool before = attn_grad_enabled();
    attn_set_grad_enabled(enabled);
    return PyBool_FromLong(before);
}

static PyObject *py_grad_enabled(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("grad_enabled");
    return take_end(&a) ? PyBool_FromLong(attn_grad_enabled()) : NULL;
}

static PyObject *py_num_threads(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("num_threads");
    return take_end(&a) ? PyLong_FromLong(attn_num_threads()) : NULL;
}

static PyObject *py_set_num_threads(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("set_num_threads");
    int64_t number = take_int(&a, "num_threads");
    if (!take_end(&a))
        return NULL;
    attn_status status = attn_set_num_threads(number);
    if (status != ATTN_OK)
        return report(status);
    Py_RETURN_NONE;
}

static PyObject *py_memory_stats(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("memory_stats");
    if (!take_end(&a))
        return NULL;
    attn_memory_stats s;
    attn_memory_get_stats(&s);
    return Py_BuildValue("{s:L,s:L,s:L,s:L,s:L}", "in_use", (long long)s.in_use, "cached",
                         (long long)s.cached, "peak", (long long)s.peak, "limit",
                         (long long)s.limit, "objects", (long long)s.objects);
}

/* (n) -> what was left of the n before. The n-th allocation from now on fails: for tests. */
static PyObject *py_fail_allocation(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("fail_allocation");
    int64_t n = take_int(&a, "n");
    if (!take_end(&a))
        return NULL;
    return PyLong_FromLongLong(attn_memory_fail(attn_max(n, 0)));
}

static PyObject *py_reset_peak_memory(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("reset_peak_memory");
    if (!take_end(&a))
        return NULL;
    attn_memory_reset_peak();
    Py_RETURN_NONE;
}

static PyObject *py_set_memory_limit(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("set_memory_limit");
    int64_t bytes = take_int(&a, "bytes");
    if (!take_end(&a))
        return NULL;
    if (bytes < 0)
        return report(attn_fail(ATTN_BAD_VALUE, "set_memory_limit: bytes is %lld, expected 0 (no "
                                                "limit) or more", (long long)bytes));
    attn_memory_set_limit(bytes);
    Py_RETURN_NONE;
}

static PyObject *py_empty_cache(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("empty_cache");
    if (!take_end(&a))
        return NULL;
    attn_memory_empty_cache();
    Py_RETURN_NONE;
}

static PyObject *py_load_blas(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("load_blas");
    const char *path = take_text(&a, "path");
    if (!take_end(&a))
        return NULL;
    attn_status status = attn_blas_load(path);
    if (status != ATTN_OK)
        return report(status);
    Py_RETURN_NONE;
}

/* The options beside the usual ones, as setup.py was asked for them. */
#ifndef ATTN_CFLAGS
#define ATTN_CFLAGS ""
#endif

static PyObject *py_config(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("config");
    if (!take_end(&a))
        return NULL;
    PyObject *sets = PyList_New(0);
    for (int i = 0; sets && i <= (int)attn_isa_detect(); i++) {
        PyObject *name = PyUnicode_FromString(attn_isa_name((attn_isa)i));
        if (!name || PyList_Append(sets, name) < 0)
            Py_CLEAR(sets);
        Py_XDECREF(name);
    }
    if (!sets)
        return NULL;
    return Py_BuildValue("{s:s,s:N,s:i,s:s,s:s,s:z,s:s}", "isa", attn_isa_name(attn_isa_current()),
                         "isa_available", sets, "threads", attn_num_threads(), "blas",
                         attn_blas_config(), "blas_core", attn_blas_core(), "blas_core_wanted",
                         attn_cpu_blas_core(), "compiler", __VERSION__ ATTN_CFLAGS);
}

/* The doubles that a buffer of Python's holds. */
static attn_status copy_doubles(double *to, int64_t count, PyObject *from)
{
    Py_buffer view;
    if (PyObject_GetBuffer(from, &view, PyBUF_SIMPLE) < 0)
        return ATTN_CALLBACK;
    const int64_t size = count * (int64_t)sizeof *to;
    bool fits = view.len == size;
    if (fits)
        memcpy(to, view.buf, (size_t)size);
    else
        PyErr_Format(PyExc_ValueError, "the function of set_peers gave %zd bytes, expected %lld: "
                     "those of every process", view.len, (long long)size);
    PyBuffer_Release(&view);
    return fits ? ATTN_OK : ATTN_CALLBACK;
}

/* The Python function that gathers: from this process's doubles, as bytes, to a buffer of all. Copies
 * both ways, so that it may keep what it got. */
static attn_status call_gather(void *context, double *all, const double *own, int64_t count)
{
    attn_status status = ATTN_CALLBACK;
    const int64_t ranks = attn_get_peers()->ranks;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *gather = Py_NewRef(context); /* it may set other peers */
    PyObject *result = PyObject_CallFunction(gather, "y#", (const char *)own,
                                             (Py_ssize_t)(count * (int64_t)sizeof *own));
    if (result)
        status = copy_doubles(all, ranks * count, result);
    Py_XDECREF(result);
    Py_DECREF(gather);
    PyGILState_Release(gil);
    return status;
}

/* (gather, processes, images of this one in the batch, where they begin): for operations of this
 * thread from now on; gather None: alone. See base/peers.h. */
static PyObject *py_set_peers(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("set_peers");
    PyObject *gather = take_object(&a, "gather");
    int64_t ranks = take_int(&a, "ranks"), images = take_int(&a, "images");
    int64_t first = take_int(&a, "first");
    if (!take_end(&a))
        return NULL;
    const int64_t most = 1 << 20, far = (int64_t)1 << 31;
    if (gather != Py_None && !PyCallable_Check(gather)) {
        PyErr_Format(PyExc_TypeError, "set_peers: gather must be callable or None, got %s",
                     Py_TYPE(gather)->tp_name);
        return NULL;
    }
    if (ranks < 1 || ranks > most || images < 0 || images > far || first < 0 || first > far)
        return report(attn_fail(ATTN_BAD_VALUE, "set_peers: ranks, images and first are %lld, "
                                "%lld and %lld, expected 1 to %lld, 0 to %lld and 0 to %lld",
                                (long long)ranks, (long long)images, (long long)first,
                                (long long)most, (long long)far, (long long)far));
    const attn_peers *before = attn_get_peers();
    PyObject *old = before ? before->context : NULL;
    attn_peers peers = {call_gather, gather, ranks, images, first};
    attn_set_peers(gather == Py_None ? NULL : &peers);
    if (gather != Py_None)
        Py_INCREF(gather);
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

/* A new float32 array of a shape, filled by one of the two generators. */
static PyObject *random_array(arguments *a, bool normal)
{
    int64_t shape[ATTN_MAX_DIMS];
    int ndim = take_ints(a, "shape", shape, ATTN_MAX_DIMS);
    double first = take_double(a, normal ? "mean" : "low");
    double second = take_double(a, normal ? "std" : "high");
    uint64_t seed = take_uint64(a, "seed"), counter = take_uint64(a, "counter");
    if (!take_end(a))
        return NULL;
    npy_intp dims[ATTN_MAX_DIMS];
    for (int i = 0; i < ndim; i++)
        dims[i] = (npy_intp)shape[i];
    PyObject *array = PyArray_SimpleNew(ndim, dims, NPY_FLOAT32);
    if (!array)
        return NULL;
    float *out = PyArray_DATA((PyArrayObject *)array);
    int64_t size = PyArray_SIZE((PyArrayObject *)array);
    if (normal)
        WITHOUT_GIL(attn_random_normal(out, size, (float)first, (float)second, seed, counter));
    else
        WITHOUT_GIL(attn_random_uniform(out, size, (float)first, (float)second, seed, counter));
    return array;
}

static PyObject *py_random_uniform(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("random_uniform");
    return random_array(&a, false);
}

static PyObject *py_random_normal(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("random_normal");
    return random_array(&a, true);
}

PyMethodDef bind_system_functions[] = {
    FAST("set_grad_enabled", py_set_grad_enabled),
    FAST("grad_enabled", py_grad_enabled),
    FAST("num_threads", py_num_threads),
    FAST("set_num_threads", py_set_num_threads),
    FAST("memory_stats", py_memory_stats),
    FAST("reset_peak_memory", py_reset_peak_memory),
    FAST("set_memory_limit", py_set_memory_limit),
    FAST("empty_cache", py_empty_cache),
    FAST("fail_allocation", py_fail_allocation),
    FAST("load_blas", py_load_blas),
    FAST("config", py_config),
    FAST("set_peers", py_set_peers),
    FAST("random_uniform", py_random_uniform),
    FAST("random_normal", py_random_normal),
    {0},
};
