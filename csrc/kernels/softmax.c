/* Softmax over rows and over columns, and the rows of the cross entropy. Everything is relative to
 * the maximum, so that nothing overflows. A row with a NaN, or with nothing above -inf, is NaN. */
#include "kernels.h"
#include "rows.h"

INLINE float row_max(const float *x, int64_t count)
{
    vf best = vset(-INFINITY);
    for (int64_t i = 0; i < count; i += VL)
        best = vmax(load_some(x + i, count - i, vset(-INFINITY)), best);
    return vmax_lane(best);
}

/* y (count) = exp(x - log sum exp x), or its logarithm. y may be x. */
void KERNEL(softmax_row)(float *y, const float *x, int64_t count, bool logarithm)
{
    const vf most = vset(row_max(x, count)), none = vset(-INFINITY);
    vf sum = vzero();
    for (int64_t i = 0; i < count; i += VL) {
        vf e = vexp(load_some(x + i, count - i, none) - most);
        sum += e;
        if (!logarithm)
            store_some(y + i, e, count - i);
    }
    const float total = vsum(sum);
    const vf scale = vset(1.0f / total), log_total = vset(logf(total));
    for (int64_t i = 0; i < count; i += VL) {
        vf value = logarithm ? load_some(x + i, count - i, none) - most - log_total
                             : load_some(y + i, count - i, none) * scale;
        store_some(y + i, value, count - i);
    }
}

/* dx = y * (dy - sum(dy * y)); of the logarithm: dx = dy - exp(y) * sum(dy) */
void KERNEL(softmax_row_gradient)(float *dx, const float *dy, const float *y, int64_t count,
                                  bool logarithm)
{
    vf sum = vzero();
    for (int64_t i = 0; i < count; i += VL) {
        vf d = load_some(dy + i, count - i, vzero());
        sum += logarithm ? d : d * load_some(y + i, count - i, vzero());
    }
    const vf total = vset(vsum(sum));
    for (int64_t i = 0; i < count; i += VL) {
        vf d = load_some(dy + i, count - i, vzero()), v = load_some(y + i, count - i, vzero());
        store_some(dx + i, logarithm ? d - vexp(v) * total : v * (d - total), count - i);
    }
}

/* The same over K rows of x that stand `stride` apart, for `columns` columns side by side. */
void KERNEL(softmax_columns)(float *y, const float *x, int64_t K, int64_t columns, int64_t stride,
                             bool logarithm)
{
    for (int64_t at = 0; at < columns; at += VL, x += VL, y += VL) {
        int64_t left = columns - at;
        vf most = vset(-INFINITY), sum = vzero();
        for (int64_t k = 0; k < K; k++)
            most = vmax(load_some(x + k * stride, left, vzero()), most);
        for (int64_t k = 0; k < K; k++) {
            vf e = vexp(load_some(x + k * stride, left, vzero()) - most);
            sum += e;
            if (!logarithm)
                store_some(y + k * stride, e, left);
        }
        vf last = logarithm ? vlog(sum) : vset(1.0f) / sum;
        for (int64_t k = 0; k < K; k++) {
            vf value = logarithm ? load_some(x + k * stride, left, vzero()) - most - last
                                 : load_some(y + k * stride, left, vzero()) * last;
            store_some(y + k * stride, value, left);
        }
    }
}

void KERNEL(softmax_columns_gradient)(float *dx, const float *dy, const float *y, int64_t K,
                                      int64_t columns, int64_t stride, bool logarithm)
{
    for (int64_t at = 0; at < columns; at += VL, dx += VL, dy += VL, y += VL) {
        int64_t left = columns - at;
        vf total = vzero();
        for (int64_t k = 0; k < K; k++) {
            vf d = load_some(dy + k * stride, left, vzero());
            total += logarithm ? d : d * load_some(y + k * stride, left, vzero());
        }
        for (int64_t k = 0; k < K; k++) {
            vf d = load_some(dy + k * stride, left, vzero());
            vf v = load_some(y + k * stride, left, vzero());
            store_some(dx + k * stride, logarithm ? d - vexp(v) * total : v * (d - total), left);
        }
    }
}

/* summary (3) = the maximum, and of x relative to it: the sum of exp, the sum. */
void KERNEL(cross_entropy_row)(float *summary, const float *x, int64_t count)
{
    const float most = row_max(x, count);
    vf sum = vzero(), total = vzero();
    for (int64_t i = 0; i < count; i += VL) {
        vf d = load_some(x + i, count - i, vset(-INFINITY)) - vset(most);
        sum += vexp(d);
        total += load_some(x + i, count - i, vset(most)) - vset(most);
    }
    summary[0] = most;
    summary[1] = vsum(sum);
    summary[2] = vsum(total);
}

/* dx = exp(x - most) * factor - offset */
void KERNEL(cross_entropy_row_gradient)(float *dx, const float *x, float most, float factor,
                                        float offset, int64_t count)
{
    for (int64_t i = 0; i < count; i += VL) {
        vf e = vexp(load_some(x + i, count - i, vzero()) - vset(most));
        store_some(dx + i, e * vset(factor) - vset(offset), count - i);
    }
}
