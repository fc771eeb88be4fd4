/* The transform of the products in polyphase form, y = A^T M A, and its adjoint, dM = A dy A^T. */
#include "polyphase.h"

/* y = A^T m of the outer products, and its adjoint m = A y. */
INLINE void output_axis(vf y[TILE], const vf m[OUTER])
{
    output_middle(y, m, F42);
    y[3] += m[4];
}
INLINE void output_axis_adjoint(vf m[OUTER], const vf y[TILE])
{
    output_adjoint_middle(m, y, F42);
    m[4] = y[3];
}

/* The outputs of a tile: each axis adds what its middle tap has left where it belongs. */
INLINE void output_tile(vf y[TILE][TILE], const phases *in)
{
    vf m[OUTER], t[TILE], half[OUTER][TILE];
    UNROLL(5)
    for (int i = 0; i < OUTER; i++) {
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            m[j] = vload(outer(in, i, j));
        output_axis(t, m);
        UNROLL(4)
        for (int j = 0; j < TILE; j++)
            half[i][j] = t[j] + vload(column(in, i, j));
    }
    UNROLL(4)
    for (int j = 0; j < TILE; j++) {
        UNROLL(5)
        for (int i = 0; i < OUTER; i++)
            m[i] = half[i][j];
        output_axis(t, m);
        UNROLL(4)
        for (int i = 0; i < TILE; i++)
            y[i][j] = t[i];
    }
    UNROLL(4)
    for (int i = 0; i < TILE; i++) {
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            m[j] = vload(row(in, i, j));
        output_axis(t, m);
        UNROLL(4)
        for (int j = 0; j < TILE; j++)
            y[i][j] += t[j] + vload(middle(in, i, j));
    }
}

/* y = A^T m A, finished, of tiles first, first + 1, ... of one channel block. */
void KERNEL(polyphase_output)(float *y, const float *m, int64_t spot, int64_t at,
                              const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                              const attn_finish *finish)
{
    bool stream = finish->stream && VL == ATTN_LANES; /* only whole cache lines are worth it */
    window w = first_window(tiles, first, TILE, TILE);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, TILE, TILE)) {
        if (!stream)
            fetch_ahead(y, &w, tiles, TILE);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            phases in = find_phases(m, spot, at + tile * ATTN_LANES, part);
            vf out[TILE][TILE], bias = finish->bias ? vload(finish->bias + part) : vzero();
            output_tile(out, &in);
            UNROLL(4)
            for (int i = 0; i < TILE; i++)
                if (i < w.bottom)
                    store_outputs(y, w.at + i * tiles->W * ATTN_LANES + part, out[i], TILE,
                                  w.right, bias, finish, stream);
        }
    }
    if (stream)
        vstream_end();
}

INLINE void gradient_tile(const phases *out, const float *dy, int64_t W, const window *w,
                          const bool edge)
{
    vf d[TILE][TILE], m[OUTER], half[OUTER][TILE];
    load_gradients(d, dy, W, w, edge);
    UNROLL(4)
    for (int i = 0; i < TILE; i++) {
        output_axis_adjoint(m, d[i]);
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            vstore(row(out, i, j), m[j]);
        UNROLL(4)
        for (int j = 0; j < TILE; j++)
            vstore(middle(out, i, j), d[i][j]);
    }
    UNROLL(4)
    for (int j = 0; j < TILE; j++) {
        vf t[TILE] = {d[0][j], d[1][j], d[2][j], d[3][j]};
        output_axis_adjoint(m, t);
        UNROLL(5)
        for (int i = 0; i < OUTER; i++) {
            vstore(column(out, i, j), m[i]);
            half[i][j] = m[i];
        }
    }
    UNROLL(5)
    for (int i = 0; i < OUTER; i++) {
        output_axis_adjoint(m, half[i]);
        UNROLL(5)
        for (int j = 0; j < OUTER; j++)
            vstore(outer(out, i, j), m[j]);
    }
}

/* m = A dy A^T of tiles first, first + 1, ... of one channel block. */
void KERNEL(polyphase_output_adjoint)(float *m, int64_t spot, int64_t at, const float *dy,
                                      const attn_winograd_tiles *tiles, int64_t first,
                                      int64_t count)
{
    window w = first_window(tiles, first, TILE, TILE);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, TILE, TILE)) {
        fetch_ahead(dy, &w, tiles, TILE);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            phases out = find_phases(m, spot, at + tile * ATTN_LANES, part);
            if (w.bottom == TILE && w.right == TILE)
                gradient_tile(&out, dy + w.at + part, tiles->W, &w, false);
            else
                gradient_tile(&out, dy + w.at + part, tiles->W, &w, true);
        }
    }
}
