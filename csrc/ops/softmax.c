/* Softmax, its logarithm, and the cross entropy of logits with classes.
 *
 * softmax: x, y of any shape, over one axis; computed in PLAIN. Saved: y.
 * cross entropy: logits (N,K), target (N) classes, loss () = mean over the batch of
 *     -(1 - s) log p[target] - s / K * sum_k log p[k],  p = softmax(logits), s = label_smoothing
 * Saved: logits, and for each row its maximum, 1 / sum exp and its target. dlogits = (p - (1 - s)
 * onehot - s / K) / N * dloss. Rows are independent; their losses are added in double, in order.
 */
#include "../base/memory.h"
#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "ops.h"

#include <math.h>
#include <string.h>

enum { TASK_ELEMENTS = 16384 };

/* x as (outer, K, inner), softmax over K; inner == 1 works on rows, else on strips of columns. */
typedef struct {
    float *out; /* y, or dx */
    const float *x, *dy, *y;
    int64_t outer, K, inner, strip, strips, task_rows;
    bool logarithm;
} softmax_job;

static void make_job(softmax_job *job, const attn_tensor *x, int axis, bool logarithm)
{
    *job = (softmax_job){.outer = 1, .K = x->shape[axis], .inner = 1, .logarithm = logarithm};
    for (int i = 0; i < axis; i++)
        job->outer *= x->shape[i];
    for (int i = axis + 1; i < x->ndim; i++)
        job->inner *= x->shape[i];
    if (x->size == 0)
        job->outer = 0;
    int64_t K = attn_max(job->K, 1);
    job->task_rows = attn_max(1, TASK_ELEMENTS / K);
    job->strip = attn_ceil_div(attn_max(1, TASK_ELEMENTS / K), ATTN_LANES) * ATTN_LANES;
    job->strips = attn_ceil_div(job->inner, job->strip);
}

static void rows_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const softmax_job *job = context;
    int64_t begin = index * job->task_rows, end = attn_min(begin + job->task_rows, job->outer);
    for (int64_t at = begin * job->K; at < end * job->K; at += job->K) {
        if (job->dy)
            attn_kernel->softmax_row_gradient(job->out + at, job->dy + at, job->y + at, job->K,
                                              job->logarithm);
        else
            attn_kernel->softmax_row(job->out + at, job->x + at, job->K, job->logarithm);
    }
}

static void columns_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const softmax_job *job = context;
    int64_t column = index % job->strips * job->strip;
    int64_t at = index / job->strips * job->K * job->inner + column;
    int64_t columns = attn_min(job->strip, job->inner - column);
    if (job->dy)
        attn_kernel->softmax_columns_gradient(job->out + at, job->dy + at, job->y + at, job->K,
                                              columns, job->inner, job->logarithm);
    else
        attn_kernel->softmax_columns(job->out + at, job->x + at, job->K, columns, job->inner,
                                     job->logarithm);
}

static void run_softmax(softmax_job *job)
{
    if (job->inner == 1)
        attn_parallel(rows_task, job, attn_ceil_div(job->outer, job->task_rows));
    else
        attn_parallel(columns_task, job, job->outer * job->strips);
}

typedef struct {
    int axis;
    bool logarithm;
} softmax_parameters;

static attn_status softmax_backward(attn_node *node, attn_tensor *const *gradients,
                                    attn_tensor **dx)
{
    const softmax_parameters *parameters = node->parameters;
    const attn_tensor *y = node->saved[0];
    attn_tensor *dy;
    softmax_job job;
    make_job(&job, y, parameters->axis, parameters->logarithm);
    ATTN_TRY(attn_tensor_as_plain(&dy, gradients[0]));
    attn_status status = attn_tensor_empty_like(&dx[0], y);
    if (status == ATTN_OK) {
        job.out = attn_data(dx[0]);
        job.dy = attn_data(dy);
        job.y = attn_data(y);
        run_softmax(&job);
    }
    attn_tensor_release(dy);
    return status;
}

static const attn_operation softmax_op = {"softmax", softmax_backward, sizeof(softmax_parameters)};

attn_status attn_softmax(attn_tensor **y, attn_tensor *x, int axis, bool logarithm)
{
    char got[160];
    if (axis < 0 || axis >= x->ndim)
        return attn_fail(ATTN_BAD_VALUE, "softmax: axis is %d, expected 0 to %d for x of shape %s",
                         axis, x->ndim - 1, attn_shape_text(got, x->ndim, x->shape));
    attn_tensor *plain, *out = NULL;
    ATTN_TRY(attn_tensor_as_plain(&plain, x));
    attn_status status = ATTN_OK;
    softmax_job job;
    make_job(&job, plain, axis, logarithm);
    ATTN_GOTO(attn_tensor_empty_like(&out, plain));
    job.out = attn_data(out);
    job.x = attn_data(plain);
    run_softmax(&job);
    softmax_parameters parameters = {axis, logarithm};
    ATTN_GOTO(attn_record(&softmax_op, 1, &x, 1, &out, &parameters, &out, 1));
    *y = out;
    out = NULL;
done:
    attn_tensor_release(plain);
    attn_tensor_release(out);
    return status;
}

/* What is kept of each row: its maximum, 1 / sum of exp, and the bits of its target as int32. */
enum { ROW_MAX, ROW_SCALE, ROW_TARGET, ROW_FIELDS };

typedef struct {
    float *dlogits;
    const float *logits;
    float *rows;  /* (N, ROW_FIELDS) */
    double *loss; /* (N) */
    int64_t N, K, task_rows;
    float smoothing, dloss;
} loss_job;

static int32_t row_target(const float *row)
{
    int32_t target;
    memcpy(&target, row + ROW_TARGET, sizeof target);
    return target;
}

