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
} attn_memory_stats;

/* *block gets at least `bytes` bytes, 64-byte aligned, contents undefined. A multiple of 64 bytes
 * is always there, so whole registers may be read and written at the end. */
attn_status attn_alloc(void **block, size_t bytes);
void attn_free(void *block);

void attn_memory_get_stats(attn_memory_stats *stats);
void attn_memory_reset_peak(void);
void attn_memory_set_limit(int64_t bytes);
void attn_memory_empty_cache(void);

#endif
