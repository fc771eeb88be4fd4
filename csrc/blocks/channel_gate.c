/* Channel gates: y = x * (offset + g) [then ReLU], g = sigmoid(sum over pools of mlp(pool(x))).
 *
 * CA is written here (S. Woo, J. Park, J.-Y. Lee, I. S. Kweon, "CBAM: Convolutional Block Attention
 * Module", ECCV 2018, its channel part), with the engine that SE and SEC run on as well: they have
 * the one pool AVG.
 *
 * x, y (N, C, H, W); w1 (K, C), b1 (K), w2 (C, K), b2 (C). Pools a channel: mean, maximum,
 * sqrt(sum of squares), log(sum of exponentials) over its positions.
 *
 * Forward is one task an image: pool, matrices, apply; the image is still in the cache when its
 * gates are applied. Backward the same: dgate from x and dy, matrices, dx from dy alone (from x too
 * with LP, LSE or the ReLU). Saved: x, w1, w2 and a few numbers a channel. All outputs are
 * overwritten. Parameter gradients are summed over images in their order.
 */
#include "../base/memory.h"
#include "../base/threads.h"
#include "shared.h"

#include <string.h>

typedef struct {
    const attn_channel_options *options;
    const attn_gate_mlp *mlp;
    attn_gates gates; /* its factor is set a task */
    int at[ATTN_POOL_TYPES]; /* where a kind of pool stands among the pools; -1: nowhere */
    attn_channel_saved saved;
    float *maximum; /* (N, C): what LSE is relative to, or NULL */
    int32_t *index; /* (N, C): the first maximum's position, or NULL */
    attn_channel_gradients gradients;
    float *terms; /* (N, 2, C): per_channel, by_norm */
    const float *x, *dy;
    float *y, *dx; /* NULL where not wanted */
    int64_t N;
} channel_job;

static void place_pools(channel_job *job)
{
    for (int i = 0; i < ATTN_POOL_TYPES; i++)
        job->at[i] = -1;
    for (int i = 0; i < job->options->pool_count; i++)
        job->at[job->options->pools[i]] = i;
}

static bool needs_maximum(const channel_job *job)
{
    return job->at[ATTN_POOL_MAX] >= 0 || job->at[ATTN_POOL_LSE] >= 0;
}

/* A tensor that holds what forward leaves for backward, and the job's pointers into it. */
static int64_t saved_size(const channel_job *job)
{
    return attn_channel_saved_size(job->mlp, job->N) +
           (needs_maximum(job) ? 2 * job->N * job->mlp->C : 0);
}
static void place_saved(channel_job *job, float *data)
{
    float *rest = attn_channel_saved_place(&job->saved, data, job->mlp, job->N);
    if (needs_maximum(job)) {
        job->maximum = rest;
        job->index = (int32_t *)(rest + job->N * job->mlp->C);
    }
}

static void pool_image(const channel_job *job, const float *x, int64_t n)
{
    int64_t C = job->gates.C, HW = job->gates.HW;
    bool blocked = job->gates.blocked;
    float *pooled = job->saved.pooled + n * job->mlp->pools * C;
    const int *at = job->at;
    float *average = at[ATTN_POOL_AVG] >= 0 ? pooled + at[ATTN_POOL_AVG] * C : NULL;
    if (needs_maximum(job)) {
        float *maximum = job->maximum + n * C;
        /* The average costs nothing beside the maximum; where nobody wants it, a gate that is not
         * computed yet takes it. */
        attn_kernel->gate_pool_both(average ? average : job->saved.gate + n * C, maximum,
                                    job->index + n * C, x, C, HW, blocked);
        if (at[ATTN_POOL_MAX] >= 0)
            memcpy(pooled + at[ATTN_POOL_MAX] * C, maximum, (size_t)C * sizeof(float));
        if (at[ATTN_POOL_LSE] >= 0)
            attn_kernel->gate_pool_log_sum_exp(pooled + at[ATTN_POOL_LSE] * C, maximum, x, C, HW,
                                               blocked);
    } else if (average) {
        attn_kernel->gate_pool_average(average, x, C, HW, blocked);
    }
    if (at[ATTN_POOL_LP] >= 0)
        attn_kernel->gate_pool_norm(pooled + at[ATTN_POOL_LP] * C, x, C, HW, blocked);
}

