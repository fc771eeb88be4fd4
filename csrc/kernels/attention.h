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
 * infinity and below the normal range, NaN for NaN. */
INLINE vf exp2_small(vf x)
{
#if defined(__AVX512DQ__)
    vf r = (vf)_mm512_reduce_ps((__m512)x, 0x9); /* x - floor(x) */
#else
    vf clamped = vmax(vset(-126.0f), x);
    vf n = vround(clamped - vset(0.5f));
    vf r = clamped - n;
#endif
    vf p = vset(0x1.ec320ap-10f);
    p = vfma(p, r, vset(0x1.26900cp-7f));
    p = vfma(p, r, vset(0x1.c95446p-5f));
    p = vfma(p, r, vset(0x1.ebd5a8p-3f));
    p = vfma(p, r, vset(0x1.62e4f6p-1f));
    p = vfma(p, r, vset(0x1.fffffep-1f));
#if defined(__AVX512DQ__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)x); /* p * 2^floor(x) */
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

/* acc[r][t] += sum over s < depth of c[r * c_row + s * c_depth] * b[s * stride + t * VL ..]. */
INLINE void outer_tile(vf acc[][KT], const int rows, const float *c, int64_t c_row, int64_t c_depth,
                       const float *b, int64_t stride, int64_t depth)
{
    for (int64_t s = 0; s < depth; s++) {
        vf keys[KT];
        UNROLL(4)
        for (int t = 0; t < KT; t++)
            keys[t] = vload(b + s * stride + t * VL);
        UNROLL(4)
        for (int r = 0; r < rows; r++) {
            const vf factor = vset(c[r * c_row + s * c_depth]);
            UNROLL(4)
            for (int t = 0; t < KT; t++)
                acc[r][t] = vfma(factor, keys[t], acc[r][t]);
        }
    }
}

INLINE void outer_rows(float *y, const float *a, const float *c, int64_t n, int64_t stride,
                       int64_t queries, const int rows)
{
    vf acc[4][KT];
    UNROLL(4)
    for (int r = 0; r < rows; r++)
        UNROLL(4)
        for (int t = 0; t < KT; t++)
            acc[r][t] = vload(y + r * stride + t * VL);
    outer_tile(acc, rows, c, 1, n, a, stride, queries);
    UNROLL(4)
    for (int r = 0; r < rows; r++)
        UNROLL(4)
        for (int t = 0; t < KT; t++)
            vstore(y + r * stride + t * VL, acc[r][t]);
}

/* y(n, stride) += c(queries, n)^T a(queries, stride): gradients of keys and values of a block. */
static inline void outer_add(float *y, const float *a, const float *c, int64_t n, int64_t stride,
                             int64_t queries)
{
    for (int64_t t = 0; t < stride; t += KT * VL) {
        int64_t j = 0;
        for (; j + 4 <= n; j += 4)
            outer_rows(y + j * stride + t, a + t, c + j, n, stride, queries, 4);
        float *rest = y + j * stride + t;
        if (n - j == 3)
            outer_rows(rest, a + t, c + j, n, stride, queries, 3);
        else if (n - j == 2)
            outer_rows(rest, a + t, c + j, n, stride, queries, 2);
        else if (n - j == 1)
            outer_rows(rest, a + t, c + j, n, stride, queries, 1);
    }
}

INLINE void dot_tile(float *lanes, int64_t n, const float *a, const float *b, int64_t stride,
                     const int columns)
{
    vf acc[QT][KT];
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            acc[r][j] = vload(lanes + (r * n + j) * VL);
    for (int64_t t = 0; t < stride; t += VL) {
        vf right[KT];
        UNROLL(4)
        for (int j = 0; j < columns; j++)
            right[j] = vload(b + j * stride + t);
        UNROLL(4)
        for (int r = 0; r < QT; r++) {
            const vf left = vload(a + r * stride + t);
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

/* lanes(queries, n, VL) += a(queries, stride) b(n, stride)^T, the sum over the lanes left for later:
 * outputs, and gradients of queries. */
static inline void dot_add(float *lanes, const float *a, const float *b, int64_t n, int64_t stride,
                           int64_t queries)
{
    for (int64_t q = 0; q < queries; q += QT) {
        int64_t j = 0;
        for (; j + KT <= n; j += KT)
            dot_tile(lanes + (q * n + j) * VL, n, a + q * stride, b + j * stride, stride, KT);
        for (; KT > 2 && j + 2 <= n; j += 2)
            dot_tile(lanes + (q * n + j) * VL, n, a + q * stride, b + j * stride, stride, 2);
        for (; j < n; j++)
            dot_tile(lanes + (q * n + j) * VL, n, a + q * stride, b + j * stride, stride, 1);
    }
}

/* The packed copy of a head's keys or values: (blocks, n, block_vectors * VL), zeros as padding. */
static inline void pack_keys(float *packed, const attn_head_view *view, int64_t n,
                             const attn_attention_plan *plan)
{
    const int64_t W = plan->W, stride = plan->block_vectors * VL, row = plan->row_vectors * VL;
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
            for (int64_t x = 0; x < W; x++)
                to[x * view->step] = factor * from[x];
        }
    }
}

/* Queries are taken one by one: (QB, n), zeros behind the last position. */
static inline void load_queries(float *rows, const attn_head_view *view, int64_t n, int64_t first,
                                int64_t count, float factor)
{
    memset(rows, 0, (size_t)(QB * n) * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const float *channel = attn_head_channel(view, i) + first * view->step;
        for (int64_t q = 0; q < count; q++)
            rows[q * n + i] = factor * channel[q * view->step];
    }
}

static inline void store_queries(const attn_head_view *view, const float *rows, int64_t n,
                                 int64_t first, int64_t count, float factor)
{
    for (int64_t i = 0; i < n; i++) {
        float *channel = attn_head_channel(view, i) + first * view->step;
        for (int64_t q = 0; q < count; q++)
            channel[q * view->step] = factor * rows[q * n + i];
    }
}

/* The original's form: the sum over heads of the (reinterpreted) queries, which one bias is from. */
static inline void load_summed_queries(float *rows, const float *all_q, int64_t first,
                                       int64_t count, float factor, const attn_attention_plan *plan)
{
    const int64_t d = plan->d, head = plan->H * plan->W * d;
    memset(rows, 0, (size_t)(QB * d) * sizeof(float));
    for (int64_t h = 0; h < plan->heads; h++)
        for (int64_t at = 0; at < count * d; at++)
            rows[at] += all_q[h * head + first * d + at];
    for (int64_t at = 0; at < count * d; at++)
        rows[at] *= factor;
}

/* The parts of the scratch space that a block of queries uses in both directions. */
typedef struct {
    float *k, *v;       /* packed */
    float *p;           /* (QB, block) probabilities */
    float *q, *bias_q;  /* (QB, d) queries, and those that the biases are from */
    float *in_w, *in_h; /* (QB, width_w), (QB, width_h) biases by the key's column and row */
    int32_t *column, *row; /* of each vector of keys: offsets into those */
    int64_t width_w, width_h;
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
        .width_h = round_up(plan->H + 1, VL), /* one more: minus infinity, for padding vectors */
    };
    space.k = take(scratch, used, plan->blocks * plan->d * stride);
    space.v = take(scratch, used, plan->blocks * plan->e * stride);
    space.p = take(scratch, used, QB * stride);
    space.q = take(scratch, used, QB * plan->d);
    space.bias_q = plan->summed_bias ? take(scratch, used, QB * plan->d) : space.q;
    space.in_w = take(scratch, used, QB * space.width_w);
    space.in_h = take(scratch, used, QB * space.width_h);
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
            space->row[at] = (int32_t)(real ? y : plan->H);
            space->column[at] = (int32_t)(real ? t % plan->row_vectors * VL : 0);
        }
    }
}

