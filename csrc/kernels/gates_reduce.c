/* Sums over an image for its gates' gradients: over positions, over channels, or both in one pass.
 *
 * With t = dy * x (masked by the ReLU where there is one):
 *     dchannel[c]  = sum over p of t[c, p] * position[p]
 *     dposition[p] = sum over c of t[c, p] * channel[c]
 */
#include "kernels.h"
#include "lanes.h"

/* WAYS: independent sums over positions. GROUP: positions that go through the channels together,
 * so that their partial sums stay in registers. */
enum { WAYS = 4, GROUP = VL == 16 ? 8 : 4 };

/* dy * x at one register, without the elements that the ReLU has cut. x NULL stands for 1. */
INLINE vf product(const float *dy, const float *x, vf channel, vf position, const bool has_channel,
                  const bool has_position, const bool relu)
{
    vf d = vload(dy);
    if (!x)
        return d;
    vf value = vload(x);
    if (relu) {
        vf y = value;
        if (has_channel)
            y *= channel;
        if (has_position)
            y *= position;
        d = vmask(~(y <= vzero()), d);
    }
    return d * value;
}

/* Over positions alone: one block of channels after the other. */
INLINE void channels_blocked(float *dchannel, const float *dy, const float *x,
                             const attn_gates *gates, const bool position, const bool relu)
{
    int64_t HW = gates->HW, whole = HW - HW % WAYS;
    for (int64_t c = 0; c < gates->C; c += VL) {
        int64_t offset = c / ATTN_LANES * ATTN_LANES * HW + c % ATTN_LANES;
        const float *dy_c = dy + offset, *x_c = x ? x + offset : NULL;
        vf sum[WAYS] = {vzero(), vzero(), vzero(), vzero()};
        vf factor = gates->channel ? vload(gates->channel + c) : vset(1.0f);
        for (int64_t p = 0; p < whole; p += WAYS) {
            UNROLL(4)
            for (int i = 0; i < WAYS; i++) {
                vf at = position ? vset(gates->position[p + i]) : vset(1.0f);
                vf t = product(dy_c + (p + i) * ATTN_LANES,
                               x_c ? x_c + (p + i) * ATTN_LANES : NULL, factor, at, true, position,
                               relu);
                sum[i] += position ? t * at : t;
            }
        }
        for (int64_t p = whole; p < HW; p++) {
            vf at = position ? vset(gates->position[p]) : vset(1.0f);
            vf t = product(dy_c + p * ATTN_LANES, x_c ? x_c + p * ATTN_LANES : NULL, factor, at,
                           true, position, relu);
            sum[0] += position ? t * at : t;
        }
        vstore(dchannel + c, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
}

/* `count` positions from p on, all channels: sums[i] gets the sum over channels, still by lane;
 * the channels' sums over these positions are added to dchannel. */
INLINE void sum_group(vf *sums, float *dchannel, const float *dy, const float *x,
                      const attn_gates *gates, int64_t p, const int count, const bool channel,
                      const bool position, const bool relu)
{
    vf at[GROUP];
    for (int i = 0; i < count; i++)
        at[i] = position ? vset(gates->position[p + i]) : vset(1.0f);
    for (int half = 0; half < ATTN_LANES; half += VL) {
        vf total[GROUP];
        for (int i = 0; i < count; i++)
            total[i] = vzero();
        for (int64_t c = half; c < gates->C; c += ATTN_LANES) {
            int64_t o = (c - half) * gates->HW + p * ATTN_LANES + half;
            vf factor = channel ? vload(gates->channel + c) : vset(1.0f), over = vzero();
            UNROLL(8)
            for (int i = 0; i < count; i++) {
                vf t = product(dy + o + i * ATTN_LANES, x ? x + o + i * ATTN_LANES : NULL, factor,
                               at[i], channel, position, relu);
                total[i] += channel ? t * factor : t;
                if (dchannel)
                    over += position ? t * at[i] : t;
            }
            if (dchannel)
                vstore(dchannel + c, vload(dchannel + c) + over);
        }
        for (int i = 0; i < count; i++)
            sums[i] = half ? sums[i] + total[i] : total[i];
    }
}

INLINE void positions_blocked(float *dchannel, float *dposition, const float *dy, const float *x,
                              const attn_gates *gates, const bool channel, const bool position,
                              const bool relu)
{
    if (dchannel)
        memset(dchannel, 0, (size_t)gates->C * sizeof *dchannel);
    for (int64_t p = 0; p < gates->HW; p += VL) {
        vf sums[VL] = {vzero()};
        int64_t count = attn_min(VL, gates->HW - p), i = 0;
        for (; i + GROUP <= count; i += GROUP)
            sum_group(sums + i, dchannel, dy, x, gates, p + i, GROUP, channel, position, relu);
        for (; i < count; i++)
            sum_group(sums + i, dchannel, dy, x, gates, p + i, 1, channel, position, relu);
        if (count == VL)
            vstore(dposition + p, fold_sum(sums));
        else
            vstore_part(dposition + p, fold_sum(sums), count);
    }
}

static void reduce_plain(float *dchannel, float *dposition, const float *dy, const float *x,
                         const attn_gates *gates)
{
    int64_t HW = gates->HW;
    if (dposition)
        memset(dposition, 0, (size_t)HW * sizeof *dposition);
    for (int64_t c = 0; c < gates->C; c++) {
        float channel = gates->channel ? gates->channel[c] : 1.0f;
        double sum = 0.0;
        for (int64_t p = 0; p < HW; p++) {
            float position = gates->position ? gates->position[p] : 1.0f;
            float value = x ? x[c * HW + p] : 1.0f, t = dy[c * HW + p] * value;
            if (gates->relu && value * channel * position <= 0.0f)
                t = 0.0f;
            sum += (double)t * position;
            if (dposition)
                dposition[p] += t * channel;
        }
        if (dchannel)
            dchannel[c] = (float)sum;
    }
}

/* dchannel (C), dposition (HW): either may be NULL; both are overwritten. x NULL stands for 1 (and
 * then relu has to be off). */
void KERNEL(gate_reduce)(float *dchannel, float *dposition, const float *dy, const float *x,
                         const attn_gates *gates)
{
    bool channel = gates->channel, position = gates->position, relu = gates->relu;
    if (!gates->blocked)
        reduce_plain(dchannel, dposition, dy, x, gates);
    else if (!dposition && position)
        channels_blocked(dchannel, dy, x, gates, true, relu);
    else if (!dposition && relu)
        channels_blocked(dchannel, dy, x, gates, false, true);
    else if (!dposition)
        channels_blocked(dchannel, dy, x, gates, false, false);
    else if (channel && position && relu)
        positions_blocked(dchannel, dposition, dy, x, gates, true, true, true);
    else if (channel && position)
        positions_blocked(dchannel, dposition, dy, x, gates, true, true, false);
    else if (channel)
        positions_blocked(dchannel, dposition, dy, x, gates, true, false, false);
    else if (relu)
        positions_blocked(NULL, dposition, dy, x, gates, false, true, true);
    else
        positions_blocked(NULL, dposition, dy, x, gates, false, true, false);
}
