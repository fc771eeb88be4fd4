#include "memory.h"

#include "arena.h"
#include "forks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* AddressSanitizer and valgrind see a wrong access only where a block ends with what was asked for
 * and is given back at once: for them nothing is rounded up and nothing is kept. */
#if defined(__SANITIZE_ADDRESS__)
#define ATTN_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ATTN_ASAN
#endif
#endif
#ifdef ATTN_ASAN
#include <sanitizer/asan_interface.h>
#define ATTN_NO_CACHE
#define hide_header(block) __asan_poison_memory_region(block, HEADER_BYTES)
#define show_header(block) __asan_unpoison_memory_region(block, HEADER_BYTES)
#else
#define hide_header(block) ((void)(block))
#define show_header(block) ((void)(block))
#endif
#ifdef ATTN_NO_CACHE
enum { KEEPS = false };
#else
enum { KEEPS = true };
#endif

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
static _Atomic int64_t objects;
static _Atomic int64_t until_failure; /* 0 or less: nothing is to fail */

static bool told_to_fail(void)
{
    return atomic_load_explicit(&until_failure, memory_order_relaxed) > 0 &&
           atomic_fetch_sub(&until_failure, 1) == 1;
}

int64_t attn_memory_fail(int64_t n) { return attn_max(atomic_exchange(&until_failure, n), 0); }

ATTN_FREE_ACROSS_FORKS(lock)

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

static header *fresh(size_t bytes)
{
    void *raw = NULL;
    if (posix_memalign(&raw, ATTN_ALIGNMENT, bytes + HEADER_BYTES) != 0)
        return NULL;
    header *block = raw;
    block->bytes = bytes;
    return block;
}

static header *take_small(size_t bytes)
{
    int bucket = size_class(&bytes);
    header *found = buckets[bucket];
    if (!found)
        return fresh(bytes);
    buckets[bucket] = found->next;
    small_cached -= (int64_t)found->bytes;
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
    if (!KEEPS)
        return fresh(bytes);
    return bytes <= SMALL ? take_small(bytes) : (header *)attn_arena_take(bytes);
}

static void give(header *block)
{
    if (!KEEPS)
        free(block);
    else if (block->bytes <= SMALL)
        give_small(block);
    else
        attn_arena_give((attn_arena_block *)block);
}

attn_status attn_alloc(void **block, size_t bytes)
{
    *block = NULL;
    size_t asked = bytes;
    if (bytes > (SIZE_MAX >> 2) || told_to_fail())
        return attn_fail(ATTN_NO_MEMORY, "out of memory: %zu bytes were asked for", asked);
    size_t lines = bytes / ATTN_ALIGNMENT + 1;
    if (!KEEPS && bytes > 0 && bytes % ATTN_ALIGNMENT == 0)
        lines--;
    bytes = lines * ATTN_ALIGNMENT;
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
    hide_header(found);
    *block = (char *)found + HEADER_BYTES;
    return ATTN_OK;
}

attn_status attn_alloc_shares(float **block, int64_t shared, int64_t each, int64_t workers)
{
    int64_t bytes;
    if (__builtin_mul_overflow(each, workers, &bytes) ||
        __builtin_add_overflow(bytes, shared, &bytes) ||
        __builtin_mul_overflow(bytes, (int64_t)sizeof **block, &bytes))
        bytes = INT64_MAX;
    return attn_alloc((void **)block, (size_t)bytes);
}

void attn_free(void *block)
{
    if (!block)
        return;
    header *head = (header *)((char *)block - HEADER_BYTES);
    show_header(head);
    pthread_mutex_lock(&lock);
    stats.in_use -= (int64_t)head->bytes;
    give(head);
    pthread_mutex_unlock(&lock);
}

void *attn_object(size_t count, size_t bytes)
{
    void *object = told_to_fail() ? NULL : calloc(count, bytes);
    if (object)
        atomic_fetch_add_explicit(&objects, 1, memory_order_relaxed);
    else
        attn_fail(ATTN_NO_MEMORY, "out of memory: %zu bytes were asked for", count * bytes);
    return object;
}

void *attn_object_grow(void *object, size_t bytes)
{
    void *grown = told_to_fail() ? NULL : realloc(object, bytes);
    if (!grown)
        attn_fail(ATTN_NO_MEMORY, "out of memory: %zu bytes were asked for", bytes);
    else if (!object)
        atomic_fetch_add_explicit(&objects, 1, memory_order_relaxed);
    return grown;
}

void attn_object_free(void *object)
{
    if (object)
        atomic_fetch_sub_explicit(&objects, 1, memory_order_relaxed);
    free(object);
}

void attn_memory_get_stats(attn_memory_stats *out)
{
    pthread_mutex_lock(&lock);
    *out = stats;
    out->cached = small_cached + attn_arena_cached();
    out->objects = atomic_load(&objects);
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
