/* NEW: the spatial gate, then SE's gate on its result, where SE's gate is computed from the original x.
 *
 *     a = x * m (SA);  g = sigmoid(w2 relu(w1 mean(x)));  y = a + a * g = x * m * (1 + g)
 *
 * x, y (N, C, H, W); w1 (K, C), w2 (C, K), K = C / 8 in the study; the spatial parameters as SA's.
 * Both gates read x in the same passes: the engine is the spatial gate's (spatial_gate.c), which
 * says what is saved and how it goes back.
 */
#include "shared.h"

static const attn_operation new_block_op = {"new_block", attn_spatial_backward,
                                            sizeof(attn_spatial_state)};

attn_status attn_new_block(attn_tensor **y, attn_block_gates *gates, attn_tensor *x,
                           attn_tensor *w1, attn_tensor *w2,
                           const attn_spatial_parameters *parameters, bool relu)
{
    return attn_spatial_run(y, gates, "new_block", &new_block_op, x, w1, w2, parameters, relu);
}
