/* Batch norm: y = [relu]((x - mean) / sqrt(var + eps) * weight + bias [+ residual]).
 *
 * S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing
 * internal covariate shift", ICML 2015.
 *
 * x, y, residual (N, C, ...); weight, bias, running_mean, running_var (C), each may be NULL.
 * Computed in the layout of x, which y keeps; BLOCKED16 and PLAIN go through the same kernels.
 * Training: mean and biased variance of the batch; the unbiased one enters running_var.
 *
 * Saved: x (unless only the frozen affine map is needed), statistics (4,C) = center, low, inverse
 * standard deviation, scale; the mask of the ReLU, a bit an element. Instead of mean there are two
 * floats, mean = center + low: x - center is exact where mean is much larger than the deviation.
 *
 * Forward: a pass for the statistics, a pass that normalises, adds and clips. Backward: a pass for
 * the sums, a pass for dx and dresidual. Sums: float within a chunk of at most 8192 elements that
 * one shift makes safe (kernels/batch_norm.c), double beyond. Each first pass walks memory
 * backwards: it finds the end of what was just written in the cache, and leaves the start for the
 * second.
 */
#include "../base/memory.h"
#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "ops.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK = 8192,       /* elements behind one set of float sums */
    TASK_CHUNKS = 8,    /* chunks a task */
    TASK_SPAN = 65536,  /* elements a task of a pass without sums */
    CENTER = 0, LOW, INVERSE, SCALE, STATISTICS,
    LANES = ATTN_LANES,
};

/* How x is cut; a function of its shape and layout alone. A row is one image's part of a group: of
 * sixteen channels in BLOCKED16, of one in PLAIN. A chunk is some images' rows of one group, or,
 * where a row is long, a piece of one. */
typedef struct {
    int64_t N, C, groups, row;
    int channels; /* of a group */
    int64_t chunk_images, pieces, piece, chunks; /* chunks: of one group */
    int64_t spans, span, task_spans; /* for passes without sums: parts of a row, rows a task */
    int64_t mask_words; /* of a row */
} bn_plan;

static void make_plan(bn_plan *plan, int ndim, const int64_t *shape, attn_layout layout)
{
    int64_t HW = 1;
    for (int i = 2; i < ndim; i++)
        HW *= shape[i];
    plan->N = HW ? shape[0] : 0;
    plan->C = shape[1];
    plan->channels = layout == ATTN_BLOCKED16 ? LANES : 1;
    plan->groups = plan->C / plan->channels;
    plan->row = attn_max(HW, 1) * plan->channels;
    plan->pieces = attn_ceil_div(plan->row, CHUNK);
    plan->piece = attn_ceil_div(attn_ceil_div(plan->row, plan->pieces), LANES) * LANES;
    plan->pieces = attn_ceil_div(plan->row, plan->piece);
    plan->chunk_images = attn_max(1, CHUNK / plan->row);
    plan->chunks = attn_ceil_div(plan->N, plan->chunk_images) * plan->pieces;
    plan->spans = attn_ceil_div(plan->row, TASK_SPAN);
    plan->span = attn_ceil_div(attn_ceil_div(plan->row, plan->spans), LANES) * LANES;
    plan->task_spans = attn_max(1, TASK_SPAN / plan->row);
    plan->mask_words = attn_ceil_div(plan->row, LANES);
}

/* Everything that the tasks of forward and backward read and write. */
typedef struct {
    bn_plan plan;
    attn_batch_norm_options options;
    const float *x, *dy, *residual, *weight, *bias;
    float *y, *dx, *dresidual, *dweight, *dbias;
    float *running_mean, *running_var;
    uint16_t *mask;
    float *statistics; /* (STATISTICS, C) */
    float *sums;       /* (groups, chunks, 3 or 2, 16) */
    float *constants;  /* (groups, 3 or 4, 16) */
    int quantities;    /* constants a group */
} bn_job;

