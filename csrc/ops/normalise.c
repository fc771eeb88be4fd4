#include "normalise.h"

#include "../base/memory.h"
#include "../base/peers.h"
#include "../base/threads.h"
#include "../kernels/kernels.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK = 8192,       /* elements behind one set of float sums */
    TASK_CHUNKS = 8,    /* chunks a task */
    TASK_SPAN = 65536,  /* elements a task of a pass without sums */
    LANES = ATTN_LANES,
};

void attn_norm_plan_make(attn_norm_plan *plan, int ndim, const int64_t *shape, attn_layout layout)
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

typedef struct job job;

/* Two numbers of each channel of a group. */
typedef void (*quantities_function)(double *first, double *second, const job *j, int64_t group);

/* Everything that the tasks of one pass read and write. */
struct job {
    const attn_norm_plan *plan;
    attn_batch_norm_options options;
    attn_norm_gradient gradient; /* backward */
    const float *x, *residual, *forward;
    float *y, *dx, *dresidual, *dweight, *dbias;
    const float *weight, *bias;
    float *running_mean, *running_var;
    uint16_t *mask;
    float *sums;      /* (groups, chunks, 3 or 2, 16) */
    float *constants; /* (groups, 5, 16) */
    double count;     /* of values a channel */
    /* Where several processes share the batch (base/peers.h), each (C, 2): this one's mean and
     * squares, or sums of the gradient; the same of all of them; else NULL. */
    double *own, *whole;
    quantities_function quantities; /* what own is made of */
};

/* Larger tensors than the caches hold are written past them. */
static bool past_caches(const attn_norm_plan *plan)
{
    return plan->channels == LANES &&
           plan->N * plan->groups * plan->row * (int64_t)sizeof(float) >= ATTN_STREAM_BYTES;
}

/* The value of a constant in each lane of a channel: its own, or all of the group. */
static void set_constant(const attn_norm_plan *plan, float *constants, int which, int64_t channel,
                         double value)
{
    float *lanes = constants + channel / plan->channels * ATTN_NORM_STEP + which * LANES;
    if (plan->channels == LANES)
        lanes[channel % LANES] = (float)value;
    else
        for (int i = 0; i < LANES; i++)
            lanes[i] = (float)value;
}

static float get_constant(const attn_norm_plan *plan, const float *constants, int which,
                          int64_t channel)
{
    return constants[channel / plan->channels * ATTN_NORM_STEP + which * LANES +
                     channel % plan->channels];
}

/* Sums --------------------------------------------------------------------------------------- */

/* Where chunk i of the walk through memory lies. */
typedef struct {
    int64_t group, chunk, image, images, begin, count;
} chunk_place;

static chunk_place chunk_at(const attn_norm_plan *plan, int64_t i)
{
    int64_t piece = i % plan->pieces, rest = i / plan->pieces;
    chunk_place at = {.group = rest % plan->groups};
    int64_t part = rest / plan->groups;
    at.chunk = part * plan->pieces + piece;
    at.image = part * plan->chunk_images;
    at.images = attn_min(plan->chunk_images, plan->N - at.image);
    at.begin = piece * plan->piece;
    at.count = attn_min(plan->piece, plan->row - at.begin);
    return at;
}

/* Elements that one lane of a chunk has. */
static int64_t lane_count(const chunk_place *at, int lane)
{
    return at->images * (at->count / LANES + (lane < at->count % LANES));
}

