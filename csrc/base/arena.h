/* Large blocks out of regions of address space: the smallest free block that fits is cut to size,
 * neighbours that are both free become one. So a training step, whose tensors are of a few dozen
 * sizes, takes little more memory than it has in use at its peak.
 *
 * Not thread-safe: memory.c holds its lock.
 */
#ifndef ATTN_ARENA_H
#define ATTN_ARENA_H

#include "../attnnet.h"

/* The header of a block, one cache line in front of it. */
typedef struct attn_arena_block attn_arena_block;
struct attn_arena_block {
    size_t bytes;             /* behind the header */
    size_t touched;           /* of a free block: of these, how many the system may have backed */
    attn_arena_block *below;  /* the neighbour at lower addresses; NULL: the region's first */
    attn_arena_block *next, *previous; /* of a free block: in the list of all */
    bool free, last;          /* last: of its region */
};

/* A block of at least `bytes`, a multiple of 64, NULL when the system has no more. */
attn_arena_block *attn_arena_take(size_t bytes);
void attn_arena_give(attn_arena_block *block);
/* Gives back to the system what no block uses. */
void attn_arena_trim(void);
/* Bytes of free blocks that the system may have backed. */
int64_t attn_arena_cached(void);

#endif
