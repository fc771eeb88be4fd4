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

/* t = B^T d: the first and the last number of t, and the four between. */
INLINE vf input_end(vf d0, vf d2, vf d4)
{
    return vfma(d0, vset(A2 * B2), vfma(d2, vset(-(A2 + B2)), d4));
}
INLINE void input_middle(vf t[4], vf d1, vf d2, vf d3, vf d4)
{
    vf even_a = vfma(d2, vset(-B2), d4), odd_a = vfma(d1, vset(-A * B2), d3 * vset(A));
    vf even_b = vfma(d2, vset(-A2), d4), odd_b = vfma(d1, vset(-A2 * B), d3 * vset(B));
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
    d[0] = t0 * vset(A2 * B2);
    d[1] = vfma(t0, vset(-(A2 + B2)), vfma(even_a, vset(-B2), even_b * vset(-A2)));
    d[2] = t0 + even_a + even_b;
}
INLINE void input_adjoint_odd(vf d[3], vf t1, vf t2, vf t3, vf t4, vf t5)
{
    vf odd_a = t1 - t2, odd_b = t3 - t4;
    d[0] = vfma(t5, vset(A2 * B2), vfma(odd_a, vset(-A * B2), odd_b * vset(-A2 * B)));
    d[1] = vfma(t5, vset(-(A2 + B2)), vfma(odd_a, vset(A), odd_b * vset(B)));
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

/* y = A^T m */
INLINE void output_axis(vf y[4], const vf m[6])
{
    vf even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = vfma(odd_a, vset(A), odd_b * vset(B));
    y[2] = vfma(even_a, vset(A2), even_b * vset(B2));
    y[3] = vfma(odd_a, vset(A * A2), vfma(odd_b, vset(B * B2), m[5]));
}

/* m = A y, the adjoint: the four numbers between y0 and y3, the first and the last. */
INLINE void output_adjoint_middle(vf m[4], const vf y[4])
{
    vf even_a = vfma(y[2], vset(A2), y[0]), odd_a = vfma(y[3], vset(A * A2), y[1] * vset(A));
    vf even_b = vfma(y[2], vset(B2), y[0]), odd_b = vfma(y[3], vset(B * B2), y[1] * vset(B));
    m[0] = even_a + odd_a;
    m[1] = even_a - odd_a;
    m[2] = even_b + odd_b;
    m[3] = even_b - odd_b;
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

/* Images are read from end to end, plane after plane, sixteen new pixels a tile. So many floats ahead
 * (16 KiB) they are fetched, in the order in which they stand in memory, and only into the second
 * cache: fetched into the first they would take the place of what is in work. */
enum { AHEAD = 4 << 10 };

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

INLINE void fetch_ahead(const float *x, const window *w, const attn_winograd_tiles *t)
{
    int64_t tile = w->row * t->columns + w->column;
    const float *pixels = x + w->image * t->image + tile * 16 * ATTN_LANES + AHEAD;
    UNROLL(16)
    for (int i = 0; i < 16; i++)
        __builtin_prefetch(pixels + i * ATTN_LANES, 0, 2);
}

/* Keeps the compiler from computing the 36 places of the spots before the loop: there are not enough
 * registers for them, and adding the step each time is free. */
#define HIDE(step) __asm__("" : "+r"(step))

/* Rows of the window outside the image are read from here, and written where nobody looks. */
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
void KERNEL(winograd_input)(float *v, int64_t spot, const float *x, const attn_winograd_tiles *tiles,
                            int64_t first, int64_t count)
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

/* dx = the sum over all tiles of B v B^T, one channel block. Windows overlap by two pixels: tiles of
 * an image must come in order, the first that reaches a pixel writes it, the others add. */
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

/* One row of spots of m, transformed along the other axis already; returns where the next begins. */
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