static void forward_image(void *context, int64_t n, int worker)
{
    (void)worker;
    const channel_job *job = context;
    int64_t image = job->gates.C * job->gates.HW;
    const float *x = job->x + n * image;
    pool_image(job, x, n);
    attn_channel_forward(&job->saved, job->mlp, n);
    if (job->y) {
        attn_gates gates = job->gates;
        gates.channel = job->saved.factor + n * gates.C;
        attn_kernel->gate_apply(job->y + n * image, x, &gates);
    }
}

static attn_status copy_gate(attn_block_gates *gates, const channel_job *job)
{
    ATTN_TRY(attn_tensor_empty(&gates->channel, 2, (int64_t[]){job->N, job->gates.C}, ATTN_PLAIN));
    memcpy(attn_data(gates->channel), job->saved.gate,
           (size_t)(job->N * job->gates.C) * sizeof(float));
    return ATTN_OK;
}

attn_status attn_channel_gate_run(attn_tensor **y, attn_block_gates *gates,
                                  attn_tensor *const inputs[5], const attn_channel_options *options)
{
    attn_tensor *x = inputs[0], *w1 = inputs[1], *b1 = inputs[2], *w2 = inputs[3], *b2 = inputs[4];
    attn_tensor *ready = NULL, *small = NULL, *out = NULL;
    attn_channel_mlp mlp = {0};
    attn_status status;
    ATTN_GOTO(attn_block_ready(&ready, x));
    ATTN_GOTO(attn_channel_mlp_open(&mlp, w1, b1, w2, b2, options->pool_count, options->offset));
    channel_job job = {.options = options, .mlp = &mlp.kernel, .x = attn_data(ready),
                       .gates = attn_block_geometry(x, options->relu), .N = x->shape[0]};
    place_pools(&job);
    ATTN_GOTO(attn_tensor_empty(&small, 1, (int64_t[]){saved_size(&job)}, ATTN_PLAIN));
    place_saved(&job, attn_data(small));
    if (y) {
        ATTN_GOTO(attn_tensor_empty_like(&out, ready));
        job.y = attn_data(out);
    }
    attn_parallel(forward_image, &job, job.N);
    if (gates)
        ATTN_GOTO(copy_gate(gates, &job));
    if (y) {
        attn_tensor *saved[] = {ready, w1, w2, small};
        ATTN_GOTO(attn_record(options->operation, 5, inputs, 1, &out, options, saved, 4));
        *y = attn_tensor_retain(out);
    }
done:
    attn_channel_mlp_close(&mlp);
    attn_tensor_release(ready);
    attn_tensor_release(small);
    attn_tensor_release(out);
    return status;
}

/* What the pools' gradients add to dx, in the form of the kernels' terms. */
static attn_gate_terms pool_terms(const channel_job *job, int64_t n)
{
    int64_t C = job->gates.C;
    const float *dpooled = job->gradients.dpooled + n * job->mlp->pools * C;
    const float *pooled = job->saved.pooled + n * job->mlp->pools * C;
    float *average = job->terms + n * 2 * C, *by_norm = average + C;
    int avg = job->at[ATTN_POOL_AVG], max = job->at[ATTN_POOL_MAX], lp = job->at[ATTN_POOL_LP];
    float scale = 1.0f / (float)job->gates.HW;
    for (int64_t c = 0; c < C; c++)
        average[c] = avg >= 0 ? dpooled[avg * C + c] * scale : 0.0f;
    for (int64_t c = 0; lp >= 0 && c < C; c++) { /* the norm has no slope at 0: take 0 */
        float norm = pooled[lp * C + c];
        by_norm[c] = norm != 0.0f ? dpooled[lp * C + c] / norm : 0.0f;
    }
    attn_gate_terms terms = {.per_channel = average};
    if (max >= 0) {
        terms.channel_peak = dpooled + max * C;
        terms.channel_peak_at = job->index + n * C;
    }
    return terms;
}

/* LP and LSE: their gradients take another look at x. */
static void add_pools_of_x(const channel_job *job, int64_t n)
{
    int64_t C = job->gates.C, HW = job->gates.HW, image = C * HW;
    int lp = job->at[ATTN_POOL_LP], lse = job->at[ATTN_POOL_LSE];
    const float *by_norm = NULL, *by_exp = NULL, *log_sum_exp = NULL;
    if (lp >= 0)
        by_norm = job->terms + (n * 2 + 1) * C;
    if (lse >= 0) {
        by_exp = job->gradients.dpooled + (n * job->mlp->pools + lse) * C;
        log_sum_exp = job->saved.pooled + (n * job->mlp->pools + lse) * C;
    }
    attn_kernel->gate_pool_backward(job->dx + n * image, job->x + n * image, by_norm, log_sum_exp,
                                    by_exp, C, HW, job->gates.blocked);
}

