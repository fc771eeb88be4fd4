#include "plan.h"

#include "../base/memory.h"

#include <stdio.h>
#include <string.h>

/* In order of preference; the last one fits and suits every shape. */
static const attn_conv_engine *const engines[] = {
    &attn_conv_winograd_small,
    &attn_conv_winograd,
    &attn_conv_polyphase,
    &attn_conv_implicit_gemm,
    &attn_conv_stem,
    &attn_conv_im2col,
};
enum { ENGINES = sizeof engines / sizeof *engines };

static _Atomic(const attn_conv_engine *) forced;

const char *attn_conv_engine_name(int index)
{
    return index >= 0 && index < ENGINES ? engines[index]->name : NULL;
}

attn_status attn_conv_force(const char *name)
{
    if (!name || !*name) {
        atomic_store(&forced, NULL);
        return ATTN_OK;
    }
    char names[160] = "";
    for (int i = 0; i < ENGINES; i++) {
        if (strcmp(name, engines[i]->name) == 0) {
            atomic_store(&forced, engines[i]);
            return ATTN_OK;
        }
        size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, i ? ", %s" : "%s", engines[i]->name);
    }
    return attn_fail(ATTN_BAD_VALUE, "convolution algorithm is '%s', expected one of %s", name,
                     names);
}

void attn_conv_plan_make(attn_conv_plan *plan, const attn_conv_shape *shape, bool keep)
{
    memset(plan, 0, sizeof *plan);
    plan->shape = *shape;
    plan->keep = keep;
    plan->engine = atomic_load(&forced);
    if (!plan->engine || !plan->engine->fits(shape)) {
        int i = 0;
        while (!engines[i]->fits(shape) || !engines[i]->suits(shape, keep))
            i++;
        plan->engine = engines[i];
    }
    plan->engine->plan(plan);
}

attn_range attn_conv_inside(int64_t offset, int64_t stride, int64_t size, int64_t count)
{
    int64_t begin = offset < 0 ? attn_ceil_div(-offset, stride) : 0;
    int64_t end = size > offset ? attn_ceil_div(size - offset, stride) : 0;
    begin = attn_min(begin, count);
    return (attn_range){begin, attn_max(begin, attn_min(end, count))};
}

int64_t attn_conv_parts(int64_t size, int64_t items)
{
    /* Enough for many cores, in a bounded amount of memory. */
    enum { MOST_PARTS = 16, MOST_FLOATS = 8 << 20 };
    int64_t parts = attn_min(MOST_PARTS, MOST_FLOATS / attn_max(size, 1));
    return attn_max(1, attn_min(parts, items));
}

/* One block of memory for a pass; sizes are rounded up so that every piece is aligned. */
static attn_status workspace_open(attn_conv_workspace *space, const attn_conv_pass *pass)
{
    int64_t shared = attn_ceil_div(pass->shared, ATTN_LANES) * ATTN_LANES;
    space->worker_size = attn_ceil_div(pass->worker, ATTN_LANES) * ATTN_LANES;
    space->workers = attn_num_threads();
    ATTN_TRY(attn_alloc_shares(&space->shared, shared, space->worker_size, space->workers));
    space->scratch = space->shared + shared;
    return ATTN_OK;
}

attn_status attn_conv_forward(const attn_conv_plan *plan, float *y, const attn_conv_input *x,
                              const float *weight, const attn_finish *finish)
{
    const attn_conv_shape *shape = &plan->shape;
    int64_t size = shape->N * shape->K * shape->P * shape->Q;
    if (size == 0)
        return ATTN_OK;
    attn_finish how = *finish;
    how.stream = attn_conv_stream(size);
    attn_conv_workspace space;
    ATTN_TRY(workspace_open(&space, &plan->forward));
    plan->engine->forward(plan, &space, y, x, weight, &how);
    attn_free(space.shared);
    return ATTN_OK;
}

attn_status attn_conv_backward(const attn_conv_plan *plan, const attn_conv_gradients *operands)
{
    const attn_conv_shape *shape = &plan->shape;
    int64_t input = shape->N * shape->C * shape->H * shape->W;
    int64_t kernel = shape->K * shape->C / shape->groups * shape->R * shape->S;
    if (input == 0 || kernel == 0 || shape->P * shape->Q == 0) { /* an empty sum */
        if (operands->dx)
            memset(operands->dx, 0, (size_t)input * sizeof(float));
        if (operands->dweight)
            memset(operands->dweight, 0, (size_t)kernel * sizeof(float));
        return ATTN_OK;
    }
    attn_conv_workspace space;
    ATTN_TRY(workspace_open(&space, &plan->backward));
    plan->engine->backward(plan, &space, operands);
    attn_free(space.shared);
    return ATTN_OK;
}
