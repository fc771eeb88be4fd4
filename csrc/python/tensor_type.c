/* _core.Tensor: the object itself. Operators and methods live in attnnet/tensor.py. */
#include "binding.h"

#include <structmember.h>

#include "../ops/ops.h"

PyTypeObject *attn_tensor_type;
/* The class that results are instances of: attnnet.Tensor, a subclass registered at import. The
 * module refuses sub-interpreters, so that one place is enough. */
static PyTypeObject *result_class;

static TensorObject *new_object(PyTypeObject *type, attn_tensor *t)
{
    TensorObject *self = (TensorObject *)type->tp_alloc(type, 0);
    if (!self) {
        attn_tensor_release(t);
        return NULL;
    }
    self->tensor = t;
    self->weak_references = NULL;
    return self;
}

PyObject *tensor_wrap(attn_tensor *t)
{
    return (PyObject *)new_object(result_class ? result_class : attn_tensor_type, t);
}

attn_tensor *tensor_from_object(PyObject *object, const char *function, const char *what)
{
    if (PyObject_TypeCheck(object, attn_tensor_type)) {
        attn_tensor *copy;
        attn_status status;
        attn_tensor *source = ((TensorObject *)object)->tensor;
        WITHOUT_GIL(status = attn_tensor_copy(&copy, source));
        if (status != ATTN_OK) {
            report(status);
            return NULL;
        }
        return copy;
    }
    PyArrayObject *raw = (PyArrayObject *)PyArray_FROM_O(object);
    if (!raw)
        return NULL;
    if (!PyArray_ISBOOL(raw) && !PyArray_ISINTEGER(raw) && !PyArray_ISFLOAT(raw)) {
        PyErr_Format(PyExc_TypeError, "%s: %s must hold real numbers, got dtype %R", function, what,
                     (PyObject *)PyArray_DESCR(raw));
        Py_DECREF(raw);
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)PyArray_FROMANY(
        (PyObject *)raw, NPY_FLOAT32, 0, 0,
        NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST);
    Py_DECREF(raw);
    if (!array)
        return NULL;
    attn_tensor *t = NULL;
    int64_t shape[ATTN_MAX_DIMS] = {0};
    int ndim = PyArray_NDIM(array);
    for (int i = 0; i < ndim && i < ATTN_MAX_DIMS; i++)
        shape[i] = PyArray_DIM(array, i);
    attn_status status = attn_tensor_empty(&t, ndim, shape, ATTN_PLAIN);
    if (status == ATTN_OK)
        memcpy(attn_data(t), PyArray_DATA(array), (size_t)t->size * sizeof(float));
    else
        report(status);
    Py_DECREF(array);
    return t;
}

static PyObject *tensor_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"data", "requires_grad", NULL};
    PyObject *data;
    int requires_grad = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|p:Tensor", names, &data, &requires_grad))
        return NULL;
    attn_tensor *t = tensor_from_object(data, "Tensor", "data");
    if (!t)
        return NULL;
    attn_status status = attn_set_requires_grad(t, requires_grad);
    if (status != ATTN_OK) {
        attn_tensor_release(t);
        return report(status);
    }
    return (PyObject *)new_object(type, t);
}

static attn_status call_python_hook(void *context, attn_tensor *gradient,
                                    attn_tensor **replacement);

/* The tensor's variable where its hooks are this object's alone: neither another tensor nor the tape
 * would call them. Python's collector may then follow them, and break the circle of a hook that
 * holds its tensor. */
static attn_variable *own_variable(const TensorObject *self)
{
    attn_tensor *t = self->tensor;
    attn_variable *variable = t ? attn_kept_variable(t) : NULL;
    bool alone = variable && atomic_load(&t->references) == 1 &&
                 atomic_load(&variable->references) == 1;
    return alone ? variable : NULL;
}

static int tensor_traverse(TensorObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    attn_variable *variable = own_variable(self);
    for (attn_hook *hook = variable ? variable->hooks : NULL; hook; hook = hook->next)
        if (hook->call == call_python_hook)
            Py_VISIT((PyObject *)hook->context);
    return 0;
}

static int tensor_clear(TensorObject *self)
{
    attn_variable *variable = own_variable(self);
    while (variable && variable->hooks)
        attn_variable_remove_hook(variable, variable->hooks->id);
    return 0;
}

static void tensor_dealloc(TensorObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weak_references)
        PyObject_ClearWeakRefs((PyObject *)self);
    attn_tensor_release(self->tensor);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Attributes */

