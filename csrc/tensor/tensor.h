/* The tensor: float32, dense, in one of two layouts; and its place on the tape. */
#ifndef ATTN_TENSOR_H
#define ATTN_TENSOR_H

#include "../attnnet.h"

#include <stdatomic.h>

typedef enum { ATTN_PLAIN = 0, ATTN_BLOCKED16 = 1 } attn_layout;

typedef struct attn_node attn_node;
typedef struct attn_variable attn_variable;

/* The memory, shared by tensors that are reshapes or detached twins of each other. */
typedef struct {
    _Atomic int64_t references;
    _Atomic uint64_t version; /* raised by every in-place write */
    float *data;              /* aligned, readable and writable up to a multiple of 64 bytes */
    int64_t bytes;
} attn_storage;

typedef struct {
    _Atomic int64_t references;
    int ndim;
    attn_layout layout;
    int64_t shape[ATTN_MAX_DIMS]; /* always in logical (N, C, H, W) order */
    int64_t size;                 /* number of elements */
    attn_storage *storage;
    /* NULL: no gradient is wanted. Python may set it while other threads compute with the tensor. */
    _Atomic(attn_variable *) variable;
    attn_variable *parked; /* the leaf's variable while no gradient is wanted; owned */
} attn_tensor;

/* Creation. Contents of an empty tensor are undefined. */
attn_status attn_tensor_empty(attn_tensor **y, int ndim, const int64_t *shape, attn_layout layout);
attn_status attn_tensor_empty_like(attn_tensor **y, const attn_tensor *x);
attn_status attn_tensor_zeros(attn_tensor **y, int ndim, const int64_t *shape, attn_layout layout);
/* A new tensor on x's storage with another shape (both PLAIN); no gradient. */
attn_status attn_tensor_view(attn_tensor **y, const attn_tensor *x, int ndim, const int64_t *shape);
/* A copy of the values; no gradient. */
attn_status attn_tensor_copy(attn_tensor **y, const attn_tensor *x);

attn_tensor *attn_tensor_retain(attn_tensor *x); /* NULL passes through */
void attn_tensor_release(attn_tensor *x);        /* NULL is fine */

/* *y is x in the wanted layout: x itself (retained) where it has it already or where memory does
 * not differ (H = W = 1), else a converted copy. Carries no gradient: for use inside operations. */
attn_status attn_tensor_as(attn_tensor **y, attn_tensor *x, attn_layout layout);
attn_status attn_tensor_as_plain(attn_tensor **y, attn_tensor *x);

/* Copies values between tensors of one shape, whatever their layouts. */
void attn_tensor_copy_values(attn_tensor *y, const attn_tensor *x);

static inline bool attn_can_block(int ndim, const int64_t *shape)
{
    return ndim == 4 && shape[1] > 0 && shape[1] % ATTN_LANES == 0;
}
static inline float *attn_data(const attn_tensor *x) { return x->storage->data; }
static inline void attn_tensor_touch(attn_tensor *x)
{
    atomic_fetch_add_explicit(&x->storage->version, 1, memory_order_relaxed);
}
bool attn_same_shape(const attn_tensor *a, const attn_tensor *b);
/* The number of elements of a shape. False where its sizes other than 0 make more than 2^59: then
 * neither they nor a few times their product can be counted in 64 bits. */
bool attn_count(int64_t *size, int ndim, const int64_t *shape);
/* Writes "(2, 3, 32, 32)" for messages; returns text. */
const char *attn_shape_text(char text[160], int ndim, const int64_t *shape);

#endif
