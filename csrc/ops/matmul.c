/* Products of matrices, by OpenBLAS (base/blas.h), cut into tiles that our threads share.
 *
 * matmul: a (..., M, K), b (..., K, N), y (..., M, N); leading axes broadcast. An `a` of one axis
 * is a row (1, K) whose M disappears from y, a `b` of one axis a column (K, 1). Saved: a, b, each
 * where the other wants a gradient.
 *     da = dy b^T, db = a^T dy, each summed over the axes that were broadcast.
 * linear: x (..., C), weight (K, C), bias (K) or NULL, y (..., K) = x weight^T + bias. Saved: x,
 * weight.     dx = dy weight, dweight = dy^T x, dbias = sum of dy's rows.
 *
 * All in PLAIN. The tiles depend on the shapes alone and sums over broadcast axes go in their order
 * into one tile, so the bits do not depend on the number of threads.
 */
#include "../base/blas.h"
#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "ops.h"

#include <string.h>

enum { MAX_TILES = 64, SMALL_TILE = 48, SUM_STRIP = 64 };
static const double TILE_WORK = 4e6; /* multiplications and additions that are worth a task */

/* out (M,N) = op(left) op(right) [+ bias (N)], for every index of the batch axes; axes in which out
 * has stride 0 are summed over. Strides count elements; leading dimensions are as stored. */
typedef struct {
    float *out;
    const float *left, *right, *bias;
    int64_t M, N, K, left_ld, right_ld;
    bool transpose_left, transpose_right;
    int axes;
    int64_t shape[ATTN_MAX_DIMS], out_stride[ATTN_MAX_DIMS], left_stride[ATTN_MAX_DIMS],
        right_stride[ATTN_MAX_DIMS];
    int64_t targets, terms; /* matrices of out, and products summed into each */
    int64_t tile_M, tile_N, tiles_M, tiles_N;
} product;

/* Moves the three pointers to position `index` of those axes that are summed over, or are not. */
static void seek(const product *p, bool summed, int64_t index, float **out, const float **left,
                 const float **right)
{
    for (int i = p->axes - 1; i >= 0; i--) {
        if ((p->out_stride[i] == 0) != summed)
            continue;
        int64_t at = index % p->shape[i];
        index /= p->shape[i];
        *out += at * p->out_stride[i];
        *left += at * p->left_stride[i];
        *right += at * p->right_stride[i];
    }
}

static void product_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const product *p = context;
    int64_t tile = index % (p->tiles_M * p->tiles_N);
    int64_t m = tile / p->tiles_N * p->tile_M, n = tile % p->tiles_N * p->tile_N;
    int64_t M = attn_min(p->tile_M, p->M - m), N = attn_min(p->tile_N, p->N - n);
    float *out = p->out + m * p->N + n;
    const float *left = p->left + (p->transpose_left ? m : m * p->left_ld);
    const float *right = p->right + (p->transpose_right ? n * p->right_ld : n);
    seek(p, false, index / (p->tiles_M * p->tiles_N), &out, &left, &right);
    if (p->bias)
        for (int64_t row = 0; row < M; row++)
            memcpy(out + row * p->N, p->bias + n, (size_t)N * sizeof(float));
    for (int64_t term = 0; term < p->terms; term++) {
        float *same = out;
        const float *l = left, *r = right;
        seek(p, true, term, &same, &l, &r);
        attn_sgemm(p->transpose_left, p->transpose_right, M, N, p->K, 1.0f, l, p->left_ld, r,
                   p->right_ld, term > 0 || p->bias ? 1.0f : 0.0f, out, p->N);
    }
}

/* About half of a length, a multiple of 16. */
static int64_t halve(int64_t length) { return attn_ceil_div(length, 32) * 16; }

static void cut_into_tiles(product *p)
{
    double work = 2.0 * (double)p->M * (double)p->N * (double)p->K * (double)p->terms;
    double wanted = work / TILE_WORK;
    if (wanted > (double)MAX_TILES / (double)p->targets)
        wanted = (double)MAX_TILES / (double)p->targets;
    p->tile_M = p->M;
    p->tile_N = p->N;
    p->tiles_M = p->tiles_N = 1;
    while ((double)(p->tiles_M * p->tiles_N) < wanted &&
           (p->tile_M > SMALL_TILE || p->tile_N > SMALL_TILE)) {
        if (p->tile_M > p->tile_N)
            p->tile_M = halve(p->tile_M);
        else
            p->tile_N = halve(p->tile_N);
        p->tiles_M = attn_ceil_div(p->M, p->tile_M);
        p->tiles_N = attn_ceil_div(p->N, p->tile_N);
    }
}

