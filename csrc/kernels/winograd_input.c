/* The transform of the inputs, V = B^T x B, and its adjoint, dx = B dV B^T. */
#include "winograd.h"
#include "winograd_window.h"

enum { WINDOW = 6, STEP = 4 };

/* t = B^T d */
INLINE void input_axis(vf t[6], const vf d[6])
{
    t[0] = input_end(d[0], d[2], d[4], F43);
    input_middle(t + 1, d[1], d[2], d[3], d[4], F43);
    t[5] = input_end(d[1], d[3], d[5], F43);
}

/* d = B t, the adjoint: d0, d2, d4 from t0 .. t4, and d1, d3, d5 from t1 .. t5. */
INLINE void input_axis_adjoint_even(vf d[3], vf t0, const vf t[4])
{
    const float a2 = F43.a * F43.a, b2 = F43.b * F43.b;
    vf even[2];
    input_adjoint_even(even, t, F43);
    d[0] = t0 * vset(a2 * b2);
    d[1] = vfma(t0, vset(-(a2 + b2)), even[0]);
    d[2] = t0 + even[1];
}
INLINE void input_axis_adjoint(vf d[6], const vf t[6])
{
    vf even[3], odd[3];
    input_axis_adjoint_even(even, t[0], t + 1);
    input_adjoint_odd(odd, t + 1, t[5], F43);
    UNROLL(3)
    for (int i = 0; i < 3; i++) {
        d[2 * i] = even[i];
        d[2 * i + 1] = odd[i];
    }
}

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
 * lies between the two axes stays in registers. */
INLINE void input_tile(float *v, int64_t spot, const float *x, const window *w, int64_t W,
                       const bool edge)
{
    pixels p;
    find_pixels(&p, x, w, W, WINDOW, edge);
#define PIXEL(i, j) pixel(&p, i, j, edge)
    vf half[6], middle[4][6];
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        half[j] = input_end(PIXEL(0, j), PIXEL(2, j), PIXEL(4, j), F43);
    v = input_row(v, spot, half);
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        vf t[4];
        input_middle(t, PIXEL(1, j), PIXEL(2, j), PIXEL(3, j), PIXEL(4, j), F43);
        UNROLL(4)
        for (int i = 0; i < 4; i++)
            middle[i][j] = t[i];
    }
    UNROLL(4)
    for (int i = 0; i < 4; i++)
        v = input_row(v, spot, middle[i]);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        half[j] = input_end(PIXEL(1, j), PIXEL(3, j), PIXEL(5, j), F43);
    input_row(v, spot, half);
#undef PIXEL
}

/* v(36 spots, count tiles, 16) = B^T d B of tiles first, first + 1, ... of one channel block;
 * x is that block of image 0. */
void KERNEL(winograd_input)(float *v, int64_t spot, int64_t at, const float *x,
                            const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    window w = first_window(tiles, first, WINDOW, STEP);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, WINDOW, STEP)) {
        fetch_ahead(x, &w, tiles, STEP);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            float *out = v + at + tile * ATTN_LANES + part;
            HIDE(spot);
            if (w.left > 0 || w.right < WINDOW)
                input_tile(out, spot, x + part, &w, tiles->W, true);
            else
                input_tile(out, spot, x + part, &w, tiles->W, false);
        }
    }
}

/* One row of pixels of dx, transformed along the other axis already: added, or stored where this
 * tile is the first to reach a pixel. */
INLINE void add_row(float *dx, int i, const vf half[6], const attn_winograd_tiles *tiles,
                    const window *w, bool add)
{
    if (i < w->top || i >= w->bottom)
        return;
    bool again = add || (i < 2 && w->row > 0);
    vf d[6];
    input_axis_adjoint(d, half);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        if (j >= w->left && j < w->right)
            store_pixel(dx + (i * tiles->W + j) * ATTN_LANES, d[j],
                        again || (j < 2 && w->column > 0));
}

/* dx = [dx +] the sum over all tiles of B v B^T, one channel block. Windows overlap by two pixels:
 * tiles of an image must come in order, the first that reaches a pixel writes it, the others add. */
void KERNEL(winograd_input_adjoint)(float *dx, const float *v, int64_t spot, int64_t at,
                                    const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                                    bool add)
{
    window w = first_window(tiles, first, WINDOW, STEP);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, WINDOW, STEP)) {
        fetch_ahead(dx, &w, tiles, STEP);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            const float *in = v + at + tile * ATTN_LANES + part;
            float *out = dx + w.at + part;
            vf half[3][6], d[3];
#define SPOT(i, j) vload(in + ((i) * 6 + (j)) * spot)
            UNROLL(6)
            for (int j = 0; j < 6; j++) {
                vf t[4] = {SPOT(1, j), SPOT(2, j), SPOT(3, j), SPOT(4, j)};
                input_axis_adjoint_even(d, SPOT(0, j), t);
                UNROLL(3)
                for (int i = 0; i < 3; i++)
                    half[i][j] = d[i];
            }
            UNROLL(3)
            for (int i = 0; i < 3; i++)
                add_row(out, 2 * i, half[i], tiles, &w, add);
            UNROLL(6)
            for (int j = 0; j < 6; j++) {
                vf t[4] = {SPOT(1, j), SPOT(2, j), SPOT(3, j), SPOT(4, j)};
                input_adjoint_odd(d, t, SPOT(5, j), F43);
                UNROLL(3)
                for (int i = 0; i < 3; i++)
                    half[i][j] = d[i];
            }
            UNROLL(3)
            for (int i = 0; i < 3; i++)
                add_row(out, 2 * i + 1, half[i], tiles, &w, add);
#undef SPOT
        }
    }
}
