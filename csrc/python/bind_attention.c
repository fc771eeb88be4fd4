/* relative_attention, relative_attention_rows. */
#include "binding.h"

#include "../blocks/attention_augmented.h"

typedef struct {
    attn_tensor *kqv, *rel_h, *rel_w;
    int heads;
    int64_t dk, dv;
    bool original_form;
} attention_arguments;

static attention_arguments take_attention(arguments *a)
{
    attention_arguments x = {0};
    x.kqv = take_tensor(a, "kqv");
    x.rel_h = take_tensor(a, "rel_h");
    x.rel_w = take_tensor(a, "rel_w");
    x.heads = (int)attn_max(-1, attn_min(take_int(a, "heads"), INT32_MAX));
    x.dk = attn_max(-1, attn_min(take_int(a, "dk"), INT32_MAX));
    x.dv = attn_max(-1, attn_min(take_int(a, "dv"), INT32_MAX));
    x.original_form = take_bool(a, "original_form");
    return x;
}

static PyObject *py_relative_attention(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("relative_attention");
    attention_arguments x = take_attention(&a);
    if (!take_end(&a))
        return NULL;
    attn_tensor *y = NULL;
    attn_status status;
    WORK(status = attn_relative_attention(&y, x.kqv, x.rel_h, x.rel_w, x.heads, x.dk, x.dv,
                                          x.original_form));
    return give(status, y);
}

static PyObject *py_relative_attention_rows(PyObject *module, PyObject *const *args,
                                            Py_ssize_t count)
{
    ARGUMENTS("relative_attention_rows");
    attention_arguments x = take_attention(&a);
    int64_t image = take_int(&a, "image"), query = take_int(&a, "query");
    if (!take_end(&a))
        return NULL;
    attn_tensor *rows = NULL;
    attn_status status;
    WORK(status = attn_relative_attention_rows(&rows, x.kqv, x.rel_h, x.rel_w, x.heads, x.dk,
                                               x.dv, x.original_form, image, query));
    return give(status, rows);
}

PyMethodDef bind_attention_functions[] = {
    FAST("relative_attention", py_relative_attention),
    FAST("relative_attention_rows", py_relative_attention_rows),
    {NULL, NULL, 0, NULL},
};
