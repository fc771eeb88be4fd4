#include "binding.h"

#include <string.h>

/* A long message was cut, perhaps inside a character of a file's name. */
static void raise_message(PyObject *type)
{
    const char *message = attn_message();
    PyObject *text = PyUnicode_DecodeUTF8(message, (Py_ssize_t)strlen(message), "replace");
    if (text)
        PyErr_SetObject(type, text);
    Py_XDECREF(text);
}

PyObject *report(attn_status status)
{
    switch (status) {
    case ATTN_NO_MEMORY:
        raise_message(PyExc_MemoryError);
        break;
    case ATTN_BAD_VALUE:
        raise_message(PyExc_ValueError);
        break;
    case ATTN_CALLBACK: /* the hook's own exception is set */
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_RuntimeError, "a hook failed without an exception");
        break;
    case ATTN_INTERRUPTED:
        if (!PyErr_Occurred())
            PyErr_SetNone(PyExc_KeyboardInterrupt);
        break;
    default:
        raise_message(PyExc_RuntimeError);
    }
    return NULL;
}

PyObject *give(attn_status status, attn_tensor *y)
{
    return status == ATTN_OK ? tensor_wrap(y) : report(status);
}

PyObject *take_object(arguments *a, const char *name)
{
    if (a->failed)
        return NULL;
    if (a->at >= a->count) {
        PyErr_Format(PyExc_TypeError, "%s: argument %s is missing", a->function, name);
        a->failed = true;
        return NULL;
    }
    return a->items[a->at++];
}

static void wrong_type(arguments *a, const char *name, const char *expected, PyObject *got)
{
    PyErr_Format(PyExc_TypeError, "%s: %s must be %s, got %s", a->function, name, expected,
                 Py_TYPE(got)->tp_name);
    a->failed = true;
}

void note_tensor(arguments *a, const attn_tensor *tensor)
{
    for (int i = 0; i < ATTN_PROFILE_SHAPES; i++) {
        if (!a->first[i]) {
            a->first[i] = tensor;
            break;
        }
    }
}

attn_tensor *take_tensor(arguments *a, const char *name)
{
    PyObject *object = take_object(a, name);
    if (!object)
        return NULL;
    if (!PyObject_TypeCheck(object, attn_tensor_type)) {
        wrong_type(a, name, "an attnnet.Tensor", object);
        return NULL;
    }
    attn_tensor *tensor = ((TensorObject *)object)->tensor;
    note_tensor(a, tensor);
    return tensor;
}

attn_tensor *take_optional_tensor(arguments *a, const char *name)
{
    if (!a->failed && a->at < a->count && a->items[a->at] == Py_None) {
        a->at++;
        return NULL;
    }
    return take_tensor(a, name);
}

/* The exception that is set becomes ours if it is of that type; any other (MemoryError, Ctrl-C in an
 * object's own method) is left to go on. True: it was cleared. */
static bool translate(arguments *a, PyObject *type)
{
    a->failed = true;
    if (!PyErr_ExceptionMatches(type))
        return false;
    PyErr_Clear();
    return true;
}

/* An integer, through __index__, so that NumPy integers do and floats do not. */
static int64_t as_int(arguments *a, const char *name, PyObject *object)
{
    PyObject *index = PyNumber_Index(object);
    if (!index) {
        if (translate(a, PyExc_TypeError))
            wrong_type(a, name, "an integer", object);
        return 0;
    }
    int64_t value = PyLong_AsLongLong(index);
    Py_DECREF(index);
    if (value == -1 && PyErr_Occurred() && translate(a, PyExc_OverflowError))
        PyErr_Format(PyExc_ValueError, "%s: %s is too large", a->function, name);
    return value;
}

int64_t take_int(arguments *a, const char *name)
{
    PyObject *object = take_object(a, name);
    return object ? as_int(a, name, object) : 0;
}

uint64_t take_uint64(arguments *a, const char *name)
{
    PyObject *object = take_object(a, name);
    if (!object)
        return 0;
    PyObject *index = PyNumber_Index(object);
    uint64_t value = index ? PyLong_AsUnsignedLongLong(index) : 0;
    Py_XDECREF(index);
    if (PyErr_Occurred() &&
        (translate(a, PyExc_TypeError) || translate(a, PyExc_OverflowError)))
        PyErr_Format(PyExc_ValueError, "%s: %s must be an integer from 0 to 2**64 - 1, got %R",
                     a->function, name, object);
    return value;
}

double take_double(arguments *a, const char *name)
{
    PyObject *object = take_object(a, name);
    if (!object)
        return 0;
    double value = PyFloat_AsDouble(object);
    if (value == -1.0 && PyErr_Occurred() && translate(a, PyExc_TypeError))
        wrong_type(a, name, "a number", object);
    return value;
}

bool take_bool(arguments *a, const char *name)
{
    PyObject *object = take_object(a, name);
    if (!object)
        return false;
    int truth = PyObject_IsTrue(object);
    if (truth < 0 && (translate(a, PyExc_TypeError) || translate(a, PyExc_ValueError)))
        wrong_type(a, name, "True or False", object);
    return truth == 1;
}

