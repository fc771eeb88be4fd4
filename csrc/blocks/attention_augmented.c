/* Relative attention (attention_augmented.h), forward and backward.
 *
 * Inputs   kqv (N, 2 dk + dv, H, W) PLAIN or BLOCKED16, rel_h (2H - 1, dk / heads), rel_w.
 * Output   y (N, dv, H, W), in the layout of kqv where it can be; PLAIN in the original's form.
 * Saved    kqv (in the original's form as PLAIN), rel_h, rel_w, y, and lse (N, heads, H * W): one
 *          log-sum-exp a query and head. Probabilities are computed again from them.
 * Gradients overwrite new tensors.
 *
 * Memory: each worker owns a scratch space for one head: its keys and values (and their gradients),
 * packed, and the scores of 16 queries with some 256 keys. For 32 x 32 positions and 20 + 2
 * channels a head this is 0.1 MiB forward and 0.25 MiB backward.
 *
 * Threads: a task is a head of an image (in the original's backward an image, as its heads share
 * the bias). The tables' gradients are summed in a fixed number of chunks of tasks, set by the
 * shape alone, then over the chunks in order: the same bits with any number of threads.
 */
#include "attention_augmented.h"

#include "../base/memory.h"
#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "../tensor/tape.h"

#include <math.h>
#include <string.h>

enum { MAX_CHUNKS = 128 };

typedef struct {
    int64_t heads, dk, dv;
    bool original_form;
} attention_options;

typedef struct {
    attention_options options;
    attn_attention_plan plan;
    const attn_tensor *kqv, *y, *dy;
    attn_tensor *dkqv;
    float *lse;
    float *tables;   /* rel_h and rel_w transposed, one behind the other */
    float *partial;  /* (chunks, table_floats) their gradients */
    float *scratch;  /* (workers, scratch_floats) */
    int64_t table_floats, scratch_floats, tasks, chunks;
    int workers;     /* that scratch has room for */
} attention_job;

static attn_status check(const attn_tensor *kqv, const attn_tensor *rel_h, const attn_tensor *rel_w,
                         const attention_options *o)
{
    char text[160];
    const long long heads = o->heads, dk = o->dk, dv = o->dv;
    if (kqv->ndim != 4 || kqv->shape[2] < 1 || kqv->shape[3] < 1)
        return attn_fail(ATTN_BAD_VALUE,
                         "relative_attention: kqv has shape %s, expected (N, 2 * dk + dv, H, W)",
                         attn_shape_text(text, kqv->ndim, kqv->shape));
    if (heads < 1)
        return attn_fail(ATTN_BAD_VALUE, "relative_attention: heads is %lld, expected 1 or more",
                         heads);
    if (dk < 1 || dk % heads != 0)
        return attn_fail(ATTN_BAD_VALUE,
                         "relative_attention: dk is %lld, expected a positive multiple of heads = "
                         "%lld", dk, heads);
    if (dv < 1 || dv % heads != 0)
        return attn_fail(ATTN_BAD_VALUE,
                         "relative_attention: dv is %lld, expected a positive multiple of heads = "
                         "%lld", dv, heads);
    if (kqv->shape[1] != 2 * dk + dv)
        return attn_fail(ATTN_BAD_VALUE,
                         "relative_attention: kqv of shape %s has %lld channels, expected "
                         "2 * dk + dv = %lld (dk = %lld, dv = %lld)",
                         attn_shape_text(text, kqv->ndim, kqv->shape), (long long)kqv->shape[1],
                         2 * dk + dv, dk, dv);
    for (int axis = 0; axis < 2; axis++) {
        const attn_tensor *table = axis ? rel_w : rel_h;
        const long long rows = 2 * (long long)kqv->shape[2 + axis] - 1;
        if (table->ndim != 2 || table->shape[0] != rows || table->shape[1] != dk / heads)
            return attn_fail(ATTN_BAD_VALUE,
                             "relative_attention: %s has shape %s, expected (2 * %s - 1, "
                             "dk / heads) = (%lld, %lld)", axis ? "rel_w" : "rel_h",
                             attn_shape_text(text, table->ndim, table->shape), axis ? "W" : "H",
                             rows, dk / heads);
    }
    return ATTN_OK;
}

static attn_attention_plan make_plan(const attn_tensor *kqv, const attention_options *o)
{
    attn_attention_plan plan = {
        .H = kqv->shape[2], .W = kqv->shape[3], .d = o->dk / o->heads, .e = o->dv / o->heads,
        .heads = o->heads, .summed_bias = o->original_form,
    };
    attn_kernel->attention_plan(&plan);
    return plan;
}

