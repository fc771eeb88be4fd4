/* Every kernel: X(return type, name, (arguments)). This list declares the functions of each
 * instruction set and fills its table; there is no second list. Included several times on purpose.
 * Sections follow the files of this folder. */

/* layout.c: one image, (C, HW) row-major <-> (C/16, HW, 16) */
X(void, layout_block, (float *y, const float *x, int64_t C, int64_t HW))
X(void, layout_unblock, (float *y, const float *x, int64_t C, int64_t HW))

/* elementwise.c: n elements; x, y, dx, dy may be read and written up to a multiple of 16 elements */
X(void, unary_forward, (float *y, const float *x, int64_t n, int kind))
X(void, unary_backward, (float *dx, const float *dy, const float *x, const float *y, int64_t n, int kind))
X(void, clamp_forward, (float *y, const float *x, int64_t n, float low, float high))
X(void, clamp_backward, (float *dx, const float *dy, const float *x, int64_t n, float low, float high))
X(void, add_into, (float *y, const float *x, int64_t n))
/* rows x columns; an operand's row stride is any, its column stride 0 or 1; y is dense */
X(void, binary_forward, (float *y, const float *a, const float *b, int64_t rows, int64_t columns, const int64_t a_stride[2], const int64_t b_stride[2], int kind))

/* reduce.c */
/* sum of n neighbouring elements */
X(double, sum_row, (const float *x, int64_t n))
/* sums (columns) += x (rows, columns), rows `stride` apart; columns <= 256 */
X(void, sum_columns, (double *sums, const float *x, int64_t rows, int64_t columns, int64_t stride))

/* batch_norm.c: rows of `count` elements with sixteen constants a quantity, see the file */
X(void, bn_statistics, (float *sums, const float *x, int64_t rows, int64_t stride, int64_t count))
X(void, bn_apply, (float *y, uint16_t *mask, const float *x, const float *residual,
                   const float *constants, bool relu, int64_t count, bool stream))
X(void, bn_gradient_sums, (float *sums, float *dresidual, const float *dy, const float *x,
                           const uint16_t *mask, const float *constants, bool relu, int64_t rows,
                           int64_t stride, int64_t mask_stride, int64_t count, bool stream))
X(void, bn_gradient, (float *dx, const float *dy, const float *x, const uint16_t *mask,
                      const float *constants, bool relu, bool training, int64_t count,
                      bool stream))

/* peak.c: 12 multiply-adds of 16 lanes a round */
X(void, multiply_adds, (float *y, int64_t rounds, float factor))

/* softmax.c */
X(void, softmax_row, (float *y, const float *x, int64_t count, bool logarithm))
X(void, softmax_row_gradient, (float *dx, const float *dy, const float *y, int64_t count,
                               bool logarithm))
X(void, softmax_columns, (float *y, const float *x, int64_t K, int64_t columns, int64_t stride,
                          bool logarithm))
X(void, softmax_columns_gradient, (float *dx, const float *dy, const float *y, int64_t K,
                                   int64_t columns, int64_t stride, bool logarithm))
X(void, cross_entropy_row, (float *summary, const float *x, int64_t count))
X(void, cross_entropy_row_gradient, (float *dx, const float *x, float most, float factor,
                                     float offset, int64_t count))

/* dropout.c */
X(void, dropout_scale, (float *y, const float *x, uint32_t threshold, float scale, uint64_t seed,
                        uint64_t counter, int64_t begin, int64_t count))

/* pool.c: one image of one block of channels (H,W,16), or of one channel (H,W) */
X(void, pool_max_blocked, (float *y, void *places, const float *x, const attn_pool *pool))
X(void, pool_max_plain, (float *y, void *places, const float *x, const attn_pool *pool))
X(void, pool_max_gradient_blocked, (float *dx, const float *dy, const void *places,
                                    const attn_pool *pool))
X(void, pool_max_gradient_plain, (float *dx, const float *dy, const void *places,
                                  const attn_pool *pool))