/* Where chunk i of the walk through memory lies. */
typedef struct {
    int64_t group, chunk, image, images, begin, count;
} bn_chunk;

static bn_chunk chunk_at(const bn_plan *plan, int64_t i)
{
    int64_t piece = i % plan->pieces, rest = i / plan->pieces;
    bn_chunk at = {.group = rest % plan->groups};
    int64_t part = rest / plan->groups;
    at.chunk = part * plan->pieces + piece;
    at.image = part * plan->chunk_images;
    at.images = attn_min(plan->chunk_images, plan->N - at.image);
    at.begin = piece * plan->piece;
    at.count = attn_min(plan->piece, plan->row - at.begin);
    return at;
}

/* Elements that one lane of a chunk has. */
static int64_t lane_count(const bn_chunk *at, int lane)
{
    return at->images * (at->count / LANES + (lane < at->count % LANES));
}

static void sum_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const bn_job *job = context;
    const bn_plan *plan = &job->plan;
    int64_t all = plan->groups * plan->chunks, stride = plan->groups * plan->row;
    int64_t end = all - index * TASK_CHUNKS;
    for (int64_t i = end - 1; i >= attn_max(0, end - TASK_CHUNKS); i--) {
        bn_chunk at = chunk_at(plan, i);
        int64_t row = at.image * plan->groups + at.group;
        int64_t first = row * plan->row + at.begin;
        int64_t slot = at.group * plan->chunks + at.chunk;
        if (!job->dy) {
            attn_kernel->bn_statistics(job->sums + slot * 3 * LANES, job->x + first, at.images,
                                       stride, at.count);
            continue;
        }
        const float *center = job->constants + at.group * job->quantities * LANES;
        const uint16_t *mask = job->mask;
        if (mask)
            mask += row * plan->mask_words + at.begin / LANES;
        attn_kernel->bn_gradient_sums(job->sums + slot * 2 * LANES, job->dy + first,
                                      job->x ? job->x + first : NULL, mask, center, at.images,
                                      stride, plan->groups * plan->mask_words, at.count);
    }
}

static void run_sums(bn_job *job)
{
    int64_t all = job->plan.groups * job->plan.chunks;
    attn_parallel(sum_task, job, attn_ceil_div(all, TASK_CHUNKS));
}

/* Which chunk of the walk is chunk `chunk` of a group. */
static bn_chunk chunk_of_group(const bn_plan *plan, int64_t group, int64_t chunk)
{
    int64_t part = chunk / plan->pieces, piece = chunk % plan->pieces;
    return chunk_at(plan, (part * plan->groups + group) * plan->pieces + piece);
}

/* mean (channels) and square (channels), the sum of squares about it, of one group: first the mean
 * of all chunks, then each chunk's own squares and its mean's distance from it. */
static void combine(double *mean, double *square, const bn_job *job, int64_t group)
{
    const bn_plan *plan = &job->plan;
    const float *sums = job->sums + group * plan->chunks * 3 * LANES;
    double total[LANES] = {0}, squares[LANES] = {0};
    double per_channel = (double)plan->N * (double)(plan->row / plan->channels);
    for (int64_t i = 0; i < plan->chunks; i++, sums += 3 * LANES) {
        bn_chunk at = chunk_of_group(plan, group, i);
        for (int lane = 0; lane < LANES; lane++)
            total[lane] += (double)sums[lane] * (double)lane_count(&at, lane) + sums[LANES + lane];
    }
    for (int lane = plan->channels; lane < LANES; lane++)
        total[0] += total[lane];
    for (int lane = 0; lane < plan->channels; lane++)
        mean[lane] = total[lane] / per_channel;
    sums = job->sums + group * plan->chunks * 3 * LANES;
    for (int64_t i = 0; i < plan->chunks; i++, sums += 3 * LANES) {
        bn_chunk at = chunk_of_group(plan, group, i);
        for (int lane = 0; lane < LANES; lane++) {
            double away = (double)sums[lane] - mean[lane % plan->channels];
            double n = (double)lane_count(&at, lane), sum = sums[LANES + lane];
            /* sum of (shift + d - mean)^2, where d is what the chunk's sums are of */
            squares[lane] += n > 0 ? sums[2 * LANES + lane] + away * (2 * sum + n * away) : 0;
        }
    }
    for (int lane = plan->channels; lane < LANES; lane++)
        squares[0] += squares[lane];
    for (int lane = 0; lane < plan->channels; lane++)
        square[lane] = squares[lane] > 0 || squares[lane] != squares[lane] ? squares[lane] : 0;
}

