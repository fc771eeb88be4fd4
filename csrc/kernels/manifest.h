/* Every kernel: X(return type, name, (arguments)). This list declares the functions of each
 * instruction set and fills its table; there is no second list. Included several times on purpose.
 * Sections follow the files of this folder. */

/* layout.c: one image, (C, HW) row-major <-> (C/16, HW, 16) */
X(void, layout_block, (float *y, const float *x, int64_t C, int64_t HW))
X(void, layout_unblock, (float *y, const float *x, int64_t C, int64_t HW))
