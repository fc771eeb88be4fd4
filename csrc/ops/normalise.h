/* Batch norm on bare memory: what batch_norm.c and convolution_norm.c share.
 *
 * y = [relu]((x - mean) / sqrt(var + eps) * weight + bias [+ residual]).
 *
 * Everything goes through constants, five a channel, as (groups, 5, 16): a group is sixteen
 * channels, a lane each, or in the PLAIN layout one channel in all lanes. Instead of mean there are
 * two floats, mean = center + low: x - center is exact where mean is much larger than the
 * deviation.
 *
 * Forward: a pass for the statistics, a pass that normalises, adds and clips. Backward: a pass for
 * the sums, which also leaves the residual's gradient, a pass for dx. Sums: float within a chunk of
 * at most 8192 elements that one shift makes safe (kernels/batch_norm.c), double beyond. Each first
 * pass walks memory backwards: it finds the end of what was just written in the cache, and leaves
 * the start for the second.
 */
#ifndef ATTN_NORMALISE_H
#define ATTN_NORMALISE_H

#include "ops.h"

/* How x is cut; a function of its shape and layout alone. A row is one image's part of a group. A
 * chunk is some images' rows of one group, or, where a row is long, a piece of one. */
typedef struct {
    int64_t N, C, groups, row;
    int channels; /* of a group */
    int64_t chunk_images, pieces, piece, chunks; /* chunks: of one group */
    int64_t spans, span, task_spans; /* for passes without sums: parts of a row, rows a task */
    int64_t mask_words; /* of a row */
} attn_norm_plan;

void attn_norm_plan_make(attn_norm_plan *plan, int ndim, const int64_t *shape, attn_layout layout);

/* Constants of the forward pass, and of the backward pass. The first three are the same. */
enum {
    ATTN_NORM_CENTER, ATTN_NORM_SCALE, ATTN_NORM_OFFSET,
    ATTN_NORM_LOW, ATTN_NORM_INVERSE, /* of the deviation */
    ATTN_NORM_CONSTANTS,
    ATTN_NORM_SLOPE = ATTN_NORM_LOW, ATTN_NORM_REST, /* dx = scale dy + slope (x - center) + rest */
    ATTN_NORM_STEP = ATTN_NORM_CONSTANTS * ATTN_LANES, /* floats from one group to the next */
};

/* Whether parameters, residual and options go with x(shape); `operation` is named in messages. */
attn_status attn_norm_check(const char *operation, int ndim, const int64_t *shape,
                            const attn_norm_parameters *parameters, const attn_tensor *residual,
                            const attn_batch_norm_options *options);

/* *constants = the forward pass's, from x in training (the running values follow), else from the
 * running values. */
attn_status attn_norm_constants(attn_tensor **constants, const attn_norm_plan *plan, const float *x,
                                const attn_norm_parameters *parameters,
                                const attn_batch_norm_options *options);

/* Whether `constants` can be those of x. */
attn_status attn_norm_check_constants(const char *operation, const attn_tensor *x,
                                      const attn_tensor *constants);

/* The mask of a ReLU behind a residual, a bit an element; a ReLU without one needs none, because x
 * and the constants say where it was positive. */
attn_status attn_norm_mask(attn_tensor **mask, const attn_norm_plan *plan);

/* residual and mask may be NULL. */
void attn_norm_apply(const attn_norm_plan *plan, float *y, uint16_t *mask, const float *x,
                     const float *residual, const float *constants, bool relu);

/* The gradient of y, and where it passes: by the mask, or, without one, where relu says so and y
 * was positive. x may be NULL where nothing asks for it: evaluation without the weight's gradient
 * and without relu. */
typedef struct {
    const float *dy, *x;
    const uint16_t *mask;
    bool relu, training;
} attn_norm_gradient;

/* *constants = the backward pass's, from those of the forward pass. dresidual (dy where it passes;
 * with a mask only: without one it is dy itself), dweight and dbias may be NULL. */
attn_status attn_norm_sums(attn_tensor **constants, const attn_norm_plan *plan,
                           const attn_norm_gradient *gradient, const float *forward,
                           float *dresidual, float *dweight, float *dbias);

void attn_norm_backward(const attn_norm_plan *plan, float *dx, const attn_norm_gradient *gradient,
                        const float *constants);

#endif
