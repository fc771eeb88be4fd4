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
    space.d_in_h = take(scratch, used, QB * space.shared.stride_h);
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
    outer_tile(s, QT, KT, space->dy + q * e, e, 1, space->shared.v + b * e * stride + t * VL,
               stride, e);
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < KT; j++)
            vstore(space->ds + at + r * stride + j * VL,
                   s[r][j] * vload(space->shared.p + at + r * stride + j * VL));
}

static __attribute__((noinline)) void backward_keys(const backward_space *space,
                                                    const attn_attention_plan *plan, int64_t b,
                                                    int64_t queries)
{
    for (int64_t t = 0; t < plan->block_vectors; t += KT)
        for (int64_t q = 0; q < queries; q += QT)
            backward_tile(space, plan, q, b, t);
}

/* One query's dS of a block: adds the sums of its columns to `column`, and leaves those of its rows
 * as vectors in `lanes`. For image rows of one or two vectors the columns stay in registers. */
INLINE void sum_narrow(float *column, float *lanes, const float *ds, int64_t rows,
                       const int row_vectors)
{
    vf sums[2];
    UNROLL(2)
    for (int x = 0; x < row_vectors; x++)
        sums[x] = vload(column + x * VL);
    for (int64_t y = 0; y < rows; y++) {
        vf row = vload(ds + y * row_vectors * VL);
        sums[0] += row;
        if (row_vectors == 2) {
            const vf right = vload(ds + (2 * y + 1) * VL);
            sums[1] += right;
            row += right;
        }
        vstore(lanes + y * VL, row);
    }
    UNROLL(2)
    for (int x = 0; x < row_vectors; x++)
        vstore(column + x * VL, sums[x]);
}

static void sum_wide(float *column, float *lanes, const float *ds, int64_t rows,
                     int64_t row_vectors)
{
    for (int64_t y = 0; y < rows; y++) {
        vf row = vzero();
        for (int64_t x = 0; x < row_vectors; x++) {
            const vf v = vload(ds + (y * row_vectors + x) * VL);
            vstore(column + x * VL, vload(column + x * VL) + v);
            row += v;
        }
        vstore(lanes + y * VL, row);
    }
}

/* A block's share of the gradients of the biases. */
static __attribute__((noinline)) void bias_gradients(const backward_space *space,
                                                     const attn_attention_plan *plan, int64_t b,
                                                     int64_t queries)
{
    const int64_t start = b * plan->block_rows, width_w = space->shared.width_w;
    const int64_t rows = attn_min(plan->block_rows, plan->H - start);
    for (int64_t q = 0; q < queries; q++) {
        float *column = space->d_in_w + q * width_w, *lanes = space->row_lanes + q * rows * VL;
        const float *ds = space->ds + q * plan->block_vectors * VL;
        if (plan->row_vectors == 1)
            sum_narrow(column, lanes, ds, rows, 1);
        else if (plan->row_vectors == 2)
            sum_narrow(column, lanes, ds, rows, 2);
        else
            sum_wide(column, lanes, ds, rows, plan->row_vectors);
    }
    lane_sums(space->row_sum, space->row_lanes, queries * rows);
    for (int64_t q = 0; q < queries; q++)
        memcpy(space->d_in_h + q * space->shared.stride_h + start, space->row_sum + q * rows,
               (size_t)rows * sizeof(float));
}

/* From the gradients of a block's biases to the tables, and to the queries (their lanes). */
static __attribute__((noinline)) void
biases_backward(const backward_space *space, const attn_attention_plan *plan,
                const attn_attention_head *head, const attn_attention_gradient *gradient,
                const query_block *block)
{
    const attention_space *shared = &space->shared;
    const int64_t d = plan->d, stride_w = shared->stride_w, width = window_w_width(block, plan);
    const int64_t at_h = window_h(block, plan), at_w = window_w(block, plan);
    memset(shared->shifted, 0, (size_t)(QB * stride_w) * sizeof(float));
    for (int64_t q = 0; q < block->count; q++)
        for (int64_t x = 0; x < shared->width_w; x += VL)
            vstore(shared->shifted + q * stride_w + block->count - 1 - q + x,
                   vload(space->d_in_w + q * shared->width_w + x));
    dot_add(space->bias_lanes, space->d_in_h, shared->stride_h, head->table_h + at_h, plan->table_h,
            d, shared->width_h, block->live);
    dot_add(space->bias_lanes, shared->shifted, stride_w, head->table_w + at_w, plan->table_w, d,
            width, block->live);
    outer_add(gradient->table_h + at_h, plan->table_h, space->d_in_h, shared->stride_h,
              shared->bias_q, d, shared->width_h, block->live);
    outer_add(gradient->table_w + at_w, plan->table_w, shared->shifted, stride_w, shared->bias_q, d,
              width, block->live);
}

