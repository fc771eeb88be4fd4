/* The parts that both directions of the relative attention share: base-2 exponential, sums over the
 * lanes of many vectors, the three small matrix products, packing, and the relative biases.
 *
 * Scores are kept in units of log 2: q is multiplied by d^-1/2 * log2(e) when it is loaded, so that
 * the softmax needs 2^x alone. */
#ifndef ATTN_ATTENTION_PARTS_H
#define ATTN_ATTENTION_PARTS_H

#include "kernels.h"
#include "simd.h"

enum {
    QB = 16,                /* queries that pass over a block of keys together */
    QT = 4,                 /* queries of a register tile */
    KT = VL == 16 ? 4 : 2,  /* vectors of keys of a register tile */
    BLOCK_FLOATS = 256,     /* keys of a block, about */
};

#define LOG2_E 1.44269504088896341f

/* Floats that attention_backward needs as scratch space; forward is in attention.c. */
int64_t KERNEL(attention_backward_space)(const attn_attention_plan *plan);

INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* 2^x for x <= 126, to 1.5e-7: the polynomial is the minimax one of degree 5 on [0, 1]. 0 at minus
 * infinity and where AVX2 and the baseline would leave the normal range; NaN for NaN. */
INLINE vf exp2_small(vf x)
{
#if defined(__AVX512F__)
    const vf clamped = vmax(vset(-200.0f), x);
    const vf n = (vf)_mm512_roundscale_ps((__m512)clamped, 9); /* floor */
#else
    const vf clamped = vmax(vset(-126.0f), x);
    const vf n = vround(clamped - vset(0.5f));
#endif
    const vf r = clamped - n;
    vf p = vset(0x1.ec320ap-10f);
    p = vfma(p, r, vset(0x1.26900cp-7f));
    p = vfma(p, r, vset(0x1.c95446p-5f));
    p = vfma(p, r, vset(0x1.ebd5a8p-3f));
    p = vfma(p, r, vset(0x1.62e4f6p-1f));
    p = vfma(p, r, vset(0x1.fffffep-1f));
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n); /* p * 2^n */
#else
    return vmask(~(x < vset(-126.0f)), (vf)((vi)p + (vto_int(n) << 23)));
#endif
}

INLINE bool any_above(vf a, float limit)
{
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)vset(limit), _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps((__m256)(a > vset(limit))) != 0;
#else
    vi above = a > vset(limit);
    return (above[0] | above[1] | above[2] | above[3]) != 0;
#endif
}

/* One step of lane_sums: lane l of the result is a[l] + a[l ^ width] where l & width is 0, else the
 * same of b. */
INLINE vf fold_pair(vf a, vf b, const int width)
{
#if defined(__clang__) || !defined(__GNUC__)
    vf y;
    for (int l = 0; l < VL; l++)
        y[l] = l & width ? b[l] + b[l ^ width] : a[l] + a[l ^ width];
    return y;
#else
    vi lane;
    for (int l = 0; l < VL; l++)
        lane[l] = l;
    const vi of_b = ((lane & width) != 0) & VL;
    return __builtin_shuffle(a, b, lane | of_b) + __builtin_shuffle(a, b, (lane ^ width) | of_b);
#endif
}

/* y[i] = the sum of the lanes of vector i, always in the same order; count is rounded up to VL on
 * both sides. */
static void lane_sums(float *y, const float *lanes, int64_t count)
{
    for (int64_t i = 0; i < count; i += VL) {
        vf v[VL];
        UNROLL(16)
        for (int j = 0; j < VL; j++)
            v[j] = vload(lanes + (i + j) * VL);
        UNROLL(4)
        for (int width = VL / 2; width > 0; width /= 2) {
            UNROLL(8)
            for (int j = 0; j < width; j++)
                v[j] = fold_pair(v[j], v[j + width], width);
        }
        vstore(y + i, v[0]);
    }
}

/* The three products. Rows are `width` floats wide, a multiple of VL; tiles are up to 4 rows by up to
 * KT vectors, with both as constants for the compiler. */

/* acc[r][t] += sum over s < depth of c[r * c_row + s * c_depth] * b[s * b_stride + t * VL ..]. */
INLINE void outer_tile(vf acc[][KT], const int rows, const int columns, const float *c,
                       int64_t c_row, int64_t c_depth, const float *b, int64_t b_stride,
                       int64_t depth)
{
    for (int64_t s = 0; s < depth; s++) {
        vf right[KT];
        UNROLL(4)
        for (int t = 0; t < columns; t++)
            right[t] = vload(b + s * b_stride + t * VL);
        UNROLL(4)
        for (int r = 0; r < rows; r++) {
            const vf factor = vset(c[r * c_row + s * c_depth]);
            UNROLL(4)
            for (int t = 0; t < columns; t++)
                acc[r][t] = vfma(factor, right[t], acc[r][t]);
        }
    }
}

