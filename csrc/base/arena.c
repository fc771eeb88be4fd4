#include "arena.h"

#include <sys/mman.h>

/* Regions are only addresses until they are written to. */
enum { HEADER = ATTN_ALIGNMENT, HUGE_PAGE = 2 << 20, LEAST = ATTN_ALIGNMENT, REGION = 1 << 30 };
_Static_assert(sizeof(attn_arena_block) <= HEADER, "a header is one cache line");

static attn_arena_block *free_blocks;
static int64_t cached;

int64_t attn_arena_cached(void) { return cached; }

static attn_arena_block *above(attn_arena_block *block)
{
    return block->last ? NULL : (attn_arena_block *)((char *)block + HEADER + block->bytes);
}

static void list_add(attn_arena_block *block)
{
    block->free = true;
    block->previous = NULL;
    block->next = free_blocks;
    if (free_blocks)
        free_blocks->previous = block;
    free_blocks = block;
    cached += (int64_t)block->touched;
}

static void list_remove(attn_arena_block *block)
{
    block->free = false;
    if (block->previous)
        block->previous->next = block->next;
    else
        free_blocks = block->next;
    if (block->next)
        block->next->previous = block->previous;
    cached -= (int64_t)block->touched;
}

/* A new region as one free block: of the usual size, or of what must be where there is no more. */
static bool add_region(size_t bytes)
{
    size_t sizes[] = {bytes + HEADER > REGION ? bytes + HEADER : REGION, bytes + HEADER};
    for (int i = 0; i < 2; i++) {
        size_t size = (sizes[i] + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        /* Room to begin at a huge page. Of more than a usual region all will be written to: the
         * system is to say now whether it has that much, not to end the process later. */
        int reserve = size > REGION ? 0 : MAP_NORESERVE;
        char *raw = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | reserve, -1, 0);
        if (raw == MAP_FAILED)
            continue;
        size_t skip = (size_t)(-(uintptr_t)raw) % HUGE_PAGE;
        if (skip)
            munmap(raw, skip);
        munmap(raw + skip + size, HUGE_PAGE - skip);
#ifdef MADV_HUGEPAGE
        madvise(raw + skip, size, MADV_HUGEPAGE);
#endif
        attn_arena_block *block = (attn_arena_block *)(raw + skip);
        *block = (attn_arena_block){.bytes = size - HEADER, .last = true};
        list_add(block);
        return true;
    }
    return false;
}

static attn_arena_block *best_fit(size_t bytes)
{
    attn_arena_block *best = NULL;
    for (attn_arena_block *b = free_blocks; b; b = b->next)
        if (b->bytes >= bytes && (!best || b->bytes < best->bytes))
            best = b;
    return best;
}

/* What a block has beyond `bytes` becomes a free block of its own. */
static void cut(attn_arena_block *block, size_t bytes)
{
    if (block->bytes < bytes + HEADER + LEAST)
        return;
    size_t used = bytes + HEADER;
    attn_arena_block *rest = (attn_arena_block *)((char *)block + used);
    *rest = (attn_arena_block){
        .bytes = block->bytes - used,
        .touched = block->touched > used ? block->touched - used : 0,
        .below = block,
        .last = block->last,
    };
    if (!rest->last)
        above(rest)->below = rest;
    block->bytes = bytes;
    block->last = false;
    list_add(rest);
}

attn_arena_block *attn_arena_take(size_t bytes)
{
    attn_arena_block *block = best_fit(bytes);
    if (!block) {
        if (!add_region(bytes))
            return NULL;
        block = best_fit(bytes);
    }
    list_remove(block);
    cut(block, bytes);
    return block;
}

/* `upper` becomes part of `lower`, its neighbour; neither is in the list. */
static void join(attn_arena_block *lower, attn_arena_block *upper)
{
    if (upper->touched)
        lower->touched = lower->bytes + HEADER + upper->touched;
    lower->bytes += HEADER + upper->bytes;
    lower->last = upper->last;
    if (!lower->last)
        above(lower)->below = lower;
}

void attn_arena_give(attn_arena_block *block)
{
    attn_arena_block *upper = above(block), *lower = block->below;
    block->touched = block->bytes;
    if (upper && upper->free) {
        list_remove(upper);
        join(block, upper);
    }
    if (lower && lower->free) {
        list_remove(lower);
        join(lower, block);
        block = lower;
    }
    list_add(block);
}

void attn_arena_trim(void)
{
    for (attn_arena_block *block = free_blocks, *next; block; block = next) {
        next = block->next;
        if (!block->below && block->last) {
            list_remove(block);
            munmap(block, block->bytes + HEADER);
            continue;
        }
        uintptr_t begin = (uintptr_t)block + HEADER, end = begin + block->bytes;
        begin = (begin + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        end = end / HUGE_PAGE * HUGE_PAGE;
        if (begin < end)
            madvise((void *)begin, end - begin, MADV_DONTNEED);
        cached -= (int64_t)block->touched;
        block->touched = 0;
    }
}
