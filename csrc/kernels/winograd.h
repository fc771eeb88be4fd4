/* Winograd's F(4x4, 3x3): a tile of 4 x 4 outputs from 6 x 6 inputs with 36 products, not 144.
 *
 * S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin, S. Gray, "Fast Algorithms
 * for Convolutional Neural Networks", CVPR 2016. Along one axis, for a tile d(6), a kernel g(3):
 *
 *   y = A^T [(G g) . (B^T d)],   in two dimensions y = A^T [(G g G^T) . (B^T d B)] A.
 *
 * Interpolation points 0, +-3/4, +-3/2 and infinity: they halve the rounding error of the usual 0,
 * +-1, +-2. The rows of a point and of its negative share their even and their odd part.
 *
 * At stride 2 (polyphase.h) the same four points, without 0, serve F(4, 2): its numbers are some of
 * those of F(4, 3). With +-1/2 and +-5/4 its error is hardly above that of the direct sum.
 *
 * Transformed numbers ("spots", 36 to a tile) stand as [spot][tile][16 channels], `spot` floats
 * from one to the next, from float `at` on; sixteen channels go through every function at once.
 * Tiles are counted over all images, row by row: attn_winograd_tiles (types.h) says how. This
 * header has what winograd_*.c and polyphase_*.c compute along one axis; winograd_window.h walks
 * over the tiles.
 */
#ifndef ATTN_KERNELS_WINOGRAD_H
#define ATTN_KERNELS_WINOGRAD_H

#include "kernels.h"
#include "simd.h"

/* The finite points +-a, +-b other than 0. */
typedef struct {
    float a, b;
} points;
#define F43 ((points){0.75f, 1.5f})
#define F42 ((points){0.5f, 1.25f})

/* The inputs at infinity, and at a, -a, b, -b: those of F(4, 3) begin with its second number. */
INLINE vf input_end(vf d0, vf d2, vf d4, const points p)
{
    float a2 = p.a * p.a, b2 = p.b * p.b;
    return vfma(d0, vset(a2 * b2), vfma(d2, vset(-(a2 + b2)), d4));
}
INLINE void input_middle(vf t[4], vf d0, vf d1, vf d2, vf d3, const points p)
{
    float a2 = p.a * p.a, b2 = p.b * p.b;
    vf even_a = vfma(d1, vset(-b2), d3), odd_a = vfma(d0, vset(-p.a * b2), d2 * vset(p.a));
    vf even_b = vfma(d1, vset(-a2), d3), odd_b = vfma(d0, vset(-a2 * p.b), d2 * vset(p.b));
    t[0] = even_a + odd_a;
    t[1] = even_a - odd_a;
    t[2] = even_b + odd_b;
    t[3] = even_b - odd_b;
}

/* The adjoint: of t at infinity and of the odd parts, d0, d2, d4; of the even parts, d1 and d3. */
INLINE void input_adjoint_odd(vf d[3], const vf t[4], vf infinity, const points p)
{
    float a2 = p.a * p.a, b2 = p.b * p.b;
    vf odd_a = t[0] - t[1], odd_b = t[2] - t[3];
    d[0] = vfma(infinity, vset(a2 * b2),
                vfma(odd_a, vset(-p.a * b2), odd_b * vset(-a2 * p.b)));
    d[1] = vfma(infinity, vset(-(a2 + b2)), vfma(odd_a, vset(p.a), odd_b * vset(p.b)));
    d[2] = infinity;
}
INLINE void input_adjoint_even(vf d[2], const vf t[4], const points p)
{
    vf even_a = t[0] + t[1], even_b = t[2] + t[3];
    d[0] = vfma(even_a, vset(-p.b * p.b), even_b * vset(-p.a * p.a));
    d[1] = even_a + even_b;
}

/* The outputs from the products at a, -a, b, -b; those at 0 and infinity add to the first and the
 * last. */
INLINE void output_middle(vf y[4], const vf m[4], const points p)
{
    float a2 = p.a * p.a, b2 = p.b * p.b;
    vf even_a = m[0] + m[1], odd_a = m[0] - m[1], even_b = m[2] + m[3], odd_b = m[2] - m[3];
    y[0] = even_a + even_b;
    y[1] = vfma(odd_a, vset(p.a), odd_b * vset(p.b));
    y[2] = vfma(even_a, vset(a2), even_b * vset(b2));
    y[3] = vfma(odd_a, vset(p.a * a2), odd_b * vset(p.b * b2));
}

/* The adjoint; the products at 0 and infinity are y[0] and y[3]. */
INLINE void output_adjoint_middle(vf m[4], const vf y[4], const points p)
{
    float a2 = p.a * p.a, b2 = p.b * p.b;
    vf even_a = vfma(y[2], vset(a2), y[0]), odd_a = vfma(y[3], vset(p.a * a2), y[1] * vset(p.a));
    vf even_b = vfma(y[2], vset(b2), y[0]), odd_b = vfma(y[3], vset(p.b * b2), y[1] * vset(p.b));
    m[0] = even_a + odd_a;
    m[1] = even_a - odd_a;
    m[2] = even_b + odd_b;
    m[3] = even_b - odd_b;
}

#endif