static void prepare_gradients(const backward_space *space, const attn_attention_plan *plan,
                              const attn_attention_head *head,
                              const attn_attention_gradient *gradient, const query_block *block)
{
    const attention_space *shared = &space->shared;
    const int64_t e = plan->e;
    load_queries(space->dy, &gradient->dy, e, block, 1.0f);
    load_queries(space->y, &head->y, e, block, 1.0f);
    for (int64_t q = 0; q < block->live; q++) {
        float sum = 0.0f;
        for (int64_t j = 0; j < e; j++)
            sum += space->dy[q * e + j] * space->y[q * e + j];
        space->offset[q] = -sum;
        const float lse = q < block->count ? head->lse[block->first + q] : 0.0f;
        for (int64_t y = 0; y < plan->H; y++)
            shared->in_h[q * shared->stride_h + y] -= lse;
    }
    memset(space->q_lanes, 0, (size_t)(QB * plan->d * VL) * sizeof(float));
    if (space->bias_lanes != space->q_lanes)
        memset(space->bias_lanes, 0, (size_t)(QB * plan->d * VL) * sizeof(float));
    memset(space->d_in_w, 0, (size_t)(QB * shared->width_w) * sizeof(float));
    memset(space->d_in_h, 0, (size_t)(QB * shared->stride_h) * sizeof(float));
}

static void finish_queries(const backward_space *space, const attn_attention_plan *plan,
                           const attn_attention_gradient *gradient, const query_block *block)
{
    const int64_t d = plan->d;
    const float scale = 1.0f / sqrtf((float)d);
    lane_sums(space->rows, space->q_lanes, block->live * d);
    store_queries(&gradient->dq, space->rows, d, block, scale);
    if (!plan->summed_bias)
        return;
    lane_sums(space->rows, space->bias_lanes, block->live * d);
    for (int64_t at = 0; at < block->count * d; at++)
        gradient->summed_q[block->first * d + at] += scale * space->rows[at];
}

static void backward_queries(const backward_space *space, const attn_attention_plan *plan,
                             const attn_attention_head *head,
                             const attn_attention_gradient *gradient, const query_block *block)
{
    const attention_space *shared = &space->shared;
    const int64_t d = plan->d, e = plan->e, stride = plan->block_vectors * VL, live = block->live;
    prepare_queries(shared, plan, head, block);
    prepare_gradients(space, plan, head, gradient, block);
    for (int64_t b = 0; b < plan->blocks; b++) {
        const int64_t keys = b * d * stride, values = b * e * stride;
        backward_keys(space, plan, b, live);
        outer_add(space->dv + values, stride, shared->p, stride, space->dy, e, stride, live);
        outer_add(space->dk + keys, stride, space->ds, stride, shared->q, d, stride, live);
        dot_add(space->q_lanes, space->ds, stride, shared->k + keys, stride, d, stride, live);
        bias_gradients(space, plan, b, live);
    }
    biases_backward(space, plan, head, gradient, block);
    finish_queries(space, plan, gradient, block);
}

void KERNEL(attention_backward)(const attn_attention_plan *plan, const attn_attention_head *head,
                                const attn_attention_gradient *gradient, float *scratch)
{
    int64_t used = 0;
    const backward_space space = take_backward(scratch, &used, plan);
    const int64_t d = plan->d, e = plan->e;
    const int64_t packed = plan->blocks * plan->block_vectors * VL;
    prepare_head(&space.shared, plan, head);
    memset(space.dk, 0, (size_t)(d * packed) * sizeof(float));
    memset(space.dv, 0, (size_t)(e * packed) * sizeof(float));
    for (query_block block = {0}; next_queries(&block, plan);)
        backward_queries(&space, plan, head, gradient, &block);
    /* The queries in use carry the factor of base 2; ln 2 takes it away. */
    unpack_keys(&gradient->dk, space.dk, d, 1.0f / LOG2_E, plan);
    unpack_keys(&gradient->dv, space.dv, e, 1.0f, plan);
}
