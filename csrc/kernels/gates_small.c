/* The small computations between statistics and gates: matrices a channel, 7x7 maps a position. */
#include "kernels.h"
#include "simd.h"

INLINE vf load_up_to(const float *p, int64_t left)
{
    return left >= VL ? vload(p) : vload_part(p, left);
}
INLINE void store_up_to(float *p, vf v, int64_t left)
{
    if (left >= VL)
        vstore(p, v);
    else
        vstore_part(p, v, left);
}

/* Rows and registers that go together, so that sums are independent and operands are reused. */
enum { ROWS = 4, WIDE = VL == 16 ? 4 : 2 };

/* sums[i] = row i of a (rows `step` apart) times b, both n long */
INLINE void dots(float sums[ROWS], const float *a, int64_t step, const float *b, int64_t n,
                 const int rows)
{
    vf sum[ROWS];
    for (int i = 0; i < rows; i++)
        sum[i] = vzero();
    int64_t j = 0;
    for (; j + VL <= n; j += VL)
        for (int i = 0; i < rows; i++)
            sum[i] = vfma(vload(a + i * step + j), vload(b + j), sum[i]);
    for (int i = 0; j < n && i < rows; i++)
        sum[i] = vfma(vload_part(a + i * step + j, n - j), vload_part(b + j, n - j), sum[i]);
    for (int i = 0; i < rows; i++)
        sums[i] = vsum(sum[i]);
}

/* y (K) = a (K, C) times b (C) */
INLINE void matrix_times_vector(float *y, const float *a, const float *b, int64_t K, int64_t C)
{
    int64_t k = 0;
    for (; k + ROWS <= K; k += ROWS)
        dots(y + k, a + k * C, C, b, C, ROWS);
    for (; k < K; k++)
        dots(y + k, a + k * C, C, b, C, 1);
}

/* From column c on: y[i, :] = sum over r of weights[r, i] * rows[r, :], `wide` registers each. */
INLINE void weighted_columns(float *y, const float *weights, int64_t stride, const float *rows,
                             int64_t R, int64_t C, int64_t c, const int count, const int wide)
{
    vf sum[ROWS][WIDE];
    for (int i = 0; i < count; i++)
        for (int v = 0; v < wide; v++)
            sum[i][v] = vzero();
    for (int64_t r = 0; r < R; r++) {
        vf value[WIDE];
        for (int v = 0; v < wide; v++)
            value[v] = wide > 1 ? vload(rows + r * C + c + v * VL)
                                : load_up_to(rows + r * C + c, C - c);
        for (int i = 0; i < count; i++)
            for (int v = 0; v < wide; v++)
                sum[i][v] = vfma(value[v], vset(weights[r * stride + i]), sum[i][v]);
    }
    for (int i = 0; i < count; i++)
        for (int v = 0; v < wide; v++)
            store_up_to(y + i * C + c + v * VL, sum[i][v], C - c - v * VL);
}

INLINE void weighted_rows(float *y, const float *weights, int64_t stride, const float *rows,
                          int64_t R, int64_t C, const int count)
{
    int64_t c = 0;
    for (; c + WIDE * VL <= C; c += WIDE * VL)
        weighted_columns(y, weights, stride, rows, R, C, c, count, WIDE);
    for (; c < C; c += VL)
        weighted_columns(y, weights, stride, rows, R, C, c, count, 1);
}

/* y (count, C) = sum over r of weights[r * stride + i] * rows[r, :] in row i; rows (R, C). */
void KERNEL(gate_weighted_rows)(float *y, const float *weights, int64_t stride, const float *rows,
                                int64_t R, int64_t C, int64_t count)
{
    int64_t i = 0;
    for (; i + ROWS <= count; i += ROWS)
        weighted_rows(y + i * C, weights + i, stride, rows, R, C, ROWS);
    for (; i < count; i++)
        weighted_rows(y + i * C, weights + i, stride, rows, R, C, 1);
}

/* gate (C), factor (C), hidden (pools, K) after its ReLU, from pooled (pools, C) */
void KERNEL(gate_mlp_forward)(float *gate, float *factor, float *hidden, const float *pooled,
                              const attn_gate_mlp *mlp)
{
    int64_t C = mlp->C, K = mlp->K, pools = mlp->pools;
    for (int64_t i = 0; i < pools; i++) {
        float *h = hidden + i * K;
        matrix_times_vector(h, mlp->w1, pooled + i * C, K, C);
        for (int64_t k = 0; k < K; k++) {
            float value = h[k] + (mlp->b1 ? mlp->b1[k] : 0.0f);
            h[k] = value < 0.0f ? 0.0f : value;
        }
    }
    /* The logits, pool by pool: the gate's place holds one pool's, the factor's place the sum. */
    for (int64_t i = 0; i < pools; i++) {
        float *part = i ? gate : factor;
        weighted_rows(part, hidden + i * K, 1, mlp->w2t, K, C, 1);
        for (int64_t c = 0; c < C; c++)
            factor[c] = (i ? factor[c] + part[c] : part[c]) + (mlp->b2 ? mlp->b2[c] : 0.0f);
    }
    for (int64_t c = 0; c < C; c += VL) {
        vf g = vsigmoid(load_up_to(factor + c, C - c));
        store_up_to(gate + c, g, C - c);
        store_up_to(factor + c, g + mlp->offset, C - c);
    }
}

