/* The data layer's functions: the order of an epoch, a batch of it, a batch with fewer pixels. */
#include "binding.h"

#include "../base/random.h"
#include "../data/augment.h"
#include "../data/shrink.h"

#include <string.h>

static PyObject *py_permutation(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("permutation");
    int64_t n = take_int(&a, "n");
    uint64_t seed = take_uint64(&a, "seed"), epoch = take_uint64(&a, "epoch");
    if (!take_end(&a))
        return NULL;
    if (n < 0 || n > UINT32_MAX)
        return PyErr_Format(PyExc_ValueError, "permutation: n is %lld, expected 0 to 2**32 - 1",
                            (long long)n);
    npy_intp size = (npy_intp)n;
    PyObject *array = PyArray_SimpleNew(1, &size, NPY_INT64);
    if (!array)
        return NULL;
    int64_t *out = PyArray_DATA((PyArrayObject *)array);
    WITHOUT_GIL(attn_random_permutation(out, n, seed, epoch));
    return array;
}

/* Images as they are: converting a whole data set for one batch would be absurd. */
typedef struct {
    const void *pixels;
    npy_intp shape[4]; /* N, C, H, W */
} picture_array;

/* Copied, because what runs Python afterwards (the reading of another argument, a new array) may
 * change the array. */
static bool read_images(picture_array *images, PyObject *object, int type, const char *wrong)
{
    PyArrayObject *array = (PyArrayObject *)object;
    if (!PyArray_Check(object) || PyArray_TYPE(array) != type || PyArray_NDIM(array) != 4 ||
        !PyArray_ISCARRAY_RO(array)) {
        PyErr_SetString(PyExc_TypeError, wrong);
        return false;
    }
    images->pixels = PyArray_DATA(array);
    memcpy(images->shape, PyArray_DIMS(array), sizeof images->shape);
    return true;
}

/* A number a channel, as float: a new reference. */
static PyArrayObject *take_channels(arguments *a, const char *name)
{
    PyObject *object = take_object(a, name);
    if (!object)
        return NULL;
    PyArrayObject *array = (PyArrayObject *)PyArray_FROMANY(
        object, NPY_FLOAT32, 1, 1, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST);
    a->failed = array == NULL;
    return array;
}

static bool check_channels(const char *name, PyArrayObject *array, const npy_intp *shape)
{
    if (PyArray_DIM(array, 0) != shape[1])
        PyErr_Format(PyExc_ValueError, "augment: %s has %zd values for %zd channels", name,
                     (Py_ssize_t)PyArray_DIM(array, 0), (Py_ssize_t)shape[1]);
    return PyArray_DIM(array, 0) == shape[1];
}

/* What the C function takes for granted, checked. */
static bool check(const attn_augmentation *how, const npy_intp *shape, PyArrayObject *indices)
{
    int64_t smallest = attn_min(shape[2], shape[3]);
    if (shape[2] < 1 || shape[2] > 65535 || shape[3] < 1 || shape[3] > 65535) {
        PyErr_SetString(PyExc_ValueError, "augment: images must be 1 to 65535 pixels wide and high");
        return false;
    }
    if (how->padding < 0 || how->padding > 65535 || how->cutout < 0 || how->cutout > 65535 ||
        (how->reflect && how->padding >= smallest)) {
        PyErr_Format(PyExc_ValueError, "augment: padding %lld or cutout %lld is out of range",
                     (long long)how->padding, (long long)how->cutout);
        return false;
    }
    const int64_t *index = PyArray_DATA(indices);
    for (npy_intp i = 0; i < PyArray_SIZE(indices); i++)
        if (index[i] < 0 || index[i] >= shape[0]) {
            PyErr_Format(PyExc_IndexError, "augment: index %lld, but there are %zd images",
                         (long long)index[i], (Py_ssize_t)shape[0]);
            return false;
        }
    return true;
}

