/* Batch norm: y = [relu]((x - mean) / sqrt(var + eps) * weight + bias [+ residual]).
 *
 * S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing
 * internal covariate shift", ICML 2015.
 *
 * x, y, residual (N, C, ...); weight, bias, running_mean, running_var (C), each may be NULL.
 * Computed in the layout of x, which y keeps; BLOCKED16 and PLAIN go through the same kernels.
 * Training: mean and biased variance of the batch; the unbiased one enters running_var.
 *
 * Saved: x (unless only the frozen affine map is needed), the constants of normalise.h; the mask of
 * a ReLU behind a residual, a bit an element.
 */
#include "normalise.h"

typedef struct {
    attn_layout layout; /* of x, y, dx */
    bool training, relu;
} bn_parameters;

enum { SAVED_X, SAVED_CONSTANTS, SAVED_MASK, SAVED_COUNT };
enum { INPUT_X, INPUT_WEIGHT, INPUT_BIAS, INPUT_RESIDUAL, INPUT_COUNT };

static attn_status empty_for(float **data, attn_tensor **tensor, bool wanted, int ndim,
                             const int64_t *shape, attn_layout layout)
{
    if (!wanted)
        return ATTN_OK;
    ATTN_TRY(attn_tensor_empty(tensor, ndim, shape, layout));
    *data = attn_data(*tensor);
    return ATTN_OK;
}

static attn_status batch_norm_backward(attn_node *node, attn_tensor *const *gradients,
                                       attn_tensor **dx)
{
    const bn_parameters *parameters = node->parameters;
    const attn_tensor *x = node->saved[SAVED_X], *mask = node->saved[SAVED_MASK];
    attn_layout layout = parameters->layout;
    attn_tensor *dy, *constants = NULL;
    attn_status status = ATTN_OK;
    ATTN_TRY(attn_tensor_as(&dy, gradients[0], layout));
    attn_norm_gradient gradient = {
        .dy = attn_data(dy), .x = x ? attn_data(x) : NULL,
        .mask = mask ? (const uint16_t *)attn_data(mask) : NULL,
        .relu = parameters->relu, .training = parameters->training};
    attn_norm_plan plan;
    attn_norm_plan_make(&plan, dy->ndim, dy->shape, layout);
    float *dresidual = NULL, *dweight = NULL, *dbias = NULL;
    bool wants_residual = attn_node_wants(node, INPUT_RESIDUAL);
    if (wants_residual && !mask)
        dx[INPUT_RESIDUAL] = attn_tensor_retain(dy);
    ATTN_GOTO(empty_for(&dresidual, &dx[INPUT_RESIDUAL], wants_residual && mask, dy->ndim,
                        dy->shape, layout));
    ATTN_GOTO(empty_for(&dweight, &dx[INPUT_WEIGHT], attn_node_wants(node, INPUT_WEIGHT), 1,
                        &plan.C, ATTN_PLAIN));
    ATTN_GOTO(empty_for(&dbias, &dx[INPUT_BIAS], attn_node_wants(node, INPUT_BIAS), 1, &plan.C,
                        ATTN_PLAIN));
    ATTN_GOTO(attn_norm_sums(&constants, &plan, &gradient, attn_data(node->saved[SAVED_CONSTANTS]),
                             dresidual, dweight, dbias));
    if (attn_node_wants(node, INPUT_X)) {
        ATTN_GOTO(attn_tensor_empty(&dx[INPUT_X], dy->ndim, dy->shape, layout));
        attn_norm_backward(&plan, attn_data(dx[INPUT_X]), &gradient, attn_data(constants));
    }
done:
    attn_tensor_release(constants);
    attn_tensor_release(dy);
    return status;
}

static const attn_operation batch_norm_op = {"batch_norm", batch_norm_backward,
                                             sizeof(bn_parameters)};

attn_status attn_batch_norm(attn_tensor **y, attn_tensor *x, attn_tensor *weight, attn_tensor *bias,
                            attn_tensor *running_mean, attn_tensor *running_var,
                            attn_tensor *residual, const attn_batch_norm_options *options)
{
    attn_norm_parameters norm = {weight, bias, running_mean, running_var};
    ATTN_TRY(attn_norm_check("batch_norm", x->ndim, x->shape, &norm, residual, options));
    attn_tensor *inputs[INPUT_COUNT] = {x, weight, bias, residual};
    attn_tensor *out = NULL, *added = NULL, *constants = NULL, *mask = NULL;
    attn_status status = ATTN_OK;
    attn_norm_plan plan;
    attn_norm_plan_make(&plan, x->ndim, x->shape, x->layout);
    ATTN_GOTO(attn_tensor_empty_like(&out, x));
    if (residual)
        ATTN_GOTO(attn_tensor_as(&added, residual, x->layout));
    if (options->relu && residual && attn_needs_grad(INPUT_COUNT, inputs))
        ATTN_GOTO(attn_norm_mask(&mask, &plan));
    ATTN_GOTO(attn_norm_constants(&constants, &plan, attn_data(x), &norm, options));
    attn_norm_apply(&plan, attn_data(out), mask ? (uint16_t *)attn_data(mask) : NULL, attn_data(x),
                    added ? attn_data(added) : NULL, attn_data(constants), options->relu);
    bn_parameters parameters = {x->layout, options->training, options->relu && !residual};
    attn_tensor *saved[SAVED_COUNT] = {NULL, constants, mask};
    if (options->training || parameters.relu || (weight && attn_wanted(weight)))
        saved[SAVED_X] = x;
    ATTN_GOTO(attn_record(&batch_norm_op, INPUT_COUNT, inputs, 1, &out, &parameters, saved,
                          SAVED_COUNT));
    *y = attn_tensor_retain(out);
done:
    attn_tensor_release(out);
    attn_tensor_release(added);
    attn_tensor_release(constants);
    attn_tensor_release(mask);
    return status;
}