/* One head of the n * heads channels of x from channel `start` on. */
static attn_head_view view_head(const attn_tensor *x, const attention_options *o, int64_t image,
                                int64_t start, int64_t n, int64_t head)
{
    const int64_t L = x->shape[2] * x->shape[3];
    float *base = attn_data(x) + image * x->shape[1] * L;
    if (o->original_form)
        return (attn_head_view){base + (start + head * n) * L, 0, 1, n, false};
    const bool blocked = x->layout == ATTN_BLOCKED16;
    return (attn_head_view){base, start + head * n, L, blocked ? ATTN_LANES : 1, blocked};
}

/* k, q and v of kqv, or their gradients of dkqv. */
static void view_kqv(attn_head_view *k, attn_head_view *q, attn_head_view *v,
                     const attention_job *job, const attn_tensor *kqv, int64_t image, int64_t head)
{
    const attention_options *o = &job->options;
    *k = view_head(kqv, o, image, 0, job->plan.d, head);
    *q = view_head(kqv, o, image, o->dk, job->plan.d, head);
    *v = view_head(kqv, o, image, 2 * o->dk, job->plan.e, head);
}

static attn_attention_head head_of(const attention_job *job, int64_t image, int64_t head)
{
    const int64_t L = job->plan.H * job->plan.W;
    attn_attention_head h = {
        .y = view_head(job->y, &job->options, image, 0, job->plan.e, head),
        .table_h = job->tables,
        .table_w = job->tables + job->plan.d * job->plan.table_h,
        .lse = job->lse ? job->lse + (image * job->options.heads + head) * L : NULL,
    };
    view_kqv(&h.k, &h.q, &h.v, job, job->kqv, image, head);
    h.all_q = view_head(job->kqv, &job->options, image, job->options.dk, job->plan.d, 0).base;
    return h;
}

/* transposed(d, stride) = table(rows, d)^T, zeros behind the last row. */
static void transpose_table(float *transposed, const attn_tensor *table, int64_t stride)
{
    const int64_t rows = table->shape[0], d = table->shape[1];
    memset(transposed, 0, (size_t)(d * stride) * sizeof(float));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < d; i++)
            transposed[i * stride + r] = attn_data(table)[r * d + i];
}

/* Tables, scratch and (backward) partial sums: everything in one block of memory, job->tables. */
static attn_status job_start(attention_job *job, const attn_tensor *rel_h, const attn_tensor *rel_w,
                             bool backward)
{
    const attn_attention_plan *plan = &job->plan;
    const int64_t N = job->kqv->shape[0];
    const bool by_image = backward && plan->summed_bias;
    job->tasks = by_image ? N : N * plan->heads;
    job->chunks = attn_min(job->tasks, MAX_CHUNKS);
    job->table_floats = plan->d * (plan->table_h + plan->table_w);
    job->scratch_floats = backward ? plan->backward_scratch : plan->forward_scratch;
    if (by_image) /* the gradient of the summed queries */
        job->scratch_floats += attn_ceil_div(plan->H * plan->W * plan->d, 16) * 16;
    const int64_t partial = backward ? job->chunks * job->table_floats : 0;
    job->workers = attn_num_threads();
    ATTN_TRY(attn_alloc_shares(&job->tables, job->table_floats + partial, job->scratch_floats,
                               job->workers));
    job->partial = job->tables + job->table_floats;
    job->scratch = job->partial + partial;
    memset(job->partial, 0, (size_t)partial * sizeof(float));
    transpose_table(job->tables, rel_h, plan->table_h);
    transpose_table(job->tables + plan->d * plan->table_h, rel_w, plan->table_w);
    return ATTN_OK;
}

static void forward_task(void *context, int64_t index, int worker)
{
    const attention_job *job = context;
    const int64_t heads = job->options.heads;
    const attn_attention_head head = head_of(job, index / heads, index % heads);
    attn_kernel->attention_forward(&job->plan, &head, job->scratch + worker * job->scratch_floats);
}

static void backward_head(const attention_job *job, int64_t image, int64_t head, float *d_tables,
                          float *summed_q, float *scratch)
{
    const attn_attention_head h = head_of(job, image, head);
    attn_attention_gradient gradient = {
        .dy = view_head(job->dy, &job->options, image, 0, job->plan.e, head),
        .table_h = d_tables,
        .table_w = d_tables + job->plan.d * job->plan.table_h,
        .summed_q = summed_q,
    };
    view_kqv(&gradient.dk, &gradient.dq, &gradient.dv, job, job->dkqv, image, head);
    attn_kernel->attention_backward(&job->plan, &h, &gradient, scratch);
}

