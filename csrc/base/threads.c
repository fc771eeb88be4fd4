#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#if defined(__x86_64__)
#define pause_hint() __builtin_ia32_pause()
#else
#define pause_hint() ((void)0)
#endif

typedef struct {
    attn_task task;
    void *context;
    int64_t count;
    _Atomic int64_t next; /* the next task to take */
} job;

static job current;
static pthread_mutex_t user = PTHREAD_MUTEX_INITIALIZER;  /* held by the thread that uses the pool */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;  /* guards sleeping and waking */
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
/* The number of the current job, times 2^16, plus how many helpers are invited: one word, so that a
 * helper that comes late can not mistake one job's number for another's helpers. */
static _Atomic uint64_t announced;
/* The same number, times 2^16, plus OPEN while a helper may still enter, plus how many are inside.
 * Nobody waits for a helper that has not entered: on a busy machine it may not get a core for long,
 * while others do its tasks. */
static _Atomic uint64_t entrance;
enum { OPEN = 1 << 15 };
static int helpers; /* started helper threads, beside the caller */
static _Atomic int thread_count;    /* 0: not yet decided */
static _Thread_local bool inside_task;
static attn_interrupt_poll interrupt_poll;

/* How long a helper looks for new work before it sleeps: jobs of one step follow each other within
 * microseconds, but a core must not be burnt while the notebook is idle. */
enum { SPINS = 4000 };

static void run_tasks(job *work, int worker)
{
    inside_task = true;
    for (;;) {
        int64_t index = atomic_fetch_add_explicit(&work->next, 1, memory_order_relaxed);
        if (index >= work->count)
            break;
        work->task(work->context, index, worker);
    }
    inside_task = false;
}

static uint64_t wait_for_job(uint64_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        uint64_t now = atomic_load_explicit(&announced, memory_order_acquire);
        if (now != seen)
            return now;
        pause_hint();
    }
    pthread_mutex_lock(&gate);
    while (atomic_load(&announced) == seen)
        pthread_cond_wait(&wake, &gate);
    pthread_mutex_unlock(&gate);
    return atomic_load(&announced);
}

/* Whether a helper is let in to a job; false: it is over, or nearly. */
static bool enter(uint64_t number)
{
    uint64_t now = atomic_load_explicit(&entrance, memory_order_relaxed);
    do {
        if (now >> 16 != number || !(now & OPEN))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&entrance, &now, now + 1, memory_order_acquire,
                                                    memory_order_relaxed));
    return true;
}

/* Lets nobody in any more, and waits for those inside. */
static void close_and_wait(void)
{
    atomic_fetch_and_explicit(&entrance, ~(uint64_t)OPEN, memory_order_relaxed);
    for (int i = 0; atomic_load_explicit(&entrance, memory_order_acquire) & 0xffff; i++) {
        if (i < SPINS)
            pause_hint();
        else
            sched_yield(); /* a helper that has lost its core needs one */
    }
}

typedef struct {
    int worker;
    uint64_t seen;
} helper_start;

static helper_start starts[ATTN_MAX_THREADS];

static void *helper_main(void *argument)
{
    helper_start *start = argument;
    int worker = start->worker;
    uint64_t seen = start->seen;
    for (;;) {
        seen = wait_for_job(seen);
        if (worker <= (int)(seen & 0xffff) && enter(seen >> 16)) {
            run_tasks(&current, worker);
            atomic_fetch_sub_explicit(&entrance, 1, memory_order_release);
        }
    }
    return NULL;
}

/* A forked child has only the thread that forked: forget the helpers, they start again on demand. */
static void after_fork_in_child(void)
{
    pthread_mutex_init(&user, NULL);
    pthread_mutex_init(&gate, NULL);
    pthread_cond_init(&wake, NULL);
    helpers = 0;
    inside_task = false;
}

static void start_helpers(int wanted)
{
    static bool registered;
    if (!registered) {
        pthread_atfork(NULL, NULL, after_fork_in_child);
        registered = true;
    }
    while (helpers < wanted) {
        helper_start *start = &starts[helpers];
        start->worker = helpers + 1;
        start->seen = atomic_load(&announced);
        pthread_t thread;
        if (pthread_create(&thread, NULL, helper_main, start) != 0)
            break; /* fewer threads, the same result */
        pthread_detach(thread);
        helpers++;
    }
}

static int default_threads(void)
{
#ifdef CPU_COUNT
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) > 0)
        return (int)attn_min(CPU_COUNT(&allowed), ATTN_MAX_THREADS);
#endif
    return (int)attn_max(1, attn_min(sysconf(_SC_NPROCESSORS_ONLN), ATTN_MAX_THREADS));
}

int attn_num_threads(void)
{
    int count = atomic_load_explicit(&thread_count, memory_order_relaxed);
    if (count == 0) {
        count = default_threads();
        atomic_store(&thread_count, count);
    }
    return count;
}

attn_status attn_set_num_threads(int64_t count)
{
    if (count < 1 || count > ATTN_MAX_THREADS)
        return attn_fail(ATTN_BAD_VALUE, "num_threads is %lld, expected 1 to %d",
                         (long long)count, ATTN_MAX_THREADS);
    atomic_store(&thread_count, (int)count);
    return ATTN_OK;
}

static void run_alone(attn_task task, void *context, int64_t count)
{
    bool outer = inside_task;
    inside_task = true;
    for (int64_t i = 0; i < count; i++)
        task(context, i, 0);
    inside_task = outer;
}

void attn_parallel(attn_task task, void *context, int64_t count)
{
    attn_parallel_within(ATTN_MAX_THREADS, task, context, count);
}

void attn_parallel_within(int workers, attn_task task, void *context, int64_t count)
{
    int threads = (int)attn_min(attn_min(attn_num_threads(), workers), count);
    if (threads <= 1 || inside_task || pthread_mutex_trylock(&user) != 0) {
        run_alone(task, context, count);
        return;
    }
    start_helpers(threads - 1);
    uint64_t invited = (uint64_t)attn_min(threads - 1, helpers);
    uint64_t number = (atomic_load(&announced) >> 16) + 1;

    current.task = task;
    current.context = context;
    current.count = count;
    atomic_store_explicit(&current.next, 0, memory_order_relaxed);
    atomic_store_explicit(&entrance, number << 16 | OPEN, memory_order_release);
    pthread_mutex_lock(&gate);
    atomic_store_explicit(&announced, number << 16 | invited, memory_order_release);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&gate);

    run_tasks(&current, 0);
    close_and_wait();
    pthread_mutex_unlock(&user);
}

void attn_set_interrupt_poll(attn_interrupt_poll poll) { interrupt_poll = poll; }

bool attn_interrupted(void) { return interrupt_poll && interrupt_poll(); }
