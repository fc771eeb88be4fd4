/* Pooling of one image: of (H,W,16) for a block of channels, of (H,W) for one in PLAIN.
 *
 * A maximum is the first one in row-major order; its place counts row-major within the (clipped)
 * window. NaN is larger than everything. */
#include "kernels.h"
#include "simd.h"

typedef uint8_t vb __attribute__((vector_size(VL)));

/* n places, one a lane, written as uint8 or int32, and read back. */
INLINE void store_places(void *places, int64_t at, vi where, bool wide)
{
    if (wide) {
        vstore_int((int32_t *)places + at, where);
        return;
    }
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)((uint8_t *)places + at), _mm512_cvtepi32_epi8((__m512i)where));
#else
    vb narrow = __builtin_convertvector(where, vb);
    memcpy((uint8_t *)places + at, &narrow, sizeof narrow);
#endif
}

INLINE vi load_places(const void *places, int64_t at, bool wide)
{
    if (wide)
        return vload_int((const int32_t *)places + at);
#if defined(__AVX512F__)
    const __m128i *p = (const __m128i *)((const uint8_t *)places + at);
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128(p));
#elif defined(__AVX2__)
    const __m128i *p = (const __m128i *)((const uint8_t *)places + at);
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64(p));
#else
    vb narrow;
    memcpy(&narrow, (const uint8_t *)places + at, sizeof narrow);
    return __builtin_convertvector(narrow, vi);
#endif
}

/* With `halves` known to be true the compiler sees windows of constant size. */
typedef struct {
    int64_t top, bottom, left, right;
} window;

INLINE window window_at(const attn_pool *pool, int64_t p, int64_t q, const bool halves)
{
    if (halves)
        return (window){2 * p, 2 * p + 2, 2 * q, 2 * q + 2};
    return (window){pool->top[p], pool->bottom[p], pool->left[q], pool->right[q]};
}

/* Asks for the rows of (H,W,16) that output row p + 1 reads and row p does not, one line after the
 * other: reads that jump between the rows of a window are no pattern that a CPU foresees. */
INLINE void fetch_rows(const float *x, const attn_pool *pool, int64_t p)
{
    if (p + 1 >= pool->P)
        return;
    int64_t begin = pool->bottom[p] * pool->W, end = pool->bottom[p + 1] * pool->W;
    for (int64_t at = begin; at < end; at++)
        __builtin_prefetch(x + at * ATTN_LANES);
}

INLINE void max_blocked(float *y, void *places, const float *x, const attn_pool *pool,
                        const bool halves, const bool wide, const bool with_places)
{
    for (int64_t p = 0; p < pool->P; p++) {
        fetch_rows(x, pool, p);
        for (int64_t q = 0; q < pool->Q; q++) {
            window at = window_at(pool, p, q, halves);
            int64_t out = (p * pool->Q + q) * ATTN_LANES;
            for (int v = 0; v < ATTN_LANES; v += VL) {
                vf best = vload(x + (at.top * pool->W + at.left) * ATTN_LANES + v);
                vi where = vset_int(0);
                int32_t place = 0;
                for (int64_t h = at.top; h < at.bottom; h++) {
                    for (int64_t w = at.left; w < at.right; w++, place++) {
                        vf value = vload(x + (h * pool->W + w) * ATTN_LANES + v);
                        vi better = (value > best) | (value != value);
                        best = vselect(better, value, best);
                        where = (better & vset_int(place)) | (~better & where);
                    }
                }
                vstore(y + out + v, best);
                if (with_places)
                    store_places(places, out + v, where, wide);
            }
        }
    }
}

/* y (P,Q,16), places (P,Q,16) or NULL, x (H,W,16) */
void KERNEL(pool_max_blocked)(float *y, void *places, const float *x, const attn_pool *pool)
{
    if (pool->halves && places)
        max_blocked(y, places, x, pool, true, false, true);
    else if (pool->halves)
        max_blocked(y, NULL, x, pool, true, false, false);
    else if (!places)
        max_blocked(y, NULL, x, pool, false, false, false);
    else
        max_blocked(y, places, x, pool, false, pool->wide_index, true);
}