X(void, pool_average_blocked, (float *y, const float *x, const attn_pool *pool))
X(void, pool_average_plain, (float *y, const float *x, const attn_pool *pool))
X(void, pool_average_gradient_blocked, (float *dx, const float *dy, const attn_pool *pool))
X(void, pool_average_gradient_plain, (float *dx, const float *dy, const attn_pool *pool))
/* optimise.c: elementwise steps of the optimisers, and what gradient clipping needs */
X(void, sgd_update, (float *w, float *v, const float *g, int64_t n, const sgd_constants *c))
X(void, adamw_update, (float *w, float *m, float *v, const float *g, int64_t n,
                       const adamw_constants *c))
X(double, square_sum, (const float *x, int64_t n))
X(void, scale_values, (float *x, int64_t n, float factor))
X(void, clip_values, (float *x, int64_t n, float limit))

/* gemm.c: products of blocks and panels; width is 16 or 32 */
X(void, gemm_rows, (float *y, int64_t y_block, const float *a, int64_t a_block, const float *b,
                    int64_t rows, int64_t depth, int64_t width, bool add))
X(void, gemm_finish, (float *y, int64_t y_block, const float *a, int64_t a_block, const float *b,
                      int64_t rows, int64_t depth, int64_t width, bool add,
                      const attn_finish *finish))
X(void, gemm_outer, (float *y, const float *a, int64_t a_block, const float *b, int64_t b_block,
                     int64_t rows, int64_t depth, int64_t width, bool add))

/* stem.c: the same with the patches of a row-major image on the left */
X(void, stem_rows, (float *y, int64_t y_block, const attn_patches *patches, const float *panel,
                    int64_t width, const attn_finish *finish))
X(void, stem_outer, (float *y, const attn_patches *patches, const float *b, int64_t b_block,
                     int64_t width, bool add))

/* rows.c: rows of blocked tensors by their places, panels of weights */
X(void, gather_rows, (float *y, const float *x, const int64_t *at, int64_t rows, int64_t next))
X(void, store_rows, (float *y, const int64_t *at, const float *x, int64_t rows,
                     const attn_finish *finish))
X(void, pack_panel, (float *panel, const float *w, int64_t taps, int64_t depth_stride,
                     int64_t width_stride, int64_t depth, int64_t width))
X(void, unpack_panel, (float *w, const float *panel, int64_t part_stride, int64_t parts,
                       int64_t taps, int64_t depth_stride, int64_t width_stride, int64_t depth,
                       int64_t width))
X(void, sum_rows, (float *sums, const float *x, int64_t image_step, int64_t images, int64_t rows))

/* attention.c, attention_backward.c: relative attention of one head of one image */
X(void, attention_plan, (attn_attention_plan *plan))
X(void, attention_forward,
  (const attn_attention_plan *plan, const attn_attention_head *head, float *scratch))
X(void, attention_backward,
  (const attn_attention_plan *plan, const attn_attention_head *head,
   const attn_attention_gradient *gradient, float *scratch))
/* winograd_*.c, polyphase_*.c: transforms of F(4x4, 3x3), of its polyphase form of stride 2, and
 * their adjoints; of F(2x2, 3x3) (winograd_small.c) and of images of 2x2 pixels (winograd_pair.c);
 * sixteen channels at once */
X(void, winograd_input, (float *v, int64_t spot, int64_t at, const float *x,
                         const attn_winograd_tiles *tiles, int64_t first, int64_t count))
X(void, winograd_input_adjoint, (float *dx, const float *v, int64_t spot, int64_t at,
                                 const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                                 bool add))
X(void, winograd_output, (float *y, const float *m, int64_t spot, int64_t at,
                          const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                          const attn_finish *finish))
X(void, winograd_output_adjoint, (float *m, int64_t spot, int64_t at, const float *dy,
                                  const attn_winograd_tiles *tiles, int64_t first, int64_t count))
X(void, winograd_weight, (float *u, int64_t spot, const float *g, int64_t tap, int64_t count))
X(void, winograd_weight_adjoint, (float *g, int64_t tap, const float *u, int64_t spot,
                                  int64_t count))
X(void, winograd_small_input, (float *v, int64_t spot, int64_t at, const float *x,
                               const attn_winograd_tiles *tiles, int64_t first, int64_t count))
X(void, winograd_small_output, (float *y, const float *m, int64_t spot, int64_t at,
                                const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                                const attn_finish *finish))
X(void, winograd_small_weight, (float *u, int64_t spot, const float *g, int64_t tap,
                                int64_t count))
