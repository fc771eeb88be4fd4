/* Convolution, batch norm, addition and ReLU as one operation:
 *
 *   y = [relu](batch norm(convolution(x) + bias) [+ residual])
 *
 * Arguments as in convolution.c and batch_norm.c. The convolution's output z is kept for the
 * backward pass, but its gradient is never written down: an engine that can (conv/plan.h) makes it
 * from that of y on the way.
 *
 * Nor need y be, if it is a ReLU without a residual and one convolution alone reads it: `defer`
 * leaves z in its place, with the constants that make y of it. z carries the gradient of y then, as
 * if it were y.
 *
 * Saved: x or what it is made of, weight, z, the constants, the mask (normalise.h).
 */
#include "../kernels/kernels.h"
#include "convolution.h"

#include <string.h>

enum { X, WEIGHT, BIAS, NORM_WEIGHT, NORM_BIAS, RESIDUAL, INPUTS };
enum { SAVED_X, SAVED_X_CONSTANTS, SAVED_WEIGHT, SAVED_Z, SAVED_CONSTANTS, SAVED_MASK, SAVED };

typedef struct {
    attn_conv_plan plan;
    bool training, relu; /* relu: without a residual */
} node_parameters;

/* The layout and the memory of what `z` and its constants stand for: a new tensor without a
 * gradient. */
static attn_status compute(attn_tensor **y, attn_tensor *z, const attn_tensor *constants)
{
    attn_norm_plan plan;
    ATTN_TRY(attn_tensor_empty_like(y, z));
    attn_norm_plan_make(&plan, z->ndim, z->shape, z->layout);
    attn_norm_apply(&plan, attn_data(*y), NULL, attn_data(z), NULL, attn_data(constants), true);
    return ATTN_OK;
}

attn_status attn_deferred_compute(attn_tensor **y, attn_tensor *z, const attn_tensor *constants)
{
    ATTN_TRY(attn_norm_check_constants("compute_deferred", z, constants));
    ATTN_TRY(compute(y, z, constants));
    (*y)->variable = attn_variable_retain(z->variable);
    return ATTN_OK;
}

/* The gradient of bias: that of z summed over images and pixels, which in training is 0, because
 * the batch norm takes off any constant. */
static attn_status bias_gradient(attn_tensor **dbias, int64_t K, const node_parameters *parameters,
                                 const float *sums, const float *constants)
{
    ATTN_TRY(attn_tensor_zeros(dbias, 1, &K, ATTN_PLAIN));
    if (parameters->training)
        return ATTN_OK;
    bool blocked = parameters->plan.engine->layout_y == ATTN_BLOCKED16;
    for (int64_t k = 0; k < K; k++) {
        const float *group = constants + (blocked ? k / ATTN_LANES : k) * ATTN_NORM_STEP;
        float scale = group[ATTN_NORM_SCALE * ATTN_LANES + (blocked ? k % ATTN_LANES : 0)];
        attn_data(*dbias)[k] = scale * sums[k];
    }
    return ATTN_OK;
}

/* The gradients of x and weight from that of y: through the engine if it can, else with that of z
 * written down. */
static attn_status convolution_gradients(const attn_node *node, const attn_norm_plan *norm_plan,
                                         const attn_norm_gradient *gradient, const float *constants,
                                         attn_tensor **dx)
{
    const node_parameters *parameters = node->parameters;
    const attn_conv_plan *plan = &parameters->plan;
    const attn_conv_shape *s = &plan->shape;
    const attn_tensor *x_constants = node->saved[SAVED_X_CONSTANTS];
    attn_conv_gradients operands = {.norm = gradient, .constants = constants};
    attn_tensor *dz = NULL;
    attn_status status = ATTN_OK;
    if (attn_node_wants(node, X)) {
        attn_tensor *gathered = NULL;
        if (plan->engine->normalises)
            gathered = attn_node_gathered(node, X, plan->engine->layout_x);
        if (!gathered)
            ATTN_GOTO(attn_tensor_empty(&dx[X], 4, (int64_t[]){s->N, s->C, s->H, s->W},
                                        plan->engine->layout_x));
        operands.add = gathered;
        operands.dx = attn_data(gathered ? gathered : dx[X]);
        operands.weight = attn_data(node->saved[SAVED_WEIGHT]);
    }
    if (attn_node_wants(node, WEIGHT)) {
        ATTN_GOTO(attn_tensor_empty(&dx[WEIGHT], 4,
                                    (int64_t[]){s->K, s->C / s->groups, s->R, s->S}, ATTN_PLAIN));
        operands.dweight = attn_data(dx[WEIGHT]);
        operands.x.data = attn_data(node->saved[SAVED_X]);
        operands.x.constants = x_constants ? attn_data(x_constants) : NULL;
    }
    if (!operands.dx && !operands.dweight)
        goto done;
    if (!plan->engine->normalises) {
        ATTN_GOTO(attn_tensor_empty(&dz, 4, (int64_t[]){s->N, s->K, s->P, s->Q},
                                    plan->engine->layout_y));
        attn_norm_backward(norm_plan, attn_data(dz), gradient, constants);
        operands.dy = attn_data(dz);
        operands.norm = NULL;
    }
    ATTN_GOTO(attn_conv_backward(plan, &operands));
done:
    attn_tensor_release(dz);
    return status;
}

