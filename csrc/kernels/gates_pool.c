/* Statistics of one image: over its positions (pooling, a value a channel) and over its channels
 * (maps, a value a position). */
#include "kernels.h"
#include "lanes.h"

/* WAYS: independent sums over positions. GROUP: positions that go through the channels together,
 * so that their partial results stay in registers. */
enum { WAYS = 4, GROUP = VL == 16 ? 8 : 4 };

INLINE int64_t block_offset(int64_t c, int64_t HW)
{
    return c / ATTN_LANES * ATTN_LANES * HW + c % ATTN_LANES;
}

INLINE vf sum_positions(const float *x, int64_t HW)
{
    vf sum[WAYS] = {vzero(), vzero(), vzero(), vzero()};
    int64_t p = 0;
    for (; p + WAYS <= HW; p += WAYS)
        UNROLL(4)
        for (int i = 0; i < WAYS; i++)
            sum[i] += vload(x + (p + i) * ATTN_LANES);
    for (; p < HW; p++)
        sum[0] += vload(x + p * ATTN_LANES);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* average (C) = mean over positions */
void KERNEL(gate_pool_average)(float *average, const float *x, int64_t C, int64_t HW, bool blocked)
{
    float scale = 1.0f / (float)HW;
    if (blocked) {
        for (int64_t c = 0; c < C; c += VL)
            vstore(average + c, sum_positions(x + block_offset(c, HW), HW) * scale);
        return;
    }
    for (int64_t c = 0; c < C; c++) {
        double sum = 0.0;
        for (int64_t p = 0; p < HW; p++)
            sum += x[c * HW + p];
        average[c] = (float)(sum / (double)HW);
    }
}

/* As keep_larger, where a NaN is larger than any number. */
INLINE void keep_larger_or_nan(vf *value, vi *at, vf other, vi other_at)
{
    vi take = (other > *value) | ((other == *value) & (other_at < *at)) | (other != other);
    *value = vselect(take, other, *value);
    *at = (vi)vselect(take, (vf)other_at, (vf)*at);
}

INLINE void pool_both_block(float *average, float *maximum, int32_t *index, const float *x,
                            int64_t HW)
{
    vf sum[WAYS], best[WAYS];
    vi at[WAYS];
    for (int i = 0; i < WAYS; i++) {
        sum[i] = vzero();
        best[i] = vset(-INFINITY);
        at[i] = vset_int(0);
    }
    int64_t p = 0;
    for (; p + WAYS <= HW; p += WAYS) {
        UNROLL(4)
        for (int i = 0; i < WAYS; i++) {
            vf value = vload(x + (p + i) * ATTN_LANES);
            vi take = (value > best[i]) | (value != value);
            sum[i] += value;
            best[i] = vselect(take, value, best[i]);
            at[i] = (vi)vselect(take, (vf)vset_int((int32_t)(p + i)), (vf)at[i]);
        }
    }
    for (; p < HW; p++) {
        vf value = vload(x + p * ATTN_LANES);
        sum[0] += value;
        keep_larger_or_nan(&best[0], &at[0], value, vset_int((int32_t)p));
    }
    for (int i = 1; i < WAYS; i++)
        keep_larger_or_nan(&best[0], &at[0], best[i], at[i]);
    vstore(average, ((sum[0] + sum[1]) + (sum[2] + sum[3])) * (1.0f / (float)HW));
    vstore(maximum, best[0]);
    vstore_int(index, at[0]);
}

/* average (C), maximum (C) over positions, index (C) of the first maximum; NaN counts as largest. */
void KERNEL(gate_pool_both)(float *average, float *maximum, int32_t *index, const float *x,
                            int64_t C, int64_t HW, bool blocked)
{
    if (blocked) {
        for (int64_t c = 0; c < C; c += VL)
            pool_both_block(average + c, maximum + c, index + c, x + block_offset(c, HW), HW);
        return;
    }
    KERNEL(gate_pool_average)(average, x, C, HW, false);
    for (int64_t c = 0; c < C; c++) {
        const float *plane = x + c * HW;
        int32_t best = 0;
        for (int64_t p = 1; p < HW; p++)
            if (plane[p] > plane[best] || plane[p] != plane[p])
                best = (int32_t)p;
        index[c] = best;
        maximum[c] = plane[best];
    }
}

/* norm (C) = sqrt(sum over positions of x^2) */
void KERNEL(gate_pool_norm)(float *norm, const float *x, int64_t C, int64_t HW, bool blocked)
{
    for (int64_t c = 0; c < C; c++) {
        const float *from = blocked ? x + block_offset(c, HW) : x + c * HW;
        int64_t step = blocked ? ATTN_LANES : 1;
        double sum = 0.0;
        for (int64_t p = 0; p < HW; p++)
            sum += (double)from[p * step] * from[p * step];
        norm[c] = (float)sqrt(sum);
    }
}

/* value (C) = log(sum over positions of exp(x)), taken relative to the maximum (C) */
void KERNEL(gate_pool_log_sum_exp)(float *value, const float *maximum, const float *x, int64_t C,
                                   int64_t HW, bool blocked)
{
    if (blocked) {
        for (int64_t c = 0; c < C; c += VL) {
            const float *from = x + block_offset(c, HW);
            vf largest = vload(maximum + c), sum = vzero();
            for (int64_t p = 0; p < HW; p++)
                sum += vexp(vload(from + p * ATTN_LANES) - largest);
            vstore(value + c, largest + vlog(sum));
        }
        return;
    }
    for (int64_t c = 0; c < C; c++) {
        double sum = 0.0;
        for (int64_t p = 0; p < HW; p++)
            sum += exp((double)x[c * HW + p] - maximum[c]);
        value[c] = (float)(maximum[c] + log(sum));
    }
}

/* dx (C, HW) += x * by_norm[c] + exp(x - log_sum_exp[c]) * by_exp[c]; a NULL factor: not that. */
void KERNEL(gate_pool_backward)(float *dx, const float *x, const float *by_norm,
                                const float *log_sum_exp, const float *by_exp, int64_t C,
                                int64_t HW, bool blocked)
{
    int64_t step = blocked ? ATTN_LANES : 1;
    for (int64_t c = 0; c < C; c++) {
        int64_t offset = blocked ? block_offset(c, HW) : c * HW;
        for (int64_t p = 0; p < HW; p++) {
            float value = x[offset + p * step], sum = dx[offset + p * step];
            if (by_norm)
                sum += value * by_norm[c];
            if (by_exp)
                sum += expf(value - log_sum_exp[c]) * by_exp[c];
            dx[offset + p * step] = sum;
        }
    }
}

/* `count` positions from x on, all channels; their sums over positions are added to average. */
INLINE void maps_group(vf *best, vi *at, vf *sum, float *average, const float *x, int64_t C,
                       int64_t HW, const int count)
{
    for (int half = 0; half < ATTN_LANES; half += VL) {
        vf largest[GROUP], total[GROUP];
        vi where[GROUP];
        vi number = lane_numbers() + half;
        for (int i = 0; i < count; i++) {
            largest[i] = vset(-INFINITY);
            where[i] = number;
            total[i] = vzero();
        }
        for (int64_t c = half; c < C; c += ATTN_LANES) {
            const float *from = x + (c - half) * HW + half;
            vf over = vzero();
            UNROLL(8)
            for (int i = 0; i < count; i++) {
                vf value = vload(from + i * ATTN_LANES);
                where[i] = choose_greater(value, largest[i], number, where[i]);
                largest[i] = vmax(value, largest[i]); /* a NaN leaves the old one */
                total[i] += value;
                over += value;
            }
            number += ATTN_LANES;
            if (average)
                vstore(average + c, vload(average + c) + over);
        }
        for (int i = 0; i < count; i++) {
            if (half == 0) {
                best[i] = largest[i];
                at[i] = where[i];
                sum[i] = total[i];
            } else {
                keep_larger(&best[i], &at[i], largest[i], where[i]);
                sum[i] += total[i];
            }
        }
    }
}

INLINE void maps_blocked(float *maximum, float *mean, int32_t *index, float *average,
                         const float *x, int64_t C, int64_t HW)
{
    float scale = 1.0f / (float)C;
    for (int64_t p = 0; p < HW; p += VL) {
        vf best[VL] = {vzero()}, sum[VL] = {vzero()};
        vi at[VL] = {vset_int(0)}, first;
        int64_t count = attn_min(VL, HW - p), i = 0;
        for (; i + GROUP <= count; i += GROUP)
            maps_group(best + i, at + i, sum + i, average, x + (p + i) * ATTN_LANES, C, HW, GROUP);
        for (; i < count; i++)
            maps_group(best + i, at + i, sum + i, average, x + (p + i) * ATTN_LANES, C, HW, 1);
        vf largest = fold_max(best, at, &first), total = fold_sum(sum) * scale;
        if (count == VL) {
            vstore(maximum + p, largest);
            vstore(mean + p, total);
            vstore_int(index + p, first);
        } else {
            vstore_part(maximum + p, largest, count);
            vstore_part(mean + p, total, count);
            memcpy(index + p, &first, (size_t)count * sizeof *index);
        }
    }
}

static void maps_plain(float *maximum, float *mean, int32_t *index, const float *x, int64_t C,
                       int64_t HW)
{
    for (int64_t p = 0; p < HW; p++) {
        int32_t best = 0;
        double sum = 0.0;
        for (int64_t c = 0; c < C; c++) {
            sum += x[c * HW + p];
            if (x[c * HW + p] > x[best * HW + p])
                best = (int32_t)c;
        }
        maximum[p] = x[best * HW + p];
        mean[p] = (float)(sum / (double)C);
        index[p] = best;
    }
}

/* maximum (HW) and mean (HW) over channels, index (HW) of the first maximum; and, where average is
 * not NULL, average (C) over positions in the same pass. A NaN reaches the mean, not the maximum. */
void KERNEL(gate_maps)(float *maximum, float *mean, int32_t *index, float *average, const float *x,
                       int64_t C, int64_t HW, bool blocked)
{
    if (!blocked) {
        maps_plain(maximum, mean, index, x, C, HW);
        if (average)
            KERNEL(gate_pool_average)(average, x, C, HW, false);
        return;
    }
    if (!average) {
        maps_blocked(maximum, mean, index, NULL, x, C, HW);
        return;
    }
    memset(average, 0, (size_t)C * sizeof *average);
    maps_blocked(maximum, mean, index, average, x, C, HW);
    for (int64_t c = 0; c < C; c++)
        average[c] *= 1.0f / (float)HW;
}
