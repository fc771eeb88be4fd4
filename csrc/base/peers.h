/* A training that several processes share, each with a part of every batch: what an operation that
 * looks across the images of a batch must know of the others. Everything here belongs to the calling
 * thread, which is the one that runs operations and the backward walk; without peers an operation
 * does what it always does.
 */
#ifndef ATTN_PEERS_H
#define ATTN_PEERS_H

#include "../attnnet.h"

/* all (ranks, count) = the `count` values that each process gives, in the order of their ranks. */
typedef attn_status (*attn_peers_gather)(void *context, double *all, const double *own,
                                         int64_t count);

typedef struct {
    attn_peers_gather gather;
    void *context;
    int64_t ranks;  /* processes */
    int64_t images; /* of the batch that are this process's; 0: what it computes is not to count */
    int64_t first;  /* where in the batch they begin */
} attn_peers;

/* The calling thread's; NULL: alone. */
const attn_peers *attn_get_peers(void);
void attn_set_peers(const attn_peers *peers); /* copied; NULL: alone */

/* *all (ranks, count) = the values of all processes; the caller frees it (attn_free). */
attn_status attn_peers_collect(double **all, const double *own, int64_t count);

/* values (count) = their sums over the processes, added in the order of ranks: every process gets
 * the same bits. */
attn_status attn_peers_add(double *values, int64_t count);

#endif
