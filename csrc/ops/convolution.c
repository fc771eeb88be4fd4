/* Convolution: y[n,k,p,q] = bias[k] + the sum over c, r, s of
 *   x[n, c, p * stride - padding + r, q * stride - padding + s] weight[k, c, r, s].
 *
 *   x(N,C,H,W), weight(K,C/groups,R,S), bias(K) or NULL; P = (H + 2 padding - R) / stride + 1.
 *   Layouts: as the plan's engine wants them (conv/plan.h); weights are row-major.
 *   Saved: x in the engine's layout (only where the weight's gradient is wanted), weight (only
 *   where x's is).
 *   All gradients are overwritten, each computed only where it is wanted.
 */
#include "../base/threads.h"
#include "../conv/kept.h"
#include "convolution.h"
#include "../kernels/kernels.h"

#include <string.h>

enum { INPUT, WEIGHT, BIAS };

attn_status attn_convolution_plan(attn_conv_plan *plan, const attn_tensor *x,
                                  const attn_tensor *weight, const attn_tensor *bias, bool keep,
                                  const attn_convolution_options *options)
{
    char text[160];
    attn_conv_shape shape;
    ATTN_TRY(attn_conv_shape_find(&shape, x->ndim, x->shape, weight->ndim, weight->shape, options));
    if (bias && (bias->ndim != 1 || bias->shape[0] != shape.K))
        return attn_fail(ATTN_BAD_VALUE, "conv2d: bias has shape %s, expected (%lld,)",
                         attn_shape_text(text, bias->ndim, bias->shape), (long long)shape.K);
    attn_conv_plan_make(plan, &shape, keep);
    return ATTN_OK;
}

static attn_status check_residual(const attn_tensor *residual, const attn_conv_shape *s)
{
    char got[160], wanted[160];
    const int64_t shape[] = {s->N, s->K, s->P, s->Q};
    if (residual &&
        (residual->ndim != 4 || memcmp(residual->shape, shape, sizeof shape) != 0))
        return attn_fail(ATTN_BAD_VALUE, "conv2d: residual has shape %s, expected %s",
                         attn_shape_text(got, residual->ndim, residual->shape),
                         attn_shape_text(wanted, 4, shape));
    return ATTN_OK;
}

/* *y = the convolution, *used = x in the layout in which it was read: new references. The weights
 * are in the plan's form. */
static attn_status run_forward(attn_tensor **y, attn_tensor **used, const attn_conv_plan *plan,
                               attn_tensor *x, const float *weight, attn_tensor *bias,
                               attn_tensor *residual, bool relu)
{
    const attn_conv_shape *s = &plan->shape;
    const attn_conv_engine *engine = plan->engine;
    attn_tensor *out = NULL, *in = NULL, *added = NULL;
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_as(&in, x, engine->layout_x));
    if (residual)
        ATTN_GOTO(attn_tensor_as(&added, residual, engine->layout_y));
    ATTN_GOTO(attn_tensor_empty(&out, 4, (int64_t[]){s->N, s->K, s->P, s->Q}, engine->layout_y));
    attn_finish finish = {.bias = bias ? attn_data(bias) : NULL,
                          .residual = added ? attn_data(added) : NULL, .relu = relu};
    const attn_conv_input input = {attn_data(in), NULL};
    ATTN_GOTO(attn_conv_forward(plan, attn_data(out), &input, weight, &finish));
    *y = attn_tensor_retain(out);
    *used = attn_tensor_retain(in);
done:
    attn_tensor_release(out);
    attn_tensor_release(added);
    attn_tensor_release(in);
    return status;
}

/* dbias(K) = dy summed over images and pixels: one task a block of 16 channels (or one channel), so
 * that the order of the sum is always the same. */
typedef struct {
    float *dbias;
    const float *dy;
    int64_t N, K, pixels;
} bias_job;

static void bias_blocked(void *context, int64_t block, int worker)
{
    (void)worker;
    const bias_job *j = context;
    attn_kernel->sum_rows(j->dbias + block * ATTN_LANES, j->dy + block * j->pixels * ATTN_LANES,
                          j->K * j->pixels, j->N, j->pixels);
}

static void bias_plain(void *context, int64_t k, int worker)
{
    (void)worker;
    const bias_job *j = context;
    double sum = 0.0;
    for (int64_t n = 0; n < j->N; n++) {
        const float *plane = j->dy + (n * j->K + k) * j->pixels;
        for (int64_t i = 0; i < j->pixels; i++)
            sum += plane[i];
    }
    j->dbias[k] = (float)sum;
}

