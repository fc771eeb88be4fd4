/* A small thread pool.
 *
 * Work is cut into tasks by shape alone, never by the number of threads; any thread may run any
 * task. What a task writes nobody else writes, and partial sums are added in the order of the
 * tasks. So the same input gives the same bits with any number of threads.
 */
#ifndef ATTN_THREADS_H
#define ATTN_THREADS_H

#include "../attnnet.h"

enum { ATTN_MAX_THREADS = 256 };

/* Runs task `index`; `worker` in [0, attn_num_threads()) names the scratch space it may use. */
typedef void (*attn_task)(void *context, int64_t index, int worker);

/* Runs tasks 0..count-1 and returns when all are done. A call from inside a task, or while another
 * thread uses the pool, runs them one after the other in the calling thread, as worker 0. */
void attn_parallel(attn_task task, void *context, int64_t count);

/* The same with at most `workers` workers, for tasks whose scratch space was laid out for so many:
 * another thread may raise the number of threads at any moment. */
void attn_parallel_within(int workers, attn_task task, void *context, int64_t count);

int attn_num_threads(void);
/* 1..ATTN_MAX_THREADS; takes effect at the next attn_parallel. */
attn_status attn_set_num_threads(int64_t count);

/* Asked between tensor operations of a backward walk; true: stop with ATTN_INTERRUPTED. */
typedef bool (*attn_interrupt_poll)(void);
void attn_set_interrupt_poll(attn_interrupt_poll poll);
bool attn_interrupted(void);

#endif