/* dlogit (C): at the sigmoid's input; dhidden (pools, K): before the ReLU; dpooled (pools, C) */
void KERNEL(gate_mlp_backward)(float *dpooled, float *dhidden, float *dlogit, const float *dgate,
                               const float *gate, const float *hidden, const attn_gate_mlp *mlp)
{
    int64_t C = mlp->C, K = mlp->K, pools = mlp->pools;
    float *of_last = dhidden + (pools - 1) * K; /* the ReLU of the last pool is applied in place */
    for (int64_t c = 0; c < C; c++)
        dlogit[c] = dgate[c] * gate[c] * (1.0f - gate[c]);
    matrix_times_vector(of_last, mlp->w2t, dlogit, K, C);
    for (int64_t i = 0; i < pools; i++) {
        for (int64_t k = 0; k < K; k++)
            dhidden[i * K + k] = hidden[i * K + k] <= 0.0f ? 0.0f : of_last[k];
        weighted_rows(dpooled + i * C, dhidden + i * K, 1, mlp->w1, K, C, 1);
    }
}

/* y (H, W) = bias + 7x7 correlation of `planes` maps with their halo, weight (planes, 7, 7).
 * Four rows go together: each tap's weight is loaded once for them. */
INLINE void conv_rows(float *y, const float *maps, int planes, const float *weight, float bias,
                      const attn_gate_map *size, int64_t row, const int rows)
{
    for (int64_t col = 0; col < size->W; col += VL) {
        vf sum[4] = {vset(bias), vset(bias), vset(bias), vset(bias)};
        const float *tap = weight;
        for (int plane = 0; plane < planes; plane++) {
            const float *from = maps + plane * size->plane + row * size->pitch + col;
            for (int r = 0; r < ATTN_GATE_KERNEL; r++, from += size->pitch) {
                UNROLL(7)
                for (int s = 0; s < ATTN_GATE_KERNEL; s++, tap++) {
                    UNROLL(4)
                    for (int i = 0; i < rows; i++)
                        sum[i] = vfma(vload(from + i * size->pitch + s), vset(*tap), sum[i]);
                }
            }
        }
        for (int i = 0; i < rows; i++)
            store_up_to(y + (row + i) * size->W + col, sum[i], size->W - col);
    }
}

void KERNEL(gate_conv7)(float *y, const float *maps, int planes, const float *weight, float bias,
                        const attn_gate_map *size)
{
    int64_t row = 0;
    for (; row + 4 <= size->H; row += 4)
        conv_rows(y, maps, planes, weight, bias, size, row, 4);
    for (; row < size->H; row++)
        conv_rows(y, maps, planes, weight, bias, size, row, 1);
}

/* dweight (planes, 7, 7); dy is a map with its halo. Rows run into each other: the halo's zeros
 * between them add nothing, so the whole map is one long vector. */
void KERNEL(gate_conv7_weight)(float *dweight, const float *maps, int planes, const float *dy,
                               const attn_gate_map *size)
{
    const float *d = dy + ATTN_GATE_HALO * size->pitch + ATTN_GATE_HALO;
    int64_t length = size->H * size->pitch;
    for (int plane = 0; plane < planes; plane++) {
        for (int r = 0; r < ATTN_GATE_KERNEL; r++) {
            const float *from = maps + plane * size->plane + r * size->pitch;
            vf sum[ATTN_GATE_KERNEL];
            for (int s = 0; s < ATTN_GATE_KERNEL; s++)
                sum[s] = vzero();
            for (int64_t i = 0; i < length; i += VL) {
                vf value = vload(d + i);
                UNROLL(7)
                for (int s = 0; s < ATTN_GATE_KERNEL; s++)
                    sum[s] = vfma(vload(from + i + s), value, sum[s]);
            }
            for (int s = 0; s < ATTN_GATE_KERNEL; s++)
                *dweight++ = vsum(sum[s]);
        }
    }
}

/* sums[0] = sum of a, sums[1] = sum of a * b, in double: eight interleaved sums each. */
void KERNEL(gate_sums)(double sums[2], const float *a, const float *b, int64_t n)
{
    enum { WAYS = 8 };
    double first[WAYS] = {0}, second[WAYS] = {0};
    int64_t i = 0;
    for (; i + WAYS <= n; i += WAYS) {
        for (int j = 0; j < WAYS; j++) {
            first[j] += a[i + j];
            second[j] += (double)a[i + j] * b[i + j];
        }
    }
    for (; i < n; i++) {
        first[0] += a[i];
        second[0] += (double)a[i] * b[i];
    }
    sums[0] = ((first[0] + first[1]) + (first[2] + first[3])) +
              ((first[4] + first[5]) + (first[6] + first[7]));
    sums[1] = ((second[0] + second[1]) + (second[2] + second[3])) +
              ((second[4] + second[5]) + (second[6] + second[7]));
}

/* y (n) = sigmoid((x - mean) * scale + shift) */
void KERNEL(gate_sigmoid)(float *y, const float *x, float mean, float scale, float shift, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        vf value = (load_up_to(x + i, n - i) - mean) * scale + shift;
        store_up_to(y + i, vsigmoid(value), n - i);
    }
}

/* dx (n) = dy * y * (1 - y), the sigmoid's gradient from its result; dx may be dy */
void KERNEL(gate_sigmoid_backward)(float *dx, const float *dy, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = dy[i] * y[i] * (1.0f - y[i]);
}