static void run_product(product *p)
{
    p->targets = p->terms = 1;
    for (int i = 0; i < p->axes; i++)
        *(p->out_stride[i] == 0 ? &p->terms : &p->targets) *= p->shape[i];
    if (p->M == 0 || p->N == 0 || p->targets == 0)
        return;
    if (p->terms == 0) { /* a sum over nothing: one product without columns */
        p->terms = 1;
        p->K = 0;
        for (int i = 0; i < p->axes; i++)
            if (p->out_stride[i] == 0)
                p->shape[i] = 1;
    }
    cut_into_tiles(p);
    attn_parallel(product_task, p, p->targets * p->tiles_M * p->tiles_N);
}

/* OpenBLAS counts in int. */
static attn_status check_int(const char *operation, int64_t M, int64_t N, int64_t K)
{
    if (M > INT32_MAX || N > INT32_MAX || K > INT32_MAX)
        return attn_fail(ATTN_BAD_VALUE, "%s: a product of (%lld, %lld) and (%lld, %lld), expected "
                         "sizes below 2^31", operation, (long long)M, (long long)K, (long long)K,
                         (long long)N);
    return ATTN_OK;
}

/* How matmul reads its operands: everything that forward and backward share. */
typedef struct {
    int64_t M, N, K;
    int axes; /* batch axes, broadcast */
    int64_t shape[ATTN_MAX_DIMS], a_stride[ATTN_MAX_DIMS], b_stride[ATTN_MAX_DIMS],
        y_stride[ATTN_MAX_DIMS];
} matmul_plan;

/* Element strides of an operand's batch axes, aligned at their ends; 0 where it is broadcast. */
static void batch_strides(int64_t *stride, const matmul_plan *plan, int own_axes,
                          const int64_t *own_shape, int64_t matrix)
{
    for (int i = plan->axes - 1; i >= 0; i--) {
        int own = i - (plan->axes - own_axes);
        bool there = own >= 0 && (own_shape[own] != 1 || plan->shape[i] == 1);
        stride[i] = there ? matrix : 0;
        if (own >= 0)
            matrix *= own_shape[own];
    }
}

static attn_status make_plan(matmul_plan *plan, const attn_tensor *a, const attn_tensor *b)
{
    char a_text[160], b_text[160];
    attn_shape_text(a_text, a->ndim, a->shape);
    attn_shape_text(b_text, b->ndim, b->shape);
    if (a->ndim == 0 || b->ndim == 0)
        return attn_fail(ATTN_BAD_VALUE, "matmul: a has shape %s and b %s, expected one axis or "
                         "more, not a scalar", a_text, b_text);
    int64_t b_K = b->ndim == 1 ? b->shape[0] : b->shape[b->ndim - 2];
    *plan = (matmul_plan){
        .M = a->ndim == 1 ? 1 : a->shape[a->ndim - 2],
        .K = a->shape[a->ndim - 1],
        .N = b->ndim == 1 ? 1 : b->shape[b->ndim - 1],
    };
    if (plan->K != b_K)
        return attn_fail(ATTN_BAD_VALUE, "matmul: a %s has %lld columns, b %s has %lld rows, "
                         "expected as many", a_text, (long long)plan->K, b_text, (long long)b_K);
    int a_axes = (int)attn_max(a->ndim - 2, 0), b_axes = (int)attn_max(b->ndim - 2, 0);
    if (b_axes == 0) { /* one b for all rows of a: one tall product */
        for (int i = 0; i < a_axes; i++)
            plan->M *= a->shape[i];
        return check_int("matmul", plan->M, plan->N, plan->K);
    }
    plan->axes = (int)attn_max(a_axes, b_axes);
    for (int i = 0; i < plan->axes; i++) {
        int in_a = i - (plan->axes - a_axes), in_b = i - (plan->axes - b_axes);
        int64_t a_size = in_a < 0 ? 1 : a->shape[in_a], b_size = in_b < 0 ? 1 : b->shape[in_b];
        if (a_size != b_size && a_size != 1 && b_size != 1)
            return attn_fail(ATTN_BAD_VALUE, "matmul: the leading axes of a %s and b %s do not "
                             "broadcast: %lld against %lld", a_text, b_text, (long long)a_size,
                             (long long)b_size);
        plan->shape[i] = a_size == 1 ? b_size : a_size;
    }
    batch_strides(plan->a_stride, plan, a_axes, a->shape, plan->M * plan->K);
    batch_strides(plan->b_stride, plan, b_axes, b->shape, plan->K * plan->N);
    batch_strides(plan->y_stride, plan, plan->axes, plan->shape, plan->M * plan->N);
    return check_int("matmul", plan->M, plan->N, plan->K);
}