static attn_status backward(attn_node *node, attn_tensor *const *gradients, attn_tensor **dx)
{
    const node_parameters *parameters = node->parameters;
    const attn_tensor *z = node->saved[SAVED_Z], *mask = node->saved[SAVED_MASK];
    int64_t K = parameters->plan.shape.K;
    attn_tensor *dy, *constants = NULL;
    attn_status status = ATTN_OK;
    ATTN_TRY(attn_tensor_as(&dy, gradients[0], parameters->plan.engine->layout_y));
    attn_norm_gradient gradient = {
        .dy = attn_data(dy), .x = attn_data(z),
        .mask = mask ? (const uint16_t *)attn_data(mask) : NULL,
        .relu = parameters->relu, .training = parameters->training};
    attn_norm_plan plan;
    attn_norm_plan_make(&plan, dy->ndim, dy->shape, dy->layout);
    /* Both are there for the bias as well. */
    ATTN_GOTO(attn_tensor_empty(&dx[NORM_WEIGHT], 1, &K, ATTN_PLAIN));
    ATTN_GOTO(attn_tensor_empty(&dx[NORM_BIAS], 1, &K, ATTN_PLAIN));
    if (attn_node_wants(node, RESIDUAL)) {
        if (mask)
            ATTN_GOTO(attn_tensor_empty_like(&dx[RESIDUAL], dy));
        else
            dx[RESIDUAL] = attn_tensor_retain(dy);
    }
    float *dresidual = mask && dx[RESIDUAL] ? attn_data(dx[RESIDUAL]) : NULL;
    ATTN_GOTO(attn_norm_sums(&constants, &plan, &gradient, attn_data(node->saved[SAVED_CONSTANTS]),
                             dresidual, attn_data(dx[NORM_WEIGHT]), attn_data(dx[NORM_BIAS])));
    if (dresidual) { /* has passed the mask */
        gradient.dy = dresidual;
        gradient.mask = NULL;
    }
    if (attn_node_wants(node, BIAS))
        ATTN_GOTO(bias_gradient(&dx[BIAS], K, parameters, attn_data(dx[NORM_BIAS]),
                                attn_data(constants)));
    ATTN_GOTO(convolution_gradients(node, &plan, &gradient, attn_data(constants), dx));
done:
    attn_tensor_release(constants);
    attn_tensor_release(dy);
    return status;
}

static const attn_operation convolution_norm_op = {
    "conv2d_batch_norm", backward, sizeof(node_parameters),
};

/* *z = the convolution; *in, *in_constants = x as it was read. */
static attn_status convolve(attn_tensor **z, attn_tensor **in, attn_tensor **in_constants,
                            const attn_conv_plan *plan, const attn_convolution_norm *o,
                            const float *weight)
{
    const attn_conv_shape *s = &plan->shape;
    const attn_conv_engine *engine = plan->engine;
    if (o->x_constants && engine->normalises && o->x->layout == engine->layout_x) {
        *in = attn_tensor_retain(o->x);
        *in_constants = attn_tensor_retain(o->x_constants);
    } else {
        attn_tensor *x = NULL;
        if (o->x_constants)
            ATTN_TRY(compute(&x, o->x, o->x_constants));
        attn_status status = attn_tensor_as(in, x ? x : o->x, engine->layout_x);
        attn_tensor_release(x);
        ATTN_TRY(status);
    }
    ATTN_TRY(attn_tensor_empty(z, 4, (int64_t[]){s->N, s->K, s->P, s->Q}, engine->layout_y));
    const attn_conv_input input = {attn_data(*in),
                                   *in_constants ? attn_data(*in_constants) : NULL};
    const attn_finish finish = {.bias = o->bias ? attn_data(o->bias) : NULL};
    return attn_conv_forward(plan, attn_data(*z), &input, weight, &finish);
}

