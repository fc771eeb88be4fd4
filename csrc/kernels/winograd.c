/* Winograd's F(4x4, 3x3): a tile of 4 x 4 outputs from 6 x 6 inputs with 36 products instead of 144.
 *
 * S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin, S. Gray, "Fast Algorithms
 * for Convolutional Neural Networks", CVPR 2016. Along one axis, for a tile d(6) and a kernel g(3):
 *
 *   y = A^T [(G g) . (B^T d)],   in two dimensions y = A^T [(G g G^T) . (B^T d B)] A.
 *
 * Interpolation points 0, +-3/4, +-3/2 and infinity; these halve the rounding error of the usual
 * 0, +-1, +-2. The rows of a point and of its negative share their even and their odd part.
 *
 * Transformed numbers ("spots": 36 to a tile) stand as [spot][tile][16 channels], `spot` floats from
 * one spot to the next; sixteen channels go through every function at once. Tiles are counted over
 * all images, row by row: attn_winograd_tiles says how.
 */
#include "kernels.h"
#include "simd.h"

#define A 0.75f
#define B 1.5f
#define A2 (A * A)
#define B2 (B * B)

/* t = B^T d */
INLINE void input_axis(vf t[6], const vf d[6])
{
    vf even_a = vfma(d[2], vset(-B2), d[4]), odd_a = vfma(d[1], vset(-B2), d[3]);
    vf even_b = vfma(d[2], vset(-A2), d[4]), odd_b = vfma(d[1], vset(-A2), d[3]);
    t[0] = vfma(d[0], vset(A2 * B2), vfma(d[2], vset(-(A2 + B2)), d[4]));
    t[1] = vfma(odd_a, vset(A), even_a);
    t[2] = vfma(odd_a, vset(-A), even_a);
    t[3] = vfma(odd_b, vset(B), even_b);
    t[4] = vfma(odd_b, vset(-B), even_b);
    t[5] = vfma(d[1], vset(A2 * B2), vfma(d[3], vset(-(A2 + B2)), d[5]));
}

/* d = B t, the adjoint */
INLINE void input_axis_adjoint(vf d[6], const vf t[6])
{
    vf even_a = t[1] + t[2], odd_a = (t[1] - t[2]) * vset(A);
    vf even_b = t[3] + t[4], odd_b = (t[3] - t[4]) * vset(B);
    d[0] = t[0] * vset(A2 * B2);
    d[1] = vfma(t[5], vset(A2 * B2), vfma(odd_a, vset(-B2), odd_b * vset(-A2)));
    d[2] = vfma(t[0], vset(-(A2 + B2)), vfma(even_a, vset(-B2), even_b * vset(-A2)));
    d[3] = vfma(t[5], vset(-(A2 + B2)), odd_a + odd_b);
    d[4] = t[0] + even_a + even_b;
    d[5] = t[5];
}

/* y = A^T m */
INLINE void output_axis(vf y[4], const vf m[6])
{
    vf even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = vfma(odd_a, vset(A), odd_b * vset(B));
    y[2] = vfma(even_a, vset(A2), even_b * vset(B2));
    y[3] = vfma(odd_a, vset(A * A2), vfma(odd_b, vset(B * B2), m[5]));
}

/* m = A y, the adjoint */
INLINE void output_axis_adjoint(vf m[6], const vf y[4])
{
    vf even_a = vfma(y[2], vset(A2), y[0]), odd_a = vfma(y[3], vset(A * A2), y[1] * vset(A));
    vf even_b = vfma(y[2], vset(B2), y[0]), odd_b = vfma(y[3], vset(B * B2), y[1] * vset(B));
    m[0] = y[0];
    m[1] = even_a + odd_a;
    m[2] = even_a - odd_a;
    m[3] = even_b + odd_b;
    m[4] = even_b - odd_b;
    m[5] = y[3];
}

/* One over the product of a point's distances from the others. */
#define AT_0 (1 / (A2 * B2))
#define AT_A (1 / (2 * A2 * (A2 - B2)))
#define AT_B (1 / (2 * B2 * (B2 - A2)))

/* u = G g */
INLINE void weight_axis(vf u[6], const vf g[3])
{
    vf even_a = vfma(g[2], vset(A2 * AT_A), g[0] * vset(AT_A)), odd_a = g[1] * vset(A * AT_A);
    vf even_b = vfma(g[2], vset(B2 * AT_B), g[0] * vset(AT_B)), odd_b = g[1] * vset(B * AT_B);
    u[0] = g[0] * vset(AT_0);
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
}

/* g = G^T u, the adjoint */
INLINE void weight_axis_adjoint(vf g[3], const vf u[6])
{
    vf even_a = u[1] + u[2], odd_a = u[1] - u[2], even_b = u[3] + u[4], odd_b = u[3] - u[4];
    g[0] = vfma(u[0], vset(AT_0), vfma(even_a, vset(AT_A), even_b * vset(AT_B)));
    g[1] = vfma(odd_a, vset(A * AT_A), odd_b * vset(B * AT_B));
    g[2] = vfma(even_a, vset(A2 * AT_A), vfma(even_b, vset(B2 * AT_B), u[5]));
}