PyObject *shape_tuple(int ndim, const int64_t *shape)
{
    PyObject *tuple = PyTuple_New(ndim);
    for (int i = 0; tuple && i < ndim; i++) {
        PyObject *size = PyLong_FromLongLong(shape[i]);
        if (!size)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, size);
    }
    return tuple;
}

static PyObject *get_shape(TensorObject *self, void *closure)
{
    (void)closure;
    return shape_tuple(self->tensor->ndim, self->tensor->shape);
}

static PyObject *get_ndim(TensorObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(self->tensor->ndim);
}

static PyObject *get_layout(TensorObject *self, void *closure)
{
    (void)closure;
    return PyUnicode_FromString(self->tensor->layout == ATTN_BLOCKED16 ? "blocked16" : "plain");
}

static PyObject *get_version(TensorObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLongLong(self->tensor->storage->version);
}

static PyObject *get_requires_grad(TensorObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(self->tensor->variable != NULL);
}

static int set_requires_grad(TensorObject *self, PyObject *value, void *closure)
{
    (void)closure;
    int wanted = value ? PyObject_IsTrue(value) : -1;
    if (wanted < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_AttributeError, "requires_grad cannot be deleted");
        return -1;
    }
    attn_status status = attn_set_requires_grad(self->tensor, wanted);
    if (status != ATTN_OK)
        report(status);
    return status == ATTN_OK ? 0 : -1;
}

static PyObject *get_grad(TensorObject *self, void *closure)
{
    (void)closure;
    attn_variable *variable = attn_kept_variable(self->tensor);
    attn_tensor *grad = variable ? attn_variable_grad(variable) : NULL;
    if (!grad)
        Py_RETURN_NONE;
    return tensor_wrap(grad);
}

static int set_grad(TensorObject *self, PyObject *value, void *closure)
{
    (void)closure;
    attn_tensor *grad = NULL;
    char mine[160], theirs[160];
    if (value && value != Py_None) {
        if (!PyObject_TypeCheck(value, attn_tensor_type)) {
            PyErr_Format(PyExc_TypeError, "grad must be an attnnet.Tensor or None, got %s",
                         Py_TYPE(value)->tp_name);
            return -1;
        }
        grad = ((TensorObject *)value)->tensor;
        if (!attn_same_shape(grad, self->tensor)) {
            PyErr_Format(PyExc_ValueError, "grad has shape %s, the tensor has %s",
                         attn_shape_text(theirs, grad->ndim, grad->shape),
                         attn_shape_text(mine, self->tensor->ndim, self->tensor->shape));
            return -1;
        }
    }
    attn_variable *variable = attn_kept_variable(self->tensor);
    if (!variable) {
        if (!grad)
            return 0;
        PyErr_SetString(PyExc_RuntimeError, "grad can be set only where requires_grad is True");
        return -1;
    }
    attn_tensor *twin = NULL; /* without a place on any tape */
    if (grad) {
        attn_status status = attn_detach(&twin, grad);
        if (status != ATTN_OK) {
            report(status);
            return -1;
        }
    }
    attn_variable_set_grad(variable, twin);
    return 0;
}

static PyObject *get_is_leaf(TensorObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(!self->tensor->variable || !self->tensor->variable->node);
}

static PyObject *get_grad_fn(TensorObject *self, void *closure)
{
    (void)closure;
    attn_variable *variable = self->tensor->variable;
    if (!variable || !variable->node)
        Py_RETURN_NONE;
    return PyUnicode_FromString(variable->node->operation->name);
}

static PyGetSetDef attributes[] = {
    {"shape", (getter)get_shape, NULL, "Sizes of the dimensions: a tuple of ints.", NULL},
    {"ndim", (getter)get_ndim, NULL, "Number of dimensions.", NULL},
    {"layout", (getter)get_layout, NULL,
     "How memory is laid out: 'plain' (row-major) or 'blocked16' (N, C/16, H, W, 16). "
     "It never changes what values or shapes mean.", NULL},
    {"version", (getter)get_version, NULL, "Raised by every in-place write.", NULL},
    {"requires_grad", (getter)get_requires_grad, (setter)set_requires_grad,
     "Whether gradients are computed for this tensor.", NULL},
    {"grad", (getter)get_grad, (setter)set_grad,
     "The gradient that backward() gathered: a Tensor of the same shape, or None.", NULL},
    {"is_leaf", (getter)get_is_leaf, NULL, "True where no recorded operation made the tensor.", NULL},
    {"grad_fn", (getter)get_grad_fn, NULL, "Name of the operation that made it, or None.", NULL},
    {0},
};

/* Methods */

