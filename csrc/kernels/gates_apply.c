/* Scaling an image by its gates, and the gradient of that: one pass each. */
#include "kernels.h"
#include "simd.h"

INLINE void put(float *y, vf value, const bool stream)
{
    if (stream)
        vstream(y, value);
    else
        vstore(y, value);
}

INLINE void load_block(vf to[VECTORS_IN_BLOCK], const float *from)
{
    for (int v = 0; v < VECTORS_IN_BLOCK; v++)
        to[v] = from ? vload(from + v * VL) : vzero();
}

INLINE void apply_blocked(float *y, const float *x, const attn_gates *gates, const bool channel,
                          const bool position, const bool relu, const bool stream)
{
    int64_t HW = gates->HW;
    for (int64_t c = 0; c < gates->C; c += ATTN_LANES) {
        vf factor[VECTORS_IN_BLOCK];
        if (channel)
            load_block(factor, gates->channel + c);
        const float *from = x + c * HW;
        float *to = y + c * HW;
        UNROLL(4)
        for (int64_t p = 0; p < HW; p++) {
            for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
                vf value = vload(from + p * ATTN_LANES + v * VL);
                if (channel)
                    value *= factor[v];
                if (position)
                    value *= vset(gates->position[p]);
                if (relu)
                    value = vmax(vzero(), value); /* in this order NaN stays NaN */
                put(to + p * ATTN_LANES + v * VL, value, stream);
            }
        }
    }
    if (stream)
        vstream_end();
}

static void apply_plain(float *y, const float *x, const attn_gates *gates)
{
    int64_t HW = gates->HW;
    for (int64_t c = 0; c < gates->C; c++) {
        float factor = gates->channel ? gates->channel[c] : 1.0f;
        for (int64_t p = 0; p < HW; p++) {
            float value = x[c * HW + p] * factor;
            if (gates->position)
                value *= gates->position[p];
            y[c * HW + p] = gates->relu && value < 0.0f ? 0.0f : value;
        }
    }
}

/* A copy of `body` for each value of the two flags that every block can have. */
#define FOR_RELU_AND_STREAM(gates, body, ...)                  \
    do {                                                       \
        if ((gates)->relu && (gates)->stream)                  \
            body(__VA_ARGS__, true, true);                     \
        else if ((gates)->relu)                                \
            body(__VA_ARGS__, true, false);                    \
        else if ((gates)->stream)                              \
            body(__VA_ARGS__, false, true);                    \
        else                                                   \
            body(__VA_ARGS__, false, false);                   \
    } while (0)

/* y (C, HW) = x times its gates; y may be x. */
void KERNEL(gate_apply)(float *y, const float *x, const attn_gates *gates)
{
    if (!gates->blocked)
        apply_plain(y, x, gates);
    else if (gates->channel && gates->position)
        FOR_RELU_AND_STREAM(gates, apply_blocked, y, x, gates, true, true);
    else if (gates->channel)
        FOR_RELU_AND_STREAM(gates, apply_blocked, y, x, gates, true, false);
    else
        FOR_RELU_AND_STREAM(gates, apply_blocked, y, x, gates, false, true);
}

/* Which terms a blocked backward pass has. */
enum {
    CHANNEL = 1,          /* gates->channel */
    POSITION = 2,         /* gates->position */
    PER_CHANNEL = 4,      /* and so on: attn_gate_terms */
    PER_POSITION = 8,
    POSITION_WEIGHT = 16,
    CHANNEL_PEAK = 32,
    POSITION_PEAK = 64,
};