/* Constants of a group: the channel's own value in each lane. */
static void set_constant(const bn_job *job, int64_t group, int which, int lane, double value)
{
    float *constant = job->constants + (group * job->quantities + which) * LANES;
    if (job->plan.channels == LANES)
        constant[lane] = (float)value;
    else
        for (int i = 0; i < LANES; i++)
            constant[i] = (float)value;
}

/* One group: its statistics, its running values, and the constants of the next pass. */
static void statistics_task(void *context, int64_t group, int worker)
{
    (void)worker;
    const bn_job *job = context;
    const bn_plan *plan = &job->plan;
    double batch_mean[LANES], square[LANES], momentum = job->options.momentum;
    double n = (double)plan->N * (double)(plan->row / plan->channels);
    if (job->options.training)
        combine(batch_mean, square, job, group);
    for (int lane = 0; lane < plan->channels; lane++) {
        int64_t c = group * plan->channels + lane;
        double mean, var;
        if (job->options.training) {
            mean = batch_mean[lane];
            var = square[lane] / n;
            if (job->running_mean)
                job->running_mean[c] =
                    (float)((1 - momentum) * job->running_mean[c] + momentum * mean);
            if (job->running_var)
                job->running_var[c] = (float)((1 - momentum) * job->running_var[c] +
                                              momentum * square[lane] / (n - 1));
        } else {
            mean = job->running_mean[c];
            var = job->running_var[c];
        }
        double inverse = 1 / sqrt(var + (double)job->options.eps);
        double scale = inverse * (job->weight ? job->weight[c] : 1.0f);
        float center = (float)mean;
        double low = isfinite(mean) ? mean - center : 0;
        float *statistics = job->statistics + c;
        statistics[CENTER * plan->C] = center;
        statistics[LOW * plan->C] = (float)low;
        statistics[INVERSE * plan->C] = (float)inverse;
        statistics[SCALE * plan->C] = (float)scale;
        set_constant(job, group, 0, lane, center);
        set_constant(job, group, 1, lane, scale);
        set_constant(job, group, 2, lane, (job->bias ? job->bias[c] : 0.0f) - low * scale);
    }
}

/* Rows (or parts of long ones) of a pass without sums. */
static void span_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const bn_job *job = context;
    const bn_plan *plan = &job->plan;
    int64_t all = plan->N * plan->groups * plan->spans, begin = index * plan->task_spans;
    bool stream = plan->channels == LANES &&
                  plan->N * plan->groups * plan->row * (int64_t)sizeof(float) >= ATTN_STREAM_BYTES;
    for (int64_t i = begin; i < attn_min(all, begin + plan->task_spans); i++) {
        int64_t row = i / plan->spans, part = i % plan->spans * plan->span;
        int64_t at = row * plan->row + part, count = attn_min(plan->span, plan->row - part);
        const float *constants = job->constants + row % plan->groups * job->quantities * LANES;
        uint16_t *mask =
            job->mask ? job->mask + row * plan->mask_words + part / LANES : NULL;
        const float *x = job->x ? job->x + at : NULL;
        if (job->dy)
            attn_kernel->bn_gradient(job->dx + at, job->dresidual ? job->dresidual + at : NULL,
                                     job->dy + at, x, mask, constants, count, stream);
        else
            attn_kernel->bn_apply(job->y + at, mask, x, job->residual ? job->residual + at : NULL,
                                  constants, job->options.relu, count, stream);
    }
}

