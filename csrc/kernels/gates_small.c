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

INLINE float dot(const float *a, const float *b, int64_t n)
{
    vf sum[2] = {vzero(), vzero()};
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        sum[0] = vfma(vload(a + i), vload(b + i), sum[0]);
        sum[1] = vfma(vload(a + i + VL), vload(b + i + VL), sum[1]);
    }
    for (; i < n; i += VL)
        sum[0] = vfma(load_up_to(a + i, n - i), load_up_to(b + i, n - i), sum[0]);
    return vsum(sum[0] + sum[1]);
}

/* gate (C), factor (C), hidden (pools, K) after its ReLU, from pooled (pools, C) */
void KERNEL(gate_mlp_forward)(float *gate, float *factor, float *hidden, const float *pooled,
                              const attn_gate_mlp *mlp)
{
    int64_t C = mlp->C, K = mlp->K, pools = mlp->pools;
    for (int64_t i = 0; i < pools; i++) {
        for (int64_t k = 0; k < K; k++) {
            float h = dot(mlp->w1 + k * C, pooled + i * C, C) + (mlp->b1 ? mlp->b1[k] : 0.0f);
            hidden[i * K + k] = h < 0.0f ? 0.0f : h;
        }
    }
    for (int64_t c = 0; c < C; c += VL) {
        vf sum = mlp->b2 ? load_up_to(mlp->b2 + c, C - c) * (float)pools : vzero();
        for (int64_t k = 0; k < K; k++) {
            float h = 0.0f;
            for (int64_t i = 0; i < pools; i++)
                h += hidden[i * K + k];
            sum = vfma(load_up_to(mlp->w2t + k * C + c, C - c), vset(h), sum);
        }
        vf g = vsigmoid(sum);
        store_up_to(gate + c, g, C - c);
        store_up_to(factor + c, g + mlp->offset, C - c);
    }
}

/* dlogit (C): at the sigmoid's input; dhidden (pools, K): before the ReLU; dpooled (pools, C) */
void KERNEL(gate_mlp_backward)(float *dpooled, float *dhidden, float *dlogit, const float *dgate,
                               const float *gate, const float *hidden, const attn_gate_mlp *mlp)
{
    int64_t C = mlp->C, K = mlp->K, pools = mlp->pools;
    for (int64_t c = 0; c < C; c++)
        dlogit[c] = dgate[c] * gate[c] * (1.0f - gate[c]);
    for (int64_t k = 0; k < K; k++) {
        float dh = dot(mlp->w2t + k * C, dlogit, C);
        for (int64_t i = 0; i < pools; i++)
            dhidden[i * K + k] = hidden[i * K + k] > 0.0f ? dh : 0.0f;
    }
    for (int64_t i = 0; i < pools; i++) {
        for (int64_t c = 0; c < C; c += VL) {
            vf sum = vzero();
            for (int64_t k = 0; k < K; k++)
                sum = vfma(load_up_to(mlp->w1 + k * C + c, C - c), vset(dhidden[i * K + k]), sum);
            store_up_to(dpooled + i * C + c, sum, C - c);
        }
    }
}

/* y (C) = sum over r of weights[r * stride] * rows[r, :], rows (R, C) */
void KERNEL(gate_weighted_rows)(float *y, const float *weights, int64_t stride, const float *rows,
                                int64_t R, int64_t C)
{
    for (int64_t c = 0; c < C; c += VL) {
        vf sum = vzero();
        for (int64_t r = 0; r < R; r++)
            sum = vfma(load_up_to(rows + r * C + c, C - c), vset(weights[r * stride]), sum);
        store_up_to(y + c, sum, C - c);
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
