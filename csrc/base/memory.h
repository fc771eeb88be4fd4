/* Memory for tensors and workspaces: aligned, cached, counted, limited.
 *
 * A training step asks for the same sizes again and again. Freed blocks are kept, small ones in
 * lists by size, large ones in an arena (arena.h), so that a step after the first maps no fresh
 * pages.
 */
#ifndef ATTN_MEMORY_H
#define ATTN_MEMORY_H

#include "../attnnet.h"

typedef struct {
    int64_t in_use; /* bytes handed out */
    int64_t cached; /* bytes kept for reuse */
    int64_t peak;   /* largest in_use since the last reset */
    int64_t limit;  /* in_use never passes this; 0: no limit */
    int64_t objects; /* heads of tensors, nodes of the tape and the like: small, not in in_use */
} attn_memory_stats;

/* *block gets at least `bytes` bytes, 64-byte aligned, contents undefined. A multiple of 64 bytes
 * is always there, so whole registers may be read and written at the end. */
attn_status attn_alloc(void **block, size_t bytes);
/* So many floats for all and so many for each worker, in one block. */
attn_status attn_alloc_shares(float **block, int64_t shared, int64_t each, int64_t workers);
void attn_free(void *block);

/* The small objects, whose sizes are ours and not the user's. NULL: there is no memory, and that is
 * the status's message. attn_object is zeroed; attn_object_grow keeps what was there. */
void *attn_object(size_t count, size_t bytes);
void *attn_object_grow(void *object, size_t bytes);
void attn_object_free(void *object);

/* For tests: the n-th attn_alloc, attn_object or attn_object_grow from now on fails, once; 0: none.
 * Returns how many were left until the failure asked for before. */
int64_t attn_memory_fail(int64_t n);

void attn_memory_get_stats(attn_memory_stats *stats);
void attn_memory_reset_peak(void);
void attn_memory_set_limit(int64_t bytes);
void attn_memory_empty_cache(void);

#endif
