/* The channel gate's small matrices: gate = sigmoid(sum over pools of (w2 relu(w1 pooled + b1) + b2)).
 *
 * They run image by image inside the passes over x. The parameters' gradients are sums over images
 * of outer products; they are taken at the end, a few rows a task, from what each image left behind.
 */
#include "../base/memory.h"
#include "../base/threads.h"
#include "shared.h"

attn_status attn_channel_mlp_check(const char *block, int64_t C, const attn_tensor *w1,
                                   const attn_tensor *b1, const attn_tensor *w2,
                                   const attn_tensor *b2, bool with_bias)
{
    ATTN_TRY(attn_block_check_matrix(block, "w1", w1, -1, C));
    ATTN_TRY(attn_block_check_matrix(block, "w2", w2, C, w1->shape[0]));
    if (with_bias) {
        ATTN_TRY(attn_block_check_vector(block, "b1", b1, w1->shape[0]));
        ATTN_TRY(attn_block_check_vector(block, "b2", b2, C));
    }
    return ATTN_OK;
}

/* A matrix's elements lie row by row in either layout: a 1x1 kernel has one element a channel. */
attn_status attn_channel_mlp_open(attn_channel_mlp *mlp, const attn_tensor *w1,
                                  const attn_tensor *b1, const attn_tensor *w2,
                                  const attn_tensor *b2, int pools, float offset)
{
    int64_t K = w1->shape[0], C = w1->shape[1];
    ATTN_TRY(attn_alloc((void **)&mlp->w2t, (size_t)(K * C) * sizeof(float)));
    const float *from = attn_data(w2);
    for (int64_t c = 0; c < C; c++)
        for (int64_t k = 0; k < K; k++)
            mlp->w2t[k * C + c] = from[c * K + k];
    mlp->kernel = (attn_gate_mlp){
        .C = C, .K = K, .pools = pools, .offset = offset,
        .w1 = attn_data(w1), .b1 = b1 ? attn_data(b1) : NULL,
        .w2t = mlp->w2t, .b2 = b2 ? attn_data(b2) : NULL,
    };
    return ATTN_OK;
}

void attn_channel_mlp_close(attn_channel_mlp *mlp)
{
    attn_free(mlp->w2t);
    mlp->w2t = NULL;
}

int64_t attn_channel_saved_size(const attn_gate_mlp *mlp, int64_t N)
{
    return N * (mlp->pools * (mlp->C + mlp->K) + 2 * mlp->C);
}

float *attn_channel_saved_place(attn_channel_saved *saved, float *at, const attn_gate_mlp *mlp,
                                int64_t N)
{
    saved->pooled = at;
    saved->hidden = saved->pooled + N * mlp->pools * mlp->C;
    saved->gate = saved->hidden + N * mlp->pools * mlp->K;
    saved->factor = saved->gate + N * mlp->C;
    return saved->factor + N * mlp->C;
}

int64_t attn_channel_gradients_size(const attn_gate_mlp *mlp, int64_t N)
{
    return N * (mlp->pools * (mlp->C + mlp->K) + 2 * mlp->C);
}

float *attn_channel_gradients_place(attn_channel_gradients *gradients, float *at,
                                    const attn_gate_mlp *mlp, int64_t N)
{
    gradients->dgate = at;
    gradients->dlogit = gradients->dgate + N * mlp->C;
    gradients->dpooled = gradients->dlogit + N * mlp->C;
    gradients->dhidden = gradients->dpooled + N * mlp->pools * mlp->C;
    return gradients->dhidden + N * mlp->pools * mlp->K;
}

void attn_channel_forward(const attn_channel_saved *saved, const attn_gate_mlp *mlp, int64_t n)
{
    attn_kernel->gate_mlp_forward(saved->gate + n * mlp->C, saved->factor + n * mlp->C,
                                  saved->hidden + n * mlp->pools * mlp->K,
                                  saved->pooled + n * mlp->pools * mlp->C, mlp);
}

void attn_channel_backward(const attn_channel_gradients *gradients, const attn_channel_saved *saved,
                           const attn_gate_mlp *mlp, int64_t n)
{
    int64_t pooled = n * mlp->pools * mlp->C, hidden = n * mlp->pools * mlp->K, gate = n * mlp->C;
    attn_kernel->gate_mlp_backward(gradients->dpooled + pooled, gradients->dhidden + hidden,
                                   gradients->dlogit + gate, gradients->dgate + gate,
                                   saved->gate + gate, saved->hidden + hidden, mlp);
}

