/* The transform of the products, y = A^T M A, and its adjoint, dM = A dy A^T. */
#include "winograd.h"

/* y = A^T m */
INLINE void output_axis(vf y[4], const vf m[6])
{
    vf even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = vfma(odd_a, vset(PA), odd_b * vset(PB));
    y[2] = vfma(even_a, vset(PA2), even_b * vset(PB2));
    y[3] = vfma(odd_a, vset(PA * PA2), vfma(odd_b, vset(PB * PB2), m[5]));
}

/* m = A y, the adjoint: the four numbers between y0 and y3, the first and the last. */
INLINE void output_adjoint_middle(vf m[4], const vf y[4])
{
    vf even_a = vfma(y[2], vset(PA2), y[0]), odd_a = vfma(y[3], vset(PA * PA2), y[1] * vset(PA));
    vf even_b = vfma(y[2], vset(PB2), y[0]), odd_b = vfma(y[3], vset(PB * PB2), y[1] * vset(PB));
    m[0] = even_a + odd_a;
    m[1] = even_a - odd_a;
    m[2] = even_b + odd_b;
    m[3] = even_b - odd_b;
}

/* One row of pixels of y, transformed along the other axis already, from float `at` of y on. */
INLINE void output_row(float *y, int64_t at, const vf half[6], int right, vf bias,
                       const attn_finish *finish, bool stream)
{
    vf out[4];
    output_axis(out, half);
    UNROLL(4)
    for (int j = 0; j < 4; j++, at += ATTN_LANES) {
        if (j >= right)
            break;
        vf value = out[j] + bias;
        if (finish->residual)
            value += vload(finish->residual + at);
        if (finish->relu)
            value = vmax(vzero(), value); /* NaN stays */
        if (stream)
            vstream(y + at, value);
        else
            vstore(y + at, value);
    }
}

/* y = A^T m A, finished, of tiles first, first + 1, ... of one channel block. */
void KERNEL(winograd_output)(float *y, const float *m, int64_t spot,
                             const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                             const attn_finish *finish)
{
    bool stream = finish->stream && VL == ATTN_LANES; /* only whole cache lines are worth it */
    window w = first_window(tiles, first, 4);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, 4)) {
        if (!stream)
            fetch_ahead(y, &w, tiles);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            const float *in = m + tile * ATTN_LANES + part;
            vf half[4][6];
            UNROLL(6)
            for (int j = 0; j < 6; j++) {
                vf t[6], s[4];
                UNROLL(6)
                for (int i = 0; i < 6; i++)
                    t[i] = vload(in + (i * 6 + j) * spot);
                output_axis(s, t);
                UNROLL(4)
                for (int i = 0; i < 4; i++)
                    half[i][j] = s[i];
            }
            vf bias = finish->bias ? vload(finish->bias + part) : vzero();
            UNROLL(4)
            for (int i = 0; i < 4; i++)
                if (i < w.bottom)
                    output_row(y, w.at + i * tiles->W * ATTN_LANES + part, half[i], w.right, bias,
                               finish, stream);
        }
    }
    if (stream)
        vstream_end();
}

/* One row of spots of m, transformed along the other axis already; returns where the next one
 * begins. */
INLINE float *gradient_row(float *m, int64_t spot, const vf half[4])
{
    vf t[6] = {half[0], half[0], half[0], half[0], half[0], half[3]};
    output_adjoint_middle(t + 1, half);
    UNROLL(6)
    for (int j = 0; j < 6; j++, m += spot)
        vstore(m, t[j]);
    return m;
}

INLINE void gradient_tile(float *m, int64_t spot, const float *dy, int64_t W, const window *w,
                          const bool edge)
{
    vf d[4][4], middle[4][4];
    UNROLL(4)
    for (int i = 0; i < 4; i++)
        UNROLL(4)
        for (int j = 0; j < 4; j++) {
            bool outside = edge && (i >= w->bottom || j >= w->right);
            d[i][j] = outside ? vzero() : vload(dy + (i * W + j) * ATTN_LANES);
        }
    m = gradient_row(m, spot, d[0]);
    UNROLL(4)
    for (int j = 0; j < 4; j++) {
        vf t[4], column[4] = {d[0][j], d[1][j], d[2][j], d[3][j]};
        output_adjoint_middle(t, column);
        UNROLL(4)
        for (int i = 0; i < 4; i++)
            middle[i][j] = t[i];
    }
    UNROLL(4)
    for (int i = 0; i < 4; i++)
        m = gradient_row(m, spot, middle[i]);
    gradient_row(m, spot, d[3]);
}

/* m(36 spots, count tiles, 16) = A dy A^T of tiles first, first + 1, ... of one channel block. */
void KERNEL(winograd_output_adjoint)(float *m, int64_t spot, const float *dy,
                                     const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    window w = first_window(tiles, first, 4);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, 4)) {
        fetch_ahead(dy, &w, tiles);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            float *out = m + tile * ATTN_LANES + part;
            HIDE(spot);
            if (w.bottom == 4 && w.right == 4)
                gradient_tile(out, spot, dy + w.at + part, tiles->W, &w, false);
            else
                gradient_tile(out, spot, dy + w.at + part, tiles->W, &w, true);
        }
    }
}
