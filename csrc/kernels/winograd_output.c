/* The transform of the products, y = A^T M A, and its adjoint, dM = A dy A^T. */
#include "winograd.h"
#include "winograd_window.h"

enum { TILE = 4 };

/* y = A^T m */
INLINE void output_axis(vf y[4], const vf m[6])
{
    output_middle(y, m + 1, F43);
    y[0] += m[0];
    y[3] += m[5];
}

/* y = A^T m A, finished, of tiles first, first + 1, ... of one channel block. */
void KERNEL(winograd_output)(float *y, const float *m, int64_t spot, int64_t at,
                             const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                             const attn_finish *finish)
{
    bool stream = finish->stream && VL == ATTN_LANES; /* only whole cache lines are worth it */
    window w = first_window(tiles, first, TILE, TILE);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, TILE, TILE)) {
        if (!stream)
            fetch_ahead(y, &w, tiles, TILE);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            const float *in = m + at + tile * ATTN_LANES + part;
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
                if (i < w.bottom) {
                    vf out[4];
                    output_axis(out, half[i]);
                    store_outputs(y, w.at + i * tiles->W * ATTN_LANES + part, out, TILE, w.right,
                                  bias, finish, stream);
                }
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
    output_adjoint_middle(t + 1, half, F43);
    UNROLL(6)
    for (int j = 0; j < 6; j++, m += spot)
        vstore(m, t[j]);
    return m;
}

INLINE void gradient_tile(float *m, int64_t spot, const float *dy, int64_t W, const window *w,
                          const bool edge)
{
    vf d[4][4], middle[4][4];
    load_gradients(d, dy, W, w, edge);
    m = gradient_row(m, spot, d[0]);
    UNROLL(4)
    for (int j = 0; j < 4; j++) {
        vf t[4], column[4] = {d[0][j], d[1][j], d[2][j], d[3][j]};
        output_adjoint_middle(t, column, F43);
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
void KERNEL(winograd_output_adjoint)(float *m, int64_t spot, int64_t at, const float *dy,
                                     const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    window w = first_window(tiles, first, TILE, TILE);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, TILE, TILE)) {
        fetch_ahead(dy, &w, tiles, TILE);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            float *out = m + at + tile * ATTN_LANES + part;
            HIDE(spot);
            if (w.bottom == TILE && w.right == TILE)
                gradient_tile(out, spot, dy + w.at + part, tiles->W, &w, false);
            else
                gradient_tile(out, spot, dy + w.at + part, tiles->W, &w, true);
        }
    }
}
