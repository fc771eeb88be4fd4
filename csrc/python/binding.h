/* What every bind_*.c file shares: the Tensor object, reading of arguments, giving of results.
 *
 * A bound function reads its positional arguments one after the other with take_*; the first that
 * is wrong sets an exception and the rest do nothing; take_end says whether all went well. The work
 * runs without the GIL, timed where a profile is on; `give` turns its status into a result or an exception:
 *
 *     static PyObject *py_relu(PyObject *module, PyObject *const *args, Py_ssize_t count)
 *     {
 *         ARGUMENTS("relu");
 *         attn_tensor *x = take_tensor(&a, "x");
 *         if (!take_end(&a))
 *             return NULL;
 *         attn_tensor *y = NULL;
 *         attn_status status;
 *         WORK(status = attn_unary(&y, x, ATTN_RELU));
 *         return give(status, y);
 *     }
 */
#ifndef ATTN_BINDING_H
#define ATTN_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL attnnet_ARRAY_API
#ifndef ATTN_IMPORTS_NUMPY /* module.c alone imports the array API */
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "../base/profile.h"
#include "../tensor/tape.h"
#include "../tensor/tensor.h"

typedef struct {
    PyObject_HEAD
    attn_tensor *tensor; /* owned; never NULL after construction, never replaced */
    PyObject *weak_references;
} TensorObject;

extern PyTypeObject *attn_tensor_type; /* _core.Tensor */

/* An attnnet.Tensor that owns t (takes the reference over, also on failure). */
PyObject *tensor_wrap(attn_tensor *t);
PyObject *shape_tuple(int ndim, const int64_t *shape);
/* A new tensor with a copy of anything array-like, as float32. `what` names the argument. */
attn_tensor *tensor_from_object(PyObject *object, const char *function, const char *what);
/* Sets the exception that belongs to a status; returns NULL. */
PyObject *report(attn_status status);
/* The result of an operation: y wrapped, or the exception. */
PyObject *give(attn_status status, attn_tensor *y);

typedef struct {
    const char *function;
    PyObject *const *items;
    Py_ssize_t count, at;
    bool failed;
    const attn_tensor *first[ATTN_PROFILE_SHAPES]; /* tensors, for a profile; NULL: none */
} arguments;

#define ARGUMENTS(name)                        \
    (void)module;                              \
    arguments a = {name, args, count, 0, false, {NULL}}

#define WITHOUT_GIL(statement)                 \
    do {                                       \
        Py_BEGIN_ALLOW_THREADS                 \
        statement;                             \
        Py_END_ALLOW_THREADS                   \
    } while (0)

#define WORK(statement)                        \
    do {                                       \
        uint64_t before_ = attn_work_begin();  \
        Py_BEGIN_ALLOW_THREADS                 \
        int64_t begin_ = attn_profile_now();   \
        statement;                             \
        if (begin_)                            \
            profile_call(&a, begin_);          \
        Py_END_ALLOW_THREADS                   \
        attn_work_end(before_);                \
    } while (0)

/* Adds the call that began then to the profile. */
void profile_call(const arguments *a, int64_t begin);

PyObject *take_object(arguments *a, const char *name); /* borrowed */
attn_tensor *take_tensor(arguments *a, const char *name);          /* borrowed */
void note_tensor(arguments *a, const attn_tensor *tensor);         /* one more, for a profile */
attn_tensor *take_optional_tensor(arguments *a, const char *name); /* NULL for None */
int64_t take_int(arguments *a, const char *name);
uint64_t take_uint64(arguments *a, const char *name);
double take_double(arguments *a, const char *name);
bool take_bool(arguments *a, const char *name);
const char *take_text(arguments *a, const char *name); /* UTF-8, lives as long as the argument */
/* A sequence of at most `most` integers into out; returns how many. */
int take_ints(arguments *a, const char *name, int64_t *out, int most);
/* Exactly `wanted` integers. */
void take_exact_ints(arguments *a, const char *name, int64_t *out, int wanted);
/* A sequence of tensors: a malloc'd array of borrowed pointers (the caller frees it with
 * PyMem_Free), with None as NULL where allowed. The sequence must be a list or a tuple. */
attn_tensor **take_tensors(arguments *a, const char *name, bool allow_none, int *how_many);
/* A copy of an integer array as C-contiguous int64 of `ndim` dimensions: a new reference, NULL on
 * failure. */
PyArrayObject *take_int64_array(arguments *a, const char *name, int ndim);
/* All arguments read, none left over, none failed. */
bool take_end(arguments *a);

/* Each bind_*.c ends with its table; module.c lists the tables. */
extern PyMethodDef bind_tensor_functions[];
extern PyMethodDef bind_elementwise_functions[];
extern PyMethodDef bind_shape_functions[];
extern PyMethodDef bind_dense_functions[];
extern PyMethodDef bind_convolution_functions[];
extern PyMethodDef bind_blocks_functions[];
extern PyMethodDef bind_data_functions[];
extern PyMethodDef bind_optim_functions[];
extern PyMethodDef bind_attention_functions[];
extern PyMethodDef bind_system_functions[];
extern PyMethodDef bind_measure_functions[];
attn_status bind_tensor_type(PyObject *module);

#define FAST(name, function) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, NULL}

#endif