/* A new float32 array (len(indices), C, H, W). */
static PyObject *make_batch(const picture_array *images, PyArrayObject *indices,
                            PyArrayObject *mean, PyArrayObject *std, const attn_augmentation *how)
{
    const npy_intp *shape = images->shape;
    npy_intp dims[4] = {PyArray_DIM(indices, 0), shape[1], shape[2], shape[3]};
    float *table = PyMem_Malloc((size_t)shape[1] * 256 * sizeof *table);
    PyObject *batch = table ? PyArray_SimpleNew(4, dims, NPY_FLOAT32) : PyErr_NoMemory();
    if (batch) {
        float *out = PyArray_DATA((PyArrayObject *)batch);
        const uint8_t *pixels = images->pixels;
        const int64_t *index = PyArray_DATA(indices);
        const float *m = PyArray_DATA(mean), *s = PyArray_DATA(std);
        Py_BEGIN_ALLOW_THREADS
        attn_normalisation_table(table, m, s, shape[1]);
        attn_augment_batch(out, pixels, index, table, how, dims[0], dims[1], dims[2], dims[3]);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(table);
    return batch;
}

/* augment(images, indices, mean, std, padding, reflect, flip, alternate, cutout, seed, epoch) */
static PyObject *py_augment(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("augment");
    static const char wrong[] = "augment: images must be a C-contiguous uint8 array (N, C, H, W)";
    PyObject *object = take_object(&a, "images");
    PyArrayObject *indices = take_int64_array(&a, "indices", 1);
    PyArrayObject *mean = take_channels(&a, "mean"), *std = take_channels(&a, "std");
    attn_augmentation how = {0};
    how.padding = take_int(&a, "padding");
    how.reflect = take_bool(&a, "reflect");
    how.flip = take_double(&a, "flip");
    how.alternate = take_bool(&a, "alternate");
    how.cutout = take_int(&a, "cutout");
    how.seed = take_uint64(&a, "seed");
    how.epoch = take_uint64(&a, "epoch");
    PyObject *batch = NULL;
    picture_array images;
    if (take_end(&a) && read_images(&images, object, NPY_UINT8, wrong) &&
        check_channels("mean", mean, images.shape) && check_channels("std", std, images.shape) &&
        check(&how, images.shape, indices))
        batch = make_batch(&images, indices, mean, std, &how);
    Py_XDECREF(indices);
    Py_XDECREF(mean);
    Py_XDECREF(std);
    return batch;
}

/* shrink(images, height, width): a new float32 array (N, C, height, width) */
static PyObject *py_shrink(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("shrink");
    PyObject *object = take_object(&a, "images");
    int64_t height = take_int(&a, "height"), width = take_int(&a, "width");
    if (!take_end(&a))
        return NULL;
    picture_array images;
    if (!read_images(&images, object, NPY_FLOAT32,
                     "shrink: images must be a C-contiguous float32 array (N, C, H, W), aligned and "
                     "in the machine's order of bytes"))
        return NULL;
    const npy_intp *shape = images.shape;
    if (height < 1 || height > shape[2] || width < 1 || width > shape[3] || shape[2] > 65535 ||
        shape[3] > 65535)
        return PyErr_Format(PyExc_ValueError, "shrink: images of %zd x %zd cannot become %lld x %lld",
                            (Py_ssize_t)shape[2], (Py_ssize_t)shape[3], (long long)height,
                            (long long)width);
    npy_intp dims[4] = {shape[0], shape[1], (npy_intp)height, (npy_intp)width};
    PyObject *out = PyArray_SimpleNew(4, dims, NPY_FLOAT32);
    if (!out)
        return NULL;
    float *to = PyArray_DATA((PyArrayObject *)out);
    const float *from = images.pixels;
    WITHOUT_GIL(attn_shrink(to, from, shape[0] * shape[1], shape[2], shape[3], height, width));
    return out;
}

PyMethodDef bind_data_functions[] = {
    FAST("permutation", py_permutation),
    FAST("augment", py_augment),
    FAST("shrink", py_shrink),
    {0},
};