/* So many floats ahead are tiles fetched into the cache: images are read from end to end, plane after
 * plane, sixteen new pixels a tile; eight tiles take longer than the memory does. */
enum { AHEAD = 8 * 16 * ATTN_LANES };

INLINE void fetch_ahead(const float *pixel, int64_t W)
{
    UNROLL(4)
    for (int i = 0; i < 4; i++)
        UNROLL(4)
        for (int j = 0; j < 4; j++)
            __builtin_prefetch(pixel + AHEAD + (i * W + j) * ATTN_LANES);
}

/* Where a tile's window of `size` x `size` pixels stands: the place of its first pixel, which rows
 * and columns of it lie inside the image, and the tile's place among the others. */
typedef struct {
    int64_t image, row, column; /* of tiles */
    int64_t at;                 /* floats; of pixel (0, 0) of the window, wherever that is */
    int top, bottom, left, right;
} window;

INLINE int clip(int64_t value, int most)
{
    return value < 0 ? 0 : value > most ? most : (int)value;
}

INLINE void place_window(window *w, const attn_winograd_tiles *t, const int size)
{
    int64_t h = w->row * 4 - t->padding[0], column = w->column * 4 - t->padding[1];
    w->at = w->image * t->image + (h * t->W + column) * ATTN_LANES;
    w->top = clip(-h, size);
    w->bottom = clip(t->H - h, size);
    w->left = clip(-column, size);
    w->right = clip(t->W - column, size);
}

INLINE window first_window(const attn_winograd_tiles *t, int64_t tile, const int size)
{
    int64_t per_image = t->rows * t->columns;
    window w = {.image = tile / per_image, .row = tile % per_image / t->columns,
                .column = tile % t->columns};
    place_window(&w, t, size);
    return w;
}

INLINE void next_window(window *w, const attn_winograd_tiles *t, const int size)
{
    if (++w->column == t->columns) {
        w->column = 0;
        if (++w->row == t->rows) {
            w->row = 0;
            w->image++;
        }
    }
    place_window(w, t, size);
}

/* Rows of the window outside the image are read from here, and written where nobody looks. */
static const float zeros[6 * ATTN_LANES] __attribute__((aligned(ATTN_ALIGNMENT)));

/* v(36 spots, count tiles, 16) = B^T d B of tiles first, first + 1, ... of one channel block;
 * x is that block of image 0. */
void KERNEL(winograd_input)(float *v, int64_t spot, const float *x, const attn_winograd_tiles *tiles,
                            int64_t first, int64_t count)
{
    window w = first_window(tiles, first, 6);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, 6)) {
        fetch_ahead(x + w.at, tiles->W);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            const float *rows[6];
            UNROLL(6)
            for (int i = 0; i < 6; i++)
                rows[i] = part + (i >= w.top && i < w.bottom
                                      ? x + w.at + i * tiles->W * ATTN_LANES
                                      : zeros);
            vf half[6][6];
            UNROLL(6)
            for (int j = 0; j < 6; j++) {
                bool inside = j >= w.left && j < w.right;
                vf d[6], t[6];
                UNROLL(6)
                for (int i = 0; i < 6; i++)
                    d[i] = inside ? vload(rows[i] + j * ATTN_LANES) : vzero();
                input_axis(t, d);
                UNROLL(6)
                for (int i = 0; i < 6; i++)
                    half[i][j] = t[i];
            }
            float *out = v + tile * ATTN_LANES + part;
            UNROLL(6)
            for (int i = 0; i < 6; i++) {
                vf t[6];
                input_axis(t, half[i]);
                UNROLL(6)
                for (int j = 0; j < 6; j++)
                    vstore(out + (i * 6 + j) * spot, t[j]);
            }
        }
    }
}

/* dx = the sum over all tiles of B v B^T, one channel block. Windows overlap by two pixels: tiles of
 * an image must come in order, the first that reaches a pixel writes it, the others add. */
void KERNEL(winograd_input_adjoint)(float *dx, const float *v, int64_t spot,
                                    const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    float nowhere[6 * ATTN_LANES] = {0};
    window w = first_window(tiles, first, 6);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, 6))
        for (int part = 0; part < ATTN_LANES; part += VL) {
            const float *in = v + tile * ATTN_LANES + part;
            vf half[6][6];
            UNROLL(6)
            for (int j = 0; j < 6; j++) {
                vf t[6], d[6];
                UNROLL(6)
                for (int i = 0; i < 6; i++)
                    t[i] = vload(in + (i * 6 + j) * spot);
                input_axis_adjoint(d, t);
                UNROLL(6)
                for (int i = 0; i < 6; i++)
                    half[i][j] = d[i];
            }
            UNROLL(6)
            for (int i = 0; i < 6; i++) {
                bool inside = i >= w.top && i < w.bottom, again = i < 2 && w.row > 0;
                float *row = part + (inside ? dx + w.at + i * tiles->W * ATTN_LANES : nowhere);
                vf d[6];
                input_axis_adjoint(d, half[i]);
                UNROLL(6)
                for (int j = 0; j < 6; j++)
                    if (j >= w.left && j < w.right) {
                        float *pixel = row + j * ATTN_LANES;
                        bool add = again || (j < 2 && w.column > 0);
                        vstore(pixel, add ? vload(pixel) + d[j] : d[j]);
                    }
            }
        }
}

