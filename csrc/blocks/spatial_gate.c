/* The spatial gate: y = x * m [then ReLU], and with a channel gate beside it NEW's y = x * m * (1 + g).
 *
 *     m = sigmoid(bn(conv7x7([max over channels of x, mean over channels of x])))
 *
 * S. Woo, J. Park, J.-Y. Lee, I. S. Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018.
 *
 * x, y (N, C, H, W); conv_w (1, 2, 7, 7), conv_b (1); bn_w, bn_b, running_mean, running_var (1).
 * The batch norm's statistics run over all N * H * W values; its biased variance normalises, the
 * unbiased one enters running_var. A tie of the maximum belongs to the first channel.
 *
 * Training forward: one task an image computes the maps and the convolution z; the statistics are
 * summed in the order of the images; one task an image applies the gate. Eval needs no statistics:
 * one task an image does both, while the image is in the cache. Backward: one task an image sums
 * dy * x over channels; the batch norm's sums; one task an image takes the gradient back through
 * the convolution and writes dx, from dy alone (from x too with the ReLU).
 *
 * Saved: x, conv_w, bn_w, w1, w2 and, a position, two map values (with their halo), the maximum's
 * channel, z and m. All outputs are overwritten.
 */
#include "../base/memory.h"
#include "../base/peers.h"
#include "../base/threads.h"
#include "shared.h"

#include <math.h>
#include <string.h>

enum { TAPS = 2 * ATTN_GATE_TAPS };

enum { IN_X, IN_CONV_W, IN_CONV_B, IN_BN_W, IN_BN_B, IN_W1, IN_W2, INPUTS };

typedef struct {
    attn_gates gates; /* its factors are set a task */
    attn_gate_map size;
    int64_t N;
    attn_spatial_state state;
    const float *x, *dy;
    float *y, *dx; /* NULL where not wanted */
    const float *conv_w;
    float conv_b, bn_w, bn_b;
    /* saved */
    float *maps;     /* (N, 2, plane) */
    int32_t *index;  /* (N, HW): channel of the maximum */
    float *z, *mask; /* (N, HW): before the batch norm, after the sigmoid */
    const attn_gate_mlp *mlp; /* NULL without a channel gate */
    attn_channel_saved channel;
    /* scratch */
    float *flat;  /* (N, 2, HW): maps or their gradients without a halo */
    double *sums; /* (N, 2) */
    /* scratch of backward */
    attn_channel_gradients gradients;
    float *du;          /* (N, HW): at the sigmoid's input */
    float *dz;          /* (N, plane) */
    float *per_channel; /* (N, C) */
    float *dconv_w;     /* (N, TAPS) or NULL */
    double *dconv_b;    /* (N) */
    float flipped[TAPS];
    double mean_du, mean_du_xhat; /* what the batch norm takes off; 0 in eval */
} spatial_job;

static attn_gate_map map_size(int64_t H, int64_t W)
{
    attn_gate_map size = {H, W, W + 2 * ATTN_GATE_HALO, 0};
    /* Behind the last row: the last taps, and a register's reach beyond them. */
    int64_t reach = ATTN_GATE_KERNEL + 2 * ATTN_LANES;
    size.plane = attn_ceil_div((H + 2 * ATTN_GATE_HALO) * size.pitch + reach, 16) * 16;
    return size;
}

static void fill_map(float *map, const float *flat, const attn_gate_map *size)
{
    memset(map, 0, (size_t)size->plane * sizeof *map);
    for (int64_t row = 0; row < size->H; row++)
        memcpy(map + (row + ATTN_GATE_HALO) * size->pitch + ATTN_GATE_HALO, flat + row * size->W,
               (size_t)size->W * sizeof *map);
}

static int64_t saved_size(const spatial_job *job)
{
    return job->N * (2 * job->size.plane + 3 * job->gates.HW) +
           (job->mlp ? attn_channel_saved_size(job->mlp, job->N) : 0);
}
static void place_saved(spatial_job *job, float *data)
{
    int64_t pixels = job->N * job->gates.HW;
    job->maps = data;
    job->index = (int32_t *)(data + job->N * 2 * job->size.plane);
    job->z = (float *)job->index + pixels;
    job->mask = job->z + pixels;
    if (job->mlp)
        attn_channel_saved_place(&job->channel, job->mask + pixels, job->mlp, job->N);
}