const char *take_text(arguments *a, const char *name)
{
    PyObject *object = take_object(a, name);
    if (!object)
        return NULL;
    if (!PyUnicode_Check(object)) {
        wrong_type(a, name, "a string", object);
        return NULL;
    }
    const char *text = PyUnicode_AsUTF8(object);
    a->failed = text == NULL;
    return text;
}

int take_ints(arguments *a, const char *name, int64_t *out, int most)
{
    PyObject *object = take_object(a, name);
    if (!object)
        return 0;
    if (!PyTuple_Check(object) && !PyList_Check(object)) {
        wrong_type(a, name, "a tuple of integers", object);
        return 0;
    }
    Py_ssize_t length = PySequence_Fast_GET_SIZE(object);
    if (length > most) {
        PyErr_Format(PyExc_ValueError, "%s: %s has %zd entries, at most %d are possible",
                     a->function, name, length, most);
        a->failed = true;
        return 0;
    }
    for (Py_ssize_t i = 0; i < length && !a->failed; i++) {
        if (PySequence_Fast_GET_SIZE(object) != length) { /* an entry's __index__ did that */
            PyErr_Format(PyExc_ValueError, "%s: %s changed while it was read", a->function, name);
            a->failed = true;
            break;
        }
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(object, i));
        out[i] = as_int(a, name, item);
        Py_DECREF(item);
    }
    return (int)length;
}

void take_exact_ints(arguments *a, const char *name, int64_t *out, int wanted)
{
    int64_t values[ATTN_MAX_DIMS];
    int got = take_ints(a, name, values, ATTN_MAX_DIMS);
    if (a->failed)
        return;
    if (got != wanted) {
        PyErr_Format(PyExc_ValueError, "%s: %s has %d entries, expected %d", a->function, name, got,
                     wanted);
        a->failed = true;
        return;
    }
    memcpy(out, values, (size_t)wanted * sizeof *out);
}

attn_tensor **take_tensors(arguments *a, const char *name, bool allow_none, int *how_many)
{
    *how_many = 0;
    PyObject *object = take_object(a, name);
    if (!object)
        return NULL;
    if (!PyTuple_Check(object) && !PyList_Check(object)) {
        wrong_type(a, name, "a list or tuple of tensors", object);
        return NULL;
    }
    Py_ssize_t length = PySequence_Fast_GET_SIZE(object);
    attn_tensor **tensors = PyMem_Malloc(((size_t)length + 1) * sizeof *tensors);
    if (!tensors) {
        PyErr_NoMemory();
        a->failed = true;
        return NULL;
    }
    for (Py_ssize_t i = 0; i < length; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(object, i);
        if (item == Py_None && allow_none) {
            tensors[i] = NULL;
        } else if (PyObject_TypeCheck(item, attn_tensor_type)) {
            tensors[i] = ((TensorObject *)item)->tensor;
        } else {
            PyErr_Format(PyExc_TypeError, "%s: %s[%zd] must be an attnnet.Tensor, got %s",
                         a->function, name, i, Py_TYPE(item)->tp_name);
            a->failed = true;
            PyMem_Free(tensors);
            return NULL;
        }
    }
    *how_many = (int)length;
    return tensors;
}

PyArrayObject *take_int64_array(arguments *a, const char *name, int ndim)
{
    PyObject *object = take_object(a, name);
    if (!object)
        return NULL;
    PyArrayObject *raw = (PyArrayObject *)PyArray_FROM_O(object);
    if (!raw) {
        a->failed = true;
        return NULL;
    }
    if (!PyArray_ISINTEGER(raw) && PyArray_SIZE(raw) > 0) {
        PyErr_Format(PyExc_TypeError,
                     "%s: %s must hold integers, as a list or an array of them does; got %R%s",
                     a->function, name, (PyObject *)PyArray_DESCR(raw),
                     PyObject_TypeCheck(object, attn_tensor_type) ? " (a Tensor is float32)" : "");
        a->failed = true;
    } else if (PyArray_NDIM(raw) != ndim) {
        PyObject *shape = PyObject_GetAttrString((PyObject *)raw, "shape");
        if (shape)
            PyErr_Format(PyExc_ValueError, "%s: %s has shape %R, expected %d dimension(s)",
                         a->function, name, shape, ndim);
        Py_XDECREF(shape);
        a->failed = true;
    }
    PyArrayObject *array = NULL;
    if (!a->failed) {
        array = (PyArrayObject *)PyArray_FROMANY(
            (PyObject *)raw, NPY_INT64, ndim, ndim,
            NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST |
                NPY_ARRAY_ENSURECOPY); /* what is checked is what is used, whoever writes to theirs */
        a->failed = array == NULL;
    }
    Py_DECREF(raw);
    return array;
}

bool take_end(arguments *a)
{
    if (!a->failed && a->at != a->count) {
        PyErr_Format(PyExc_TypeError, "%s: %zd arguments are expected, got %zd", a->function, a->at,
                     a->count);
        a->failed = true;
    }
    return !a->failed;
}

void profile_call(const arguments *a, int64_t begin)
{
    attn_profile_event event = {.name = a->function, .begin = begin};
    for (int i = 0; i < ATTN_PROFILE_SHAPES && a->first[i]; i++)
        attn_profile_shape(&event, a->first[i]->ndim, a->first[i]->shape);
    attn_profile_add(&event);
}
