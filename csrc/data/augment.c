/* See augment.h. One table look-up a pixel: a batch is far below a hundredth of the training
 * step it feeds, so nothing here is vectorised by hand. */
#include "augment.h"

#include "../base/random.h"

/* What was drawn for one image. */
typedef struct draw {
    int64_t shift_y, shift_x;            /* row y of the crop is row y + shift_y of the image */
    int flip;
    int64_t top, bottom, left, right;    /* the square cut out, clipped to the image */
} draw;

void attn_normalisation_table(float *table, const float *mean, const float *std, int64_t C) {
    for (int64_t c = 0; c < C; c++)
        for (int v = 0; v < 256; v++)
            table[c * 256 + v] = ((float)v / 255.0f - mean[c]) / std[c];
}

static int64_t clip(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

/* The position that index mirrors to in 0..n-1, edge not repeated; index in 1-n..2n-2. */
static int64_t mirror(int64_t index, int64_t n) {
    if (index < 0)
        return -index;
    return index < n ? index : 2 * (n - 1) - index;
}

/* Whether an image is mirrored, given the word drawn for it in this epoch. Alternating, the word of
 * epoch 0 decides for good which epochs see the image mirrored, the even or the odd ones. */
static int flipped(const attn_augmentation *how, int64_t index, uint32_t drawn) {
    if (!how->alternate)
        return drawn * 0x1p-32 < how->flip;
    uint32_t word[4];
    attn_random_block(word, how->seed, ATTN_STREAM_AUGMENT, 0, (uint64_t)index);
    int first = word[2] * 0x1p-32 < how->flip;
    return how->flip > 0.0 && first != (int)(how->epoch & 1);
}

/* Which bits of the block decide what is part of the format: changing it changes every batch. */
static draw draw_for(const attn_augmentation *how, int64_t index, int64_t H, int64_t W) {
    uint32_t word[4];
    attn_random_block(word, how->seed, ATTN_STREAM_AUGMENT, how->epoch, (uint64_t)index);
    uint64_t places = 2 * (uint64_t)how->padding + 1;
    draw d;
    d.shift_y = (int64_t)(word[0] * places >> 32) - how->padding;
    d.shift_x = (int64_t)(word[1] * places >> 32) - how->padding;
    d.flip = flipped(how, index, word[2]);
    int64_t y = (int64_t)((word[3] >> 16) * (uint64_t)H >> 16);
    int64_t x = (int64_t)((word[3] & 0xFFFFu) * (uint64_t)W >> 16);
    d.top = clip(y - how->cutout / 2, 0, H);
    d.bottom = clip(y - how->cutout / 2 + how->cutout, 0, H);
    d.left = clip(x - how->cutout / 2, 0, W);
    d.right = clip(x - how->cutout / 2 + how->cutout, 0, W);
    return d;
}

static void fill(float *out, float value, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        out[i] = value;
}

/* out (W) = in (W) shifted, flipped and looked up in table (256). */
static void make_row(float *out, const uint8_t *in, const float *table, const draw *d, int reflect,
                     int64_t W) {
    /* Columns begin..end-1 of the crop lie inside the image, the others in the padding. */
    int64_t shift = d->shift_x;
    int64_t begin = clip(-shift, 0, W), end = clip(W - shift, begin, W);
    int64_t step = d->flip ? -1 : 1;
    float *to = d->flip ? out + W - 1 : out;
    for (int64_t x = 0; x < begin; x++)
        to[step * x] = table[reflect ? in[mirror(x + shift, W)] : 0];
    for (int64_t x = begin; x < end; x++)
        to[step * x] = table[in[x + shift]];
    for (int64_t x = end; x < W; x++)
        to[step * x] = table[reflect ? in[mirror(x + shift, W)] : 0];
}

void attn_augment_batch(float *out, const uint8_t *images, const int64_t *indices,
                        const float *table, const attn_augmentation *how, int64_t N, int64_t C,
                        int64_t H, int64_t W) {
    for (int64_t n = 0; n < N; n++) {
        const draw d = draw_for(how, indices[n], H, W);
        const uint8_t *image = images + indices[n] * C * H * W;
        for (int64_t c = 0; c < C; c++) {
            const float *values = table + c * 256;
            for (int64_t y = 0; y < H; y++, out += W) {
                int64_t from = y + d.shift_y;
                if (how->reflect)
                    from = mirror(from, H);
                if (from < 0 || from >= H)
                    fill(out, values[0], W);
                else
                    make_row(out, image + (c * H + from) * W, values, &d, how->reflect, W);
                if (y >= d.top && y < d.bottom)
                    fill(out + d.left, 0.0f, d.right - d.left);
            }
        }
    }
}