static void sum_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const job *j = context;
    const attn_norm_plan *plan = j->plan;
    const attn_norm_gradient *g = &j->gradient;
    int64_t all = plan->groups * plan->chunks, stride = plan->groups * plan->row;
    int64_t end = all - index * TASK_CHUNKS;
    bool stream = past_caches(plan);
    for (int64_t i = end - 1; i >= attn_max(0, end - TASK_CHUNKS); i--) {
        chunk_place at = chunk_at(plan, i);
        int64_t row = at.image * plan->groups + at.group;
        int64_t first = row * plan->row + at.begin;
        int64_t slot = at.group * plan->chunks + at.chunk;
        if (!g->dy)
            attn_kernel->bn_statistics(j->sums + slot * 3 * LANES, j->x + first, at.images, stride,
                                       at.count);
        else
            attn_kernel->bn_gradient_sums(
                j->sums + slot * 2 * LANES, j->dresidual ? j->dresidual + first : NULL,
                g->dy + first, g->x ? g->x + first : NULL,
                g->mask ? g->mask + row * plan->mask_words + at.begin / LANES : NULL,
                j->forward + at.group * ATTN_NORM_STEP, g->relu, at.images, stride,
                plan->groups * plan->mask_words, at.count, stream);
    }
}

static double values_a_channel(const attn_norm_plan *plan)
{
    int64_t places = plan->row / plan->channels; /* divides */
    return (double)plan->N * (double)places;
}

/* What turns the sums of this process into those of all: fills j->own, j->whole and j->count. */
typedef attn_status (*join_function)(job *j);

/* Runs `finish` for each group over `quantities` sums a lane and chunk; `join` before it where
 * others have a part of the batch. */
static attn_status run_sums(job *j, int quantities, join_function join, attn_task finish)
{
    const attn_norm_plan *plan = j->plan;
    int64_t chunks = plan->groups * plan->chunks;
    size_t bytes = (size_t)(chunks * quantities * LANES) * sizeof(float);
    attn_status status = ATTN_OK;
    j->count = values_a_channel(plan);
    ATTN_TRY(attn_alloc((void **)&j->sums, bytes));
    attn_parallel(sum_task, j, attn_ceil_div(chunks, TASK_CHUNKS));
    if (join && attn_get_peers())
        ATTN_GOTO(join(j));
    attn_parallel(finish, j, plan->groups);
done:
    attn_free(j->own);
    attn_free(j->sums);
    return status;
}

static void own_task(void *context, int64_t group, int worker)
{
    (void)worker;
    const job *j = context;
    double first[LANES], second[LANES], *own = j->own + 1 + group * j->plan->channels * 2;
    j->quantities(first, second, j, group);
    for (int lane = 0; lane < j->plan->channels; lane++) {
        own[2 * lane] = first[lane];
        own[2 * lane + 1] = second[lane];
    }
}

/* Room for j->own and j->whole, each behind a count, {count, (C, 2)}; j->own is filled in. */
static attn_status open_join(job *j, quantities_function quantities)
{
    int64_t size = 1 + 2 * j->plan->C;
    ATTN_TRY(attn_alloc((void **)&j->own, (size_t)(2 * size) * sizeof(double)));
    j->whole = j->own + size;
    j->own[0] = j->count;
    j->quantities = quantities;
    attn_parallel(own_task, j, j->plan->groups);
    return ATTN_OK;
}

/* Forward ------------------------------------------------------------------------------------ */

/* Which chunk of the walk is chunk `chunk` of a group. */
static chunk_place chunk_of_group(const attn_norm_plan *plan, int64_t group, int64_t chunk)
{
    int64_t part = chunk / plan->pieces, piece = chunk % plan->pieces;
    return chunk_at(plan, (part * plan->groups + group) * plan->pieces + piece);
}

/* mean (channels) and square (channels), the sum of squares about it, of one group: first the mean
 * of all chunks, then each chunk's own squares and its mean's distance from it. */