static void run_spans(bn_job *job)
{
    int64_t all = job->plan.N * job->plan.groups * job->plan.spans;
    attn_parallel(span_task, job, attn_ceil_div(all, job->plan.task_spans));
}

/* The workspace of a job: `per_chunk` floats a lane for sums, `quantities` constants a group. */
static attn_status get_workspace(bn_job *job, int per_chunk, int quantities)
{
    int64_t constants = job->plan.groups * quantities * LANES;
    int64_t sums = job->plan.groups * job->plan.chunks * per_chunk * LANES;
    ATTN_TRY(attn_alloc((void **)&job->constants, (size_t)(constants + sums) * sizeof(float)));
    job->sums = job->constants + constants;
    job->quantities = quantities;
    return ATTN_OK;
}

typedef struct {
    attn_layout layout; /* of x, y, dx */
    bool training;
} bn_parameters;

enum { SAVED_X, SAVED_STATISTICS, SAVED_MASK, SAVED_COUNT };
enum { INPUT_X, INPUT_WEIGHT, INPUT_BIAS, INPUT_RESIDUAL, INPUT_COUNT };

/* The gradients of weight and bias, and the constants of dx. */
static void finish_sums_task(void *context, int64_t group, int worker)
{
    (void)worker;
    const bn_job *job = context;
    const bn_plan *plan = &job->plan;
    const float *sums = job->sums + group * plan->chunks * 2 * LANES;
    double sum[LANES] = {0}, product[LANES] = {0};
    for (int64_t i = 0; i < plan->chunks; i++, sums += 2 * LANES) {
        for (int lane = 0; lane < LANES; lane++) {
            sum[lane] += sums[lane];
            product[lane] += sums[LANES + lane];
        }
    }
    for (int lane = plan->channels; lane < LANES; lane++) {
        sum[0] += sum[lane];
        product[0] += product[lane];
    }
    double n = (double)plan->N * (double)(plan->row / plan->channels);
    for (int lane = 0; lane < plan->channels; lane++) {
        int64_t c = group * plan->channels + lane;
        const float *statistics = job->statistics + c;
        double low = statistics[LOW * plan->C], inverse = statistics[INVERSE * plan->C];
        double scale = statistics[SCALE * plan->C];
        product[lane] -= low * sum[lane]; /* now of dy * (x - mean) */
        if (job->dweight)
            job->dweight[c] = (float)(product[lane] * inverse);
        if (job->dbias)
            job->dbias[c] = (float)sum[lane];
        if (!job->options.training)
            continue;
        double slope = -scale * inverse * inverse * product[lane] / n;
        set_constant(job, group, 2, lane, slope);
        set_constant(job, group, 3, lane, -scale * sum[lane] / n - slope * low);
    }
}

/* dx = scale * (dy - mean(dy) - (x - mean) / var * mean(dy (x - mean))), or scale * dy in eval. */
static attn_status run_backward(bn_job *job, bool wants_sums)
{
    ATTN_TRY(get_workspace(job, 2, 4));
    const bn_plan *plan = &job->plan;
    for (int64_t c = 0; c < plan->C; c++) {
        int64_t group = c / plan->channels;
        int lane = (int)(c % plan->channels);
        set_constant(job, group, 0, lane, job->statistics[CENTER * plan->C + c]);
        set_constant(job, group, 1, lane, job->statistics[SCALE * plan->C + c]);
    }
    if (wants_sums) {
        run_sums(job);
        attn_parallel(finish_sums_task, job, plan->groups);
    }
    if (!job->options.training)
        job->x = NULL;
    if (job->dx)
        run_spans(job);
    attn_free(job->constants);
    return ATTN_OK;
}