static product start_product(const matmul_plan *plan, const int64_t *out_stride,
                             const int64_t *left_stride, const int64_t *right_stride)
{
    product p = {.axes = plan->axes};
    memcpy(p.shape, plan->shape, sizeof p.shape);
    memcpy(p.out_stride, out_stride, sizeof p.out_stride);
    memcpy(p.left_stride, left_stride, sizeof p.left_stride);
    memcpy(p.right_stride, right_stride, sizeof p.right_stride);
    return p;
}

/* A tensor for the gradient of an input. */
static attn_status empty_for(attn_tensor **dx, const attn_variable *input)
{
    return attn_tensor_empty(dx, input->ndim, input->shape, ATTN_PLAIN);
}

static attn_status matmul_backward(attn_node *node, attn_tensor *const *gradients, attn_tensor **dx)
{
    const attn_tensor *a = node->saved[0], *b = node->saved[1];
    const matmul_plan plan = *(const matmul_plan *)node->parameters;
    attn_tensor *dy;
    ATTN_TRY(attn_tensor_as_plain(&dy, gradients[0]));
    attn_status status = ATTN_OK;
    if (attn_node_wants(node, 0)) {
        ATTN_GOTO(empty_for(&dx[0], node->inputs[0]));
        product p = start_product(&plan, plan.a_stride, plan.y_stride, plan.b_stride);
        p.M = plan.M, p.N = plan.K, p.K = plan.N;
        p.out = attn_data(dx[0]), p.left = attn_data(dy), p.right = attn_data(b);
        p.left_ld = p.right_ld = plan.N;
        p.transpose_right = true;
        run_product(&p);
    }
    if (attn_node_wants(node, 1)) {
        ATTN_GOTO(empty_for(&dx[1], node->inputs[1]));
        product p = start_product(&plan, plan.b_stride, plan.a_stride, plan.y_stride);
        p.M = plan.K, p.N = plan.N, p.K = plan.M;
        p.out = attn_data(dx[1]), p.left = attn_data(a), p.right = attn_data(dy);
        p.left_ld = plan.K, p.right_ld = plan.N;
        p.transpose_left = true;
        run_product(&p);
    }
done:
    attn_tensor_release(dy);
    return status;
}

static const attn_operation matmul_op = {"matmul", matmul_backward, sizeof(matmul_plan)};

attn_status attn_matmul(attn_tensor **y, attn_tensor *a, attn_tensor *b)
{
    matmul_plan plan;
    ATTN_TRY(make_plan(&plan, a, b));
    attn_tensor *plain_a = NULL, *plain_b = NULL, *out = NULL;
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_as_plain(&plain_a, a));
    ATTN_GOTO(attn_tensor_as_plain(&plain_b, b));
    int64_t shape[ATTN_MAX_DIMS];
    int ndim = 0, a_axes = (int)attn_max(a->ndim - 2, 0);
    for (int i = 0; i < (plan.axes ? plan.axes : a_axes); i++)
        shape[ndim++] = plan.axes ? plan.shape[i] : a->shape[i];
    if (a->ndim > 1)
        shape[ndim++] = a->shape[a->ndim - 2];
    if (b->ndim > 1)
        shape[ndim++] = plan.N;
    ATTN_GOTO(attn_tensor_empty(&out, ndim, shape, ATTN_PLAIN));
    product p = start_product(&plan, plan.y_stride, plan.a_stride, plan.b_stride);
    p.M = plan.M, p.N = plan.N, p.K = plan.K;
    p.out = attn_data(out), p.left = attn_data(plain_a), p.right = attn_data(plain_b);
    p.left_ld = plan.K, p.right_ld = plan.N;
    run_product(&p);
    attn_tensor *saved[2] = {attn_wanted(b) ? plain_a : NULL, attn_wanted(a) ? plain_b : NULL};
    ATTN_GOTO(attn_record(&matmul_op, 2, (attn_tensor *[]){a, b}, 1, &out, &plan, saved, 2));
    *y = out;
    out = NULL;
done:
    attn_tensor_release(plain_a);
    attn_tensor_release(plain_b);
    attn_tensor_release(out);
    return status;
}

/* The sum of the rows of x (rows, columns), a strip of columns a task. */
typedef struct {
    float *out;
    const float *x;
    int64_t rows, columns;
} sum_job;

