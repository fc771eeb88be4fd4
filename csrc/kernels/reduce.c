#include "kernels.h"
#include "simd.h"

/* Float sums over short stretches, joined in double: the error does not grow with n. */
double KERNEL(sum_row)(const float *x, int64_t n)
{
    enum { STRETCH = 64 * VL };
    double sum = 0.0;
    int64_t i = 0;
    while (i + 4 * VL <= n) {
        int64_t end = attn_min(n - 4 * VL, i + STRETCH - 4 * VL);
        vf part[4] = {vzero(), vzero(), vzero(), vzero()};
        for (; i <= end; i += 4 * VL)
            for (int k = 0; k < 4; k++)
                part[k] += vload(x + i + k * VL);
        sum += (double)vsum((part[0] + part[1]) + (part[2] + part[3]));
    }
    for (; i < n; i++)
        sum += (double)x[i];
    return sum;
}

void KERNEL(sum_columns)(double *sums, const float *x, int64_t rows, int64_t columns, int64_t stride)
{
    enum { STRETCH = 64, MOST = 256 };
    float part[MOST];
    for (int64_t r = 0; r < rows; r += STRETCH) {
        int64_t end = attn_min(rows, r + STRETCH);
        memset(part, 0, sizeof part);
        for (int64_t k = r; k < end; k++)
            for (int64_t c = 0; c < columns; c++)
                part[c] += x[k * stride + c];
        for (int64_t c = 0; c < columns; c++)
            sums[c] += (double)part[c];
    }
}
