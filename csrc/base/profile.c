#include "profile.h"

#include "forks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static _Atomic bool on;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static attn_profile_event *kept;
static int64_t count, capacity, lost_count;

ATTN_FREE_ACROSS_FORKS(lock)

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t thread_number(void)
{
    static _Atomic int64_t threads;
    static _Thread_local int64_t number = -1;
    if (number < 0)
        number = atomic_fetch_add(&threads, 1);
    return number;
}

attn_status attn_profile_start(void)
{
    pthread_mutex_lock(&lock);
    bool before = atomic_exchange(&on, true);
    pthread_mutex_unlock(&lock);
    return before ? attn_fail(ATTN_BAD_STATE, "another profile is running in this process")
                  : ATTN_OK;
}

int64_t attn_profile_stop(attn_profile_event **events, int64_t *lost)
{
    pthread_mutex_lock(&lock);
    int64_t gathered = count;
    *events = kept;
    *lost = lost_count;
    kept = NULL;
    count = capacity = lost_count = 0;
    on = false;
    pthread_mutex_unlock(&lock);
    return gathered;
}

int64_t attn_profile_now(void)
{
    return atomic_load_explicit(&on, memory_order_relaxed) ? clock_ns() : 0;
}

void attn_profile_shape(attn_profile_event *event, int ndim, const int64_t *shape)
{
    if (event->shapes == ATTN_PROFILE_SHAPES)
        return;
    event->ndim[event->shapes] = ndim;
    memcpy(event->shape[event->shapes], shape, (size_t)ndim * sizeof *shape);
    event->shapes++;
}

static bool make_room(void)
{
    if (count < capacity)
        return true;
    int64_t more = capacity ? 2 * capacity : 1024;
    attn_profile_event *grown = realloc(kept, (size_t)more * sizeof *kept);
    if (!grown)
        return false;
    kept = grown;
    capacity = more;
    return true;
}

void attn_profile_add(attn_profile_event *event)
{
    event->duration = clock_ns() - event->begin;
    event->thread = thread_number();
    pthread_mutex_lock(&lock);
    if (on) { /* not stopped in the meantime */
        if (make_room())
            kept[count++] = *event;
        else
            lost_count++;
    }
    pthread_mutex_unlock(&lock);
}