static attn_status bias_gradient(attn_tensor **dbias, const attn_conv_shape *s,
                                 const attn_tensor *dy)
{
    ATTN_TRY(attn_tensor_empty(dbias, 1, &s->K, ATTN_PLAIN));
    bias_job job = {attn_data(*dbias), attn_data(dy), s->N, s->K, s->P * s->Q};
    if (dy->layout == ATTN_BLOCKED16)
        attn_parallel(bias_blocked, &job, s->K / ATTN_LANES);
    else
        attn_parallel(bias_plain, &job, s->K);
    return ATTN_OK;
}

static attn_status convolution_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const attn_conv_plan *plan = node->parameters;
    const attn_conv_shape *s = &plan->shape;
    attn_tensor *x = node->saved[INPUT], *weight = node->saved[WEIGHT], *gradient = NULL;
    ATTN_TRY(attn_tensor_as(&gradient, dy[0], plan->engine->layout_y));
    attn_status status = ATTN_OK;
    if (attn_node_wants(node, BIAS))
        ATTN_GOTO(bias_gradient(&dx[BIAS], s, gradient));
    attn_conv_gradients operands = {.dy = attn_data(gradient)};
    if (attn_node_wants(node, INPUT)) {
        ATTN_GOTO(attn_tensor_empty(&dx[INPUT], 4, (int64_t[]){s->N, s->C, s->H, s->W},
                                    plan->engine->layout_x));
        operands.dx = attn_data(dx[INPUT]);
        operands.weight = attn_data(weight);
    }
    if (attn_node_wants(node, WEIGHT)) {
        ATTN_GOTO(attn_tensor_empty(&dx[WEIGHT], 4,
                                    (int64_t[]){s->K, s->C / s->groups, s->R, s->S}, ATTN_PLAIN));
        operands.dweight = attn_data(dx[WEIGHT]);
        operands.x.data = attn_data(x);
    }
    if (operands.dx || operands.dweight)
        ATTN_GOTO(attn_conv_backward(plan, &operands));
done:
    attn_tensor_release(gradient);
    return status;
}

/* The plan itself is the node's parameters: the backward runs as it was laid out. */
static const attn_operation convolution_op = {
    "conv2d", convolution_backward, sizeof(attn_conv_plan),
};

attn_status attn_convolution(attn_tensor **y, attn_tensor *x, attn_tensor *weight,
                             attn_tensor *bias, const attn_convolution_options *options)
{
    attn_conv_plan plan;
    ATTN_TRY(attn_convolution_plan(&plan, x, weight, bias, false, options));
    attn_tensor *out = NULL, *in = NULL, *weights = NULL;
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_as_plain(&weights, weight));
    ATTN_GOTO(run_forward(&out, &in, &plan, x, attn_data(weights), bias, NULL, false));
    attn_tensor *inputs[] = {[INPUT] = x, [WEIGHT] = weight, [BIAS] = bias};
    attn_tensor *saved[] = {[INPUT] = attn_wanted(weight) ? in : NULL,
                            [WEIGHT] = attn_wanted(x) ? weights : NULL};
    ATTN_GOTO(attn_record(&convolution_op, 3, inputs, 1, &out, &plan, saved, 2));
    *y = attn_tensor_retain(out);
done:
    attn_tensor_release(in);
    attn_tensor_release(weights);
    attn_tensor_release(out);
    return status;
}

attn_status attn_convolution_fused(attn_tensor **y, attn_tensor *x, attn_tensor *weight,
                                   attn_tensor *bias, attn_tensor *residual, bool relu,
                                   const attn_convolution_options *options)
{
    attn_conv_plan plan;
    ATTN_TRY(attn_convolution_plan(&plan, x, weight, bias, false, options));
    ATTN_TRY(check_residual(residual, &plan.shape));
    attn_tensor *in = NULL, *weights = NULL;
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_as_plain(&weights, weight));
    ATTN_GOTO(run_forward(y, &in, &plan, x, attn_data(weights), bias, residual, relu));
done:
    attn_tensor_release(in);
    attn_tensor_release(weights);
    return status;
}

attn_status attn_convolution_kept(attn_tensor **y, attn_tensor *x, attn_conv_kept *weight,
                                  attn_tensor *bias, attn_tensor *residual, bool relu,
                                  const attn_convolution_options *options)
{
    attn_conv_plan plan;
    ATTN_TRY(attn_convolution_plan(&plan, x, attn_conv_kept_weight(weight), bias, true, options));
    ATTN_TRY(check_residual(residual, &plan.shape));
    attn_tensor *in;
    const float *form;
    ATTN_TRY(attn_conv_kept_form(&form, weight, &plan));
    ATTN_TRY(run_forward(y, &in, &plan, x, form, bias, residual, relu));
    attn_tensor_release(in);
    return ATTN_OK;
}