void KERNEL(pool_max_plain)(float *y, void *places, const float *x, const attn_pool *pool)
{
    for (int64_t p = 0; p < pool->P; p++) {
        for (int64_t q = 0; q < pool->Q; q++) {
            window at = window_at(pool, p, q, false);
            float best = x[at.top * pool->W + at.left];
            int32_t where = 0, place = 0;
            for (int64_t h = at.top; h < at.bottom; h++) {
                for (int64_t w = at.left; w < at.right; w++, place++) {
                    float value = x[h * pool->W + w];
                    if (value > best || value != value) {
                        best = value;
                        where = place;
                    }
                }
            }
            y[p * pool->Q + q] = best;
            if (places && pool->wide_index)
                ((int32_t *)places)[p * pool->Q + q] = where;
            else if (places)
                ((uint8_t *)places)[p * pool->Q + q] = (uint8_t)where;
        }
    }
}

/* Adds a share to dx, or writes it where no other window reaches. */
INLINE void put(float *dx, vf share, const attn_pool *pool, const bool tiles)
{
    if (!tiles)
        vstore(dx, vload(dx) + share);
    else if (pool->stream)
        vstream(dx, share);
    else
        vstore(dx, share);
}

/* Row by row of dx, so that it is written as one stream. */
INLINE void max_gradient_blocked(float *dx, const float *dy, const void *places,
                                 const attn_pool *pool, const bool halves, const bool tiles,
                                 const bool wide)
{
    for (int64_t p = 0; p < pool->P; p++) {
        window rows = window_at(pool, p, 0, halves);
        for (int64_t h = rows.top; h < rows.bottom; h++) {
            for (int64_t q = 0; q < pool->Q; q++) {
                window at = window_at(pool, p, q, halves);
                int64_t out = (p * pool->Q + q) * ATTN_LANES;
                for (int v = 0; v < ATTN_LANES; v += VL) {
                    vf d = vload(dy + out + v);
                    vi where = load_places(places, out + v, wide);
                    int32_t place = (int32_t)((h - at.top) * (at.right - at.left));
                    for (int64_t w = at.left; w < at.right; w++, place++)
                        put(dx + (h * pool->W + w) * ATTN_LANES + v,
                            vmask(where == vset_int(place), d), pool, tiles);
                }
            }
        }
    }
    vstream_end();
}

/* dx (H,W,16) is overwritten. */
void KERNEL(pool_max_gradient_blocked)(float *dx, const float *dy, const void *places,
                                       const attn_pool *pool)
{
    if (!pool->tiles)
        memset(dx, 0, (size_t)(pool->H * pool->W * ATTN_LANES) * sizeof(float));
    if (pool->halves && pool->tiles)
        max_gradient_blocked(dx, dy, places, pool, true, true, false);
    else if (pool->tiles)
        max_gradient_blocked(dx, dy, places, pool, false, true, pool->wide_index);
    else
        max_gradient_blocked(dx, dy, places, pool, false, false, pool->wide_index);
}

void KERNEL(pool_max_gradient_plain)(float *dx, const float *dy, const void *places,
                                     const attn_pool *pool)
{
    memset(dx, 0, (size_t)(pool->H * pool->W) * sizeof(float));
    for (int64_t p = 0; p < pool->P; p++) {
        for (int64_t q = 0; q < pool->Q; q++) {
            window at = window_at(pool, p, q, false);
            int64_t out = p * pool->Q + q, width = at.right - at.left;
            int64_t place = pool->wide_index ? ((const int32_t *)places)[out]
                                             : ((const uint8_t *)places)[out];
            dx[(at.top + place / width) * pool->W + at.left + place % width] += dy[out];
        }
    }
}