/* The heads of an image in turn; then the gradient of their queries' sum belongs to each one. */
static void backward_image(const attention_job *job, int64_t image, float *d_tables, float *scratch)
{
    const int64_t floats = job->plan.H * job->plan.W * job->plan.d;
    float *summed_q = scratch + job->plan.backward_scratch;
    memset(summed_q, 0, (size_t)floats * sizeof(float));
    for (int64_t head = 0; head < job->options.heads; head++)
        backward_head(job, image, head, d_tables, summed_q, scratch);
    for (int64_t head = 0; head < job->options.heads; head++) {
        float *dq = view_head(job->dkqv, &job->options, image, job->options.dk, job->plan.d, head)
                        .base;
        for (int64_t i = 0; i < floats; i++)
            dq[i] += summed_q[i];
    }
}

static void backward_chunk(void *context, int64_t chunk, int worker)
{
    const attention_job *job = context;
    const int64_t heads = job->options.heads;
    float *scratch = job->scratch + worker * job->scratch_floats;
    float *d_tables = job->partial + chunk * job->table_floats;
    const int64_t end = (chunk + 1) * job->tasks / job->chunks;
    for (int64_t task = chunk * job->tasks / job->chunks; task < end; task++) {
        if (job->plan.summed_bias)
            backward_image(job, task, d_tables, scratch);
        else
            backward_head(job, task / heads, task % heads, d_tables, NULL, scratch);
    }
}

/* The chunks' sums in order, transposed back; ln 2 because the kernel's queries carry log2(e). */
static attn_status table_gradient(attn_tensor **gradient, const attention_job *job, int64_t offset,
                                  int64_t stride, const attn_tensor *table)
{
    const float ln2 = 0.693147180559945309f;
    const int64_t rows = table->shape[0], d = table->shape[1];
    ATTN_TRY(attn_tensor_zeros(gradient, 2, table->shape, ATTN_PLAIN));
    for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
        const float *partial = job->partial + chunk * job->table_floats + offset;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < d; i++)
                attn_data(*gradient)[r * d + i] += partial[i * stride + r];
    }
    for (int64_t i = 0; i < rows * d; i++)
        attn_data(*gradient)[i] *= ln2;
    return ATTN_OK;
}

enum { KQV, REL_H, REL_W, Y, LSE };

static attn_status relative_attention_backward(attn_node *node, attn_tensor *const *dy,
                                               attn_tensor **dx)
{
    attn_tensor **saved = node->saved, *dy_used = NULL, *dkqv = NULL;
    attention_job job = {.options = *(attention_options *)node->parameters};
    attn_status status;
    if (job.options.original_form)
        ATTN_GOTO(attn_tensor_as_plain(&dy_used, dy[0]));
    else
        dy_used = attn_tensor_retain(dy[0]);
    ATTN_GOTO(attn_tensor_empty_like(&dkqv, saved[KQV]));
    job.plan = make_plan(saved[KQV], &job.options);
    job.kqv = saved[KQV];
    job.y = saved[Y];
    job.lse = attn_data(saved[LSE]);
    job.dy = dy_used;
    job.dkqv = dkqv;
    ATTN_GOTO(job_start(&job, saved[REL_H], saved[REL_W], true));
    attn_parallel_within(job.workers, backward_chunk, &job, job.chunks);
    if (attn_node_wants(node, REL_H))
        ATTN_GOTO(table_gradient(&dx[REL_H], &job, 0, job.plan.table_h, saved[REL_H]));
    if (attn_node_wants(node, REL_W))
        ATTN_GOTO(table_gradient(&dx[REL_W], &job, job.plan.d * job.plan.table_h,
                                 job.plan.table_w, saved[REL_W]));
    if (attn_node_wants(node, KQV))
        dx[KQV] = attn_tensor_retain(dkqv);
done:
    attn_free(job.tables);
    attn_tensor_release(dkqv);
    attn_tensor_release(dy_used);
    return status;
}

static const attn_operation relative_attention_op = {
    "relative_attention", relative_attention_backward, sizeof(attention_options)};