static PyObject *method_backward(TensorObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"gradient", "retain_graph", NULL};
    PyObject *gradient = Py_None;
    int retain = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|Op:backward", names, &gradient, &retain))
        return NULL;
    attn_tensor *dy = NULL;
    if (PyObject_TypeCheck(gradient, attn_tensor_type))
        dy = attn_tensor_retain(((TensorObject *)gradient)->tensor);
    else if (gradient != Py_None && !(dy = tensor_from_object(gradient, "backward", "gradient")))
        return NULL;
    attn_status status;
    WITHOUT_GIL(status = attn_backward_walk(self->tensor, dy, retain));
    attn_tensor_release(dy);
    if (status != ATTN_OK)
        return report(status);
    Py_RETURN_NONE;
}

static PyObject *method_detach(TensorObject *self, PyObject *unused)
{
    (void)unused;
    attn_tensor *y = NULL;
    attn_status status = attn_detach(&y, self->tensor);
    return give(status, y);
}

static void release_capsule(PyObject *capsule)
{
    attn_tensor_release(PyCapsule_GetPointer(capsule, "attnnet.tensor"));
}

static PyObject *method_numpy(TensorObject *self, PyObject *unused)
{
    (void)unused;
    attn_tensor *plain = NULL;
    attn_status status;
    WITHOUT_GIL(status = attn_tensor_as_plain(&plain, self->tensor));
    if (status != ATTN_OK)
        return report(status);
    npy_intp shape[ATTN_MAX_DIMS] = {0};
    for (int i = 0; i < plain->ndim; i++)
        shape[i] = (npy_intp)plain->shape[i];
    PyObject *owner = PyCapsule_New(plain, "attnnet.tensor", release_capsule);
    if (!owner) {
        attn_tensor_release(plain);
        return NULL;
    }
    PyObject *array = PyArray_New(&PyArray_Type, plain->ndim, shape, NPY_FLOAT32, NULL,
                                  attn_data(plain), 0,
                                  NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED, NULL);
    if (!array || PyArray_SetBaseObject((PyArrayObject *)array, owner) < 0) {
        if (!array)
            Py_DECREF(owner);
        Py_XDECREF(array);
        return NULL;
    }
    return array;
}

/* What is written to an operation's result would get the gradient of what was there before. */
static bool may_write(const TensorObject *self, const char *function)
{
    attn_variable *variable = self->tensor->variable;
    if (!variable || !variable->node || !attn_grad_enabled())
        return true;
    report(attn_fail(ATTN_BAD_STATE,
                     "%s: the tensor is a result of %s, and the gradient would be that of the old "
                     "values; use a new tensor, or no_grad() where that is meant",
                     function, variable->node->operation->name));
    return false;
}

static PyObject *method_copy_(TensorObject *self, PyObject *source)
{
    attn_tensor *values = tensor_from_object(source, "copy_", "source");
    if (!values)
        return NULL;
    char mine[160], theirs[160];
    if (!attn_same_shape(values, self->tensor)) {
        PyErr_Format(PyExc_ValueError, "copy_: source has shape %s, the tensor has %s",
                     attn_shape_text(theirs, values->ndim, values->shape),
                     attn_shape_text(mine, self->tensor->ndim, self->tensor->shape));
        attn_tensor_release(values);
        return NULL;
    }
    if (!may_write(self, "copy_")) {
        attn_tensor_release(values);
        return NULL;
    }
    WITHOUT_GIL(attn_tensor_copy_values(self->tensor, values));
    attn_tensor_touch(self->tensor);
    attn_tensor_release(values);
    Py_INCREF(self);
    return (PyObject *)self;
}

static PyObject *method_zero_(TensorObject *self, PyObject *unused)
{
    (void)unused;
    if (!may_write(self, "zero_"))
        return NULL;
    memset(attn_data(self->tensor), 0, (size_t)self->tensor->storage->bytes);
    attn_tensor_touch(self->tensor);
    Py_INCREF(self);
    return (PyObject *)self;
}

static PyObject *method_retain_grad(TensorObject *self, PyObject *unused)
{
    (void)unused;
    if (!self->tensor->variable)
        return report(attn_fail(ATTN_BAD_STATE, "retain_grad: the tensor requires no gradient"));
    self->tensor->variable->retains_grad = true;
    Py_RETURN_NONE;
}