INLINE void backward_blocked(float *dx, const float *dy, const float *x, const attn_gates *gates,
                             const attn_gate_terms *t, const int has, const bool relu,
                             const bool stream)
{
    int64_t HW = gates->HW;
    for (int64_t c = 0; c < gates->C; c += ATTN_LANES) {
        vf factor[VECTORS_IN_BLOCK], add[VECTORS_IN_BLOCK], weight[VECTORS_IN_BLOCK];
        vf peak[VECTORS_IN_BLOCK];
        vi at[VECTORS_IN_BLOCK], number[VECTORS_IN_BLOCK];
        load_block(factor, has & CHANNEL ? gates->channel + c : NULL);
        load_block(add, has & PER_CHANNEL ? t->per_channel + c : NULL);
        load_block(weight, has & POSITION_WEIGHT ? t->position_weight + c : NULL);
        load_block(peak, has & CHANNEL_PEAK ? t->channel_peak + c : NULL);
        for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
            if (has & CHANNEL_PEAK)
                at[v] = vload_int(t->channel_peak_at + c + v * VL);
            static const int32_t numbers[ATTN_LANES] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                        8, 9, 10, 11, 12, 13, 14, 15};
            number[v] = vload_int(numbers + v * VL) + (int32_t)c;
        }
        UNROLL(2)
        for (int64_t p = 0; p < HW; p++) {
            for (int v = 0; v < VECTORS_IN_BLOCK; v++) {
                int64_t o = c * HW + p * ATTN_LANES + v * VL;
                vf d = vload(dy + o);
                if (relu) {
                    vf value = vload(x + o);
                    if (has & CHANNEL)
                        value *= factor[v];
                    if (has & POSITION)
                        value *= vset(gates->position[p]);
                    d = vmask(~(value <= vzero()), d);
                }
                if (has & CHANNEL)
                    d *= factor[v];
                if (has & POSITION)
                    d *= vset(gates->position[p]);
                if (has & PER_CHANNEL)
                    d += add[v];
                if (has & PER_POSITION)
                    d += has & POSITION_WEIGHT ? weight[v] * vset(t->per_position[p])
                                               : vset(t->per_position[p]);
                if (has & CHANNEL_PEAK)
                    d += vmask(at[v] == vset_int((int32_t)p), peak[v]);
                if (has & POSITION_PEAK)
                    d += vmask(number[v] == vset_int(t->position_peak_at[p]),
                               vset(t->position_peak[p]));
                put(dx + o, d, stream);
            }
        }
    }
    if (stream)
        vstream_end();
}

static void backward_plain(float *dx, const float *dy, const float *x, const attn_gates *gates,
                           const attn_gate_terms *t)
{
    int64_t HW = gates->HW;
    for (int64_t c = 0; c < gates->C; c++) {
        float channel = gates->channel ? gates->channel[c] : 1.0f;
        for (int64_t p = 0; p < HW; p++) {
            float position = gates->position ? gates->position[p] : 1.0f;
            float d = dy[c * HW + p];
            if (gates->relu && x[c * HW + p] * channel * position <= 0.0f)
                d = 0.0f;
            d = d * channel * position;
            if (t->per_channel)
                d += t->per_channel[c];
            if (t->per_position)
                d += t->per_position[p] * (t->position_weight ? t->position_weight[c] : 1.0f);
            if (t->channel_peak && t->channel_peak_at[c] == p)
                d += t->channel_peak[c];
            if (t->position_peak && t->position_peak_at[p] == c)
                d += t->position_peak[p];
            dx[c * HW + p] = d;
        }
    }
}

/* dx (C, HW): see attn_gate_terms. x is read only with gates->relu. */
void KERNEL(gate_backward)(float *dx, const float *dy, const float *x, const attn_gates *gates,
                           const attn_gate_terms *t)
{
    if (!gates->blocked)
        backward_plain(dx, dy, x, gates, t);
    else if (t->position_weight) /* NAB */
        FOR_RELU_AND_STREAM(gates, backward_blocked, dx, dy, x, gates, t,
                            CHANNEL | POSITION | PER_POSITION | POSITION_WEIGHT);
    else if (gates->channel && gates->position) /* NEW */
        FOR_RELU_AND_STREAM(gates, backward_blocked, dx, dy, x, gates, t,
                            CHANNEL | POSITION | PER_CHANNEL | PER_POSITION | POSITION_PEAK);
    else if (gates->position) /* SA */
        FOR_RELU_AND_STREAM(gates, backward_blocked, dx, dy, x, gates, t,
                            POSITION | PER_POSITION | POSITION_PEAK);
    else if (t->channel_peak) /* CA with max pooling */
        FOR_RELU_AND_STREAM(gates, backward_blocked, dx, dy, x, gates, t,
                            CHANNEL | PER_CHANNEL | CHANNEL_PEAK);
    else /* SE, SEC, CA without */
        FOR_RELU_AND_STREAM(gates, backward_blocked, dx, dy, x, gates, t, CHANNEL | PER_CHANNEL);
}