INLINE float window_share(const attn_pool *pool, window at)
{
    float own = (float)((at.bottom - at.top) * (at.right - at.left));
    return 1.0f / (pool->divisor > 0 ? pool->divisor : own);
}

/* The sum of `width` neighbouring vectors, in four parts so that additions overlap. */
INLINE vf sum_along(const float *x, int64_t width)
{
    vf part[4] = {vzero(), vzero(), vzero(), vzero()};
    int64_t w = 0;
    for (; w + 4 <= width; w += 4)
        for (int i = 0; i < 4; i++)
            part[i] += vload(x + (w + i) * ATTN_LANES);
    for (; w < width; w++)
        part[0] += vload(x + w * ATTN_LANES);
    return (part[0] + part[1]) + (part[2] + part[3]);
}

/* y (P,Q,16): each row of a window is summed by itself, which keeps the sums short. */
void KERNEL(pool_average_blocked)(float *y, const float *x, const attn_pool *pool)
{
    for (int64_t p = 0; p < pool->P; p++) {
        fetch_rows(x, pool, p);
        for (int64_t q = 0; q < pool->Q; q++) {
            window at = window_at(pool, p, q, false);
            vf share = vset(window_share(pool, at));
            for (int v = 0; v < ATTN_LANES; v += VL) {
                vf sum = vzero();
                for (int64_t h = at.top; h < at.bottom; h++)
                    sum += sum_along(x + (h * pool->W + at.left) * ATTN_LANES + v,
                                     at.right - at.left);
                vstore(y + (p * pool->Q + q) * ATTN_LANES + v, sum * share);
            }
        }
    }
}

void KERNEL(pool_average_plain)(float *y, const float *x, const attn_pool *pool)
{
    for (int64_t p = 0; p < pool->P; p++) {
        for (int64_t q = 0; q < pool->Q; q++) {
            window at = window_at(pool, p, q, false);
            float sum = 0;
            for (int64_t h = at.top; h < at.bottom; h++) {
                float along = 0;
                for (int64_t w = at.left; w < at.right; w++)
                    along += x[h * pool->W + w];
                sum += along;
            }
            y[p * pool->Q + q] = sum * window_share(pool, at);
        }
    }
}

/* dx (H,W,16) is overwritten, row by row. */
void KERNEL(pool_average_gradient_blocked)(float *dx, const float *dy, const attn_pool *pool)
{
    const bool tiles = pool->tiles;
    if (!tiles)
        memset(dx, 0, (size_t)(pool->H * pool->W * ATTN_LANES) * sizeof(float));
    for (int64_t p = 0; p < pool->P; p++) {
        for (int64_t h = pool->top[p]; h < pool->bottom[p]; h++) {
            for (int64_t q = 0; q < pool->Q; q++) {
                window at = window_at(pool, p, q, false);
                vf share = vset(window_share(pool, at)), d[VECTORS_IN_BLOCK];
                for (int v = 0; v < VECTORS_IN_BLOCK; v++)
                    d[v] = vload(dy + (p * pool->Q + q) * ATTN_LANES + v * VL) * share;
                for (int64_t w = at.left; w < at.right; w++)
                    for (int v = 0; v < VECTORS_IN_BLOCK; v++)
                        put(dx + (h * pool->W + w) * ATTN_LANES + v * VL, d[v], pool, tiles);
            }
        }
    }
    vstream_end();
}

/* dx (H,W) is overwritten. */
void KERNEL(pool_average_gradient_plain)(float *dx, const float *dy, const attn_pool *pool)
{
    memset(dx, 0, (size_t)(pool->H * pool->W) * sizeof(float));
    for (int64_t p = 0; p < pool->P; p++) {
        for (int64_t q = 0; q < pool->Q; q++) {
            window at = window_at(pool, p, q, false);
            float share = dy[p * pool->Q + q] * window_share(pool, at);
            for (int64_t h = at.top; h < at.bottom; h++)
                for (int64_t w = at.left; w < at.right; w++)
                    dx[h * pool->W + w] += share;
        }
    }
}
