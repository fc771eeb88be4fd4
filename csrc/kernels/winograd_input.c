/* The transform of the inputs, V = B^T x B, and its adjoint, dx = B dV B^T. */
#include "winograd.h"

/* t = B^T d: the first and the last number of t, and the four between. */
INLINE vf input_end(vf d0, vf d2, vf d4)
{
    return vfma(d0, vset(PA2 * PB2), vfma(d2, vset(-(PA2 + PB2)), d4));
}
INLINE void input_middle(vf t[4], vf d1, vf d2, vf d3, vf d4)
{
    vf even_a = vfma(d2, vset(-PB2), d4), odd_a = vfma(d1, vset(-PA * PB2), d3 * vset(PA));
    vf even_b = vfma(d2, vset(-PA2), d4), odd_b = vfma(d1, vset(-PA2 * PB), d3 * vset(PB));
    t[0] = even_a + odd_a;
    t[1] = even_a - odd_a;
    t[2] = even_b + odd_b;
    t[3] = even_b - odd_b;
}
INLINE void input_axis(vf t[6], const vf d[6])
{
    t[0] = input_end(d[0], d[2], d[4]);
    input_middle(t + 1, d[1], d[2], d[3], d[4]);
    t[5] = input_end(d[1], d[3], d[5]);
}

/* d = B t, the adjoint: its even and its odd numbers. */
INLINE void input_adjoint_even(vf d[3], vf t0, vf t1, vf t2, vf t3, vf t4)
{
    vf even_a = t1 + t2, even_b = t3 + t4;
    d[0] = t0 * vset(PA2 * PB2);
    d[1] = vfma(t0, vset(-(PA2 + PB2)), vfma(even_a, vset(-PB2), even_b * vset(-PA2)));
    d[2] = t0 + even_a + even_b;
}
INLINE void input_adjoint_odd(vf d[3], vf t1, vf t2, vf t3, vf t4, vf t5)
{
    vf odd_a = t1 - t2, odd_b = t3 - t4;
    d[0] = vfma(t5, vset(PA2 * PB2), vfma(odd_a, vset(-PA * PB2), odd_b * vset(-PA2 * PB)));
    d[1] = vfma(t5, vset(-(PA2 + PB2)), vfma(odd_a, vset(PA), odd_b * vset(PB)));
    d[2] = t5;
}
INLINE void input_axis_adjoint(vf d[6], const vf t[6])
{
    vf even[3], odd[3];
    input_adjoint_even(even, t[0], t[1], t[2], t[3], t[4]);
    input_adjoint_odd(odd, t[1], t[2], t[3], t[4], t[5]);
    UNROLL(3)
    for (int i = 0; i < 3; i++) {
        d[2 * i] = even[i];
        d[2 * i + 1] = odd[i];
    }
}

/* Rows of the window outside the image are read from here. */
static const float zeros[6 * ATTN_LANES] __attribute__((aligned(ATTN_ALIGNMENT)));

/* One row of spots, transformed along the other axis already; returns where the next row begins. */
INLINE float *input_row(float *v, int64_t spot, const vf half[6])
{
    vf t[6];
    input_axis(t, half);
    UNROLL(6)
    for (int j = 0; j < 6; j++, v += spot)
        vstore(v, t[j]);
    return v;
}

/* The input transform of one tile. Rows are taken in three groups that share inputs, so that what
 * lies between the two axes stays in registers. Where `edge`, columns outside the image are 0. */
INLINE void input_tile(float *v, int64_t spot, const float *const rows[6], const window *w,
                       const bool edge)
{
    int64_t at[6];
    vi inside[6];
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        bool is_inside = j >= w->left && j < w->right;
        at[j] = (edge && !is_inside ? w->left : j) * ATTN_LANES;
        inside[j] = vset_int(is_inside ? -1 : 0);
    }
