/* The attention blocks: NAME(x, weights.., options.., relu=False) gives y; NAME_gates with the same
 * arguments gives (channel gate (N, C) or None, position gate (N, 1, H, W) or None), off the tape. */
#include "binding.h"

#include "../blocks/blocks.h"

#include <string.h>

/* The last argument of every block may be left out. */
static bool take_relu(arguments *a) { return a->at < a->count ? take_bool(a, "relu") : false; }

static PyObject *wrap_or_none(attn_tensor *t)
{
    return t ? tensor_wrap(t) : Py_NewRef(Py_None);
}

/* y, or with want_gates the pair of gates; the exception where the status is one. */
static PyObject *give_block(attn_status status, attn_tensor *y, attn_block_gates *gates,
                            bool want_gates)
{
    if (status != ATTN_OK) {
        attn_tensor_release(gates->channel);
        attn_tensor_release(gates->position);
    }
    if (!want_gates || status != ATTN_OK)
        return give(status, y);
    PyObject *channel = wrap_or_none(gates->channel), *position = wrap_or_none(gates->position);
    PyObject *pair = channel && position ? PyTuple_Pack(2, channel, position) : NULL;
    Py_XDECREF(channel);
    Py_XDECREF(position);
    return pair;
}

/* Runs `call`, which names its results `to` and `of`, without the GIL. */
#define RUN_BLOCK(call)                                              \
    do {                                                             \
        if (!take_end(&a))                                           \
            return NULL;                                             \
        attn_tensor *y = NULL, **to = want_gates ? NULL : &y;        \
        attn_block_gates gates = {0}, *of = want_gates ? &gates : NULL; \
        attn_status status;                                          \
        WORK(status = call);                                  \
        return give_block(status, y, &gates, want_gates);            \
    } while (0)

/* The two functions of a block, from run_NAME(module, args, count, want_gates). */
#define BLOCK(name)                                                                            \
    static PyObject *py_##name(PyObject *module, PyObject *const *args, Py_ssize_t count)      \
    {                                                                                          \
        return run_##name(module, args, count, false);                                         \
    }                                                                                          \
    static PyObject *py_##name##_gates(PyObject *module, PyObject *const *args, Py_ssize_t count) \
    {                                                                                          \
        return run_##name(module, args, count, true);                                          \
    }

static PyObject *run_se(PyObject *module, PyObject *const *args, Py_ssize_t count, bool want_gates)
{
    ARGUMENTS("se");
    attn_tensor *x = take_tensor(&a, "x"), *w1 = take_tensor(&a, "w1");
    attn_tensor *w2 = take_tensor(&a, "w2");
    bool relu = take_relu(&a);
    RUN_BLOCK(attn_se(to, of, x, w1, w2, relu));
}
BLOCK(se)

static PyObject *run_sec(PyObject *module, PyObject *const *args, Py_ssize_t count, bool want_gates)
{
    ARGUMENTS("sec");
    attn_tensor *x = take_tensor(&a, "x"), *w1 = take_tensor(&a, "w1");
    attn_tensor *b1 = take_tensor(&a, "b1"), *w2 = take_tensor(&a, "w2");
    attn_tensor *b2 = take_tensor(&a, "b2");
    bool relu = take_relu(&a);
    RUN_BLOCK(attn_sec(to, of, x, w1, b1, w2, b2, relu));
}
BLOCK(sec)

/* A tuple or list of names; returns how many. */
static int take_pools(arguments *a, attn_gate_pool pools[ATTN_POOL_TYPES])
{
    static const char *const names[ATTN_POOL_TYPES] = {"avg", "max", "lp", "lse"};
    PyObject *object = take_object(a, "pool_types");
    if (!object)
        return 0;
    bool sequence = PyTuple_Check(object) || PyList_Check(object);
    Py_ssize_t length = sequence ? PySequence_Fast_GET_SIZE(object) : 0;
    int found = 0;
    for (Py_ssize_t i = 0; i < length && i < ATTN_POOL_TYPES; i++) {
        PyObject *name = PySequence_Fast_GET_ITEM(object, i);
        for (int kind = 0; PyUnicode_Check(name) && kind < ATTN_POOL_TYPES; kind++)
            if (PyUnicode_CompareWithASCIIString(name, names[kind]) == 0)
                pools[found++] = (attn_gate_pool)kind;
    }
    if (length < 1 || length > ATTN_POOL_TYPES || found != length) {
        PyErr_Format(PyExc_ValueError,
                     "ca: pool_types is %R, expected a tuple of different names among 'avg', 'max', "
                     "'lp' and 'lse'", object);
        a->failed = true;
    }
    return found;
}