/* Some rows of the matrices' gradients. */
typedef struct {
    const attn_gate_mlp *mlp;
    const attn_channel_gradients *gradients;
    const attn_channel_saved *saved;
    int64_t N;
    float *dw1, *dw2, *db1; /* NULL where not wanted */
    float *dw2_rows;        /* (K, C): scratch */
    float *hidden_sum;      /* (N, K): scratch, summed over pools */
} row_job;

enum { TASK_ROWS = 4 };

static void gradient_rows(void *context, int64_t task, int worker)
{
    (void)worker;
    const row_job *job = context;
    const attn_gate_mlp *mlp = job->mlp;
    int64_t C = mlp->C, K = mlp->K, first = task * TASK_ROWS;
    int64_t count = attn_min(TASK_ROWS, K - first), rows = job->N * mlp->pools;
    const float *dhidden = job->gradients->dhidden + first;
    if (job->dw1)
        attn_kernel->gate_weighted_rows(job->dw1 + first * C, dhidden, K, job->saved->pooled, rows,
                                        C, count);
    for (int64_t i = 0; job->db1 && i < count; i++) {
        double sum = 0.0;
        for (int64_t r = 0; r < rows; r++)
            sum += dhidden[r * K + i];
        job->db1[first + i] = (float)sum;
    }
    if (job->dw2) {
        float *row = job->dw2_rows + first * C;
        attn_kernel->gate_weighted_rows(row, job->hidden_sum + first, K, job->gradients->dlogit,
                                        job->N, C, count);
        for (int64_t c = 0; c < C; c++)
            for (int64_t i = 0; i < count; i++)
                job->dw2[c * K + first + i] = row[i * C + c];
    }
}

static void sum_hidden(const row_job *job)
{
    int64_t K = job->mlp->K, pools = job->mlp->pools;
    for (int64_t n = 0; n < job->N; n++) {
        const float *hidden = job->saved->hidden + n * pools * K;
        float *sum = job->hidden_sum + n * K;
        for (int64_t k = 0; k < K; k++)
            sum[k] = hidden[k];
        for (int64_t j = K; j < pools * K; j++)
            sum[j % K] += hidden[j];
    }
}

/* A tensor of the input's shape for its gradient, and its data; NULL where it is not wanted. */
static attn_status gradient_like(attn_node *node, attn_tensor **dx, int input, float **data)
{
    *data = NULL;
    if (input < 0 || !attn_node_wants(node, input))
        return ATTN_OK;
    const attn_variable *variable = node->inputs[input];
    ATTN_TRY(attn_tensor_empty(&dx[input], variable->ndim, variable->shape, ATTN_PLAIN));
    *data = attn_data(dx[input]);
    return ATTN_OK;
}

attn_status attn_channel_parameter_gradients(attn_node *node, attn_tensor **dx, const int inputs[4],
                                             const attn_gate_mlp *mlp,
                                             const attn_channel_gradients *gradients,
                                             const attn_channel_saved *saved, int64_t N)
{
    row_job job = {.mlp = mlp, .gradients = gradients, .saved = saved, .N = N};
    float *db2;
    ATTN_TRY(gradient_like(node, dx, inputs[0], &job.dw1));
    ATTN_TRY(gradient_like(node, dx, inputs[1], &job.db1));
    ATTN_TRY(gradient_like(node, dx, inputs[2], &job.dw2));
    ATTN_TRY(gradient_like(node, dx, inputs[3], &db2));
    if (job.dw1 || job.db1 || job.dw2) {
        ATTN_TRY(attn_alloc((void **)&job.dw2_rows, (size_t)(mlp->K * (mlp->C + N)) * sizeof(float)));
        job.hidden_sum = job.dw2_rows + mlp->K * mlp->C;
        sum_hidden(&job);
        attn_parallel(gradient_rows, &job, attn_ceil_div(mlp->K, TASK_ROWS));
        attn_free(job.dw2_rows);
    }
    if (db2) { /* the second bias enters once a pool */
        const float pools = (float)mlp->pools;
        attn_kernel->gate_weighted_rows(db2, &pools, 0, gradients->dlogit, N, mlp->C, 1);
    }
    return ATTN_OK;
}
