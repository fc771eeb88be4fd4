/* SE and SEC: a gate a channel from the channels' means.
 *
 * J. Hu, L. Shen, G. Sun, "Squeeze-and-Excitation Networks", CVPR 2018.
 *
 * x, y (N, C, H, W); w1 (K, C), w2 (C, K), K = C / 8 in the study; b1 (K), b2 (C).
 *     SE:  g = sigmoid(w2 relu(w1 mean(x)));            y = x + x * g
 *     SEC: g = sigmoid(w2 relu(w1 mean(x) + b1) + b2);  y = x * g
 * Forward, backward and what is saved: the channel gate's engine (channel_gate.c) with one pool.
 */
#include "shared.h"

static const attn_operation se_op = {"se", attn_channel_gate_backward, sizeof(attn_channel_options)};
static const attn_operation sec_op = {"sec", attn_channel_gate_backward,
                                      sizeof(attn_channel_options)};

attn_status attn_se(attn_tensor **y, attn_block_gates *gates, attn_tensor *x, attn_tensor *w1,
                    attn_tensor *w2, bool relu)
{
    ATTN_TRY(attn_block_check_input("se", x));
    ATTN_TRY(attn_channel_mlp_check("se", x->shape[1], w1, NULL, w2, NULL, false));
    attn_tensor *inputs[] = {x, w1, NULL, w2, NULL};
    attn_channel_options options = {"se", &se_op, {ATTN_POOL_AVG}, 1, 1.0f, relu};
    return attn_channel_gate_run(y, gates, inputs, &options);
}

attn_status attn_sec(attn_tensor **y, attn_block_gates *gates, attn_tensor *x, attn_tensor *w1,
                     attn_tensor *b1, attn_tensor *w2, attn_tensor *b2, bool relu)
{
    ATTN_TRY(attn_block_check_input("sec", x));
    ATTN_TRY(attn_channel_mlp_check("sec", x->shape[1], w1, b1, w2, b2, true));
    attn_tensor *inputs[] = {x, w1, b1, w2, b2};
    attn_channel_options options = {"sec", &sec_op, {ATTN_POOL_AVG}, 1, 0.0f, relu};
    return attn_channel_gate_run(y, gates, inputs, &options);
}
