/* The parts that both directions of the relative attention share: packing of keys, blocks of
 * queries, the relative biases, the scores.
 *
 * Scores are kept in units of log 2: q is multiplied by d^-1/2 * log2(e) when it is loaded, so that
 * the softmax needs 2^x alone. */
#ifndef ATTN_ATTENTION_PARTS_H
#define ATTN_ATTENTION_PARTS_H

#include "attention_products.h"
#include "kernels.h"

enum {
    QB = 16,            /* queries that pass over a block of keys together, at most */
    BLOCK_FLOATS = 256, /* keys of a block, about */
};

#define LOG2_E 1.44269504088896341f

/* Floats that attention_backward needs as scratch space; forward is in attention.c. */
int64_t KERNEL(attention_backward_space)(const attn_attention_plan *plan);

/* The packed copy of a head's keys or values: (blocks, n, block_vectors * VL), zeros as padding. */
static inline void pack_keys(float *packed, const attn_head_view *view, int64_t n,
                             const attn_attention_plan *plan)
{
    const int64_t W = plan->W, stride = plan->block_vectors * VL, row = plan->row_vectors * VL;
    if (plan->blocks * stride > plan->H * W) /* there is padding */
        memset(packed, 0, (size_t)(plan->blocks * n * stride) * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const float *channel = attn_head_channel(view, i);
        for (int64_t y = 0; y < plan->H; y++) {
            float *to = packed + (y / plan->block_rows * n + i) * stride +
                        y % plan->block_rows * row;
            const float *from = channel + y * W * view->step;
            if (view->step == 1)
                memcpy(to, from, (size_t)W * sizeof(float));
            else
                for (int64_t x = 0; x < W; x++)
                    to[x] = from[x * view->step];
        }
    }
}

static inline void unpack_keys(const attn_head_view *view, const float *packed, int64_t n,
                               float factor, const attn_attention_plan *plan)
{
    const int64_t W = plan->W, stride = plan->block_vectors * VL, row = plan->row_vectors * VL;
    for (int64_t i = 0; i < n; i++) {
        float *channel = attn_head_channel(view, i);
        for (int64_t y = 0; y < plan->H; y++) {
            const float *from = packed + (y / plan->block_rows * n + i) * stride +
                                y % plan->block_rows * row;
            float *to = channel + y * W * view->step;
            if (view->step == 1)
                for (int64_t x = 0; x < W; x++)
                    to[x] = factor * from[x];
            else
                for (int64_t x = 0; x < W; x++)
                    to[x * view->step] = factor * from[x];
        }
    }
}

/* A block of queries: neighbours of one image row, so that their relative rows are one window of
 * table_h, and their columns windows of table_w that move on by one from query to query. */
typedef struct {
    int64_t y, x;  /* of the first */
    int64_t count; /* 1..QB */
    int64_t live;  /* count rounded up to QT: the rows behind count are zero */
    int64_t first; /* y * W + x */
} query_block;

/* The next block behind `block`; false behind the last. Start with count = 0. */
static inline bool next_queries(query_block *block, const attn_attention_plan *plan)
{
    const int64_t W = plan->W, most = attn_ceil_div(W, attn_ceil_div(W, QB)); /* even pieces */
    block->x += block->count;
    if (block->x == W) {
        block->x = 0;
        block->y++;
    }
    block->count = attn_min(most, W - block->x);
    block->live = round_up(block->count, QT);
    block->first = block->y * W + block->x;
    return block->y < plan->H;
}

/* rows(QB, n) = factor * the block's channels, zeros behind the last query. */
static inline void load_queries(float *rows, const attn_head_view *view, int64_t n,
                                const query_block *block, float factor)
{
    memset(rows, 0, (size_t)(QB * n) * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const float *channel = attn_head_channel(view, i) + block->first * view->step;
        for (int64_t q = 0; q < block->count; q++)
            rows[q * n + i] = factor * channel[q * view->step];
    }
}

static inline void store_queries(const attn_head_view *view, const float *rows, int64_t n,
                                 const query_block *block, float factor)
{
    for (int64_t i = 0; i < n; i++) {
        float *channel = attn_head_channel(view, i) + block->first * view->step;
        for (int64_t q = 0; q < block->count; q++)
            channel[q * view->step] = factor * rows[q * n + i];
    }
}

/* The original's form: the sum over heads of the reinterpreted queries, which its bias is from. */
static inline void load_summed_queries(float *rows, const float *all_q, const query_block *block,
                                       float factor, const attn_attention_plan *plan)
{
    const int64_t d = plan->d, head = plan->H * plan->W * d;
    memset(rows, 0, (size_t)(QB * d) * sizeof(float));
    for (int64_t h = 0; h < plan->heads; h++)
        for (int64_t at = 0; at < block->count * d; at++)
            rows[at] += all_q[h * head + block->first * d + at];
    for (int64_t at = 0; at < block->count * d; at++)
        rows[at] *= factor;
}

/* The parts of the scratch space that a block of queries uses in both directions. */
typedef struct {
    float *k, *v;       /* packed */
    float *p;           /* (QB, block) probabilities */
    float *q, *bias_q;  /* (QB, d) queries, and those that the biases are from */
    float *in_w, *in_h; /* (QB, width_w), (QB, stride_h) biases by the key's column and row */
    float *shifted;     /* (QB, stride_w) the columns' biases, or gradients, by rows of table_w */
    int32_t *column, *row; /* of each vector of keys: offsets into in_w and in_h */
    int64_t width_w, width_h, stride_w, stride_h;
} attention_space;

