/* F(2x2, 3x3): a tile of 2 x 2 outputs from 4 x 4 inputs with 16 products, not 36. For a few pixels:
 * its weights are quickly transformed, and so need not be kept, and read, in a larger form. Points 0,
 * +-1 and infinity; no adjoints, as it serves where nothing is learned. */
#include "winograd_window.h"

enum { WINDOW = 4, TILE = 2 };

/* t = B^T d */
INLINE void input_axis(vf t[4], vf d0, vf d1, vf d2, vf d3)
{
    t[0] = d0 - d2;
    t[1] = d1 + d2;
    t[2] = d2 - d1;
    t[3] = d1 - d3;
}

/* y = A^T m */
INLINE void output_axis(vf y[2], vf m0, vf m1, vf m2, vf m3)
{
    y[0] = m0 + m1 + m2;
    y[1] = m1 - m2 - m3;
}

/* u = G g */
INLINE void taps_axis(vf u[4], vf g0, vf g1, vf g2)
{
    vf even = (g0 + g2) * vset(0.5f), odd = g1 * vset(0.5f);
    u[0] = g0;
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = g2;
}

INLINE void input_tile(float *v, int64_t spot, const float *x, const window *w, int64_t W,
                       const bool edge)
{
    pixels p;
    find_pixels(&p, x, w, W, WINDOW, edge);
    vf half[4][4]; /* [column][row] */
    UNROLL(4)
    for (int j = 0; j < WINDOW; j++)
        input_axis(half[j], pixel(&p, 0, j, edge), pixel(&p, 1, j, edge), pixel(&p, 2, j, edge),
                   pixel(&p, 3, j, edge));
    UNROLL(4)
    for (int i = 0; i < WINDOW; i++) {
        vf t[4];
        input_axis(t, half[0][i], half[1][i], half[2][i], half[3][i]);
        UNROLL(4)
        for (int j = 0; j < WINDOW; j++, v += spot)
            vstore(v, t[j]);
    }
}

/* v(16 spots, count tiles, 16) = B^T d B of tiles first, first + 1, ... of one channel block;
 * x is that block of image 0. */
void KERNEL(winograd_small_input)(float *v, int64_t spot, int64_t at, const float *x,
                                  const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    window w = first_window(tiles, first, WINDOW, TILE);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, WINDOW, TILE))
        for (int part = 0; part < ATTN_LANES; part += VL) {
            float *out = v + at + tile * ATTN_LANES + part;
            if (w.left > 0 || w.right < WINDOW)
                input_tile(out, spot, x + part, &w, tiles->W, true);
            else
                input_tile(out, spot, x + part, &w, tiles->W, false);
        }
}

/* y = A^T m A, finished, of tiles first, first + 1, ... of one channel block. */
void KERNEL(winograd_small_output)(float *y, const float *m, int64_t spot, int64_t at,
                                   const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                                   const attn_finish *finish)
{
    window w = first_window(tiles, first, TILE, TILE);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, TILE, TILE))
        for (int part = 0; part < ATTN_LANES; part += VL) {
            const float *in = m + at + tile * ATTN_LANES + part;
            vf half[4][2], bias = finish->bias ? vload(finish->bias + part) : vzero();
#define SPOT(i, j) vload(in + ((i) * 4 + (j)) * spot)
            UNROLL(4)
            for (int j = 0; j < 4; j++)
                output_axis(half[j], SPOT(0, j), SPOT(1, j), SPOT(2, j), SPOT(3, j));
#undef SPOT
            UNROLL(2)
            for (int i = 0; i < TILE; i++)
                if (i < w.bottom) {
                    vf out[2];
                    output_axis(out, half[0][i], half[1][i], half[2][i], half[3][i]);
                    store_outputs(y, w.at + i * tiles->W * ATTN_LANES + part, out, TILE, w.right,
                                  bias, finish, false);
                }
        }
}

/* u(16, count) = G g G^T, g(9, count); `spot` and `tap` floats from one row to the next. */
void KERNEL(winograd_small_weight)(float *u, int64_t spot, const float *g, int64_t tap,
                                   int64_t count)
{
    for (int64_t at = 0; at < count; at += VL) {
        vf half[3][4];
        UNROLL(3)
        for (int j = 0; j < 3; j++)
            taps_axis(half[j], vload(g + j * tap + at), vload(g + (3 + j) * tap + at),
                      vload(g + (6 + j) * tap + at));
        UNROLL(4)
        for (int i = 0; i < 4; i++) {
            vf t[4];
            taps_axis(t, half[0][i], half[1][i], half[2][i]);
            UNROLL(4)
            for (int j = 0; j < 4; j++)
                vstore(u + (i * 4 + j) * spot + at, t[j]);
        }
    }
}