static attn_status batch_norm_backward(attn_node *node, attn_tensor *const *gradients,
                                       attn_tensor **dx)
{
    const bn_parameters *parameters = node->parameters;
    const attn_tensor *x = node->saved[SAVED_X], *mask = node->saved[SAVED_MASK];
    const attn_tensor *statistics = node->saved[SAVED_STATISTICS];
    attn_tensor *dy;
    ATTN_TRY(attn_tensor_as(&dy, gradients[0], parameters->layout));
    bn_job job = {
        .options.training = parameters->training,
        .dy = attn_data(dy),
        .x = x ? attn_data(x) : NULL,
        .mask = mask ? (uint16_t *)attn_data(mask) : NULL,
        .statistics = attn_data(statistics),
    };
    make_plan(&job.plan, dy->ndim, dy->shape, parameters->layout);
    attn_status status = ATTN_OK;
    bool wants_x = attn_node_wants(node, INPUT_X);
    bool wants_weight = attn_node_wants(node, INPUT_WEIGHT);
    bool wants_bias = attn_node_wants(node, INPUT_BIAS);
    bool wants_residual = attn_node_wants(node, INPUT_RESIDUAL);
    /* The residual's gradient is the masked dy; the pass over dx writes it on its way. */
    if (wants_x || (wants_residual && mask)) {
        ATTN_GOTO(attn_tensor_empty(&dx[INPUT_X], dy->ndim, dy->shape, parameters->layout));
        job.dx = attn_data(dx[INPUT_X]);
    }
    if (wants_residual && !mask)
        dx[INPUT_RESIDUAL] = attn_tensor_retain(dy);
    if (wants_residual && mask) {
        ATTN_GOTO(attn_tensor_empty(&dx[INPUT_RESIDUAL], dy->ndim, dy->shape, parameters->layout));
        job.dresidual = attn_data(dx[INPUT_RESIDUAL]);
    }
    if (wants_weight) {
        ATTN_GOTO(attn_tensor_empty(&dx[INPUT_WEIGHT], 1, &job.plan.C, ATTN_PLAIN));
        job.dweight = attn_data(dx[INPUT_WEIGHT]);
    }
    if (wants_bias) {
        ATTN_GOTO(attn_tensor_empty(&dx[INPUT_BIAS], 1, &job.plan.C, ATTN_PLAIN));
        job.dbias = attn_data(dx[INPUT_BIAS]);
    }
    status = run_backward(&job, wants_weight || wants_bias || (wants_x && parameters->training));
done:
    attn_tensor_release(dy);
    return status;
}

static const attn_operation batch_norm_op = {"batch_norm", batch_norm_backward,
                                             sizeof(bn_parameters)};

static attn_status check_vector(const attn_tensor *v, const char *name, int64_t C)
{
    char got[160];
    if (v && (v->ndim != 1 || v->shape[0] != C))
        return attn_fail(ATTN_BAD_VALUE, "batch_norm: %s has shape %s, expected (%lld,), one value "
                         "a channel of x", name, attn_shape_text(got, v->ndim, v->shape),
                         (long long)C);
    return ATTN_OK;
}

