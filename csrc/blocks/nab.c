/* NAB: a gate a position from a 1x1 convolution, a gate a channel from a 7x7 convolution.
 *
 *     p = sigmoid(sam_w x + sam_b)                                        (N, 1, H, W)
 *     c = max over positions of sigmoid(conv7x7(x, cam_w, stride 3) + cam_b)  (N, C)
 *     y = x * p * c                                                       [then ReLU]
 *
 * x, y (N, C, H, W), H and W at least 7; sam_w (1, C, 1, 1), sam_b (1), cam_w (C, C, 7, 7),
 * cam_b (C). The 7x7 convolution q is an operation of its own (ops/convolution.c); the rest is
 * one operation on x and q. The sigmoid rises everywhere, so its maximum is the sigmoid of q's.
 *
 * One task an image. Saved: x, sam_w and p, c, and the position of q's first maximum a channel.
 * dq is zero but at those positions. All outputs are overwritten; parameter gradients are summed
 * over images in their order.
 */
#include "../base/memory.h"
#include "../base/threads.h"
#include "../ops/ops.h"
#include "shared.h"

#include <string.h>

enum { IN_X, IN_Q, IN_SAM_W, IN_SAM_B, INPUTS };

typedef struct {
    bool relu;
} nab_options;

typedef struct {
    attn_gates gates;
    int64_t N, PQ; /* positions of q */
    bool q_blocked;
    const float *x, *q, *dy, *sam_w;
    float sam_b;
    float *y, *dx, *dq; /* NULL where not wanted */
    /* saved */
    float *position, *channel; /* (N, HW), (N, C) */
    int32_t *index;            /* (N, C) */
    float *scratch;            /* forward: (N, 2, C); backward: (N, HW + 2 C) */
    double *dsam_b;            /* (N) */
} nab_job;

enum { STRIDE = 3 };
static int64_t conv_size(int64_t size) { return (size - ATTN_GATE_KERNEL) / STRIDE + 1; }

static attn_status check(const attn_tensor *x, const attn_tensor *sam_w, const attn_tensor *sam_b,
                         const attn_tensor *cam_w, const attn_tensor *cam_b)
{
    char got[160];
    ATTN_TRY(attn_block_check_input("nab", x));
    int64_t C = x->shape[1];
    if (x->shape[2] < ATTN_GATE_KERNEL || x->shape[3] < ATTN_GATE_KERNEL)
        return attn_fail(ATTN_BAD_VALUE,
                         "nab: x has shape %s, expected H and W of at least 7: its 7x7 convolution "
                         "has no padding",
                         attn_shape_text(got, 4, x->shape));
    ATTN_TRY(attn_block_check_matrix("nab", "sam_w", sam_w, 1, C));
    ATTN_TRY(attn_block_check_vector("nab", "sam_b", sam_b, 1));
    int64_t shape[4] = {C, C, ATTN_GATE_KERNEL, ATTN_GATE_KERNEL};
    ATTN_TRY(attn_block_check_kernel("nab", "cam_w", cam_w, shape));
    return attn_block_check_vector("nab", "cam_b", cam_b, C);
}

static void place_saved(nab_job *job, float *data)
{
    job->position = data;
    job->channel = data + job->N * job->gates.HW;
    job->index = (int32_t *)(job->channel + job->N * job->gates.C);
}

static attn_gates gates_of_image(const nab_job *job, int64_t n)
{
    attn_gates gates = job->gates;
    gates.position = job->position + n * gates.HW;
    gates.channel = job->channel + n * gates.C;
    return gates;
}

static void forward_image(void *context, int64_t n, int worker)
{
    (void)worker;
    const nab_job *job = context;
    int64_t C = job->gates.C, HW = job->gates.HW, image = C * HW;
    const float *x = job->x + n * image;
    float *position = job->position + n * HW, *average = job->scratch + n * 2 * C;
    float *maximum = average + C;
    attn_gates weights = {.C = C, .HW = HW, .blocked = job->gates.blocked, .channel = job->sam_w};
    attn_kernel->gate_reduce(NULL, position, x, NULL, &weights);
    attn_kernel->gate_sigmoid(position, position, 0.0f, 1.0f, job->sam_b, HW);
    attn_kernel->gate_pool_both(average, maximum, job->index + n * C, job->q + n * C * job->PQ, C,
                                job->PQ, job->q_blocked);
    attn_kernel->gate_sigmoid(job->channel + n * C, maximum, 0.0f, 1.0f, 0.0f, C);
    attn_gates gates = gates_of_image(job, n);
    if (job->y)
        attn_kernel->gate_apply(job->y + n * image, x, &gates);
}