#define PIXEL(i, j) (edge ? vmask(inside[j], vload(rows[i] + at[j])) : vload(rows[i] + at[j]))
    vf half[6], middle[4][6];
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        half[j] = input_end(PIXEL(0, j), PIXEL(2, j), PIXEL(4, j));
    v = input_row(v, spot, half);
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        vf t[4];
        input_middle(t, PIXEL(1, j), PIXEL(2, j), PIXEL(3, j), PIXEL(4, j));
        UNROLL(4)
        for (int i = 0; i < 4; i++)
            middle[i][j] = t[i];
    }
    UNROLL(4)
    for (int i = 0; i < 4; i++)
        v = input_row(v, spot, middle[i]);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        half[j] = input_end(PIXEL(1, j), PIXEL(3, j), PIXEL(5, j));
    input_row(v, spot, half);
#undef PIXEL
}

/* v(36 spots, count tiles, 16) = B^T d B of tiles first, first + 1, ... of one channel block;
 * x is that block of image 0. */
void KERNEL(winograd_input)(float *v, int64_t spot, const float *x,
                            const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    window w = first_window(tiles, first, 6);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, 6)) {
        fetch_ahead(x, &w, tiles);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            const float *rows[6];
            UNROLL(6)
            for (int i = 0; i < 6; i++) {
                bool inside = i >= w.top && i < w.bottom;
                rows[i] = part + (inside ? x + w.at + i * tiles->W * ATTN_LANES : zeros);
            }
            float *out = v + tile * ATTN_LANES + part;
            HIDE(spot);
            if (w.left > 0 || w.right < 6)
                input_tile(out, spot, rows, &w, true);
            else
                input_tile(out, spot, rows, &w, false);
        }
    }
}

/* One row of pixels of dx, transformed along the other axis already: stored where this tile is the
 * first to reach a pixel, else added. */
INLINE void add_row(float *dx, int i, const vf half[6], const attn_winograd_tiles *tiles,
                    const window *w)
{
    if (i < w->top || i >= w->bottom)
        return;
    bool again = i < 2 && w->row > 0;
    vf d[6];
    input_axis_adjoint(d, half);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        if (j >= w->left && j < w->right) {
            float *pixel = dx + (i * tiles->W + j) * ATTN_LANES;
            bool add = again || (j < 2 && w->column > 0);
            vstore(pixel, add ? vload(pixel) + d[j] : d[j]);
        }
}

/* dx = the sum over all tiles of B v B^T, one channel block. Windows overlap by two pixels: tiles
 * of an image must come in order, the first that reaches a pixel writes it, the others add. */
void KERNEL(winograd_input_adjoint)(float *dx, const float *v, int64_t spot,
                                    const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    window w = first_window(tiles, first, 6);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, 6)) {
        fetch_ahead(dx, &w, tiles);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            const float *in = v + tile * ATTN_LANES + part;
            float *out = dx + w.at + part;
            vf half[3][6], d[3];
#define SPOT(i, j) vload(in + ((i) * 6 + (j)) * spot)
            UNROLL(6)
            for (int j = 0; j < 6; j++) {
                input_adjoint_even(d, SPOT(0, j), SPOT(1, j), SPOT(2, j), SPOT(3, j), SPOT(4, j));
                UNROLL(3)
                for (int i = 0; i < 3; i++)
                    half[i][j] = d[i];
            }
            UNROLL(3)
            for (int i = 0; i < 3; i++)
                add_row(out, 2 * i, half[i], tiles, &w);
            UNROLL(6)
            for (int j = 0; j < 6; j++) {
                input_adjoint_odd(d, SPOT(1, j), SPOT(2, j), SPOT(3, j), SPOT(4, j), SPOT(5, j));
                UNROLL(3)
                for (int i = 0; i < 3; i++)
                    half[i][j] = d[i];
            }
            UNROLL(3)
            for (int i = 0; i < 3; i++)
                add_row(out, 2 * i + 1, half[i], tiles, &w);
#undef SPOT
        }
    }
}