/* bias[x] = query . table[x - at + length - 1] for x < length, minus infinity behind. */
INLINE void bias_row(float *bias, int64_t width, const float *query, const float *table,
                     int64_t table_stride, int64_t d, int64_t at, int64_t length)
{
    const float *window = table + length - 1 - at;
    for (int64_t x = 0; x < width; x += VL) {
        vf sum = vzero();
        for (int64_t i = 0; i < d; i++)
            sum = vfma(vset(query[i]), vload(window + i * table_stride + x), sum);
        vstore(bias + x, sum);
    }
    for (int64_t x = length; x < width; x++)
        bias[x] = -INFINITY;
}

/* Queries first..first+count-1 and their biases; the rows behind are zero. */
static inline void prepare_queries(const attention_space *space, const attn_attention_plan *plan,
                                   const attn_attention_head *head, int64_t first, int64_t count)
{
    const int64_t d = plan->d;
    const float factor = LOG2_E / sqrtf((float)d);
    load_queries(space->q, &head->q, d, first, count, factor);
    if (plan->summed_bias)
        load_summed_queries(space->bias_q, head->all_q, first, count, factor, plan);
    for (int64_t q = 0; q < QB; q++) {
        const int64_t at = q < count ? first + q : first;
        bias_row(space->in_w + q * space->width_w, space->width_w, space->bias_q + q * d,
                 head->table_w, plan->table_w, d, at % plan->W, plan->W);
        bias_row(space->in_h + q * space->width_h, space->width_h, space->bias_q + q * d,
                 head->table_h, plan->table_h, d, at / plan->W, plan->H);
    }
}

/* Scores of QT queries from q on, for KT vectors of keys from vector t of block b on. */
INLINE void scores(vf s[QT][KT], const attention_space *space, const attn_attention_plan *plan,
                   int64_t q, int64_t b, int64_t t)
{
    const int64_t stride = plan->block_vectors * VL, at = b * plan->block_vectors + t;
    UNROLL(4)
    for (int r = 0; r < QT; r++)
        UNROLL(4)
        for (int j = 0; j < KT; j++)
            s[r][j] = vload(space->in_w + (q + r) * space->width_w + space->column[at + j]) +
                      vset(space->in_h[(q + r) * space->width_h + space->row[at + j]]);
    outer_tile(s, QT, space->q + q * plan->d, plan->d, 1,
               space->k + b * plan->d * stride + t * VL, stride, plan->d);
}

#endif