static void backward_image(void *context, int64_t n, int worker)
{
    (void)worker;
    const nab_job *job = context;
    int64_t C = job->gates.C, HW = job->gates.HW, image = C * HW, PQ = job->PQ;
    const float *x = job->x + n * image, *dy = job->dy + n * image;
    float *dposition = job->scratch + n * (HW + 2 * C), *dchannel = dposition + HW;
    attn_gates gates = gates_of_image(job, n);
    attn_kernel->gate_reduce(dchannel, dposition, dy, x, &gates);
    attn_kernel->gate_sigmoid_backward(dposition, dposition, gates.position, HW);
    attn_kernel->gate_sigmoid_backward(dchannel, dchannel, gates.channel, C);
    double sums[2];
    attn_kernel->gate_sums(sums, dposition, dposition, HW);
    job->dsam_b[n] = sums[0];
    attn_gates weights = {.C = C, .HW = HW, .blocked = gates.blocked, .position = dposition};
    attn_kernel->gate_reduce(dchannel + C, NULL, x, NULL, &weights); /* of sam_w */
    if (job->dx) {
        attn_gate_terms terms = {.per_position = dposition, .position_weight = job->sam_w};
        attn_kernel->gate_backward(job->dx + n * image, dy, x, &gates, &terms);
    }
    if (!job->dq)
        return;
    float *dq = job->dq + n * C * PQ;
    memset(dq, 0, (size_t)(C * PQ) * sizeof *dq);
    for (int64_t c = 0; c < C; c++) {
        int64_t at = job->index[n * C + c], block = c / ATTN_LANES, lane = c % ATTN_LANES;
        dq[job->q_blocked ? (block * PQ + at) * ATTN_LANES + lane : c * PQ + at] = dchannel[c];
    }
}

static attn_status parameter_gradients(attn_node *node, attn_tensor **dx, const nab_job *job)
{
    int64_t C = job->gates.C, step = job->gates.HW + 2 * C;
    if (attn_node_wants(node, IN_SAM_W)) {
        const attn_variable *variable = node->inputs[IN_SAM_W];
        ATTN_TRY(attn_tensor_empty(&dx[IN_SAM_W], variable->ndim, variable->shape, ATTN_PLAIN));
        const float *of_image = job->scratch + job->gates.HW + C;
        for (int64_t c = 0; c < C; c++) {
            double sum = 0.0;
            for (int64_t n = 0; n < job->N; n++)
                sum += of_image[n * step + c];
            attn_data(dx[IN_SAM_W])[c] = (float)sum;
        }
    }
    if (attn_node_wants(node, IN_SAM_B)) {
        double sum = 0.0;
        ATTN_TRY(attn_tensor_empty(&dx[IN_SAM_B], 1, (int64_t[]){1}, ATTN_PLAIN));
        for (int64_t n = 0; n < job->N; n++)
            sum += job->dsam_b[n];
        *attn_data(dx[IN_SAM_B]) = (float)sum;
    }
    return ATTN_OK;
}

static attn_status nab_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const nab_options *options = node->parameters;
    attn_tensor *x = node->saved[0], *sam_w = node->saved[1], *ready = NULL;
    int64_t q_shape[4] = {x->shape[0], x->shape[1], conv_size(x->shape[2]), conv_size(x->shape[3])};
    double *block = NULL;
    attn_status status;
    ATTN_GOTO(attn_block_ready(&ready, dy[0]));
    nab_job job = {.gates = attn_block_geometry(x, options->relu), .N = x->shape[0],
                   .PQ = q_shape[2] * q_shape[3], .q_blocked = attn_can_block(4, q_shape),
                   .x = attn_data(x), .dy = attn_data(ready), .sam_w = attn_data(sam_w)};
    place_saved(&job, attn_data(node->saved[2]));
    int64_t floats = job.N * (job.gates.HW + 2 * job.gates.C);
    ATTN_GOTO(attn_alloc((void **)&block,
                         (size_t)job.N * sizeof *block + (size_t)floats * sizeof(float)));
    job.dsam_b = block;
    job.scratch = (float *)(block + job.N);
    if (attn_node_wants(node, IN_X)) {
        ATTN_GOTO(attn_tensor_empty_like(&dx[IN_X], x));
        job.dx = attn_data(dx[IN_X]);
    }
    if (attn_node_wants(node, IN_Q)) {
        ATTN_GOTO(attn_tensor_empty(&dx[IN_Q], 4, q_shape, ATTN_BLOCKED16));
        job.dq = attn_data(dx[IN_Q]);
    }
    attn_parallel(backward_image, &job, job.N);
    ATTN_GOTO(parameter_gradients(node, dx, &job));
