/* Images of 2 x 2 pixels under a 3x3 kernel whose padding is 1: nine products an image, where the
 * taps that meet a pixel would take sixteen. Along one axis the outputs of pixels a, b are
 *
 *   y0 = g1 a + g2 b = g1 (a + b) + (g2 - g1) b
 *   y1 = g0 a + g1 b = g1 (a + b) + (g0 - g1) a,
 *
 * the product of a Toeplitz matrix of 2 x 2 and a vector with three multiplications (S. Winograd,
 * "Arithmetic Complexity of Computations", 1980). The adjoints of both transforms are those of the
 * other side with the pixels in reverse. */
#include "winograd_window.h"

enum { PIXELS = 4, TILE = 2 };

/* The three sums that are multiplied. */
INLINE void spread_axis(vf t[3], vf a, vf b)
{
    t[0] = a + b;
    t[1] = b;
    t[2] = a;
}

/* Two pixels from three products. */
INLINE void gather_axis(vf y[2], vf m0, vf m1, vf m2)
{
    y[0] = m0 + m1;
    y[1] = m0 + m2;
}

/* Where pixel (i, j) stands. */
INLINE int64_t place(const int i, const int j, const bool reverse)
{
    int pixel = TILE * i + j;
    return (reverse ? PIXELS - 1 - pixel : pixel) * ATTN_LANES;
}

/* v(9 spots, count images, 16) of images first, first + 1, ... of one channel block. */
INLINE void spread(float *v, int64_t spot, const float *x, const attn_winograd_tiles *tiles,
                   int64_t first, int64_t count, const bool reverse)
{
    for (int64_t n = 0; n < count; n++)
        for (int part = 0; part < ATTN_LANES; part += VL) {
            const float *in = x + (first + n) * tiles->image + part;
            float *out = v + n * ATTN_LANES + part;
            vf half[2][3]; /* [column][row] */
            UNROLL(2)
            for (int j = 0; j < TILE; j++)
                spread_axis(half[j], vload(in + place(0, j, reverse)),
                            vload(in + place(1, j, reverse)));
            UNROLL(3)
            for (int i = 0; i < 3; i++) {
                vf t[3];
                spread_axis(t, half[0][i], half[1][i]);
                UNROLL(3)
                for (int j = 0; j < 3; j++, out += spot)
                    vstore(out, t[j]);
            }
        }
}

/* The pixels of an image from its nine products. */
INLINE void gather(vf y[2][2], const float *m, int64_t spot)
{
    vf half[3][2]; /* [column][row] */
    UNROLL(3)
    for (int j = 0; j < 3; j++)
        gather_axis(half[j], vload(m + j * spot), vload(m + (3 + j) * spot),
                    vload(m + (6 + j) * spot));
    UNROLL(2)
    for (int i = 0; i < TILE; i++)
        gather_axis(y[i], half[0][i], half[1][i], half[2][i]);
}

void KERNEL(winograd_pair_input)(float *v, int64_t spot, int64_t at, const float *x,
                                 const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    spread(v + at, spot, x, tiles, first, count, false);
}

void KERNEL(winograd_pair_output_adjoint)(float *m, int64_t spot, int64_t at, const float *dy,
                                          const attn_winograd_tiles *tiles, int64_t first,
                                          int64_t count)
{
    spread(m + at, spot, dy, tiles, first, count, true);
}

void KERNEL(winograd_pair_output)(float *y, const float *m, int64_t spot, int64_t at,
                                  const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                                  const attn_finish *finish)
{
    for (int64_t n = 0; n < count; n++)
        for (int part = 0; part < ATTN_LANES; part += VL) {
            vf out[2][2], bias = finish->bias ? vload(finish->bias + part) : vzero();
            gather(out, m + at + n * ATTN_LANES + part, spot);
            UNROLL(2)
            for (int i = 0; i < TILE; i++)
                store_outputs(y, (first + n) * tiles->image + place(i, 0, false) + part, out[i],
                              TILE, TILE, bias, finish, false);
        }
}

/* dx = [dx +] what the products' gradients say. */
void KERNEL(winograd_pair_input_adjoint)(float *dx, const float *v, int64_t spot, int64_t at,
                                         const attn_winograd_tiles *tiles, int64_t first,
                                         int64_t count, bool add)
{
    for (int64_t n = 0; n < count; n++)
        for (int part = 0; part < ATTN_LANES; part += VL) {
            vf d[2][2];
            gather(d, v + at + n * ATTN_LANES + part, spot);
            float *image = dx + (first + n) * tiles->image + part;
            UNROLL(2)
            for (int i = 0; i < TILE; i++)
                UNROLL(2)
                for (int j = 0; j < TILE; j++)
                    store_pixel(image + place(i, j, true), d[i][j], add);
        }
}

/* u = G g */
INLINE void taps_axis(vf u[3], vf g0, vf g1, vf g2)
{
    u[0] = g1;
    u[1] = g2 - g1;
    u[2] = g0 - g1;
}

/* g = G^T u, the adjoint */
INLINE void taps_adjoint(vf g[3], vf u0, vf u1, vf u2)
{
    g[0] = u2;
    g[1] = u0 - u1 - u2;
    g[2] = u1;
}

typedef void taps_transform(vf to[3], vf from0, vf from1, vf from2);

/* Nine rows of `count` numbers each, `to_step` and `from_step` floats from one to the next. */
INLINE void transform_taps(float *to, int64_t to_step, const float *from, int64_t from_step,
                           int64_t count, taps_transform *axis)
{
    for (int64_t at = 0; at < count; at += VL) {
        vf half[3][3]; /* [column][row] */
        UNROLL(3)
        for (int j = 0; j < 3; j++)
            axis(half[j], vload(from + j * from_step + at), vload(from + (3 + j) * from_step + at),
                 vload(from + (6 + j) * from_step + at));
        UNROLL(3)
        for (int i = 0; i < 3; i++) {
            vf t[3];
            axis(t, half[0][i], half[1][i], half[2][i]);
            UNROLL(3)
            for (int j = 0; j < 3; j++)
                vstore(to + (i * 3 + j) * to_step + at, t[j]);
        }
    }
}

void KERNEL(winograd_pair_weight)(float *u, int64_t spot, const float *g, int64_t tap,
                                  int64_t count)
{
    transform_taps(u, spot, g, tap, count, taps_axis);
}
void KERNEL(winograd_pair_weight_adjoint)(float *g, int64_t tap, const float *u, int64_t spot,
                                          int64_t count)
{
    transform_taps(g, tap, u, spot, count, taps_adjoint);
}