static void measure_image(void *context, int64_t n, int worker)
{
    (void)worker;
    const spatial_job *job = context;
    int64_t C = job->gates.C, HW = job->gates.HW;
    float *maximum = job->flat + n * 2 * HW, *mean = maximum + HW, *z = job->z + n * HW;
    float *maps = job->maps + n * 2 * job->size.plane;
    attn_kernel->gate_maps(maximum, mean, job->index + n * HW,
                           job->mlp ? job->channel.pooled + n * C : NULL, job->x + n * C * HW, C,
                           HW, job->gates.blocked);
    fill_map(maps, maximum, &job->size);
    fill_map(maps + job->size.plane, mean, &job->size);
    attn_kernel->gate_conv7(z, maps, 2, job->conv_w, job->conv_b, &job->size);
    attn_kernel->gate_sums(job->sums + 2 * n, z, z, HW);
    if (job->mlp)
        attn_channel_forward(&job->channel, job->mlp, n);
}

static attn_gates gates_of_image(const spatial_job *job, int64_t n)
{
    attn_gates gates = job->gates;
    gates.position = job->mask + n * gates.HW;
    if (job->mlp)
        gates.channel = job->channel.factor + n * gates.C;
    return gates;
}

static void gate_image(void *context, int64_t n, int worker)
{
    (void)worker;
    const spatial_job *job = context;
    int64_t HW = job->gates.HW, image = job->gates.C * HW;
    attn_kernel->gate_sigmoid(job->mask + n * HW, job->z + n * HW, (float)job->state.mean,
                              (float)(job->bn_w * job->state.rstd), job->bn_b, HW);
    attn_gates gates = gates_of_image(job, n);
    if (job->y)
        attn_kernel->gate_apply(job->y + n * image, job->x + n * image, &gates);
}

static void measure_and_gate_image(void *context, int64_t n, int worker)
{
    measure_image(context, n, worker);
    gate_image(context, n, worker);
}

/* sums (3) = the number of values, and the two sums over the images: of all processes' images where
 * several share the batch (base/peers.h). */
static attn_status sum_over_batch(double sums[3], const double own[2], const spatial_job *job)
{
    const attn_peers *peers = attn_get_peers();
    bool counts = !peers || peers->images > 0;
    sums[0] = counts ? (double)(job->N * job->gates.HW) : 0;
    sums[1] = counts ? own[0] : 0;
    sums[2] = counts ? own[1] : 0;
    return peers ? attn_peers_add(sums, 3) : ATTN_OK;
}

/* Mean and variance of z from the images' sums; `running` also enters them there. */
static attn_status take_statistics(spatial_job *job, const attn_spatial_parameters *parameters,
                                   bool running)
{
    double own[2] = {0}, sums[3];
    for (int64_t n = 0; n < job->N; n++) {
        own[0] += job->sums[2 * n];
        own[1] += job->sums[2 * n + 1];
    }
    ATTN_TRY(sum_over_batch(sums, own, job));
    if (!(sums[0] > 1)) /* where others have a part of the batch, only now is it known */
        return attn_fail(ATTN_BAD_VALUE, "the spatial gate's batch norm needs more than one value in "
                         "training, got %g in the whole batch", sums[0]);
    double count = sums[0], mean = sums[1] / count, variance = sums[2] / count - mean * mean;
    if (variance < 0.0)
        variance = 0.0;
    job->state.mean = mean;
    job->state.rstd = 1.0 / sqrt(variance + parameters->eps);
    if (!running)
        return ATTN_OK;
    double momentum = parameters->momentum;
    attn_tensor *running_mean = parameters->running_mean, *running_var = parameters->running_var;
    if (running_mean) {
        float *value = attn_data(running_mean);
        *value = (float)((1.0 - momentum) * *value + momentum * mean);
        attn_tensor_touch(running_mean);
    }
    if (running_var) {
        float *value = attn_data(running_var);
        *value = (float)((1.0 - momentum) * *value + momentum * variance * count / (count - 1.0));
        attn_tensor_touch(running_var);
    }
    return ATTN_OK;
}

