/* A lock that a forked child can take: the child has no thread that could give it back, so nobody
 * holds it across the fork. Once a file. */
#ifndef ATTN_FORKS_H
#define ATTN_FORKS_H

#include <pthread.h>

#define ATTN_FREE_ACROSS_FORKS(lock)                               \
    static void before_fork(void) { pthread_mutex_lock(&(lock)); } \
    static void after_fork(void) { pthread_mutex_unlock(&(lock)); } \
    __attribute__((constructor)) static void mind_forks(void)      \
    {                                                              \
        pthread_atfork(before_fork, after_fork, after_fork);       \
    }

#endif
