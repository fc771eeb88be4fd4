/* Relative attention, backward: one head of one image. Probabilities are computed again, block by
 * block, from q, k and the saved log-sum-exp. With P the probabilities, per query and key:
 *
 *   dv = P^T dy      dS = P * (dy v^T - D),  D = sum of dy * y      dq = dS k      dk = dS^T q
 *   gradients of the biases: sums of dS over a row of keys, and over a column
 */
#include "attention.h"

typedef struct {
    attention_space shared;
    float *dk, *dv;             /* packed */
    float *ds;                  /* (QB, block) */
    float *dy, *y;              /* (QB, e) */
    float *offset;              /* (QB) minus D */
    float *q_lanes;             /* (QB, d, VL) gradient of the queries */
    float *bias_lanes;          /* the same of those that the biases are from */
    float *row_lanes, *row_sum; /* (QB, block_rows, VL) and its sums over lanes */
    float *d_in_w, *d_in_h;     /* gradients of the biases */
    float *rows;                /* (QB, d) */
} backward_space;

static backward_space take_backward(float *scratch, int64_t *used, const attn_attention_plan *plan)
{
    backward_space space = {.shared = take_space(scratch, used, plan)};
    const int64_t d = plan->d, e = plan->e, stride = plan->block_vectors * VL;
    const int64_t rows = round_up(QB * plan->block_rows, VL);
    space.dk = take(scratch, used, plan->blocks * d * stride);
    space.dv = take(scratch, used, plan->blocks * e * stride);
    space.ds = take(scratch, used, QB * stride);
    space.dy = take(scratch, used, QB * e);
    space.y = take(scratch, used, QB * e);
    space.offset = take(scratch, used, QB);
    space.q_lanes = take(scratch, used, QB * d * VL);
    space.bias_lanes = plan->summed_bias ? take(scratch, used, QB * d * VL) : space.q_lanes;
    space.row_lanes = take(scratch, used, rows * VL);
    space.row_sum = take(scratch, used, rows);
    space.d_in_w = take(scratch, used, QB * space.shared.width_w);
    space.d_in_h = take(scratch, used, QB * space.shared.width_h);
    space.rows = take(scratch, used, QB * d);
    return space;
}

int64_t KERNEL(attention_backward_space)(const attn_attention_plan *plan)
{
    int64_t used = 0;
    take_backward(NULL, &used, plan);
    return used;
}

/* P and dS of QT queries and KT vectors of keys. */
INLINE void backward_tile(const backward_space *space, const attn_attention_plan *plan, int64_t q,
                          int64_t b, int64_t t)
{
    const int64_t e = plan->e, stride = plan->block_vectors * VL, at = q * stride + t * VL;
    vf s[QT][KT];
    scores(s, &space->shared, plan, q, b, t);
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < KT; j++)
            vstore(space->shared.p + at + r * stride + j * VL, exp2_small(s[r][j]));
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < KT; j++)
            s[r][j] = vset(space->offset[q + r]);
    outer_tile(s, QT, space->dy + q * e, e, 1, space->shared.v + b * e * stride + t * VL, stride, e);
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < KT; j++)
            vstore(space->ds + at + r * stride + j * VL,
                   s[r][j] * vload(space->shared.p + at + r * stride + j * VL));
}

/* Adds one block's dS, summed over its rows, to d_in_w, and leaves the sums over columns of each
 * row as vectors in row_lanes. */
INLINE void sum_rows_and_columns(const backward_space *space, const attn_attention_plan *plan,
                                 int64_t queries, int64_t rows, const int64_t row_vectors)
{
    const int64_t stride = plan->block_vectors * VL;
    for (int64_t q = 0; q < queries; q++) {
        float *lanes = space->row_lanes + q * rows * VL;
        memset(lanes, 0, (size_t)(rows * VL) * sizeof(float));
        for (int64_t x = 0; x < row_vectors; x++) {
            const float *ds = space->ds + q * stride + x * VL;
            float *column = space->d_in_w + q * space->shared.width_w + x * VL;
            vf sum = vload(column);
            for (int64_t y = 0; y < rows; y++) {
                const vf v = vload(ds + y * row_vectors * VL);
                sum += v;
                vstore(lanes + y * VL, vload(lanes + y * VL) + v);
            }
            vstore(column, sum);
        }
    }
}

static void bias_gradients(const backward_space *space, const attn_attention_plan *plan, int64_t b,
                           int64_t queries)
{
    const int64_t start = b * plan->block_rows;
    const int64_t rows = attn_min(plan->block_rows, plan->H - start);
    sum_rows_and_columns(space, plan, queries, rows, plan->row_vectors);
    lane_sums(space->row_sum, space->row_lanes, queries * rows);
    for (int64_t q = 0; q < queries; q++)
        memcpy(space->d_in_h + q * space->shared.width_h + start, space->row_sum + q * rows,
               (size_t)rows * sizeof(float));
}

