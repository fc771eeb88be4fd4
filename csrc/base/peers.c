#include "peers.h"

#include "memory.h"

static _Thread_local attn_peers current;

const attn_peers *attn_get_peers(void) { return current.gather ? &current : NULL; }

void attn_set_peers(const attn_peers *peers) { current = peers ? *peers : (attn_peers){0}; }

attn_status attn_peers_collect(double **all, const double *own, int64_t count)
{
    ATTN_TRY(attn_alloc((void **)all, (size_t)(current.ranks * count) * sizeof **all));
    attn_status status = current.gather(current.context, *all, own, count);
    if (status != ATTN_OK) {
        attn_free(*all);
        *all = NULL;
    }
    return status;
}

attn_status attn_peers_add(double *values, int64_t count)
{
    double *all;
    ATTN_TRY(attn_peers_collect(&all, values, count));
    for (int64_t i = 0; i < count; i++) {
        values[i] = 0;
        for (int64_t rank = 0; rank < current.ranks; rank++)
            values[i] += all[rank * count + i];
    }
    attn_free(all);
    return ATTN_OK;
}
