#include "memory.h"

#include "arena.h"

#include <pthread.h>
#include <stdlib.h>

/* Every block starts with one cache line. A small one's holds its size and, while it is cached, the
 * link of its list; a large one's is the arena's, which begins with the size as well. */
typedef struct header {
    size_t bytes; /* usable bytes behind the header */
    struct header *next;
} header;

enum { HEADER_BYTES = ATTN_ALIGNMENT, SMALL = 1 << 15, BUCKETS = 256 };

/* Small blocks: one list a size class; classes grow by at most an eighth, so at most that much is
 * wasted. */
static header *buckets[BUCKETS];
static int64_t small_cached;
static attn_memory_stats stats;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The class of a size, and the size rounded up to what its class holds. */
static int size_class(size_t *bytes)
{
    size_t units = (*bytes + ATTN_ALIGNMENT - 1) / ATTN_ALIGNMENT;
    if (units == 0)
        units = 1;
    int shift = 0;
    while ((units - 1) >> shift >= 16)
        shift++;
    units = ((units - 1) >> shift) + 1; /* 9..16 eighths of a power of two, or 1..16 */
    *bytes = (units << shift) * ATTN_ALIGNMENT;
    return (int)(shift * 16 + units - 1);
}

static header *take_small(size_t bytes)
{
    int bucket = size_class(&bytes);
    header *found = buckets[bucket];
    if (found) {
        buckets[bucket] = found->next;
        small_cached -= (int64_t)found->bytes;
        return found;
    }
    void *raw = NULL;
    if (posix_memalign(&raw, ATTN_ALIGNMENT, bytes + HEADER_BYTES) != 0)
        return NULL;
    found = raw;
    found->bytes = bytes;
    return found;
}

static void give_small(header *block)
{
    size_t bytes = block->bytes;
    int bucket = size_class(&bytes);
    block->next = buckets[bucket];
    buckets[bucket] = block;
    small_cached += (int64_t)block->bytes;
}

static void release_cached(void)
{
    for (int i = 0; i < BUCKETS; i++) {
        while (buckets[i]) {
            header *block = buckets[i];
            buckets[i] = block->next;
            free(block);
        }
    }
    small_cached = 0;
    attn_arena_trim();
}

/* bytes: a multiple of 64. */
static header *take(size_t bytes)
{
    return bytes <= SMALL ? take_small(bytes) : (header *)attn_arena_take(bytes);
}

attn_status attn_alloc(void **block, size_t bytes)
{
    *block = NULL;
    size_t asked = bytes;
    if (bytes > (SIZE_MAX >> 2))
        return attn_fail(ATTN_NO_MEMORY, "out of memory: %zu bytes were asked for", asked);
    bytes = (bytes / ATTN_ALIGNMENT + 1) * ATTN_ALIGNMENT;
    pthread_mutex_lock(&lock);
    if (stats.limit > 0 && stats.in_use + (int64_t)bytes > stats.limit) {
        int64_t in_use = stats.in_use, limit = stats.limit;
        pthread_mutex_unlock(&lock);
        return attn_fail(ATTN_NO_MEMORY,
                         "memory limit: %zu bytes were asked for with %lld in use of %lld allowed",
                         asked, (long long)in_use, (long long)limit);
    }
    header *found = take(bytes);
    if (!found) { /* what lies unused may be what is missing */
        release_cached();
        found = take(bytes);
    }
    if (found) {
        stats.in_use += (int64_t)found->bytes;
        stats.peak = attn_max(stats.peak, stats.in_use);
    }
    pthread_mutex_unlock(&lock);
    if (!found)
        return attn_fail(ATTN_NO_MEMORY, "out of memory: %zu bytes were asked for", asked);
    *block = (char *)found + HEADER_BYTES;
    return ATTN_OK;
}

void attn_free(void *block)
{
    if (!block)
        return;
    header *head = (header *)((char *)block - HEADER_BYTES);
    pthread_mutex_lock(&lock);
    stats.in_use -= (int64_t)head->bytes;
    if (head->bytes <= SMALL)
        give_small(head);
    else
        attn_arena_give((attn_arena_block *)head);
    pthread_mutex_unlock(&lock);
}

void attn_memory_get_stats(attn_memory_stats *out)
{
    pthread_mutex_lock(&lock);
    *out = stats;
    out->cached = small_cached + attn_arena_cached();
    pthread_mutex_unlock(&lock);
}

void attn_memory_reset_peak(void)
{
    pthread_mutex_lock(&lock);
    stats.peak = stats.in_use;
    pthread_mutex_unlock(&lock);
}

void attn_memory_set_limit(int64_t bytes)
{
    pthread_mutex_lock(&lock);
    stats.limit = bytes;
    pthread_mutex_unlock(&lock);
}

void attn_memory_empty_cache(void)
{
    pthread_mutex_lock(&lock);
    release_cached();
    pthread_mutex_unlock(&lock);
}
