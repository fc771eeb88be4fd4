#include "peers.h"

#include "memory.h"

static _Thread_local attn_peers current;

const attn_peers *attn_get_peers(void) { return current.gather ? &current : NULL; }

void attn_set_peers(const attn_peers *peers) { current = peers ? *peers : (attn_peers){0}; }

attn_status attn_peers_collect(double **all, const double *own, int64_t count)
{
    const attn_peers peers = current; /* gather may set others */
    ATTN_TRY(attn_alloc((void **)all, (size_t)(peers.ranks * count) * sizeof **all));
    attn_status status = peers.gather(peers.context, *all, own, count);
    if (status != ATTN_OK) {
        attn_free(*all);
        *all = NULL;
    }
    return status;
}

attn_status attn_peers_add(double *values, int64_t count)
{
    double *all;
    const int64_t ranks = current.ranks;
    ATTN_TRY(attn_peers_collect(&all, values, count));
    for (int64_t i = 0; i < count; i++) {
        values[i] = 0;
        for (int64_t rank = 0; rank < ranks; rank++)
            values[i] += all[rank * count + i];
    }
    attn_free(all);
    return ATTN_OK;
}
