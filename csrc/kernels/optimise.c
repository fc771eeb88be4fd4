#include "kernels.h"
#include "simd.h"

/* d = g + decay * w;  v = momentum * v + d (v = d at the first step);
 * w -= rate * (v, or with Nesterov d + momentum * v).  v is NULL without momentum. */
void KERNEL(sgd_update)(float *w, float *v, const float *g, int64_t n, const sgd_constants *c)
{
    const vf decay = vset(c->decay), momentum = vset(c->momentum), rate = vset(c->rate);
    for (int64_t i = 0; i < n; i += VL) {
        const int64_t left = n - i;
        const bool whole = left >= VL;
        vf weight = whole ? vload(w + i) : vload_part(w + i, left);
        vf gradient = whole ? vload(g + i) : vload_part(g + i, left);
        vf d = vfma(decay, weight, gradient);
        if (v) {
            vf velocity = d;
            if (!c->first)
                velocity = vfma(momentum, whole ? vload(v + i) : vload_part(v + i, left), d);
            if (whole)
                vstore(v + i, velocity);
            else
                vstore_part(v + i, velocity, left);
            d = c->nesterov ? vfma(momentum, velocity, d) : velocity;
        }
        weight = weight - rate * d;
        if (whole)
            vstore(w + i, weight);
        else
            vstore_part(w + i, weight, left);
    }
}

/* w *= keep;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;
 * w -= rate * m / (sqrt(v) / root + eps), with root = sqrt(1 - beta2^step). */
void KERNEL(adamw_update)(float *w, float *m, float *v, const float *g, int64_t n,
                          const adamw_constants *c)
{
    const vf one_less_beta1 = vset(c->one_less_beta1), one_less_beta2 = vset(c->one_less_beta2);
    const vf beta2 = vset(c->beta2), keep = vset(c->keep), rate = vset(c->rate);
    const vf root = vset(c->root), eps = vset(c->eps);
    for (int64_t i = 0; i < n; i += VL) {
        const int64_t left = n - i;
        const bool whole = left >= VL;
        vf weight = whole ? vload(w + i) : vload_part(w + i, left);
        vf gradient = whole ? vload(g + i) : vload_part(g + i, left);
        vf first = whole ? vload(m + i) : vload_part(m + i, left);
        vf second = whole ? vload(v + i) : vload_part(v + i, left);
        first = vfma(one_less_beta1, gradient - first, first);
        second = vfma(one_less_beta2, gradient * gradient, beta2 * second);
        weight = keep * weight - rate * (first / (vsqrt(second) / root + eps));
        if (whole) {
            vstore(m + i, first);
            vstore(v + i, second);
            vstore(w + i, weight);
        } else {
            vstore_part(m + i, first, left);
            vstore_part(v + i, second, left);
            vstore_part(w + i, weight, left);
        }
    }
}

/* The sum of squares, in double: float32 squares would overflow where float32 values do not. */
double KERNEL(square_sum)(const float *x, int64_t n)
{
    double lanes[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int lane = 0; lane < 16; lane++)
            lanes[lane] += (double)x[i + lane] * x[i + lane];
    for (int lane = 0; i < n; i++, lane++)
        lanes[lane] += (double)x[i] * x[i];
    for (int width = 8; width > 0; width /= 2)
        for (int lane = 0; lane < width; lane++)
            lanes[lane] += lanes[lane + width];
    return lanes[0];
}

void KERNEL(scale_values)(float *x, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* NaN stays NaN: neither comparison holds for it. */
void KERNEL(clip_values)(float *x, int64_t n, float limit)
{
    for (int64_t i = 0; i < n; i++) {
        float value = x[i];
        value = value > limit ? limit : value;
        x[i] = value < -limit ? -limit : value;
    }
}