static void loss_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const loss_job *job = context;
    int64_t begin = index * job->task_rows;
    for (int64_t n = begin; n < attn_min(begin + job->task_rows, job->N); n++) {
        const float *x = job->logits + n * job->K;
        float *row = job->rows + n * ROW_FIELDS, summary[3];
        attn_kernel->cross_entropy_row(summary, x, job->K);
        double s = job->smoothing;
        double loss = log((double)summary[1]);
        if (s < 1)
            loss -= (1 - s) * ((double)x[row_target(row)] - summary[0]);
        if (s > 0) /* else a logit of -inf would make 0 * inf */
            loss -= s / (double)job->K * summary[2];
        job->loss[n] = loss;
        row[ROW_MAX] = summary[0];
        row[ROW_SCALE] = 1.0f / summary[1];
    }
}

static void loss_gradient_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const loss_job *job = context;
    int64_t begin = index * job->task_rows;
    float share = job->dloss / (float)job->N;
    for (int64_t n = begin; n < attn_min(begin + job->task_rows, job->N); n++) {
        const float *row = job->rows + n * ROW_FIELDS;
        float *dx = job->dlogits + n * job->K;
        attn_kernel->cross_entropy_row_gradient(dx, job->logits + n * job->K, row[ROW_MAX],
                                                share * row[ROW_SCALE],
                                                share * job->smoothing / (float)job->K, job->K);
        dx[row_target(row)] -= share * (1 - job->smoothing);
    }
}

static attn_status cross_entropy_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    const attn_tensor *logits = node->saved[0];
    ATTN_TRY(attn_tensor_empty_like(&dx[0], logits));
    int64_t K = logits->shape[1];
    loss_job job = {
        .dlogits = attn_data(dx[0]),
        .logits = attn_data(logits),
        .rows = attn_data(node->saved[1]),
        .N = logits->shape[0],
        .K = K,
        .task_rows = attn_max(1, TASK_ELEMENTS / K),
        .smoothing = *(const float *)node->parameters,
        .dloss = attn_data(dy[0])[0],
    };
    attn_parallel(loss_gradient_task, &job, attn_ceil_div(job.N, job.task_rows));
    return ATTN_OK;
}

static const attn_operation cross_entropy_op = {"cross_entropy", cross_entropy_backward,
                                                sizeof(float)};

static attn_status check_loss(const attn_tensor *logits, const int64_t *target, float smoothing)
{
    char got[160];
    if (logits->ndim != 2)
        return attn_fail(ATTN_BAD_VALUE, "cross_entropy: logits have shape %s, expected (N, K)",
                         attn_shape_text(got, logits->ndim, logits->shape));
    int64_t N = logits->shape[0], K = logits->shape[1];
    if (N == 0)
        return attn_fail(ATTN_BAD_VALUE, "cross_entropy: logits have shape (0, %lld): the mean "
                         "over an empty batch does not exist", (long long)K);
    if (K == 0)
        return attn_fail(ATTN_BAD_VALUE, "cross_entropy: logits have shape (%lld, 0), expected at "
                         "least one class", (long long)N);
    if (K > INT32_MAX)
        return attn_fail(ATTN_BAD_VALUE, "cross_entropy: logits have %lld classes, expected at "
                         "most %d", (long long)K, INT32_MAX);
    if (!(smoothing >= 0 && smoothing <= 1))
        return attn_fail(ATTN_BAD_VALUE, "cross_entropy: label_smoothing is %g, expected 0 to 1",
                         (double)smoothing);
    for (int64_t n = 0; n < N; n++)
        if (target[n] < 0 || target[n] >= K)
            return attn_fail(ATTN_BAD_VALUE, "cross_entropy: target[%lld] is %lld, expected 0 to "
                             "%lld: the logits have K = %lld classes", (long long)n,
                             (long long)target[n], (long long)K - 1, (long long)K);
    return ATTN_OK;
}

attn_status attn_cross_entropy(attn_tensor **loss, attn_tensor *logits, const int64_t *target,
                               float label_smoothing)
{
    ATTN_TRY(check_loss(logits, target, label_smoothing));
    int64_t N = logits->shape[0], K = logits->shape[1];
    attn_tensor *rows = NULL, *out = NULL;
    attn_status status = ATTN_OK;
    loss_job job = {.logits = attn_data(logits), .N = N, .K = K, .smoothing = label_smoothing,
                    .task_rows = attn_max(1, TASK_ELEMENTS / K)};
    ATTN_GOTO(attn_tensor_empty(&rows, 2, (int64_t[]){N, ROW_FIELDS}, ATTN_PLAIN));
    ATTN_GOTO(attn_tensor_empty(&out, 0, NULL, ATTN_PLAIN));
    ATTN_GOTO(attn_alloc((void **)&job.loss, (size_t)N * sizeof(double)));
    job.rows = attn_data(rows);
    for (int64_t n = 0; n < N; n++) {
        int32_t class = (int32_t)target[n];
        memcpy(job.rows + n * ROW_FIELDS + ROW_TARGET, &class, sizeof class);
    }
    attn_parallel(loss_task, &job, attn_ceil_div(N, job.task_rows));
    double total = 0;
    for (int64_t n = 0; n < N; n++)
        total += job.loss[n];
    attn_data(out)[0] = (float)(total / (double)N);
    ATTN_GOTO(attn_record(&cross_entropy_op, 1, &logits, 1, &out, &label_smoothing,
                          (attn_tensor *[]){logits, rows}, 2));
    *loss = out;
    out = NULL;
done:
    attn_free(job.loss);
    attn_tensor_release(rows);
    attn_tensor_release(out);
    return status;
}