static PyObject *run_ca(PyObject *module, PyObject *const *args, Py_ssize_t count, bool want_gates)
{
    ARGUMENTS("ca");
    attn_tensor *x = take_tensor(&a, "x"), *w1 = take_tensor(&a, "w1");
    attn_tensor *b1 = take_tensor(&a, "b1"), *w2 = take_tensor(&a, "w2");
    attn_tensor *b2 = take_tensor(&a, "b2");
    attn_gate_pool pools[ATTN_POOL_TYPES];
    int pool_count = take_pools(&a, pools);
    bool relu = take_relu(&a);
    RUN_BLOCK(attn_channel_attention(to, of, x, w1, b1, w2, b2, pools, pool_count, relu));
}
BLOCK(ca)

static attn_spatial_parameters take_spatial(arguments *a)
{
    attn_spatial_parameters p = {0};
    p.conv_w = take_tensor(a, "conv_w");
    p.conv_b = take_tensor(a, "conv_b");
    p.running_mean = take_optional_tensor(a, "running_mean");
    p.running_var = take_optional_tensor(a, "running_var");
    p.bn_w = take_tensor(a, "bn_w");
    p.bn_b = take_tensor(a, "bn_b");
    p.training = take_bool(a, "training");
    p.momentum = (float)take_double(a, "momentum");
    p.eps = (float)take_double(a, "eps");
    return p;
}

static PyObject *run_sa(PyObject *module, PyObject *const *args, Py_ssize_t count, bool want_gates)
{
    ARGUMENTS("sa");
    attn_tensor *x = take_tensor(&a, "x");
    attn_spatial_parameters parameters = take_spatial(&a);
    bool relu = take_relu(&a);
    RUN_BLOCK(attn_spatial_attention(to, of, x, &parameters, relu));
}
BLOCK(sa)

static PyObject *run_new_block(PyObject *module, PyObject *const *args, Py_ssize_t count,
                               bool want_gates)
{
    ARGUMENTS("new_block");
    attn_tensor *x = take_tensor(&a, "x"), *w1 = take_tensor(&a, "w1");
    attn_tensor *w2 = take_tensor(&a, "w2");
    attn_spatial_parameters parameters = take_spatial(&a);
    bool relu = take_relu(&a);
    RUN_BLOCK(attn_new_block(to, of, x, w1, w2, &parameters, relu));
}
BLOCK(new_block)

static PyObject *run_nab(PyObject *module, PyObject *const *args, Py_ssize_t count, bool want_gates)
{
    ARGUMENTS("nab");
    attn_tensor *x = take_tensor(&a, "x"), *sam_w = take_tensor(&a, "sam_w");
    attn_tensor *sam_b = take_tensor(&a, "sam_b"), *cam_w = take_tensor(&a, "cam_w");
    attn_tensor *cam_b = take_tensor(&a, "cam_b");
    bool relu = take_relu(&a);
    RUN_BLOCK(attn_nab(to, of, x, sam_w, sam_b, cam_w, cam_b, relu));
}
BLOCK(nab)

PyMethodDef bind_blocks_functions[] = {
    FAST("se", py_se),               FAST("se_gates", py_se_gates),
    FAST("sec", py_sec),             FAST("sec_gates", py_sec_gates),
    FAST("ca", py_ca),               FAST("ca_gates", py_ca_gates),
    FAST("sa", py_sa),               FAST("sa_gates", py_sa_gates),
    FAST("new_block", py_new_block), FAST("new_block_gates", py_new_block_gates),
    FAST("nab", py_nab),             FAST("nab_gates", py_nab_gates),
    {0},
};