/* y = A^T m A, finished, of tiles first, first + 1, ... of one channel block. */
void KERNEL(winograd_output)(float *y, const float *m, int64_t spot,
                             const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                             const attn_finish *finish)
{
    const float *residual = finish->residual;
    bool relu = finish->relu, stream = finish->stream && VL == ATTN_LANES; /* whole cache lines */
    window w = first_window(tiles, first, 4);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, 4))
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
            for (int i = 0; i < 4; i++) {
                if (i >= w.bottom)
                    break;
                vf out[4];
                output_axis(out, half[i]);
                int64_t at = w.at + i * tiles->W * ATTN_LANES + part;
                UNROLL(4)
                for (int j = 0; j < 4; j++, at += ATTN_LANES)
                    if (j < w.right) {
                        vf value = out[j] + bias;
                        if (residual)
                            value += vload(residual + at);
                        if (relu)
                            value = vmax(vzero(), value); /* NaN stays */
                        if (stream)
                            vstream(y + at, value);
                        else
                            vstore(y + at, value);
                    }
            }
        }
    if (stream)
        vstream_end();
}

/* m(36 spots, count tiles, 16) = A dy A^T of tiles first, first + 1, ... of one channel block. */
void KERNEL(winograd_output_adjoint)(float *m, int64_t spot, const float *dy,
                                     const attn_winograd_tiles *tiles, int64_t first, int64_t count)
{
    window w = first_window(tiles, first, 4);
    for (int64_t tile = 0; tile < count; tile++, next_window(&w, tiles, 4)) {
        fetch_ahead(dy + w.at, tiles->W);
        for (int part = 0; part < ATTN_LANES; part += VL) {
            vf half[6][4];
            UNROLL(4)
            for (int j = 0; j < 4; j++) {
                vf d[4], t[6];
                UNROLL(4)
                for (int i = 0; i < 4; i++) {
                    const float *pixel = dy + w.at + (i * tiles->W + j) * ATTN_LANES + part;
                    d[i] = i < w.bottom && j < w.right ? vload(pixel) : vzero();
                }
                output_axis_adjoint(t, d);
                UNROLL(6)
                for (int i = 0; i < 6; i++)
                    half[i][j] = t[i];
            }
            float *out = m + tile * ATTN_LANES + part;
            UNROLL(6)
            for (int i = 0; i < 6; i++) {
                vf t[6];
                output_axis_adjoint(t, half[i]);
                UNROLL(6)
                for (int j = 0; j < 6; j++)
                    vstore(out + (i * 6 + j) * spot, t[j]);
            }
        }
    }
}

/* u(36, count) = G g G^T, g(9, count); `spot` and `tap` floats from one row to the next. */
void KERNEL(winograd_weight)(float *u, int64_t spot, const float *g, int64_t tap, int64_t count)
{
    for (int64_t at = 0; at < count; at += VL) {
        vf half[6][3];
        UNROLL(3)
        for (int j = 0; j < 3; j++) {
            vf d[3] = {vload(g + j * tap + at), vload(g + (3 + j) * tap + at),
                       vload(g + (6 + j) * tap + at)};
            vf t[6];
            weight_axis(t, d);
            UNROLL(6)
            for (int i = 0; i < 6; i++)
                half[i][j] = t[i];
        }
        UNROLL(6)
        for (int i = 0; i < 6; i++) {
            vf t[6];
            weight_axis(t, half[i]);
            UNROLL(6)
            for (int j = 0; j < 6; j++)
                vstore(u + (i * 6 + j) * spot + at, t[j]);
        }
    }
}

/* g(9, count) = G^T u G, the adjoint. */
void KERNEL(winograd_weight_adjoint)(float *g, int64_t tap, const float *u, int64_t spot,
                                     int64_t count)
{
    for (int64_t at = 0; at < count; at += VL) {
        vf half[3][6];
        UNROLL(6)
        for (int j = 0; j < 6; j++) {
            vf t[6], d[3];
            UNROLL(6)
            for (int i = 0; i < 6; i++)
                t[i] = vload(u + (i * 6 + j) * spot + at);
            weight_axis_adjoint(d, t);
            UNROLL(3)
            for (int i = 0; i < 3; i++)
                half[i][j] = d[i];
        }
        UNROLL(3)
        for (int i = 0; i < 3; i++) {
            vf d[3];
            weight_axis_adjoint(d, half[i]);
            UNROLL(3)
            for (int j = 0; j < 3; j++)
                vstore(g + (i * 3 + j) * tap + at, d[j]);
        }
    }
}
