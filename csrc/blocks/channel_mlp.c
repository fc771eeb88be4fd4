/* The channel gate's small matrices: gate = sigmoid(sum over pools of (w2 relu(w1 pooled + b1) + b2)).
 *
 * They run image by image inside the passes over x. The parameters' gradients are sums over images
 * of outer products; they are taken at the end, a row k a task, from what each image left behind.
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

/* Row k of the matrices' gradients. */
typedef struct {
    const attn_gate_mlp *mlp;
    const attn_channel_gradients *gradients;
    const attn_channel_saved *saved;
    int64_t N;
    float *dw1, *dw2, *db1; /* NULL where not wanted */
    float *dw2_row;         /* (K, C): scratch */
    float *hidden_sum;      /* (K, N): scratch */
} row_job;

static void gradient_row(void *context, int64_t k, int worker)
{
    (void)worker;
    const row_job *job = context;
    const attn_gate_mlp *mlp = job->mlp;
    int64_t C = mlp->C, K = mlp->K, pools = mlp->pools, rows = job->N * pools;
    const float *dhidden = job->gradients->dhidden + k, *hidden = job->saved->hidden + k;
    if (job->dw1)
        attn_kernel->gate_weighted_rows(job->dw1 + k * C, dhidden, K, job->saved->pooled, rows, C);
    if (job->db1) {
        double sum = 0.0;
        for (int64_t r = 0; r < rows; r++)
            sum += dhidden[r * K];
        job->db1[k] = (float)sum;
    }
    if (job->dw2) {
        float *of_image = job->hidden_sum + k * job->N, *row = job->dw2_row + k * C;
        for (int64_t n = 0; n < job->N; n++) {
            of_image[n] = 0.0f;
            for (int64_t i = 0; i < pools; i++)
                of_image[n] += hidden[(n * pools + i) * K];
        }
        attn_kernel->gate_weighted_rows(row, of_image, 1, job->gradients->dlogit, job->N, C);
        for (int64_t c = 0; c < C; c++)
            job->dw2[c * K + k] = row[c];
    }
}

/* The second bias enters once a pool. */
static void second_bias_gradient(float *db2, const row_job *job)
{
    const float *dlogit = job->gradients->dlogit;
    int64_t C = job->mlp->C;
    for (int64_t c = 0; c < C; c++) {
        double sum = 0.0;
        for (int64_t n = 0; n < job->N; n++)
            sum += dlogit[n * C + c];
        db2[c] = (float)(sum * (double)job->mlp->pools);
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
        ATTN_TRY(attn_alloc((void **)&job.dw2_row, (size_t)(mlp->K * (mlp->C + N)) * sizeof(float)));
        job.hidden_sum = job.dw2_row + mlp->K * mlp->C;
        attn_parallel(gradient_row, &job, mlp->K);
        attn_free(job.dw2_row);
    }
    if (db2)
        second_bias_gradient(db2, &job);
    return ATTN_OK;
}