X(void, winograd_pair_input, (float *v, int64_t spot, int64_t at, const float *x,
                              const attn_winograd_tiles *tiles, int64_t first, int64_t count))
X(void, winograd_pair_input_adjoint, (float *dx, const float *v, int64_t spot, int64_t at,
                                      const attn_winograd_tiles *tiles, int64_t first,
                                      int64_t count, bool add))
X(void, winograd_pair_output, (float *y, const float *m, int64_t spot, int64_t at,
                               const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                               const attn_finish *finish))
X(void, winograd_pair_output_adjoint, (float *m, int64_t spot, int64_t at, const float *dy,
                                       const attn_winograd_tiles *tiles, int64_t first,
                                       int64_t count))
X(void, winograd_pair_weight, (float *u, int64_t spot, const float *g, int64_t tap, int64_t count))
X(void, winograd_pair_weight_adjoint, (float *g, int64_t tap, const float *u, int64_t spot,
                                       int64_t count))
X(void, polyphase_input, (float *v, int64_t spot, int64_t at, const float *x,
                         const attn_winograd_tiles *tiles, int64_t first, int64_t count))
X(void, polyphase_input_adjoint, (float *dx, const float *v, int64_t spot, int64_t at,
                                 const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                                 bool add))
X(void, polyphase_output, (float *y, const float *m, int64_t spot, int64_t at,
                          const attn_winograd_tiles *tiles, int64_t first, int64_t count,
                          const attn_finish *finish))
X(void, polyphase_output_adjoint, (float *m, int64_t spot, int64_t at, const float *dy,
                                  const attn_winograd_tiles *tiles, int64_t first, int64_t count))
X(void, polyphase_weight, (float *u, int64_t spot, const float *g, int64_t tap, int64_t count))
X(void, polyphase_weight_adjoint, (float *g, int64_t tap, const float *u, int64_t spot,
                                  int64_t count))


/* gates_apply.c, gates_reduce.c, gates_pool.c, gates_small.c: attention gates of one image */
X(void, gate_apply, (float *y, const float *x, const attn_gates *gates))
X(void, gate_backward, (float *dx, const float *dy, const float *x, const attn_gates *gates,
                        const attn_gate_terms *t))
X(void, gate_reduce, (float *dchannel, float *dposition, const float *dy, const float *x,
                      const attn_gates *gates))
X(void, gate_pool_average, (float *average, const float *x, int64_t C, int64_t HW, bool blocked))
X(void, gate_pool_both, (float *average, float *maximum, int32_t *index, const float *x, int64_t C,
                         int64_t HW, bool blocked))
X(void, gate_pool_norm, (float *norm, const float *x, int64_t C, int64_t HW, bool blocked))
X(void, gate_pool_log_sum_exp, (float *value, const float *maximum, const float *x, int64_t C,
                                int64_t HW, bool blocked))
X(void, gate_pool_backward, (float *dx, const float *x, const float *by_norm,
                             const float *log_sum_exp, const float *by_exp, int64_t C, int64_t HW,
                             bool blocked))
X(void, gate_maps, (float *maximum, float *mean, int32_t *index, float *average, const float *x,
                    int64_t C, int64_t HW, bool blocked))
X(void, gate_mlp_forward, (float *gate, float *factor, float *hidden, const float *pooled,
                           const attn_gate_mlp *mlp))
X(void, gate_mlp_backward, (float *dpooled, float *dhidden, float *dlogit, const float *dgate,
                            const float *gate, const float *hidden, const attn_gate_mlp *mlp))
X(void, gate_weighted_rows, (float *y, const float *weights, int64_t stride, const float *rows,
                             int64_t R, int64_t C, int64_t count))
X(void, gate_conv7, (float *y, const float *maps, int planes, const float *weight, float bias,
                     const attn_gate_map *size))
X(void, gate_conv7_weight, (float *dweight, const float *maps, int planes, const float *dy,
                            const attn_gate_map *size))
X(void, gate_sums, (double sums[2], const float *a, const float *b, int64_t n))
X(void, gate_sigmoid, (float *y, const float *x, float mean, float scale, float shift, int64_t n))
X(void, gate_sigmoid_backward, (float *dx, const float *dy, const float *y, int64_t n))
