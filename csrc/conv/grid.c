#include "grid.h"

#include "../kernels/kernels.h"

/* Whether most taps miss the image, and enough images stand together to make up for their split. */
static bool mostly_padding(const attn_conv_shape *s)
{
    int64_t reached[2] = {0, 0};
    for (int a = 0; a < 2; a++)
        for (int64_t tap = 0; tap < (a ? s->S : s->R); tap++) {
            attn_range r = attn_conv_inside(tap - s->padding[a], s->stride[a], a ? s->W : s->H,
                                            a ? s->Q : s->P);
            reached[a] += r.end - r.begin;
        }
    return s->N >= 14 && 2 * reached[0] * reached[1] < s->P * s->Q * s->R * s->S;
}

static void cut_into_pieces(attn_grid *g, const attn_conv_shape *s)
{
    int64_t positions = g->rows * g->columns;
    g->images = s->N;
    g->depth = g->h.count * g->w.count * g->from.channels;
    g->by_pixels = mostly_padding(s);
    g->cuts = g->by_pixels ? positions : attn_ceil_div(positions, ATTN_PIECE_ROWS);
    g->images_a_piece = ATTN_PIECE_ROWS;
    if (!g->by_pixels)
        g->images_a_piece = attn_max(1, ATTN_PIECE_ROWS / attn_max(positions, 1));
    g->pieces = g->cuts * attn_ceil_div(s->N, g->images_a_piece);
}

attn_grid attn_grid_forward(const attn_conv_shape *s)
{
    attn_grid g = {
        .rows = s->P, .columns = s->Q,
        .from = {{-s->padding[0], s->stride[0], s->H}, {-s->padding[1], s->stride[1], s->W}, s->C},
        .to = {{0, 1, s->P}, {0, 1, s->Q}, s->K},
        .h = {s->R, 0, 1, 1}, .w = {s->S, 0, 1, 1},
    };
    cut_into_pieces(&g, s);
    return g;
}

/* Pixel h = remainder + i * stride of x gets from y's (h + padding - r) / stride, where that is a
 * whole number: for every stride-th r. */
static void backward_axis(int64_t *count, attn_line *from, attn_line *to, attn_taps *taps,
                          const attn_conv_shape *s, int axis, int64_t remainder)
{
    int64_t size = axis ? s->W : s->H, out = axis ? s->Q : s->P, kernel = axis ? s->S : s->R;
    int64_t stride = s->stride[axis], padding = s->padding[axis];
    int64_t first = (remainder + padding) % stride;
    *count = attn_ceil_div(attn_max(size - remainder, 0), stride);
    *from = (attn_line){(remainder + padding - first) / stride, 1, out};
    *to = (attn_line){remainder, stride, size};
    *taps = (attn_taps){attn_ceil_div(attn_max(kernel - first, 0), stride), first, stride, -1};
}

attn_grid attn_grid_backward(const attn_conv_shape *s, int64_t row, int64_t column)
{
    attn_grid g = {.from.channels = s->K, .to.channels = s->C};
    backward_axis(&g.rows, &g.from.h, &g.to.h, &g.h, s, 0, row);
    backward_axis(&g.columns, &g.from.w, &g.to.w, &g.w, s, 1, column);
    cut_into_pieces(&g, s);
    return g;
}

attn_piece attn_grid_piece(const attn_grid *g, int64_t index)
{
    int64_t positions = g->rows * g->columns, cut = index % g->cuts, group = index / g->cuts;
    int64_t groups = g->pieces / g->cuts;
    int64_t image = g->images * group / groups, images = g->images * (group + 1) / groups - image;
    int64_t first = positions * cut / g->cuts, end = positions * (cut + 1) / g->cuts;
    return (attn_piece){image, images, first, images * (end - first)};
}

static int64_t plane(const attn_pixels *p) { return p->h.size * p->w.size; }
static int64_t image_step(const attn_pixels *p) { return p->channels / ATTN_LANES * plane(p); }

