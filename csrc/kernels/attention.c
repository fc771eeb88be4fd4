/* Relative attention, forward: one head of one image. */
#include "attention.h"

/* A query's scores are taken relative to `maximum`, which is raised only when a score lies this far
 * above it: 2^40 times the number of keys is far from overflow, and most queries never need it. */
#define HEADROOM 40.0f

typedef struct {
    attention_space shared;
    float *maximum, *limit;  /* (QB) limit: minus infinity before the first score, then HEADROOM */
    float *sum_lanes;        /* (QB, VL) of the exponentials */
    float *y_lanes;          /* (QB, e, VL) */
    float *sum, *y;          /* (QB), (QB, e) */
} forward_space;

static forward_space take_forward(float *scratch, int64_t *used, const attn_attention_plan *plan)
{
    forward_space space = {.shared = take_space(scratch, used, plan)};
    space.maximum = take(scratch, used, QB);
    space.limit = take(scratch, used, QB);
    space.sum_lanes = take(scratch, used, QB * VL);
    space.y_lanes = take(scratch, used, QB * plan->e * VL);
    space.sum = take(scratch, used, QB);
    space.y = take(scratch, used, QB * plan->e);
    return space;
}

/* Raises the query's maximum by the largest lane of `top`, and brings all that it has so far to the
 * new one. Returns by how much. */
static __attribute__((noinline)) float raise_maximum(const forward_space *space,
                                                     const attn_attention_plan *plan, int64_t q,
                                                     int64_t done, const float *top)
{
    const float raise = vmax_lane(vload(top));
    const vf factor = exp2_small(vset(-raise));
    float *p = space->shared.p + q * plan->block_vectors * VL;
    float *bias = space->shared.in_h + q * space->shared.stride_h;
    for (int64_t y = 0; y < plan->H; y++)
        bias[y] -= raise;
    space->maximum[q] += raise;
    if (space->limit[q] == HEADROOM) { /* else nothing is there yet */
        for (int64_t t = 0; t < done; t++)
            vstore(p + t * VL, vload(p + t * VL) * factor);
        for (int64_t j = 0; j < plan->e; j++) {
            float *lanes = space->y_lanes + (q * plan->e + j) * VL;
            vstore(lanes, vload(lanes) * factor);
        }
        float *lanes = space->sum_lanes + q * VL;
        vstore(lanes, vload(lanes) * factor);
    }
    space->limit[q] = HEADROOM;
    return raise;
}

/* Probabilities (not yet divided by their sum) of QT queries and KT vectors of keys. */
INLINE void forward_tile(const forward_space *space, const attn_attention_plan *plan, int64_t q,
                         int64_t b, int64_t t)
{
    float *p = space->shared.p + q * plan->block_vectors * VL + t * VL;
    vf s[QT][KT];
    scores(s, &space->shared, plan, q, b, t);
    UNROLL(4)
    for (int r = 0; r < QT; r++) {
        vf top = s[r][0];
        UNROLL(4)
        for (int j = 1; j < KT; j++)
            top = vmax(top, s[r][j]);
        if (__builtin_expect(any_above(top, space->limit[q + r]), 0)) {
            float lanes[VL];
            vstore(lanes, top);
            const vf raise = vset(raise_maximum(space, plan, q + r, t, lanes));
            UNROLL(4)
            for (int j = 0; j < KT; j++)
                s[r][j] -= raise;
        }
        vf sum = vload(space->sum_lanes + (q + r) * VL);
        UNROLL(4)
        for (int j = 0; j < KT; j++) {
            const vf e = exp2_small(s[r][j]);
            vstore(p + r * plan->block_vectors * VL + j * VL, e);
            sum += e;
        }
        vstore(space->sum_lanes + (q + r) * VL, sum);
    }
}

static __attribute__((noinline)) void forward_keys(const forward_space *space,
                                                   const attn_attention_plan *plan, int64_t b,
                                                   int64_t queries)
{
    for (int64_t t = 0; t < plan->block_vectors; t += KT)
        for (int64_t q = 0; q < queries; q += QT)
            forward_tile(space, plan, q, b, t);
}

static void forward_queries(const forward_space *space, const attn_attention_plan *plan,
                            const attn_attention_head *head, const query_block *block)
{
    const attention_space *shared = &space->shared;
    const int64_t e = plan->e, stride = plan->block_vectors * VL;
    prepare_queries(shared, plan, head, block);
    for (int q = 0; q < QB; q++) {
        space->maximum[q] = 0.0f;
        space->limit[q] = -INFINITY;
    }
    memset(space->sum_lanes, 0, QB * VL * sizeof(float));
    memset(space->y_lanes, 0, (size_t)(QB * e * VL) * sizeof(float));
    for (int64_t b = 0; b < plan->blocks; b++) {
        forward_keys(space, plan, b, block->live);
        dot_add(space->y_lanes, shared->p, stride, shared->v + b * e * stride, stride, e, stride,
                block->live);
    }
    lane_sums(space->sum, space->sum_lanes, QB);
    lane_sums(space->y, space->y_lanes, block->live * e);
    for (int64_t q = 0; q < block->count; q++) {
        for (int64_t j = 0; j < e; j++)
            space->y[q * e + j] /= space->sum[q];
        if (head->lse)
            head->lse[block->first + q] = space->maximum[q] + log2f(space->sum[q]);
    }
    store_queries(&head->y, space->y, e, block, 1.0f);
}

void KERNEL(attention_forward)(const attn_attention_plan *plan, const attn_attention_head *head,
                               float *scratch)
{
    int64_t used = 0;
    const forward_space space = take_forward(scratch, &used, plan);
    prepare_head(&space.shared, plan, head);
    for (query_block block = {0}; next_queries(&block, plan);)
        forward_queries(&space, plan, head, &block);
}

void KERNEL(attention_plan)(attn_attention_plan *plan)
{
    plan->row_vectors = attn_ceil_div(plan->W, VL);
    plan->block_rows = attn_max(1, BLOCK_FLOATS / VL / plan->row_vectors);
    plan->block_rows = attn_min(plan->block_rows, plan->H);
    plan->block_vectors = round_up(plan->block_rows * plan->row_vectors, KT);
    plan->blocks = attn_ceil_div(plan->H, plan->block_rows);
    /* A window starts at length - 1 at most and is read up to a whole number of vectors. */
    plan->table_h = round_up(plan->H - 1 + round_up(plan->H, VL), VL);
    plan->table_w = round_up(plan->W - 1 + round_up(plan->W + QB - 1, VL), VL);
    int64_t used = 0;
    take_forward(NULL, &used, plan);
    plan->forward_scratch = used;
    plan->backward_scratch = KERNEL(attention_backward_space)(plan);
}