static attn_status check(const char *block, const attn_tensor *x, const attn_tensor *w1,
                         const attn_tensor *w2, const attn_spatial_parameters *p)
{
    char got[160];
    ATTN_TRY(attn_block_check_input(block, x));
    if (w1)
        ATTN_TRY(attn_channel_mlp_check(block, x->shape[1], w1, NULL, w2, NULL, false));
    ATTN_TRY(attn_block_check_kernel(block, "conv_w", p->conv_w,
                                     (int64_t[]){1, 2, ATTN_GATE_KERNEL, ATTN_GATE_KERNEL}));
    ATTN_TRY(attn_block_check_vector(block, "conv_b", p->conv_b, 1));
    ATTN_TRY(attn_block_check_vector(block, "bn_w", p->bn_w, 1));
    ATTN_TRY(attn_block_check_vector(block, "bn_b", p->bn_b, 1));
    if (p->running_mean || !p->training)
        ATTN_TRY(attn_block_check_vector(block, "running_mean", p->running_mean, 1));
    if (p->running_var || !p->training)
        ATTN_TRY(attn_block_check_vector(block, "running_var", p->running_var, 1));
    if (!(p->eps >= 0) || !isfinite(p->momentum))
        return attn_fail(ATTN_BAD_VALUE, "%s: eps is %g and momentum %g, expected eps >= 0 and a "
                         "finite momentum", block, (double)p->eps, (double)p->momentum);
    if (p->training && x->shape[0] * x->shape[2] * x->shape[3] < 2 && !attn_get_peers())
        return attn_fail(ATTN_BAD_VALUE,
                         "%s: x has shape %s: its batch norm needs more than one value (N * H * W) "
                         "in training; use eval mode",
                         block, attn_shape_text(got, 4, x->shape));
    return ATTN_OK;
}

static attn_status copy_gates(attn_block_gates *gates, const spatial_job *job)
{
    int64_t N = job->N, C = job->gates.C, H = job->size.H, W = job->size.W;
    ATTN_TRY(attn_tensor_empty(&gates->position, 4, (int64_t[]){N, 1, H, W}, ATTN_PLAIN));
    memcpy(attn_data(gates->position), job->mask, (size_t)(N * H * W) * sizeof(float));
    if (!job->mlp)
        return ATTN_OK;
    ATTN_TRY(attn_tensor_empty(&gates->channel, 2, (int64_t[]){N, C}, ATTN_PLAIN));
    memcpy(attn_data(gates->channel), job->channel.gate, (size_t)(N * C) * sizeof(float));
    return ATTN_OK;
}

static spatial_job job_of(const attn_tensor *x, const attn_tensor *conv_w, float bn_w,
                          const attn_channel_mlp *mlp, const attn_spatial_state *state)
{
    spatial_job job = {.gates = attn_block_geometry(x, state->relu),
                       .size = map_size(x->shape[2], x->shape[3]),
                       .N = x->shape[0], .state = *state, .x = attn_data(x),
                       .conv_w = attn_data(conv_w), .bn_w = bn_w,
                       .mlp = mlp->w2t ? &mlp->kernel : NULL};
    return job;
}

static attn_status run_forward(spatial_job *job, const attn_spatial_parameters *p, bool running)
{
    if (p->training) {
        attn_parallel(measure_image, job, job->N);
        ATTN_TRY(take_statistics(job, p, running));
        attn_parallel(gate_image, job, job->N);
    } else {
        job->state.mean = *attn_data(p->running_mean);
        job->state.rstd = 1.0 / sqrt((double)*attn_data(p->running_var) + p->eps);
        attn_parallel(measure_and_gate_image, job, job->N);
    }
    return ATTN_OK;
}

