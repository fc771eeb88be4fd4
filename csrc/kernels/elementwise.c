#include "../ops/kinds.h"
#include "kernels.h"
#include "simd.h"

/* One loop a kind: `expression` computes from the vector x. */
#define MAP(expression)                         \
    for (int64_t i = 0; i < n; i += VL) {       \
        vf v = vload(x + i);                    \
        vstore(y + i, expression);              \
    }                                           \
    break

/* NaN stays NaN: vmax gives its second operand where a lane is NaN. */
void KERNEL(unary_forward)(float *y, const float *x, int64_t n, int kind)
{
    switch (kind) {
    case ATTN_RELU: MAP(vmax(vzero(), v));
    case ATTN_SIGMOID: MAP(vsigmoid(v));
    case ATTN_TANH: MAP(vtanh(v));
    case ATTN_EXP: MAP(vexp(v));
    case ATTN_LOG: MAP(vlog(v));
    case ATTN_SQRT: MAP(vsqrt(v));
    case ATTN_ABS: MAP(vabs(v));
    case ATTN_NEG: MAP(-v);
    }
}

#define MAP_BACKWARD(source, expression)                   \
    for (int64_t i = 0; i < n; i += VL) {                  \
        vf v = vload((source) + i), d = vload(dy + i);     \
        vstore(dx + i, expression);                        \
    }                                                      \
    break

void KERNEL(unary_backward)(float *dx, const float *dy, const float *x, const float *y, int64_t n,
                            int kind)
{
    const vf one = vset(1.0f);
    switch (kind) {
    case ATTN_RELU: MAP_BACKWARD(y, vmask(~(v <= vzero()), d)); /* NaN passes, as in PyTorch */
    case ATTN_SIGMOID: MAP_BACKWARD(y, d * v * (one - v));
    case ATTN_TANH: MAP_BACKWARD(y, d * (one - v * v));
    case ATTN_EXP: MAP_BACKWARD(y, d * v);
    case ATTN_LOG: MAP_BACKWARD(x, d / v);
    case ATTN_SQRT: MAP_BACKWARD(y, d / (v + v));
    case ATTN_ABS: MAP_BACKWARD(x, vselect(v > vzero(), d, vmask(v < vzero(), -d)));
    case ATTN_NEG:
        for (int64_t i = 0; i < n; i += VL)
            vstore(dx + i, -vload(dy + i));
        break;
    }
}

void KERNEL(clamp_forward)(float *y, const float *x, int64_t n, float low, float high)
{
    for (int64_t i = 0; i < n; i += VL)
        vstore(y + i, vmin(vset(high), vmax(vset(low), vload(x + i))));
}

void KERNEL(clamp_backward)(float *dx, const float *dy, const float *x, int64_t n, float low,
                            float high)
{
    for (int64_t i = 0; i < n; i += VL) {
        vf v = vload(x + i);
        vstore(dx + i, vmask((v >= vset(low)) & (v <= vset(high)), vload(dy + i)));
    }
}

void KERNEL(add_into)(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL)
        vstore(y + i, vload(y + i) + vload(x + i));
}

INLINE float power_slope(float a, float b) { return b == 0.0f ? 0.0f : b * powf(a, b - 1.0f); }
/* d/db a^b; where a = 0 and b >= 0 the limit 0, not 0 * -inf. */
INLINE float power_growth(float a, float b)
{
    return a == 0.0f && b >= 0.0f ? 0.0f : powf(a, b) * logf(a);
}

INLINE float one_binary(float a, float b, int kind)
{
    switch (kind) {
    case ATTN_ADD: return a + b;
    case ATTN_SUB: return a - b;
    case ATTN_MUL: return a * b;
    case ATTN_DIV: return a / b;
    case ATTN_POW: return powf(a, b);
    case ATTN_POW_SLOPE: return power_slope(a, b);
    default: return power_growth(a, b);
    }
}

INLINE vf vector_binary(vf a, vf b, int kind)
{
    switch (kind) {
    case ATTN_ADD: return a + b;
    case ATTN_SUB: return a - b;
    case ATTN_MUL: return a * b;
    default: return a / b;
    }
}

/* kind, a_step and b_step are constants where this is called: each combination is one tight loop. */
INLINE void binary_rows(float *y, const float *a, const float *b, int64_t rows, int64_t columns,
                        int64_t a_row, int a_step, int64_t b_row, int b_step, int kind)
{
    for (int64_t r = 0; r < rows; r++, a += a_row, b += b_row, y += columns) {
        int64_t i = 0;
        if (kind <= ATTN_DIV) {
            for (; i + VL <= columns; i += VL) {
                vf va = a_step ? vload(a + i) : vset(*a), vb = b_step ? vload(b + i) : vset(*b);
                vstore(y + i, vector_binary(va, vb, kind));
            }
        }
        for (; i < columns; i++)
            y[i] = one_binary(a[a_step * i], b[b_step * i], kind);
    }
}

#define ROWS(a_step, b_step, kind)                                                             \
    binary_rows(y, a, b, rows, columns, a_stride[0], a_step, b_stride[0], b_step, kind)
#define STEPS(kind)                                                                            \
    do {                                                                                       \
        if (a_stride[1] && b_stride[1]) ROWS(1, 1, kind);                                      \
        else if (a_stride[1]) ROWS(1, 0, kind);                                                \
        else if (b_stride[1]) ROWS(0, 1, kind);                                                \
        else ROWS(0, 0, kind);                                                                 \
    } while (0);                                                                               \
    break

void KERNEL(binary_forward)(float *y, const float *a, const float *b, int64_t rows, int64_t columns,
                            const int64_t a_stride[2], const int64_t b_stride[2], int kind)
{
    switch (kind) {
    case ATTN_ADD: STEPS(ATTN_ADD);
    case ATTN_SUB: STEPS(ATTN_SUB);
    case ATTN_MUL: STEPS(ATTN_MUL);
    case ATTN_DIV: STEPS(ATTN_DIV);
    case ATTN_POW: STEPS(ATTN_POW);
    case ATTN_POW_SLOPE: STEPS(ATTN_POW_SLOPE);
    case ATTN_POW_GROWTH: STEPS(ATTN_POW_GROWTH);
    }
}