/* From the gradient of one query's bias: to the table, and to the query (its lanes). */
INLINE void bias_row_backward(float *d_table, float *q_lanes, const float *d_bias, int64_t width,
                              const float *query, const float *table, int64_t stride, int64_t d,
                              int64_t at, int64_t length)
{
    const int64_t window = length - 1 - at;
    for (int64_t i = 0; i < d; i++) {
        const vf query_i = vset(query[i]);
        const float *from = table + i * stride + window;
        float *to = d_table + i * stride + window;
        vf sum = vload(q_lanes + i * VL);
        for (int64_t x = 0; x < width; x += VL) {
            const vf gradient = vload(d_bias + x);
            sum = vfma(gradient, vload(from + x), sum);
            vstore(to + x, vfma(gradient, query_i, vload(to + x)));
        }
        vstore(q_lanes + i * VL, sum);
    }
}

static void prepare_gradients(const backward_space *space, const attn_attention_plan *plan,
                              const attn_attention_head *head,
                              const attn_attention_gradient *gradient, int64_t first, int64_t count)
{
    const attention_space *shared = &space->shared;
    const int64_t e = plan->e;
    load_queries(space->dy, &gradient->dy, e, first, count, 1.0f);
    load_queries(space->y, &head->y, e, first, count, 1.0f);
    for (int64_t q = 0; q < QB; q++) {
        float sum = 0.0f;
        for (int64_t j = 0; j < e; j++)
            sum += space->dy[q * e + j] * space->y[q * e + j];
        space->offset[q] = -sum;
        const float lse = q < count ? head->lse[first + q] : 0.0f;
        for (int64_t y = 0; y < plan->H; y++)
            shared->in_h[q * shared->width_h + y] -= lse;
    }
    memset(space->q_lanes, 0, (size_t)(QB * plan->d * VL) * sizeof(float));
    memset(space->bias_lanes, 0, (size_t)(QB * plan->d * VL) * sizeof(float));
    memset(space->d_in_w, 0, (size_t)(QB * shared->width_w) * sizeof(float));
    memset(space->d_in_h, 0, (size_t)(QB * shared->width_h) * sizeof(float));
}

static void finish_queries(const backward_space *space, const attn_attention_plan *plan,
                           const attn_attention_head *head,
                           const attn_attention_gradient *gradient, int64_t first, int64_t count)
{
    const attention_space *shared = &space->shared;
    const int64_t d = plan->d;
    const float scale = 1.0f / sqrtf((float)d);
    for (int64_t q = 0; q < count; q++) {
        const float *query = shared->bias_q + q * d;
        float *lanes = space->bias_lanes + q * d * VL;
        bias_row_backward(gradient->table_w, lanes, space->d_in_w + q * shared->width_w,
                          shared->width_w, query, head->table_w, plan->table_w, d,
                          (first + q) % plan->W, plan->W);
        bias_row_backward(gradient->table_h, lanes, space->d_in_h + q * shared->width_h,
                          shared->width_h, query, head->table_h, plan->table_h, d,
                          (first + q) / plan->W, plan->H);
    }
    lane_sums(space->rows, space->q_lanes, QB * d);
    store_queries(&gradient->dq, space->rows, d, first, count, scale);
    if (!plan->summed_bias)
        return;
    lane_sums(space->rows, space->bias_lanes, QB * d);
    for (int64_t at = 0; at < count * d; at++)
        gradient->summed_q[first * d + at] += scale * space->rows[at];
}

static void backward_queries(const backward_space *space, const attn_attention_plan *plan,
                             const attn_attention_head *head,
                             const attn_attention_gradient *gradient, int64_t first, int64_t count)
{
    const attention_space *shared = &space->shared;
    const int64_t d = plan->d, e = plan->e, stride = plan->block_vectors * VL;
    const int64_t live = round_up(count, QT);
    prepare_queries(shared, plan, head, first, count);
    prepare_gradients(space, plan, head, gradient, first, count);
    for (int64_t b = 0; b < plan->blocks; b++) {
        for (int64_t q = 0; q < live; q += QT)
            for (int64_t t = 0; t < plan->block_vectors; t += KT)
                backward_tile(space, plan, q, b, t);
        outer_add(space->dv + b * e * stride, shared->p, space->dy, e, stride, live);
        outer_add(space->dk + b * d * stride, space->ds, shared->q, d, stride, live);
        dot_add(space->q_lanes, space->ds, shared->k + b * d * stride, d, stride, live);
        bias_gradients(space, plan, b, live);
    }
    finish_queries(space, plan, head, gradient, first, count);
}

void KERNEL(attention_backward)(const attn_attention_plan *plan, const attn_attention_head *head,
                                const attn_attention_gradient *gradient, float *scratch)
{
    int64_t used = 0;
    const backward_space space = take_backward(scratch, &used, plan);
    const int64_t L = plan->H * plan->W, d = plan->d, e = plan->e;
    const int64_t packed = plan->blocks * plan->block_vectors * VL;
    prepare_head(&space.shared, plan, head);
    memset(space.dk, 0, (size_t)(d * packed) * sizeof(float));
    memset(space.dv, 0, (size_t)(e * packed) * sizeof(float));
    for (int64_t first = 0; first < L; first += QB)
        backward_queries(&space, plan, head, gradient, first, attn_min(QB, L - first));
    /* The queries in use carry the factor of base 2; ln 2 takes it away. */
    unpack_keys(&gradient->dk, space.dk, d, 1.0f / LOG2_E, plan);
    unpack_keys(&gradient->dv, space.dv, e, 1.0f, plan);
}