attn_status attn_spatial_run(attn_tensor **y, attn_block_gates *gates, const char *block,
                             const attn_operation *operation, attn_tensor *x, attn_tensor *w1,
                             attn_tensor *w2, const attn_spatial_parameters *p, bool relu)
{
    attn_tensor *ready = NULL, *small = NULL, *out = NULL;
    attn_channel_mlp mlp = {0};
    float *flat = NULL;
    double *sums = NULL;
    attn_status status;
    ATTN_TRY(check(block, x, w1, w2, p));
    ATTN_GOTO(attn_block_ready(&ready, x));
    if (w1)
        ATTN_GOTO(attn_channel_mlp_open(&mlp, w1, NULL, w2, NULL, 1, 1.0f));
    attn_spatial_state state = {.training = p->training, .relu = relu};
    spatial_job job = job_of(ready, p->conv_w, *attn_data(p->bn_w), &mlp, &state);
    job.conv_b = *attn_data(p->conv_b);
    job.bn_b = *attn_data(p->bn_b);
    ATTN_GOTO(attn_alloc((void **)&flat, (size_t)(job.N * 2 * job.gates.HW) * sizeof(float)));
    ATTN_GOTO(attn_alloc((void **)&sums, (size_t)(job.N * 2) * sizeof(double)));
    ATTN_GOTO(attn_tensor_empty(&small, 1, (int64_t[]){saved_size(&job)}, ATTN_PLAIN));
    job.flat = flat;
    job.sums = sums;
    place_saved(&job, attn_data(small));
    if (y) {
        ATTN_GOTO(attn_tensor_empty_like(&out, ready));
        job.y = attn_data(out);
    }
    ATTN_GOTO(run_forward(&job, p, y != NULL));
    if (gates)
        ATTN_GOTO(copy_gates(gates, &job));
    if (y) {
        attn_tensor *inputs[INPUTS] = {x, p->conv_w, p->conv_b, p->bn_w, p->bn_b, w1, w2};
        attn_tensor *saved[] = {ready, p->conv_w, p->bn_w, w1, w2, small};
        ATTN_GOTO(attn_record(operation, INPUTS, inputs, 1, &out, &job.state, saved, 6));
        *y = attn_tensor_retain(out);
    }
done:
    attn_free(flat);
    attn_free(sums);
    attn_channel_mlp_close(&mlp);
    attn_tensor_release(ready);
    attn_tensor_release(small);
    attn_tensor_release(out);
    return status;
}
static void reduce_image(void *context, int64_t n, int worker)
{
    (void)worker;
    const spatial_job *job = context;
    int64_t C = job->gates.C, HW = job->gates.HW, image = C * HW;
    float *du = job->du + n * HW;
    attn_gates gates = gates_of_image(job, n);
    attn_kernel->gate_reduce(job->mlp ? job->gradients.dgate + n * C : NULL, du,
                             job->dy + n * image, job->x + n * image, &gates);
    attn_kernel->gate_sigmoid_backward(du, du, gates.position, HW);
    attn_kernel->gate_sums(job->sums + 2 * n, du, job->z + n * HW, HW);
    if (job->mlp)
        attn_channel_backward(&job->gradients, &job->channel, job->mlp, n);
}

/* dz, with its halo, from du; returns its sum. In double: what the batch norm takes off is the same
 * everywhere, so its rounding would not average out in the convolution's gradients. */
static double fill_dz(const spatial_job *job, int64_t n, float *dz)
{
    const attn_gate_map *size = &job->size;
    const attn_spatial_state *state = &job->state;
    const float *du = job->du + n * job->gates.HW, *z = job->z + n * job->gates.HW;
    double scale = job->bn_w * state->rstd, slope = job->mean_du_xhat * state->rstd, sum = 0.0;
    memset(dz, 0, (size_t)size->plane * sizeof *dz);
    for (int64_t row = 0; row < size->H; row++) {
        float *to = dz + (row + ATTN_GATE_HALO) * size->pitch + ATTN_GATE_HALO;
        for (int64_t col = 0; col < size->W; col++, du++, z++)
            to[col] = (float)(scale * ((*du - job->mean_du) - (*z - state->mean) * slope));
        for (int64_t col = 0; col < size->W; col++)
            sum += to[col];
    }
    return sum;
}