static void sum_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const sum_job *job = context;
    int64_t at = index * SUM_STRIP, columns = attn_min(SUM_STRIP, job->columns - at);
    double sums[SUM_STRIP] = {0};
    attn_kernel->sum_columns(sums, job->x + at, job->rows, columns, job->columns);
    for (int64_t i = 0; i < columns; i++)
        job->out[at + i] = (float)sums[i];
}

static attn_status linear_backward(attn_node *node, attn_tensor *const *gradients, attn_tensor **dx)
{
    const attn_tensor *x = node->saved[0], *weight = node->saved[1];
    attn_tensor *dy;
    ATTN_TRY(attn_tensor_as_plain(&dy, gradients[0]));
    int64_t C = *(const int64_t *)node->parameters;
    int64_t K = dy->shape[dy->ndim - 1], rows = 1;
    for (int i = 0; i < dy->ndim - 1; i++)
        rows *= dy->shape[i];
    attn_status status = ATTN_OK;
    if (attn_node_wants(node, 0)) {
        ATTN_GOTO(empty_for(&dx[0], node->inputs[0]));
        product p = {.M = rows, .N = C, .K = K, .out = attn_data(dx[0]), .left = attn_data(dy),
                     .right = attn_data(weight), .left_ld = K, .right_ld = C};
        run_product(&p);
    }
    if (attn_node_wants(node, 1)) {
        ATTN_GOTO(empty_for(&dx[1], node->inputs[1]));
        product p = {.M = K, .N = C, .K = rows, .out = attn_data(dx[1]), .left = attn_data(dy),
                     .right = attn_data(x), .left_ld = K, .right_ld = C, .transpose_left = true};
        run_product(&p);
    }
    if (attn_node_wants(node, 2)) {
        ATTN_GOTO(empty_for(&dx[2], node->inputs[2]));
        sum_job job = {attn_data(dx[2]), attn_data(dy), rows, K};
        attn_parallel(sum_task, &job, attn_ceil_div(K, SUM_STRIP));
    }
done:
    attn_tensor_release(dy);
    return status;
}

static const attn_operation linear_op = {"linear", linear_backward, sizeof(int64_t)};

static attn_status check_linear(const attn_tensor *x, const attn_tensor *weight,
                                const attn_tensor *bias)
{
    char got[160], other[160];
    if (weight->ndim != 2)
        return attn_fail(ATTN_BAD_VALUE, "linear: weight has shape %s, expected (K, C)",
                         attn_shape_text(got, weight->ndim, weight->shape));
    int64_t K = weight->shape[0], C = weight->shape[1];
    if (x->ndim < 1 || x->shape[x->ndim - 1] != C)
        return attn_fail(ATTN_BAD_VALUE, "linear: x has shape %s, expected (..., %lld) to fit "
                         "weight of shape %s", attn_shape_text(got, x->ndim, x->shape),
                         (long long)C, attn_shape_text(other, 2, weight->shape));
    if (bias && (bias->ndim != 1 || bias->shape[0] != K))
        return attn_fail(ATTN_BAD_VALUE, "linear: bias has shape %s, expected (%lld,) to fit "
                         "weight of shape %s", attn_shape_text(got, bias->ndim, bias->shape),
                         (long long)K, attn_shape_text(other, 2, weight->shape));
    return check_int("linear", x->size / attn_max(C, 1), K, C);
}

attn_status attn_linear(attn_tensor **y, attn_tensor *x, attn_tensor *weight, attn_tensor *bias)
{
    ATTN_TRY(check_linear(x, weight, bias));
    int64_t K = weight->shape[0], C = weight->shape[1], rows = 1, shape[ATTN_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = K;
    for (int i = 0; i < x->ndim - 1; i++)
        rows *= x->shape[i];
    attn_tensor *plain, *out = NULL;
    ATTN_TRY(attn_tensor_as_plain(&plain, x));
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_empty(&out, x->ndim, shape, ATTN_PLAIN));
    product p = {.M = rows, .N = K, .K = C, .out = attn_data(out), .left = attn_data(plain),
                 .right = attn_data(weight), .bias = bias ? attn_data(bias) : NULL, .left_ld = C,
                 .right_ld = C, .transpose_right = true};
    run_product(&p);
    attn_tensor *saved[2] = {attn_wanted(weight) ? plain : NULL, attn_wanted(x) ? weight : NULL};
    attn_tensor *inputs[3] = {x, weight, bias};
    ATTN_GOTO(attn_record(&linear_op, 3, inputs, 1, &out, &C, saved, 2));
    *y = out;
    out = NULL;
done:
    attn_tensor_release(plain);
    attn_tensor_release(out);
    return status;
}