/* *y = normalised z, with the mask where it needs one. */
static attn_status normalise(attn_tensor **y, attn_tensor **mask, const attn_norm_plan *plan,
                             const attn_tensor *z, const attn_tensor *constants,
                             const attn_convolution_norm *o, bool needs_grad)
{
    attn_tensor *added = NULL;
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_empty_like(y, z));
    if (o->residual)
        ATTN_GOTO(attn_tensor_as(&added, o->residual, z->layout));
    if (o->norm_options.relu && o->residual && needs_grad)
        ATTN_GOTO(attn_norm_mask(mask, plan));
    attn_norm_apply(plan, attn_data(*y), *mask ? (uint16_t *)attn_data(*mask) : NULL, attn_data(z),
                    added ? attn_data(added) : NULL, attn_data(constants), o->norm_options.relu);
done:
    attn_tensor_release(added);
    return status;
}

attn_status attn_convolution_norm_run(attn_tensor **y, attn_tensor **y_constants,
                                      const attn_convolution_norm *o)
{
    node_parameters parameters = {.training = o->norm_options.training,
                                  .relu = o->norm_options.relu && !o->residual};
    attn_conv_plan *plan = &parameters.plan;
    ATTN_TRY(attn_convolution_plan(plan, o->x, o->weight, o->bias, false, &o->options));
    const attn_conv_shape *s = &plan->shape;
    const int64_t shape[] = {s->N, s->K, s->P, s->Q};
    ATTN_TRY(attn_norm_check("conv2d_batch_norm", 4, shape, &o->norm, o->residual,
                             &o->norm_options));
    if (o->x_constants)
        ATTN_TRY(attn_norm_check_constants("conv2d_batch_norm", o->x, o->x_constants));
    attn_tensor *inputs[INPUTS] = {o->x, o->weight, o->bias, o->norm.weight, o->norm.bias,
                                   o->residual};
    attn_tensor *in = NULL, *in_constants = NULL, *weight = NULL, *z = NULL, *constants = NULL;
    attn_tensor *mask = NULL, *out = NULL;
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_as_plain(&weight, o->weight));
    ATTN_GOTO(convolve(&z, &in, &in_constants, plan, o, attn_data(weight)));
    attn_norm_plan norm_plan;
    attn_norm_plan_make(&norm_plan, 4, shape, z->layout);
    ATTN_GOTO(attn_norm_constants(&constants, &norm_plan, attn_data(z), &o->norm,
                                  &o->norm_options));
    bool defer = o->defer && parameters.relu && z->layout == ATTN_BLOCKED16;
    if (defer)
        ATTN_GOTO(attn_detach(&out, z));
    else
        ATTN_GOTO(normalise(&out, &mask, &norm_plan, z, constants, o,
                            attn_needs_grad(INPUTS, inputs)));
    bool saves_x = attn_wanted(o->weight), saves_weight = attn_wanted(o->x);
    attn_tensor *saved[SAVED] = {saves_x ? in : NULL, saves_x ? in_constants : NULL,
                                 saves_weight ? weight : NULL, z, constants, mask};
    ATTN_GOTO(attn_record(&convolution_norm_op, INPUTS, inputs, 1, &out, &parameters, saved,
                          SAVED));
    *y = attn_tensor_retain(out);
    *y_constants = defer ? attn_tensor_retain(constants) : NULL;
done:
    attn_tensor_release(in);
    attn_tensor_release(in_constants);
    attn_tensor_release(weight);
    attn_tensor_release(z);
    attn_tensor_release(constants);
    attn_tensor_release(mask);
    attn_tensor_release(out);
    return status;
}