/* A Python function as a gradient hook. */
static attn_status call_python_hook(void *context, attn_tensor *gradient, attn_tensor **replacement)
{
    attn_status status = ATTN_CALLBACK;
    PyGILState_STATE gil = PyGILState_Ensure();
    attn_tensor *twin;
    if (attn_detach(&twin, gradient) != ATTN_OK) {
        PyErr_NoMemory();
        goto done;
    }
    PyObject *argument = tensor_wrap(twin);
    PyObject *result = argument ? PyObject_CallOneArg(context, argument) : NULL;
    Py_XDECREF(argument);
    if (!result)
        goto done;
    if (result == Py_None) {
        status = ATTN_OK;
    } else if (!PyObject_TypeCheck(result, attn_tensor_type)) {
        PyErr_Format(PyExc_TypeError, "a gradient hook must return None or a Tensor, got %s",
                     Py_TYPE(result)->tp_name);
    } else if (!attn_same_shape(((TensorObject *)result)->tensor, gradient)) {
        PyErr_SetString(PyExc_ValueError, "a gradient hook returned a tensor of another shape");
    } else {
        status = attn_detach(replacement, ((TensorObject *)result)->tensor);
    }
    Py_DECREF(result);
done:
    PyGILState_Release(gil);
    return status;
}

static void drop_python_hook(void *context)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_DECREF((PyObject *)context);
    PyGILState_Release(gil);
}

static PyObject *method_add_hook(TensorObject *self, PyObject *function)
{
    if (!PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError, "register_hook: hook must be callable, got %s",
                     Py_TYPE(function)->tp_name);
        return NULL;
    }
    if (!self->tensor->variable)
        return report(attn_fail(ATTN_BAD_STATE, "register_hook: the tensor requires no gradient"));
    attn_hook hook = {.call = call_python_hook, .destroy = drop_python_hook, .context = function};
    uint64_t id;
    attn_status status = attn_variable_add_hook(self->tensor->variable, &hook, &id);
    if (status != ATTN_OK)
        return report(status);
    Py_INCREF(function);
    PyObject *number = PyLong_FromUnsignedLongLong(id);
    if (!number) /* nobody could take it off again */
        attn_variable_remove_hook(self->tensor->variable, id);
    return number;
}

static PyObject *method_remove_hook(TensorObject *self, PyObject *id)
{
    uint64_t number = PyLong_AsUnsignedLongLong(id);
    if (PyErr_Occurred())
        return NULL;
    attn_variable *variable = attn_kept_variable(self->tensor);
    if (variable)
        attn_variable_remove_hook(variable, number);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"backward", (PyCFunction)(void (*)(void))method_backward, METH_VARARGS | METH_KEYWORDS, NULL},
    {"detach", (PyCFunction)method_detach, METH_NOARGS, NULL},
    {"numpy", (PyCFunction)method_numpy, METH_NOARGS, NULL},
    {"copy_", (PyCFunction)method_copy_, METH_O, NULL},
    {"zero_", (PyCFunction)method_zero_, METH_NOARGS, NULL},
    {"retain_grad", (PyCFunction)method_retain_grad, METH_NOARGS, NULL},
    {"_add_hook", (PyCFunction)method_add_hook, METH_O, NULL},
    {"_remove_hook", (PyCFunction)method_remove_hook, METH_O, NULL},
    {0},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TensorObject, weak_references), READONLY, NULL},
    {0},
};

static PyType_Slot slots[] = {
    {Py_tp_new, tensor_new},         {Py_tp_dealloc, tensor_dealloc}, {Py_tp_methods, methods},
    {Py_tp_getset, attributes},      {Py_tp_members, members},        {Py_tp_clear, tensor_clear},
    {Py_tp_traverse, tensor_traverse}, {0, NULL},
};

static PyType_Spec spec = {
    .name = "attnnet._core.Tensor",
    .basicsize = sizeof(TensorObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static PyObject *py_set_result_class(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("set_result_class");
    PyObject *cls = take_object(&a, "cls");
    if (!take_end(&a))
        return NULL;
    if (!PyType_Check(cls) || !PyType_IsSubtype((PyTypeObject *)cls, attn_tensor_type)) {
        PyErr_SetString(PyExc_TypeError, "set_result_class: cls must be a subclass of Tensor");
        return NULL;
    }
    Py_INCREF(cls);
    Py_XSETREF(result_class, (PyTypeObject *)cls);
    Py_RETURN_NONE;
}

PyMethodDef bind_tensor_functions[] = {
    FAST("set_result_class", py_set_result_class),
    {0},
};

attn_status bind_tensor_type(PyObject *module)
{
    attn_tensor_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!attn_tensor_type)
        return ATTN_CALLBACK;
    Py_INCREF(attn_tensor_type);
    if (PyModule_AddObject(module, "Tensor", (PyObject *)attn_tensor_type) < 0)
        return ATTN_CALLBACK;
    return ATTN_OK;
}
