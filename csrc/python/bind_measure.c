/* The profile of operations, and the machine's peak. */
#include "binding.h"

#include "../base/threads.h"
#include "../kernels/kernels.h"

#include <stdlib.h>

static PyObject *py_profile_start(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("profile_start");
    if (!take_end(&a))
        return NULL;
    attn_status status = attn_profile_start();
    if (status != ATTN_OK)
        return report(status);
    Py_RETURN_NONE;
}

/* (name, backward, thread, begin, duration, shapes), times in nanoseconds. */
static PyObject *event_tuple(const attn_profile_event *event)
{
    PyObject *shapes = PyTuple_New(event->shapes);
    for (int i = 0; shapes && i < event->shapes; i++) {
        PyObject *shape = shape_tuple(event->ndim[i], event->shape[i]);
        if (!shape)
            Py_CLEAR(shapes);
        else
            PyTuple_SET_ITEM(shapes, i, shape);
    }
    if (!shapes)
        return NULL;
    return Py_BuildValue("(sOLLLN)", event->name, event->backward ? Py_True : Py_False,
                         (long long)event->thread, (long long)event->begin,
                         (long long)event->duration, shapes);
}

/* () -> (list of events, how many were lost for want of memory) */
static PyObject *py_profile_stop(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("profile_stop");
    if (!take_end(&a))
        return NULL;
    attn_profile_event *events;
    int64_t lost, gathered = attn_profile_stop(&events, &lost);
    PyObject *list = PyList_New(gathered);
    for (int64_t i = 0; list && i < gathered; i++) {
        PyObject *event = event_tuple(&events[i]);
        if (!event)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, event);
    }
    free(events);
    return list ? Py_BuildValue("(NL)", list, (long long)lost) : NULL;
}

typedef struct {
    int64_t rounds;
    float *sums;
} peak_job;

static void peak_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const peak_job *job = context;
    attn_kernel->multiply_adds(&job->sums[index], job->rounds, 0.5f);
}

/* (rounds) -> floating-point operations done: `rounds` bursts of multiply-adds on each thread. */
static PyObject *py_multiply_adds(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    ARGUMENTS("multiply_adds");
    int64_t rounds = take_int(&a, "rounds");
    if (!take_end(&a))
        return NULL;
    enum { FLOPS_IN_ROUND = 2 * 12 * ATTN_LANES }; /* kernels/peak.c */
    float sums[ATTN_MAX_THREADS];
    peak_job job = {rounds, sums};
    int threads = attn_num_threads();
    WORK(attn_parallel(peak_task, &job, threads));
    return PyLong_FromLongLong((long long)threads * rounds * FLOPS_IN_ROUND);
}

PyMethodDef bind_measure_functions[] = {
    FAST("profile_start", py_profile_start),
    FAST("profile_stop", py_profile_stop),
    FAST("multiply_adds", py_multiply_adds),
    {0},
};
