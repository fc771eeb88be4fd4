/* What the kernels of the relative attention receive (blocks/attention_augmented.h says what they
 * compute). Letters here: L = H * W positions; d and e, the channels of a key and of a value of one
 * head. */
#ifndef ATTN_ATTENTION_TYPES_H
#define ATTN_ATTENTION_TYPES_H

#include "../attnnet.h"

/* Where element (i, p), channel i of one head at position p, lies. One struct serves three ways:
 *   PLAIN planes      base = the image,  plane = L, step = 1
 *   BLOCKED16 planes  base = the image,  plane = L, step = 16, blocked
 *   reinterpreted     base = the head,   plane = 1, step = channels a head (first = 0)
 * Views of inputs are only read. */
typedef struct {
    float *base;
    int64_t first; /* the head's first channel */
    int64_t plane, step;
    bool blocked;
} attn_head_view;

static inline float *attn_head_channel(const attn_head_view *view, int64_t i)
{
    int64_t c = view->first + i;
    if (view->blocked)
        return view->base + c / ATTN_LANES * ATTN_LANES * view->plane + c % ATTN_LANES;
    return view->base + c * view->plane;
}

/* The shape, then what the kernel attention_plan adds to it: it depends on the width of a vector.
 *
 * Keys are packed so that no vector crosses an image row: a row takes row_vectors vectors, the last
 * one padded; block_rows rows make a block of block_vectors vectors (padded too). A block's keys of
 * one head lie as (d, block_vectors * lanes): a few KiB that stay in the first cache while a block
 * of queries passes over them. */
typedef struct {
    int64_t H, W, d, e;
    int64_t heads;    /* how many heads are summed for the bias, where it is summed */
    bool summed_bias; /* the original's form: one bias, from the sum of all heads' queries */
    int64_t row_vectors, block_rows, block_vectors, blocks;
    int64_t table_h, table_w;                  /* floats a channel of a transposed table */
    int64_t forward_scratch, backward_scratch; /* floats */
} attn_attention_plan;

/* One head of one image. The tables are transposed: (d, table_h), element (i, r) the channel i of
 * relative row r, zero behind 2H - 1; table_w likewise. */
typedef struct {
    attn_head_view q, k, v, y;
    const float *all_q; /* summed bias: q of the image's head 0; heads follow each other */
    const float *table_h, *table_w;
    float *lse; /* (L) log2 of the sum of exponentials: written by forward (or NULL), then read */
} attn_attention_head;

/* Its gradients: dq, dk, dv are overwritten; the others are added to. */
typedef struct {
    attn_head_view dy, dq, dk, dv;
    float *table_h, *table_w; /* transposed as above; to be multiplied by ln 2 when all is added */
    float *summed_q;          /* (L, d) gradient of the summed queries, or NULL */
} attn_attention_gradient;

#endif