void attn_find_places(int64_t *at, const attn_grid *g, const attn_piece *piece,
                      const attn_pixels *pixels)
{
    attn_line h = pixels->h, w = pixels->w;
    int64_t first = piece->first, end = first + piece->rows / piece->images;
    for (int64_t n = piece->image; n < piece->image + piece->images; n++)
        for (int64_t begin = first, next; begin < end; begin = next) { /* line by line */
            int64_t i = begin / g->columns, start = i * g->columns, y = h.first + i * h.step;
            int64_t line = n * image_step(pixels) + y * w.size;
            next = attn_min(end, start + g->columns);
            for (int64_t j = begin - start; j < next - start; j++) {
                int64_t x = w.first + j * w.step;
                bool inside = y >= 0 && y < h.size && x >= 0 && x < w.size;
                *at++ = inside ? line + x : -1;
            }
        }
}

bool attn_stands(const attn_grid *g, const attn_piece *piece, const attn_pixels *pixels)
{
    attn_line h = pixels->h, w = pixels->w;
    return piece->images == 1 && h.first == 0 && h.step == 1 && h.size == g->rows &&
           w.first == 0 && w.step == 1 && w.size == g->columns;
}

bool attn_source_stands(const attn_grid *g, const attn_piece *piece)
{
    return g->h.count * g->w.count == 1 && attn_stands(g, piece, &g->from);
}

attn_operand attn_in_place(const float *x, const attn_piece *piece, const attn_pixels *pixels)
{
    int64_t start = piece->image * image_step(pixels) + piece->first;
    return (attn_operand){(float *)x + start * ATTN_LANES, plane(pixels) * ATTN_LANES};
}

attn_operand attn_gather_pixels(const float *x, const attn_piece *piece, int64_t blocks,
                                int64_t step, const int64_t *at, float *buffer)
{
    attn_operand rows = {buffer, piece->rows * ATTN_LANES};
    for (int64_t i = 0; i < blocks; i++)
        attn_kernel->gather_rows(buffer + i * rows.block, x + i * step, at, piece->rows, step);
    return rows;
}

/* The source's pixels for one tap. */
static attn_pixels tap_pixels(const attn_grid *g, int64_t tap)
{
    attn_pixels pixels = g->from;
    pixels.h.first += tap / g->w.count * g->h.shift;
    pixels.w.first += tap % g->w.count * g->w.shift;
    return pixels;
}

/* Whether a tap can read the image from this piece; asked of pieces of a single pixel. */
static bool reaches(const attn_grid *g, const attn_piece *piece, int64_t tap)
{
    if (!g->by_pixels)
        return true;
    attn_pixels p = tap_pixels(g, tap);
    int64_t y = p.h.first + piece->first / g->columns * p.h.step;
    int64_t x = p.w.first + piece->first % g->columns * p.w.step;
    return y >= 0 && y < p.h.size && x >= 0 && x < p.w.size;
}

attn_range attn_next_slice(const attn_grid *g, const attn_piece *piece, int64_t begin,
                           int64_t limit, int64_t most)
{
    int64_t blocks = g->from.channels / ATTN_LANES;
    while (begin < limit && !reaches(g, piece, begin / blocks))
        begin = attn_min(limit, (begin / blocks + 1) * blocks);
    int64_t end = begin, stop = attn_min(limit, begin + most);
    while (end < stop && reaches(g, piece, end / blocks))
        end = attn_min(stop, (end / blocks + 1) * blocks);
    return (attn_range){begin, end};
}

attn_operand attn_source_slice(const attn_grid *g, const attn_piece *piece, attn_range slice,
                               const float *from, float *buffer, int64_t *at)
{
    int64_t blocks = g->from.channels / ATTN_LANES, size = piece->rows * ATTN_LANES;
    if (attn_source_stands(g, piece)) {
        attn_operand x = attn_in_place(from, piece, &g->from);
        x.data += slice.begin * x.block;
        return x;
    }
    int64_t step = plane(&g->from) * ATTN_LANES;
    for (int64_t i = slice.begin, tap = -1; i < slice.end; i++) {
        if (tap != i / blocks) {
            tap = i / blocks;
            attn_pixels pixels = tap_pixels(g, tap);
            attn_find_places(at, g, piece, &pixels);
        }
        attn_gather_pixels(from + i % blocks * step, piece, 1, step, at,
                           buffer + (i - slice.begin) * size);
    }
    return (attn_operand){buffer, size};
}