/* Takes `floats` from the scratch space, aligned; with no space, only counts. */
INLINE float *take(float *scratch, int64_t *used, int64_t floats)
{
    float *taken = scratch ? scratch + *used : NULL;
    *used += round_up(floats, 16);
    return taken;
}

static inline attention_space take_space(float *scratch, int64_t *used,
                                         const attn_attention_plan *plan)
{
    const int64_t stride = plan->block_vectors * VL, vectors = plan->blocks * plan->block_vectors;
    attention_space space = {
        .width_w = plan->row_vectors * VL,
        .width_h = round_up(plan->H, VL),
        .stride_w = round_up(plan->row_vectors * VL + QB - 1, VL),
        .stride_h = round_up(plan->H, VL) + VL, /* behind: minus infinity, for padding vectors */
    };
    space.k = take(scratch, used, plan->blocks * plan->d * stride);
    space.v = take(scratch, used, plan->blocks * plan->e * stride);
    space.p = take(scratch, used, QB * stride);
    space.q = take(scratch, used, QB * plan->d);
    space.bias_q = plan->summed_bias ? take(scratch, used, QB * plan->d) : space.q;
    space.in_w = take(scratch, used, QB * space.width_w);
    space.in_h = take(scratch, used, QB * space.stride_h);
    space.shifted = take(scratch, used, QB * space.stride_w);
    space.column = (int32_t *)take(scratch, used, vectors);
    space.row = (int32_t *)take(scratch, used, vectors);
    return space;
}

static inline void prepare_head(const attention_space *space, const attn_attention_plan *plan,
                                const attn_attention_head *head)
{
    pack_keys(space->k, &head->k, plan->d, plan);
    pack_keys(space->v, &head->v, plan->e, plan);
    for (int64_t b = 0, at = 0; b < plan->blocks; b++) {
        for (int64_t t = 0; t < plan->block_vectors; t++, at++) {
            int64_t in_block = t / plan->row_vectors, y = b * plan->block_rows + in_block;
            bool real = in_block < plan->block_rows && y < plan->H;
            space->row[at] = (int32_t)(real ? y : space->width_h);
            space->column[at] = (int32_t)(real ? t % plan->row_vectors * VL : 0);
        }
    }
}

/* Where the block's window of a table starts. */
INLINE int64_t window_h(const query_block *block, const attn_attention_plan *plan)
{
    return plan->H - 1 - block->y;
}
INLINE int64_t window_w(const query_block *block, const attn_attention_plan *plan)
{
    return plan->W - block->x - block->count; /* the last query's; query q's is count-1-q behind */
}
INLINE int64_t window_w_width(const query_block *block, const attn_attention_plan *plan)
{
    return round_up(plan->W + block->count - 1, VL);
}

/* in_h[q][Y] = q . rel_h[Y - y + H - 1] and in_w[q][X] = q . rel_w[X - x + W - 1]. */
static __attribute__((noinline)) void make_biases(const attention_space *space,
                                                  const attn_attention_plan *plan,
                                                  const attn_attention_head *head,
                                                  const query_block *block)
{
    const int64_t d = plan->d, W = plan->W;
    memset(space->in_h, 0, (size_t)(QB * space->stride_h) * sizeof(float));
    memset(space->shifted, 0, (size_t)(QB * space->stride_w) * sizeof(float));
    for (int64_t q = 0; q < block->live; q += QT) {
        const float *queries = space->bias_q + q * d;
        outer_rows(space->in_h + q * space->stride_h, space->stride_h, QT, queries, d, 1,
                   head->table_h + window_h(block, plan), plan->table_h, d, space->width_h);
        outer_rows(space->shifted + q * space->stride_w, space->stride_w, QT, queries, d, 1,
                   head->table_w + window_w(block, plan), plan->table_w, d,
                   window_w_width(block, plan));
    }
    for (int64_t q = 0; q < block->live; q++) {
        const float *from = space->shifted + q * space->stride_w +
                            attn_max(block->count - 1 - q, 0);
        float *to = space->in_w + q * space->width_w;
        for (int64_t x = 0; x < space->width_w; x += VL)
            vstore(to + x, vload(from + x));
        for (int64_t x = W; x < space->width_w; x++)
            to[x] = -INFINITY;
        space->in_h[q * space->stride_h + space->width_h] = -INFINITY;
    }
}

/* A block's queries and their biases. */
static inline void prepare_queries(const attention_space *space, const attn_attention_plan *plan,
                                   const attn_attention_head *head, const query_block *block)
{
    const float factor = LOG2_E / sqrtf((float)plan->d);
    load_queries(space->q, &head->q, plan->d, block, factor);
    if (plan->summed_bias)
        load_summed_queries(space->bias_q, head->all_q, block, factor, plan);
    make_biases(space, plan, head, block);
}

/* Scores of QT queries from q on, for KT vectors of keys from vector t of block b on. */
INLINE void scores(vf s[QT][KT], const attention_space *space, const attn_attention_plan *plan,
                   int64_t q, int64_t b, int64_t t)
{
    const int64_t stride = plan->block_vectors * VL, at = b * plan->block_vectors + t;
    const float *in_w = space->in_w + q * space->width_w, *in_h = space->in_h + q * space->stride_h;
    UNROLL(4)
    for (int j = 0; j < KT; j++) {
        const int64_t column = space->column[at + j], row = space->row[at + j];
        UNROLL(4)
        for (int r = 0; r < QT; r++)
            s[r][j] = vload(in_w + r * space->width_w + column) +
                      vset(in_h[r * space->stride_h + row]);
    }
    outer_tile(s, QT, KT, space->q + q * plan->d, plan->d, 1,
               space->k + b * plan->d * stride + t * VL, stride, plan->d);
}

#endif