static void spread_image(void *context, int64_t n, int worker)
{
    (void)worker;
    const spatial_job *job = context;
    int64_t C = job->gates.C, HW = job->gates.HW, image = C * HW;
    float *dz = job->dz + n * job->size.plane, *per_channel = job->per_channel + n * C;
    job->dconv_b[n] = fill_dz(job, n, dz);
    if (job->dconv_w)
        attn_kernel->gate_conv7_weight(job->dconv_w + n * TAPS,
                                       job->maps + n * 2 * job->size.plane, 2, dz, &job->size);
    if (!job->dx)
        return;
    float *dmaximum = job->flat + n * 2 * HW, *dmean = dmaximum + HW;
    attn_kernel->gate_conv7(dmaximum, dz, 1, job->flipped, 0.0f, &job->size);
    attn_kernel->gate_conv7(dmean, dz, 1, job->flipped + ATTN_GATE_TAPS, 0.0f, &job->size);
    attn_gate_terms terms = {.per_position = dmean, .position_peak = dmaximum,
                             .position_peak_at = job->index + n * HW};
    if (job->mlp) {
        const float *dpooled = job->gradients.dpooled + n * C;
        for (int64_t c = 0; c < C; c++)
            per_channel[c] = dpooled[c] * (1.0f / (float)HW);
        terms.per_channel = per_channel;
    }
    attn_gates gates = gates_of_image(job, n);
    attn_kernel->gate_backward(job->dx + n * image, job->dy + n * image, job->x + n * image, &gates,
                               &terms);
}

/* The way back through the convolution is the correlation with its kernel turned round; the mean's
 * share of a channel, 1/C, is taken in there. */
static void flip_kernel(spatial_job *job)
{
    for (int i = 0; i < ATTN_GATE_TAPS; i++) {
        job->flipped[i] = job->conv_w[ATTN_GATE_TAPS - 1 - i];
        job->flipped[ATTN_GATE_TAPS + i] = job->conv_w[TAPS - 1 - i] / (float)job->gates.C;
    }
}

/* The batch norm's two gradients, and what they take off dz in training: that of the whole batch. */
static attn_status sum_batch_norm(spatial_job *job, double *dweight, double *dbias)
{
    double sum = 0.0, with_z = 0.0, whole[3];
    for (int64_t n = 0; n < job->N; n++) {
        sum += job->sums[2 * n];
        with_z += job->sums[2 * n + 1];
    }
    *dbias = sum;
    *dweight = (with_z - job->state.mean * sum) * job->state.rstd;
    if (!job->state.training)
        return ATTN_OK;
    ATTN_TRY(sum_over_batch(whole, (double[]){*dbias, *dweight}, job));
    if (attn_get_peers() && attn_get_peers()->images == 0)
        return ATTN_OK; /* images that stand in for none have no gradient */
    job->mean_du = whole[1] / whole[0];
    job->mean_du_xhat = whole[2] / whole[0];
    return ATTN_OK;
}

static attn_status scalar_gradient(attn_node *node, attn_tensor **dx, int input, double value)
{
    if (!attn_node_wants(node, input))
        return ATTN_OK;
    ATTN_TRY(attn_tensor_empty(&dx[input], 1, (int64_t[]){1}, ATTN_PLAIN));
    *attn_data(dx[input]) = (float)value;
    return ATTN_OK;
}