INLINE void outer_block(float *y, int64_t y_stride, const int rows, const int columns,
                        const float *c, int64_t c_row, int64_t c_depth, const float *b,
                        int64_t b_stride, int64_t depth)
{
    vf acc[4][KT];
    UNROLL(4)
    for (int r = 0; r < rows; r++)
        UNROLL(4)
        for (int t = 0; t < columns; t++)
            acc[r][t] = vload(y + r * y_stride + t * VL);
    outer_tile(acc, rows, columns, c, c_row, c_depth, b, b_stride, depth);
    UNROLL(4)
    for (int r = 0; r < rows; r++)
        UNROLL(4)
        for (int t = 0; t < columns; t++)
            vstore(y + r * y_stride + t * VL, acc[r][t]);
}

INLINE void outer_rows(float *y, int64_t y_stride, const int rows, const float *c, int64_t c_row,
                       int64_t c_depth, const float *b, int64_t b_stride, int64_t depth,
                       int64_t width)
{
    int64_t x = 0;
    for (; x + KT * VL <= width; x += KT * VL)
        outer_block(y + x, y_stride, rows, KT, c, c_row, c_depth, b + x, b_stride, depth);
    for (; KT > 2 && x + 2 * VL <= width; x += 2 * VL)
        outer_block(y + x, y_stride, rows, 2, c, c_row, c_depth, b + x, b_stride, depth);
    for (; x < width; x += VL)
        outer_block(y + x, y_stride, rows, 1, c, c_row, c_depth, b + x, b_stride, depth);
}

/* y(n, width) += c(queries, n)^T a(queries, width): gradients of keys, values and tables. */
static __attribute__((noinline, unused)) void
outer_add(float *y, int64_t y_stride, const float *a, int64_t a_stride, const float *c, int64_t n,
          int64_t width, int64_t queries)
{
    int64_t j = 0;
    for (; j + 4 <= n; j += 4)
        outer_rows(y + j * y_stride, y_stride, 4, c + j, 1, n, a, a_stride, queries, width);
    for (; j + 2 <= n; j += 2)
        outer_rows(y + j * y_stride, y_stride, 2, c + j, 1, n, a, a_stride, queries, width);
    for (; j < n; j++)
        outer_rows(y + j * y_stride, y_stride, 1, c + j, 1, n, a, a_stride, queries, width);
}

INLINE void dot_tile(float *lanes, int64_t n, const float *a, int64_t a_stride, const float *b,
                     int64_t b_stride, int64_t width, const int columns)
{
    vf acc[QT][KT];
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            acc[r][j] = vload(lanes + (r * n + j) * VL);
    for (int64_t t = 0; t < width; t += VL) {
        vf right[KT];
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            right[j] = vload(b + j * b_stride + t);
        UNROLL(4)
        for (int r = 0; r < QT; r++) {
            const vf left = vload(a + r * a_stride + t);
            UNROLL(4)
            for (int j = 0; j < columns; j++)
                acc[r][j] = vfma(left, right[j], acc[r][j]);
        }
    }
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            vstore(lanes + (r * n + j) * VL, acc[r][j]);
}

INLINE void dot_rows(float *lanes, int64_t n, const float *a, int64_t a_stride, const float *b,
                     int64_t b_stride, int64_t width, int64_t queries, const int columns)
{
    for (int64_t q = 0; q < queries; q += QT)
        dot_tile(lanes + q * n * VL, n, a + q * a_stride, a_stride, b, b_stride, width, columns);
}

/* lanes(queries, n, VL) += a(queries, width) b(n, width)^T, the sum over the lanes left for later:
 * outputs, and gradients of queries. */
static __attribute__((noinline)) void dot_add(float *lanes, const float *a, int64_t a_stride,
                                              const float *b, int64_t b_stride, int64_t n,
                                              int64_t width, int64_t queries)
{
    int64_t j = 0;
    for (; j + KT <= n; j += KT)
        dot_rows(lanes + j * VL, n, a, a_stride, b + j * b_stride, b_stride, width, queries, KT);
    for (; KT > 2 && j + 2 <= n; j += 2)
        dot_rows(lanes + j * VL, n, a, a_stride, b + j * b_stride, b_stride, width, queries, 2);
    for (; j < n; j++)
        dot_rows(lanes + j * VL, n, a, a_stride, b + j * b_stride, b_stride, width, queries, 1);
}

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

/* The original's form: the sum over heads of the (reinterpreted) queries, which one bias is from. */
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
    float *shifted;     /* (QB, stride_w) biases by column, or their gradients, by rows of table_w */
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