static attn_status check(const attn_tensor *x, const attn_tensor *weight, const attn_tensor *bias,
                         const attn_tensor *running_mean, const attn_tensor *running_var,
                         const attn_tensor *residual, const attn_batch_norm_options *options)
{
    char got[160], wanted[160];
    if (x->ndim < 2)
        return attn_fail(ATTN_BAD_VALUE, "batch_norm: x has shape %s, expected (N, C, ...)",
                         attn_shape_text(got, x->ndim, x->shape));
    int64_t C = x->shape[1];
    ATTN_TRY(check_vector(weight, "weight", C));
    ATTN_TRY(check_vector(bias, "bias", C));
    ATTN_TRY(check_vector(running_mean, "running_mean", C));
    ATTN_TRY(check_vector(running_var, "running_var", C));
    if (residual && !attn_same_shape(residual, x))
        return attn_fail(ATTN_BAD_VALUE, "batch_norm: residual has shape %s, expected that of x, "
                         "%s", attn_shape_text(got, residual->ndim, residual->shape),
                         attn_shape_text(wanted, x->ndim, x->shape));
    if (!options->training && (!running_mean || !running_var))
        return attn_fail(ATTN_BAD_VALUE, "batch_norm: %s is None, expected a tensor of shape "
                         "(%lld,): with training=False the running statistics normalise",
                         running_mean ? "running_var" : "running_mean", (long long)C);
    if (!(options->eps >= 0) || !isfinite(options->momentum))
        return attn_fail(ATTN_BAD_VALUE, "batch_norm: eps is %g and momentum %g, expected eps >= 0 "
                         "and a finite momentum", (double)options->eps, (double)options->momentum);
    if (options->training && C > 0 && x->size / C <= 1)
        return attn_fail(ATTN_BAD_VALUE, "batch_norm: expected more than 1 value per channel when "
                         "training, got x of shape %s", attn_shape_text(got, x->ndim, x->shape));
    return ATTN_OK;
}

attn_status attn_batch_norm(attn_tensor **y, attn_tensor *x, attn_tensor *weight, attn_tensor *bias,
                            attn_tensor *running_mean, attn_tensor *running_var,
                            attn_tensor *residual, const attn_batch_norm_options *options)
{
    ATTN_TRY(check(x, weight, bias, running_mean, running_var, residual, options));
    attn_tensor *inputs[INPUT_COUNT] = {x, weight, bias, residual};
    bool needs_grad = attn_needs_grad(INPUT_COUNT, inputs);
    attn_tensor *out = NULL, *added = NULL, *statistics = NULL, *mask = NULL;
    bn_job job = {.options = *options, .x = attn_data(x)};
    attn_status status = ATTN_OK;
    make_plan(&job.plan, x->ndim, x->shape, x->layout);
    ATTN_GOTO(attn_tensor_empty_like(&out, x));
    ATTN_GOTO(attn_tensor_empty(&statistics, 2, (int64_t[]){STATISTICS, job.plan.C}, ATTN_PLAIN));
    if (residual)
        ATTN_GOTO(attn_tensor_as(&added, residual, x->layout));
    if (options->relu && needs_grad) {
        int64_t words = job.plan.N * job.plan.groups * job.plan.mask_words; /* two a float */
        ATTN_GOTO(attn_tensor_empty(&mask, 1, (int64_t[]){attn_ceil_div(words, 2)}, ATTN_PLAIN));
        job.mask = (uint16_t *)attn_data(mask);
    }
    job.y = attn_data(out);
    job.statistics = attn_data(statistics);
    job.residual = added ? attn_data(added) : NULL;
    job.weight = weight ? attn_data(weight) : NULL;
    job.bias = bias ? attn_data(bias) : NULL;
    job.running_mean = running_mean ? attn_data(running_mean) : NULL;
    job.running_var = running_var ? attn_data(running_var) : NULL;
    ATTN_GOTO(get_workspace(&job, 3, 3));
    if (options->training)
        run_sums(&job);
    attn_parallel(statistics_task, &job, job.plan.groups);
    run_spans(&job);
    attn_free(job.constants);
    if (options->training && running_mean)
        attn_tensor_touch(running_mean);
    if (options->training && running_var)
        attn_tensor_touch(running_var);
    bn_parameters parameters = {x->layout, options->training};
    attn_tensor *saved[SAVED_COUNT] = {NULL, statistics, mask};
    if (options->training || (weight && weight->variable))
        saved[SAVED_X] = x;
    ATTN_GOTO(attn_record(&batch_norm_op, INPUT_COUNT, inputs, 1, &out, &parameters, saved,
                          SAVED_COUNT));
    *y = out;
    out = NULL;
done:
    attn_tensor_release(out);
    attn_tensor_release(added);
    attn_tensor_release(statistics);
    attn_tensor_release(mask);
    return status;
}