done:
    attn_free(block);
    attn_tensor_release(ready);
    return status;
}

static const attn_operation nab_op = {"nab", nab_backward, sizeof(nab_options)};

static attn_status copy_gates(attn_block_gates *gates, const nab_job *job, const attn_tensor *x)
{
    int64_t N = job->N, C = job->gates.C, HW = job->gates.HW;
    int64_t shape[4] = {N, 1, x->shape[2], x->shape[3]};
    ATTN_TRY(attn_tensor_empty(&gates->position, 4, shape, ATTN_PLAIN));
    memcpy(attn_data(gates->position), job->position, (size_t)(N * HW) * sizeof(float));
    ATTN_TRY(attn_tensor_empty(&gates->channel, 2, (int64_t[]){N, C}, ATTN_PLAIN));
    memcpy(attn_data(gates->channel), job->channel, (size_t)(N * C) * sizeof(float));
    return ATTN_OK;
}

/* The operation on x and q. */
static attn_status gate(attn_tensor **y, attn_block_gates *gates, attn_tensor *x, attn_tensor *q,
                        attn_tensor *sam_w, attn_tensor *sam_b, bool relu)
{
    attn_tensor *ready = NULL, *q_ready = NULL, *small = NULL, *out = NULL;
    float *scratch = NULL;
    attn_status status;
    ATTN_GOTO(attn_block_ready(&ready, x));
    ATTN_GOTO(attn_block_ready(&q_ready, q));
    nab_job job = {.gates = attn_block_geometry(x, relu), .N = x->shape[0],
                   .PQ = q->shape[2] * q->shape[3], .q_blocked = attn_can_block(4, q->shape),
                   .x = attn_data(ready), .q = attn_data(q_ready), .sam_w = attn_data(sam_w),
                   .sam_b = *attn_data(sam_b)};
    int64_t size = job.N * (job.gates.HW + 2 * job.gates.C);
    ATTN_GOTO(attn_tensor_empty(&small, 1, &size, ATTN_PLAIN));
    place_saved(&job, attn_data(small));
    ATTN_GOTO(attn_alloc((void **)&scratch, (size_t)(job.N * 2 * job.gates.C) * sizeof(float)));
    job.scratch = scratch;
    if (y) {
        ATTN_GOTO(attn_tensor_empty_like(&out, ready));
        job.y = attn_data(out);
    }
    attn_parallel(forward_image, &job, job.N);
    if (gates)
        ATTN_GOTO(copy_gates(gates, &job, x));
    if (y) {
        nab_options options = {relu};
        attn_tensor *inputs[INPUTS] = {x, q, sam_w, sam_b}, *saved[] = {ready, sam_w, small};
        ATTN_GOTO(attn_record(&nab_op, INPUTS, inputs, 1, &out, &options, saved, 3));
        *y = attn_tensor_retain(out);
    }
done:
    attn_free(scratch);
    attn_tensor_release(ready);
    attn_tensor_release(q_ready);
    attn_tensor_release(small);
    attn_tensor_release(out);
    return status;
}

attn_status attn_nab(attn_tensor **y, attn_block_gates *gates, attn_tensor *x, attn_tensor *sam_w,
                     attn_tensor *sam_b, attn_tensor *cam_w, attn_tensor *cam_b, bool relu)
{
    static const attn_convolution_options options = {.stride = {STRIDE, STRIDE}, .groups = 1};
    attn_tensor *q = NULL;
    ATTN_TRY(check(x, sam_w, sam_b, cam_w, cam_b));
    ATTN_TRY(attn_convolution(&q, x, cam_w, cam_b, &options));
    attn_status status = gate(y, gates, x, q, sam_w, sam_b, relu);
    attn_tensor_release(q);
    return status;
}
