#include "shrink.h"

/* Cut into n * size equal parts, a line of n pixels has size parts a pixel, and n parts for each of
 * the size pixels that it shrinks to: what both have in common is a whole number of parts. */
typedef struct {
    int64_t begin, end; /* the pixels that one pixel of the result touches */
} touched;

static touched touched_by(int64_t index, int64_t n, int64_t size) {
    return (touched){index * n / size, ((index + 1) * n + size - 1) / size};
}

/* How many parts pixel `from` has in common with pixel `index` of the result. */
static float common(int64_t index, int64_t from, int64_t n, int64_t size) {
    int64_t low = index * n > from * size ? index * n : from * size;
    int64_t high = (index + 1) * n < (from + 1) * size ? (index + 1) * n : (from + 1) * size;
    return (float)(high - low);
}

/* One pixel of the result: in (H,W), the rows and columns that it touches. */
static float mean_at(const float *in, int64_t y, int64_t x, int64_t H, int64_t W, int64_t h,
                     int64_t w) {
    const touched rows = touched_by(y, H, h), columns = touched_by(x, W, w);
    float sum = 0.0f;
    for (int64_t r = rows.begin; r < rows.end; r++) {
        float line = 0.0f;
        for (int64_t c = columns.begin; c < columns.end; c++)
            line += common(x, c, W, w) * in[r * W + c];
        sum += common(y, r, H, h) * line;
    }
    return sum / ((float)H * (float)W);
}

void attn_shrink(float *out, const float *in, int64_t N, int64_t H, int64_t W, int64_t h,
                 int64_t w) {
    for (int64_t n = 0; n < N; n++, in += H * W)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++)
                *out++ = mean_at(in, y, x, H, W, h, w);
}
