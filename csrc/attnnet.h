/* attnnet.h - the letters, the layout and the status codes that every file of the core uses.
 *
 * Letters
 *   N        images in a batch
 *   C, H, W  channels, height and width of an input
 *   K        output channels of a convolution (or output features of a linear layer)
 *   R, S     height and width of a kernel
 *   P, Q     height and width of an output
 *   dx       the gradient of the loss with respect to x, for any x
 *
 * Layouts (tensor/tensor.h). Shapes read (N, C, H, W) everywhere; memory is one of
 *   PLAIN      row-major, as NumPy has it
 *   BLOCKED16  (N, C/16, H, W, 16): sixteen neighbouring channels stand together, one AVX-512
 *              register wide. Only 4-D tensors whose C is a multiple of 16 have it, so it never
 *              needs padding channels.
 *
 * Conventions
 *   outputs first, dimensions last;  every function that can fail returns attn_status;
 *   kernels/ never allocate and never start threads;  nothing outside python/ knows Python.
 */
#ifndef ATTNNET_H
#define ATTNNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATTN_LANES 16     /* channels in a block of the BLOCKED16 layout */
#define ATTN_MAX_DIMS 8
#define ATTN_ALIGNMENT 64 /* bytes: a cache line, and an AVX-512 register */

typedef enum {
    ATTN_OK = 0,
    ATTN_NO_MEMORY,   /* MemoryError */
    ATTN_BAD_VALUE,   /* ValueError: shapes, ranges, options */
    ATTN_BAD_STATE,   /* RuntimeError: a graph used twice, a grad where there is none */
    ATTN_CALLBACK,    /* a hook failed; its own error is already set */
    ATTN_INTERRUPTED, /* KeyboardInterrupt, asked for between two pieces of work */
} attn_status;

/* Writes a message (printf style) that the binding reports, and returns `code`. */
attn_status attn_fail(attn_status code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The message of this thread's last attn_fail. */
const char *attn_message(void);

/* Leaves the function with the status of a failed call; for functions that hold nothing. */
#define ATTN_TRY(call)                          \
    do {                                        \
        attn_status try_status_ = (call);       \
        if (try_status_ != ATTN_OK)             \
            return try_status_;                 \
    } while (0)

/* Goes to the function's clean-up label `done` with `status` set. */
#define ATTN_GOTO(call)                         \
    do {                                        \
        status = (call);                        \
        if (status != ATTN_OK)                  \
            goto done;                          \
    } while (0)

static inline int64_t attn_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t attn_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t attn_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

#endif