static attn_status parameter_gradients(attn_node *node, attn_tensor **dx, const spatial_job *job,
                                       double dweight, double dbias)
{
    double dconv_b = 0.0;
    for (int64_t n = 0; n < job->N; n++)
        dconv_b += job->dconv_b[n];
    ATTN_TRY(scalar_gradient(node, dx, IN_CONV_B, dconv_b));
    ATTN_TRY(scalar_gradient(node, dx, IN_BN_W, dweight));
    ATTN_TRY(scalar_gradient(node, dx, IN_BN_B, dbias));
    if (attn_node_wants(node, IN_CONV_W)) {
        int64_t shape[4] = {1, 2, ATTN_GATE_KERNEL, ATTN_GATE_KERNEL};
        ATTN_TRY(attn_tensor_empty(&dx[IN_CONV_W], 4, shape, ATTN_PLAIN));
        for (int tap = 0; tap < TAPS; tap++) {
            double sum = 0.0;
            for (int64_t n = 0; n < job->N; n++)
                sum += job->dconv_w[n * TAPS + tap];
            attn_data(dx[IN_CONV_W])[tap] = (float)sum;
        }
    }
    if (!job->mlp)
        return ATTN_OK;
    return attn_channel_parameter_gradients(node, dx, (int[]){IN_W1, -1, IN_W2, -1}, job->mlp,
                                            &job->gradients, &job->channel, job->N);
}

/* One block of scratch, cut up. */
static attn_status open_scratch(spatial_job *job, bool with_conv_w, double **scratch)
{
    int64_t N = job->N, HW = job->gates.HW, C = job->gates.C;
    int64_t floats = N * (3 * HW + job->size.plane + C + TAPS) +
                     (job->mlp ? attn_channel_gradients_size(job->mlp, N) : 0);
    ATTN_TRY(attn_alloc((void **)scratch,
                        (size_t)(3 * N) * sizeof(double) + (size_t)floats * sizeof(float)));
    job->sums = *scratch;
    job->dconv_b = job->sums + 2 * N;
    job->flat = (float *)(job->dconv_b + N);
    job->du = job->flat + 2 * N * HW;
    job->dz = job->du + N * HW;
    job->per_channel = job->dz + N * job->size.plane;
    float *dconv_w = job->per_channel + N * C;
    job->dconv_w = with_conv_w ? dconv_w : NULL;
    if (job->mlp)
        attn_channel_gradients_place(&job->gradients, dconv_w + N * TAPS, job->mlp, N);
    return ATTN_OK;
}

attn_status attn_spatial_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    attn_tensor *x = node->saved[0], *conv_w = node->saved[1], *bn_w = node->saved[2];
    attn_tensor *w1 = node->saved[3], *w2 = node->saved[4], *ready = NULL;
    attn_channel_mlp mlp = {0};
    double *scratch = NULL, dweight, dbias;
    attn_status status;
    if (w1)
        ATTN_GOTO(attn_channel_mlp_open(&mlp, w1, NULL, w2, NULL, 1, 1.0f));
    ATTN_GOTO(attn_block_ready(&ready, dy[0]));
    spatial_job job = job_of(x, conv_w, *attn_data(bn_w), &mlp, node->parameters);
    job.dy = attn_data(ready);
    place_saved(&job, attn_data(node->saved[5]));
    ATTN_GOTO(open_scratch(&job, attn_node_wants(node, IN_CONV_W), &scratch));
    flip_kernel(&job);
    if (attn_node_wants(node, IN_X)) {
        ATTN_GOTO(attn_tensor_empty_like(&dx[IN_X], x));
        job.dx = attn_data(dx[IN_X]);
    }
    attn_parallel(reduce_image, &job, job.N);
    ATTN_GOTO(sum_batch_norm(&job, &dweight, &dbias));
    attn_parallel(spread_image, &job, job.N);
    ATTN_GOTO(parameter_gradients(node, dx, &job, dweight, dbias));
done:
    attn_free(scratch);
    attn_channel_mlp_close(&mlp);
    attn_tensor_release(ready);
    return status;
}

static const attn_operation spatial_attention_op = {"sa", attn_spatial_backward,
                                                    sizeof(attn_spatial_state)};

attn_status attn_spatial_attention(attn_tensor **y, attn_block_gates *gates, attn_tensor *x,
                                   const attn_spatial_parameters *parameters, bool relu)
{
    return attn_spatial_run(y, gates, "sa", &spatial_attention_op, x, NULL, NULL, parameters, relu);
}
