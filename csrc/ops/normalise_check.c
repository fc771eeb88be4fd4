/* What batch norms refuse. */
#include "normalise.h"

#include "../base/peers.h"

#include <math.h>
#include <string.h>

static attn_status check_vector(const char *operation, const attn_tensor *v, const char *name,
                                int64_t C)
{
    char got[160];
    if (v && (v->ndim != 1 || v->shape[0] != C))
        return attn_fail(ATTN_BAD_VALUE, "%s: %s has shape %s, expected (%lld,), one value a "
                         "channel of x", operation, name,
                         attn_shape_text(got, v->ndim, v->shape), (long long)C);
    return ATTN_OK;
}

attn_status attn_norm_check(const char *operation, int ndim, const int64_t *shape,
                            const attn_norm_parameters *parameters, const attn_tensor *residual,
                            const attn_batch_norm_options *options)
{
    char got[160], wanted[160];
    if (ndim < 2)
        return attn_fail(ATTN_BAD_VALUE, "%s: x has shape %s, expected (N, C, ...)", operation,
                         attn_shape_text(got, ndim, shape));
    int64_t C = shape[1], size = 1;
    for (int i = 0; i < ndim; i++)
        size *= shape[i];
    const attn_tensor *mean = parameters->running_mean, *var = parameters->running_var;
    ATTN_TRY(check_vector(operation, parameters->weight, "weight", C));
    ATTN_TRY(check_vector(operation, parameters->bias, "bias", C));
    ATTN_TRY(check_vector(operation, mean, "running_mean", C));
    ATTN_TRY(check_vector(operation, var, "running_var", C));
    if (residual && (residual->ndim != ndim ||
                     memcmp(residual->shape, shape, (size_t)ndim * sizeof *shape) != 0))
        return attn_fail(ATTN_BAD_VALUE, "%s: residual has shape %s, expected that of x, %s",
                         operation, attn_shape_text(got, residual->ndim, residual->shape),
                         attn_shape_text(wanted, ndim, shape));
    if (!options->training && (!mean || !var))
        return attn_fail(ATTN_BAD_VALUE, "%s: %s is None, expected a tensor of shape (%lld,): with "
                         "training=False the running statistics normalise", operation,
                         mean ? "running_var" : "running_mean", (long long)C);
    if (!(options->eps >= 0) || !isfinite(options->momentum))
        return attn_fail(ATTN_BAD_VALUE, "%s: eps is %g and momentum %g, expected eps >= 0 and a "
                         "finite momentum", operation, (double)options->eps,
                         (double)options->momentum);
    /* Where others have a part of the batch, join_statistics looks at the whole. */
    if (options->training && C > 0 && size / C <= 1 && !attn_get_peers())
        return attn_fail(ATTN_BAD_VALUE, "%s: expected more than 1 value per channel when "
                         "training, got x of shape %s", operation,
                         attn_shape_text(got, ndim, shape));
    return ATTN_OK;
}

attn_status attn_norm_check_constants(const char *operation, const attn_tensor *x,
                                      const attn_tensor *constants)
{
    attn_norm_plan plan;
    char got[160];
    if (x->ndim >= 2) {
        attn_norm_plan_make(&plan, x->ndim, x->shape, x->layout);
        if (constants->ndim == 3 && constants->layout == ATTN_PLAIN &&
            constants->shape[0] == plan.groups && constants->shape[1] == ATTN_NORM_CONSTANTS &&
            constants->shape[2] == ATTN_LANES)
            return ATTN_OK;
    }
    return attn_fail(ATTN_BAD_VALUE, "%s: constants of shape %s, expected those that came with x",
                     operation, attn_shape_text(got, constants->ndim, constants->shape));
}