static void combine(double *mean, double *square, const job *j, int64_t group)
{
    const attn_norm_plan *plan = j->plan;
    const float *sums = j->sums + group * plan->chunks * 3 * LANES;
    double total[LANES] = {0}, squares[LANES] = {0};
    double per_channel = values_a_channel(plan);
    for (int64_t i = 0; i < plan->chunks; i++, sums += 3 * LANES) {
        chunk_place at = chunk_of_group(plan, group, i);
        for (int lane = 0; lane < LANES; lane++)
            total[lane] += (double)sums[lane] * (double)lane_count(&at, lane) + sums[LANES + lane];
    }
    for (int lane = plan->channels; lane < LANES; lane++)
        total[0] += total[lane];
    for (int lane = 0; lane < plan->channels; lane++)
        mean[lane] = total[lane] / per_channel;
    sums = j->sums + group * plan->chunks * 3 * LANES;
    for (int64_t i = 0; i < plan->chunks; i++, sums += 3 * LANES) {
        chunk_place at = chunk_of_group(plan, group, i);
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

/* The statistics of the whole batch, from those of each process's part: as `combine` does it, the
 * mean of all first, then each one's own squares and its mean's distance from it. */
static attn_status join_statistics(job *j)
{
    int64_t ranks = attn_get_peers()->ranks, C = j->plan->C, size = 1 + 2 * C;
    double *all;
    ATTN_TRY(open_join(j, combine));
    if (attn_get_peers()->images == 0)
        j->own[0] = 0;
    ATTN_TRY(attn_peers_collect(&all, j->own, size));
    memset(j->whole, 0, (size_t)size * sizeof *j->whole);
    for (int64_t rank = 0; rank < ranks; rank++)
        j->whole[0] += all[rank * size];
    j->count = j->whole[0];
    for (int64_t at = 1; at < size; at += 2) {
        double mean = 0, square = 0;
        for (int64_t rank = 0; rank < ranks; rank++)
            if (all[rank * size] > 0)
                mean += all[rank * size] / j->count * all[rank * size + at];
        for (int64_t rank = 0; rank < ranks; rank++) {
            double away = all[rank * size + at] - mean;
            if (all[rank * size] > 0)
                square += all[rank * size + at + 1] + all[rank * size] * away * away;
        }
        j->whole[at] = mean;
        j->whole[at + 1] = square;
    }
    attn_free(all);
    if (!(j->count > 1))
        return attn_fail(ATTN_BAD_VALUE, "batch_norm: expected more than 1 value per channel when "
                         "training, got %g in the whole batch", j->count);
    return ATTN_OK;
}

static void take_statistics(double *mean, double *square, const job *j, int64_t group)
{
    if (!j->whole) {
        combine(mean, square, j, group);
        return;
    }
    const double *whole = j->whole + 1 + group * j->plan->channels * 2;
    for (int lane = 0; lane < j->plan->channels; lane++) {
        mean[lane] = whole[2 * lane];
        square[lane] = whole[2 * lane + 1];
    }
}

/* One group: its statistics, its running values, and its constants. */
static void statistics_task(void *context, int64_t group, int worker)
{
    (void)worker;
    const job *j = context;
    const attn_norm_plan *plan = j->plan;
    double batch_mean[LANES], square[LANES], momentum = j->options.momentum;
    double n = j->count;
    if (j->options.training)
        take_statistics(batch_mean, square, j, group);
    for (int lane = 0; lane < plan->channels; lane++) {
        int64_t c = group * plan->channels + lane;
        double mean, var;
        if (j->options.training) {
            mean = batch_mean[lane];
            var = square[lane] / n;
            if (j->running_mean)
                j->running_mean[c] = (float)((1 - momentum) * j->running_mean[c] + momentum * mean);
            if (j->running_var)
                j->running_var[c] = (float)((1 - momentum) * j->running_var[c] +
                                            momentum * square[lane] / (n - 1));
        } else {
            mean = j->running_mean[c];
            var = j->running_var[c];
        }
        double inverse = 1 / sqrt(var + (double)j->options.eps);
        double scale = inverse * (j->weight ? j->weight[c] : 1.0f);
        float center = (float)mean;
        double low = isfinite(mean) ? mean - center : 0;
        double offset = (j->bias ? j->bias[c] : 0.0f) - low * scale;
        const double values[] = {center, scale, offset, low, inverse};
        for (int which = 0; which < ATTN_NORM_CONSTANTS; which++)
            set_constant(plan, j->constants, which, c, values[which]);
    }
}

static attn_status empty_constants(attn_tensor **constants, const attn_norm_plan *plan)
{
    return attn_tensor_empty(constants, 3,
                             (int64_t[]){plan->groups, ATTN_NORM_CONSTANTS, LANES}, ATTN_PLAIN);
}

static float *data_or_null(const attn_tensor *x) { return x ? attn_data(x) : NULL; }

attn_status attn_norm_constants(attn_tensor **constants, const attn_norm_plan *plan, const float *x,
                                const attn_norm_parameters *parameters,
                                const attn_batch_norm_options *options)
{
    attn_tensor *out;
    attn_status status = ATTN_OK;
    ATTN_TRY(empty_constants(&out, plan));
    job j = {.plan = plan, .options = *options, .x = x, .constants = attn_data(out),
             .weight = data_or_null(parameters->weight), .bias = data_or_null(parameters->bias),
             .running_mean = data_or_null(parameters->running_mean),
             .running_var = data_or_null(parameters->running_var)};
    if (!options->training) {
        attn_parallel(statistics_task, &j, plan->groups);
    } else {
        ATTN_GOTO(run_sums(&j, 3, join_statistics, statistics_task));
        if (parameters->running_mean)
            attn_tensor_touch(parameters->running_mean);
        if (parameters->running_var)
            attn_tensor_touch(parameters->running_var);
    }
    *constants = attn_tensor_retain(out);
done:
    attn_tensor_release(out);
    return status;
}

attn_status attn_norm_mask(attn_tensor **mask, const attn_norm_plan *plan)
{
    int64_t words = plan->N * plan->groups * plan->mask_words; /* two a float */
    return attn_tensor_empty(mask, 1, (int64_t[]){attn_ceil_div(words, 2)}, ATTN_PLAIN);
}

/* Rows (or parts of long ones) of a pass without sums. */
static void span_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const job *j = context;
    const attn_norm_plan *plan = j->plan;
    const attn_norm_gradient *g = &j->gradient;
    int64_t all = plan->N * plan->groups * plan->spans, begin = index * plan->task_spans;
    bool stream = past_caches(plan);
    for (int64_t i = begin; i < attn_min(all, begin + plan->task_spans); i++) {
        int64_t row = i / plan->spans, part = i % plan->spans * plan->span;
        int64_t at = row * plan->row + part, count = attn_min(plan->span, plan->row - part);
        int64_t words = row * plan->mask_words + part / LANES;
        const float *constants = j->forward + row % plan->groups * ATTN_NORM_STEP;
        if (g->dy)
            attn_kernel->bn_gradient(j->dx + at, g->dy + at, g->x ? g->x + at : NULL,
                                     g->mask ? g->mask + words : NULL, constants, g->relu,
                                     g->training, count, stream);
        else
            attn_kernel->bn_apply(j->y + at, j->mask ? j->mask + words : NULL, j->x + at,
                                  j->residual ? j->residual + at : NULL, constants,
                                  j->options.relu, count, stream);
    }
}

static void run_spans(job *j)
{
    int64_t all = j->plan->N * j->plan->groups * j->plan->spans;
    attn_parallel(span_task, j, attn_ceil_div(all, j->plan->task_spans));
}

void attn_norm_apply(const attn_norm_plan *plan, float *y, uint16_t *mask, const float *x,
                     const float *residual, const float *constants, bool relu)
{
    job j = {.plan = plan, .y = y, .mask = mask, .x = x, .residual = residual,
             .forward = constants, .options.relu = relu};
    run_spans(&j);
}

/* Backward ----------------------------------------------------------------------------------- */

/* sum and product (channels) of one group: the sums of dy, and of dy * (x - mean). */
static void sum_gradient(double sum[LANES], double product[LANES], const job *j, int64_t group)
{
    const attn_norm_plan *plan = j->plan;
    const float *sums = j->sums + group * plan->chunks * 2 * LANES;
    memset(sum, 0, LANES * sizeof *sum);
    memset(product, 0, LANES * sizeof *product);
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
    for (int lane = 0; lane < plan->channels; lane++)
        product[lane] -= sum[lane] * get_constant(plan, j->forward, ATTN_NORM_LOW,
                                                  group * plan->channels + lane);
}

/* The sums over the whole batch: for dx alone, because the gradients of weight and bias are those of
 * this process's part, as all parameters' are. */
static attn_status join_gradient(job *j)
{
    int64_t size = 1 + 2 * j->plan->C;
    bool counts = attn_get_peers()->images > 0;
    ATTN_TRY(open_join(j, sum_gradient));
    memset(j->whole, 0, (size_t)size * sizeof *j->whole);
    if (counts)
        memcpy(j->whole, j->own, (size_t)size * sizeof *j->whole);
    ATTN_TRY(attn_peers_add(j->whole, size));
    j->count = j->whole[0];
    if (!counts) /* images that stand in for none have no gradient */
        memset(j->whole, 0, (size_t)size * sizeof *j->whole);
    return ATTN_OK;
}

/* The gradients of weight and bias, and the constants of dx. */
static void gradient_task(void *context, int64_t group, int worker)
{
    (void)worker;
    const job *j = context;
    const attn_norm_plan *plan = j->plan;
    double sum[LANES], product[LANES], n = j->count;
    sum_gradient(sum, product, j, group);
    for (int lane = 0; lane < plan->channels; lane++) {
        int64_t c = group * plan->channels + lane;
        double low = get_constant(plan, j->forward, ATTN_NORM_LOW, c);
        double inverse = get_constant(plan, j->forward, ATTN_NORM_INVERSE, c);
        double scale = get_constant(plan, j->forward, ATTN_NORM_SCALE, c);
        if (j->dweight)
            j->dweight[c] = (float)(product[lane] * inverse);
        if (j->dbias)
            j->dbias[c] = (float)sum[lane];
        if (j->whole) {
            sum[lane] = j->whole[1 + 2 * c];
            product[lane] = j->whole[2 + 2 * c];
        }
        for (int which = ATTN_NORM_CENTER; which <= ATTN_NORM_OFFSET; which++)
            set_constant(plan, j->constants, which, c, get_constant(plan, j->forward, which, c));
        double slope = -scale * inverse * inverse * product[lane] / n;
        set_constant(plan, j->constants, ATTN_NORM_SLOPE, c, slope);
        set_constant(plan, j->constants, ATTN_NORM_REST, c, -scale * sum[lane] / n - slope * low);
    }
}

attn_status attn_norm_sums(attn_tensor **constants, const attn_norm_plan *plan,
                           const attn_norm_gradient *gradient, const float *forward,
                           float *dresidual, float *dweight, float *dbias)
{
    attn_tensor *out;
    attn_status status = ATTN_OK;
    ATTN_TRY(empty_constants(&out, plan));
    job j = {.plan = plan, .gradient = *gradient, .forward = forward, .dresidual = dresidual,
             .dweight = dweight, .dbias = dbias, .constants = attn_data(out)};
    ATTN_GOTO(run_sums(&j, 2, gradient->training ? join_gradient : NULL, gradient_task));
    *constants = attn_tensor_retain(out);
done:
    attn_tensor_release(out);
    return status;
}

/* dx = scale * (dy - mean(dy) - (x - mean) / var * mean(dy (x - mean))), or scale * dy in eval. */
void attn_norm_backward(const attn_norm_plan *plan, float *dx, const attn_norm_gradient *gradient,
                        const float *constants)
{
    job j = {.plan = plan, .gradient = *gradient, .dx = dx, .forward = constants};
    run_spans(&j);
}

/* Checks ------------------------------------------------------------------------------------- */