static void backward_image(void *context, int64_t n, int worker)
{
    (void)worker;
    const channel_job *job = context;
    int64_t C = job->gates.C, image = C * job->gates.HW;
    const float *x = job->x + n * image, *dy = job->dy + n * image;
    attn_gates gates = job->gates;
    gates.channel = job->saved.factor + n * C;
    attn_kernel->gate_reduce(job->gradients.dgate + n * C, NULL, dy, x, &gates);
    attn_channel_backward(&job->gradients, &job->saved, job->mlp, n);
    if (!job->dx)
        return;
    bool by_x = job->at[ATTN_POOL_LP] >= 0 || job->at[ATTN_POOL_LSE] >= 0;
    gates.stream = gates.stream && !by_x;
    attn_gate_terms terms = pool_terms(job, n);
    attn_kernel->gate_backward(job->dx + n * image, dy, x, &gates, &terms);
    if (by_x)
        add_pools_of_x(job, n);
}

attn_status attn_channel_gate_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const attn_channel_options *options = node->parameters;
    attn_tensor *x = node->saved[0], *w1 = node->saved[1], *w2 = node->saved[2], *ready = NULL;
    attn_channel_mlp mlp = {0};
    float *scratch = NULL;
    attn_status status;
    ATTN_GOTO(attn_channel_mlp_open(&mlp, w1, NULL, w2, NULL, options->pool_count,
                                    options->offset));
    ATTN_GOTO(attn_block_ready(&ready, dy[0]));
    channel_job job = {.options = options, .mlp = &mlp.kernel, .x = attn_data(x),
                       .dy = attn_data(ready), .gates = attn_block_geometry(x, options->relu),
                       .N = x->shape[0]};
    place_pools(&job);
    place_saved(&job, attn_data(node->saved[3]));
    int64_t terms = 2 * job.N * job.gates.C;
    int64_t size = terms + attn_channel_gradients_size(job.mlp, job.N);
    ATTN_GOTO(attn_alloc((void **)&scratch, (size_t)size * sizeof(float)));
    job.terms = scratch;
    attn_channel_gradients_place(&job.gradients, scratch + terms, job.mlp, job.N);
    if (attn_node_wants(node, 0)) {
        ATTN_GOTO(attn_tensor_empty_like(&dx[0], x));
        job.dx = attn_data(dx[0]);
    }
    attn_parallel(backward_image, &job, job.N);
    ATTN_GOTO(attn_channel_parameter_gradients(node, dx, (int[]){1, 2, 3, 4}, job.mlp,
                                               &job.gradients, &job.saved, job.N));
done:
    attn_free(scratch);
    attn_channel_mlp_close(&mlp);
    attn_tensor_release(ready);
    return status;
}

static const attn_operation channel_attention_op = {"ca", attn_channel_gate_backward,
                                                    sizeof(attn_channel_options)};

attn_status attn_channel_attention(attn_tensor **y, attn_block_gates *gates, attn_tensor *x,
                                   attn_tensor *w1, attn_tensor *b1, attn_tensor *w2,
                                   attn_tensor *b2, const attn_gate_pool *pools, int pool_count,
                                   bool relu)
{
    ATTN_TRY(attn_block_check_input("ca", x));
    ATTN_TRY(attn_channel_mlp_check("ca", x->shape[1], w1, b1, w2, b2, true));
    attn_channel_options options = {"ca", &channel_attention_op, {0}, pool_count, 0.0f, relu};
    if (pool_count < 1 || pool_count > ATTN_POOL_TYPES)
        return attn_fail(ATTN_BAD_VALUE, "ca: pool_types has %d entries, expected 1 to %d",
                         pool_count, ATTN_POOL_TYPES);
    for (int i = 0; i < pool_count; i++) {
        for (int j = 0; j < i; j++)
            if (pools[i] == pools[j])
                return attn_fail(ATTN_BAD_VALUE, "ca: pool_types names one pool twice");
        options.pools[i] = pools[i];
    }
    attn_tensor *inputs[] = {x, w1, b1, w2, b2};
    return attn_channel_gate_run(y, gates, inputs, &options);
}
