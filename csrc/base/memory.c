#include "memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Every block starts with one cache line that holds its size and, while cached, the list's link. */
typedef struct header {
    size_t bytes; /* usable bytes behind the header */
    struct header *next;
} header;

enum { HEADER_BYTES = ATTN_ALIGNMENT, HUGE_PAGE = 2 << 20, BUCKETS = 1024 };

/* One list a size class; classes grow by at most an eighth, so at most that much is wasted. */
static header *buckets[BUCKETS];
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

static void release_all_locked(void)
{
    for (int i = 0; i < BUCKETS; i++) {
        while (buckets[i]) {
            header *block = buckets[i];
            buckets[i] = block->next;
            stats.cached -= (int64_t)block->bytes;
            free(block);
        }
    }
}

static header *fresh_block(size_t bytes)
{
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ATTN_ALIGNMENT;
    void *raw = NULL;
    if (posix_memalign(&raw, alignment, bytes + HEADER_BYTES) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE_PAGE)
        madvise(raw, bytes + HEADER_BYTES, MADV_HUGEPAGE);
#endif
    return raw;
}

/* The smallest kept block of this class or of one less than twice as large; NULL if there is none.
 * Training, evaluation and a last small batch ask for different sizes: without the larger classes
 * each would keep memory of its own. Under a limit every byte counts, and only the class itself
 * will do. */
static header *take_kept_locked(int bucket)
{
    int last = stats.limit > 0 ? bucket : bucket + 12;
    for (int i = bucket; i <= last && i < BUCKETS; i++) {
        header *found = buckets[i];
        if (found) {
            buckets[i] = found->next;
            stats.cached -= (int64_t)found->bytes;
            return found;
        }
    }
    return NULL;
}

attn_status attn_alloc(void **block, size_t bytes)
{
    *block = NULL;
    size_t asked = bytes;
    if (bytes > (SIZE_MAX >> 2))
        return attn_fail(ATTN_NO_MEMORY, "out of memory: %zu bytes were asked for", asked);
    int bucket = size_class(&bytes);
    pthread_mutex_lock(&lock);
    if (stats.limit > 0 && stats.in_use + (int64_t)bytes > stats.limit) {
        int64_t in_use = stats.in_use, limit = stats.limit;
        pthread_mutex_unlock(&lock);
        return attn_fail(ATTN_NO_MEMORY,
                         "memory limit: %zu bytes were asked for with %lld in use of %lld allowed",
                         asked, (long long)in_use, (long long)limit);
    }
    header *found = take_kept_locked(bucket);
    if (!found) {
        found = fresh_block(bytes);
        if (!found) { /* what lies unused may be what is missing */
            release_all_locked();
            found = fresh_block(bytes);
        }
        if (found)
            found->bytes = bytes;
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
    size_t bytes = head->bytes;
    int bucket = size_class(&bytes);
    pthread_mutex_lock(&lock);
    head->next = buckets[bucket];
    buckets[bucket] = head;
    stats.in_use -= (int64_t)head->bytes;
    stats.cached += (int64_t)head->bytes;
    pthread_mutex_unlock(&lock);
}

void attn_memory_get_stats(attn_memory_stats *out)
{
    pthread_mutex_lock(&lock);
    *out = stats;
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
    release_all_locked();
    pthread_mutex_unlock(&lock);
}