attn_status attn_relative_attention(attn_tensor **y, attn_tensor *kqv, attn_tensor *rel_h,
                                    attn_tensor *rel_w, int heads, int64_t dk, int64_t dv,
                                    bool original_form)
{
    attention_job job = {.options = {heads, dk, dv, original_form}};
    attn_tensor *used = NULL, *out = NULL, *lse = NULL;
    attn_tensor *inputs[] = {kqv, rel_h, rel_w};
    attn_status status;
    ATTN_TRY(check(kqv, rel_h, rel_w, &job.options));
    const int64_t N = kqv->shape[0], H = kqv->shape[2], W = kqv->shape[3];
    ATTN_GOTO(attn_tensor_as(&used, kqv, original_form ? ATTN_PLAIN : kqv->layout));
    ATTN_GOTO(attn_tensor_empty(&out, 4, (int64_t[]){N, dv, H, W}, used->layout));
    if (attn_needs_grad(3, inputs))
        ATTN_GOTO(attn_tensor_empty(&lse, 3, (int64_t[]){N, heads, H * W}, ATTN_PLAIN));
    job.plan = make_plan(kqv, &job.options);
    job.kqv = used;
    job.y = out;
    job.lse = lse ? attn_data(lse) : NULL;
    ATTN_GOTO(job_start(&job, rel_h, rel_w, false));
    attn_parallel_within(job.workers, forward_task, &job, job.tasks);
    ATTN_GOTO(attn_record(&relative_attention_op, 3, inputs, 1, &out, &job.options,
                          (attn_tensor *[]){used, rel_h, rel_w, out, lse}, 5));
    *y = attn_tensor_retain(out);
done:
    attn_free(job.tables);
    attn_tensor_release(used);
    attn_tensor_release(out);
    attn_tensor_release(lse);
    return status;
}

/* logits[key] of one head: plain loops in double, for one query at a time. */
static void logits_row(double *logits, const attention_job *job, const attn_tensor *rel_h,
                       const attn_tensor *rel_w, int64_t image, int64_t head, int64_t query)
{
    const attn_attention_plan *plan = &job->plan;
    const attn_attention_head h = head_of(job, image, head);
    const int64_t H = plan->H, W = plan->W, d = plan->d;
    for (int64_t key = 0; key < H * W; key++)
        logits[key] = 0.0;
    for (int64_t i = 0; i < d; i++) {
        const float *k = attn_head_channel(&h.k, i);
        const double q = attn_head_channel(&h.q, i)[query * h.q.step] / sqrt((double)d);
        double of_bias = q;
        if (plan->summed_bias) {
            of_bias = 0.0;
            for (int64_t other = 0; other < plan->heads; other++)
                of_bias += h.all_q[(other * H * W + query) * d + i] / sqrt((double)d);
        }
        for (int64_t key = 0; key < H * W; key++) {
            const int64_t row = key / W - query / W + H - 1, column = key % W - query % W + W - 1;
            logits[key] += q * k[key * h.k.step] +
                           of_bias * ((double)attn_data(rel_h)[row * d + i] +
                                      attn_data(rel_w)[column * d + i]);
        }
    }
}

static void softmax_row(float *row, double *logits, int64_t count)
{
    double maximum = logits[0], sum = 0.0;
    for (int64_t i = 1; i < count; i++)
        maximum = logits[i] > maximum ? logits[i] : maximum;
    for (int64_t i = 0; i < count; i++)
        sum += logits[i] = exp(logits[i] - maximum);
    for (int64_t i = 0; i < count; i++)
        row[i] = (float)(logits[i] / sum);
}

attn_status attn_relative_attention_rows(attn_tensor **rows, attn_tensor *kqv, attn_tensor *rel_h,
                                         attn_tensor *rel_w, int heads, int64_t dk, int64_t dv,
                                         bool original_form, int64_t image, int64_t query)
{
    attention_job job = {.options = {heads, dk, dv, original_form}};
    attn_tensor *used = NULL, *out = NULL;
    double *logits = NULL;
    attn_status status;
    ATTN_TRY(check(kqv, rel_h, rel_w, &job.options));
    const int64_t L = kqv->shape[2] * kqv->shape[3];
    if (image < 0 || image >= kqv->shape[0])
        return attn_fail(ATTN_BAD_VALUE, "relative_attention_rows: image is %lld, expected 0 to "
                         "%lld", (long long)image, (long long)kqv->shape[0] - 1);
    if (query < 0 || query >= L)
        return attn_fail(ATTN_BAD_VALUE, "relative_attention_rows: query is %lld, expected a "
                         "position from 0 to H * W - 1 = %lld", (long long)query, (long long)L - 1);
    ATTN_GOTO(attn_tensor_as(&used, kqv, original_form ? ATTN_PLAIN : kqv->layout));
    ATTN_GOTO(attn_tensor_empty(&out, 2, (int64_t[]){heads, L}, ATTN_PLAIN));
    ATTN_GOTO(attn_alloc((void **)&logits, (size_t)L * sizeof(double)));
    job.plan = make_plan(kqv, &job.options);
    job.kqv = job.y = used; /* y is not looked at */
    for (int64_t head = 0; head < heads; head++) {
        logits_row(logits, &job, rel_h, rel_w, image, head, query);
        softmax_row(attn_data(out) + head * L, logits, L);
    }
    *rows = attn_tensor_retain(out);
done:
    attn_free(logits);
    attn_tensor_release(used);
    attn_tensor_release(out);
    return status;
}
