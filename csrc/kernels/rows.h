/* Rows of any length: whole vectors, and an end that may lie within one. */
#ifndef ATTN_KERNEL_ROWS_H
#define ATTN_KERNEL_ROWS_H

#include "simd.h"

/* The elements at p, of which `left` exist; the other lanes are those of `filler`. */
INLINE vf load_some(const float *p, int64_t left, vf filler)
{
    if (left >= VL)
        return vload(p);
    float lanes[VL];
    vstore(lanes, filler);
    memcpy(lanes, p, (size_t)left * sizeof(float));
    return vload(lanes);
}

INLINE void store_some(float *p, vf v, int64_t left)
{
    if (left >= VL)
        vstore(p, v);
    else
        vstore_part(p, v, left);
}

/* With `stream`: past the caches; p is aligned and the row ends with a whole vector then. */
INLINE void store_row(float *p, vf v, int64_t left, bool stream)
{
    if (stream)
        vstream(p, v);
    else
        store_some(p, v, left);
}

#endif
