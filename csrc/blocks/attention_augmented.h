/* The attention of the attention augmented convolution (AA): self-attention over the positions of
 * an image, with relative position encodings.
 *
 * I. Bello, B. Zoph, A. Vaswani, J. Shlens, Q. V. Le, "Attention Augmented Convolutional Networks",
 * ICCV 2019.
 *
 *   kqv    (N, 2 dk + dv, H, W)     keys, queries, values, in that order
 *   rel_h  (2H - 1, dk / heads)     row r is for key row - query row = r - (H - 1); rel_w alike
 *   y      (N, dv, H, W)
 *
 * Per head, with q scaled by (dk / heads)^-1/2, for query (i, j) and key (I, J):
 *
 *   logit = q . k + q . rel_w[J - j + W - 1] + q . rel_h[I - i + H - 1];  y = softmax(logits) v
 *
 * original_form: the reference study's own code. k, q, v and y, each (N, channels, H, W), are
 * reinterpreted in memory as (N, heads, H, W, channels / heads), and in the two relative terms q is
 * replaced by its sum over heads.
 *
 * The attention map, heads * (H W)^2 floats an image, is never stored: see the C file.
 */
#ifndef ATTN_ATTENTION_AUGMENTED_H
#define ATTN_ATTENTION_AUGMENTED_H

#include "../tensor/tensor.h"

attn_status attn_relative_attention(attn_tensor **y, attn_tensor *kqv, attn_tensor *rel_h,
                                    attn_tensor *rel_w, int heads, int64_t dk, int64_t dv,
                                    bool original_form);

/* rows (heads, H * W): the attention that `query` (row-major position) of image `image` pays to
 * every key; each row sums to 1. For looking, not for training: no gradient. */
attn_status attn_relative_attention_rows(attn_tensor **rows, attn_tensor *kqv, attn_tensor *rel_h,
                                         attn_tensor *rel_w, int heads, int64_t dk, int64_t dv,
                                         bool original_form, int64_t image, int64_t query);

#endif
