/* The walk over the tiles of winograd_*.c and polyphase_*.c, and the pixels of their windows. */
#ifndef ATTN_KERNELS_WINOGRAD_WINDOW_H
#define ATTN_KERNELS_WINOGRAD_WINDOW_H

#include "kernels.h"
#include "simd.h"

/* Images are read from end to end, plane after plane, step x step new pixels a tile. So many floats
 * ahead (16 KiB) they are fetched, in the order in which they stand in memory, and only into the
 * second cache: fetched into the first they would take the place of what is in work. */
enum { AHEAD = 4 << 10 };

/* Where a tile's window of `size` x `size` pixels stands, `step` from the next: the place of its
 * first pixel, which rows and columns of it lie inside the image, the tile's place among others. */
typedef struct {
    int64_t image, row, column; /* of tiles */
    int64_t at;                 /* floats; of pixel (0, 0) of the window, wherever that is */
    int top, bottom, left, right;
} window;

INLINE int clip(int64_t value, int most)
{
    return value < 0 ? 0 : value > most ? most : (int)value;
}

INLINE void place_window(window *w, const attn_winograd_tiles *t, const int size, const int step)
{
    int64_t h = w->row * step - t->padding[0], column = w->column * step - t->padding[1];
    w->at = w->image * t->image + (h * t->W + column) * ATTN_LANES;
    w->top = clip(-h, size);
    w->bottom = clip(t->H - h, size);
    w->left = clip(-column, size);
    w->right = clip(t->W - column, size);
}

INLINE window first_window(const attn_winograd_tiles *t, int64_t tile, const int size,
                           const int step)
{
    int64_t per_image = t->rows * t->columns;
    window w = {.image = tile / per_image, .row = tile % per_image / t->columns,
                .column = tile % t->columns};
    place_window(&w, t, size, step);
    return w;
}

INLINE void next_window(window *w, const attn_winograd_tiles *t, const int size, const int step)
{
    if (++w->column == t->columns) {
        w->column = 0;
        if (++w->row == t->rows) {
            w->row = 0;
            w->image++;
        }
    }
    place_window(w, t, size, step);
}

INLINE void fetch_ahead(const float *x, const window *w, const attn_winograd_tiles *t,
                        const int step)
{
    int64_t tile = w->row * t->columns + w->column;
    const float *next = x + w->image * t->image + tile * step * step * ATTN_LANES + AHEAD;
    UNROLL(16)
    for (int i = 0; i < step * step; i++)
        __builtin_prefetch(next + i * ATTN_LANES, 0, 2);
}

/* How the pixels of a window are read: rows outside the image come from zeros; columns outside,
 * where the window is known to have such (`edge`), are masked. */
enum { MOST_PIXELS = 9 };
typedef struct {
    const float *rows[MOST_PIXELS];
    int64_t at[MOST_PIXELS];
    vi inside[MOST_PIXELS];
} pixels;

static const float zeros[MOST_PIXELS * ATTN_LANES] __attribute__((aligned(ATTN_ALIGNMENT)));

/* x: the first channels to be read, of pixel (0, 0) of image 0. */
INLINE void find_pixels(pixels *p, const float *x, const window *w, int64_t W, const int size,
                        const bool edge)
{
    UNROLL(9)
    for (int i = 0; i < size; i++) {
        bool row = i >= w->top && i < w->bottom, column = i >= w->left && i < w->right;
        p->rows[i] = row ? x + w->at + i * W * ATTN_LANES : zeros;
        p->at[i] = (edge && !column ? w->left : i) * ATTN_LANES;
        p->inside[i] = vset_int(column ? -1 : 0);
    }
}

INLINE vf pixel(const pixels *p, const int i, const int j, const bool edge)
{
    vf value = vload(p->rows[i] + p->at[j]);
    return edge ? vmask(p->inside[j], value) : value;
}

/* A pixel of the input's gradient: the first tile that reaches it writes it, the others add. */
INLINE void store_pixel(float *dx, vf d, bool add) { vstore(dx, add ? vload(dx) + d : d); }

/* The outputs of one row of a tile of `size` x `size`, from float `at` of y on, finished. */
INLINE void store_outputs(float *y, int64_t at, const vf *out, const int size, int right, vf bias,
                          const attn_finish *finish, bool stream)
{
    UNROLL(4)
    for (int j = 0; j < size; j++, at += ATTN_LANES) {
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

/* The gradients of a tile's outputs; 0 where `edge` says that some lie outside the image. */
INLINE void load_gradients(vf d[4][4], const float *dy, int64_t W, const window *w,
                           const bool edge)
{
    UNROLL(4)
    for (int i = 0; i < 4; i++)
        UNROLL(4)
        for (int j = 0; j < 4; j++) {
            bool outside = edge && (i >= w->bottom || j >= w->right);
            d[i][j] = outside ? vzero() : vload(dy + (i * W + j) * ATTN_LANES);
        }
}

/* Keeps the compiler from computing the 36 places of the spots before the loop: there are not
 * enough registers for them, and adding the step each time is free. */
#define HIDE(step) __asm__("" : "+r"(step))

#endif
