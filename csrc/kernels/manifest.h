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
