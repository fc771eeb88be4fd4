/* Where the time goes: one event a call of an operation, forward or backward, while a profile is
 * on. Off, it costs one load a call. */
#ifndef ATTN_PROFILE_H
#define ATTN_PROFILE_H

#include "../attnnet.h"

enum { ATTN_PROFILE_SHAPES = 2 };

typedef struct {
    const char *name; /* static */
    bool backward;
    int64_t thread;          /* the calling thread, counted from 0 in the order of their first event */
    int64_t begin, duration; /* nanoseconds of a clock that only goes forward */
    int shapes;              /* of the first tensors that it worked on */
    int ndim[ATTN_PROFILE_SHAPES];
    int64_t shape[ATTN_PROFILE_SHAPES][ATTN_MAX_DIMS];
} attn_profile_event;

/* Gathers from now on; an error while another profile does. */
attn_status attn_profile_start(void);
/* Gathers no more, and hands the events over: the caller frees *events. `lost` found no memory. */
int64_t attn_profile_stop(attn_profile_event **events, int64_t *lost);

/* The time, or 0 while no profile is on: then there is nothing to add. */
int64_t attn_profile_now(void);
/* Notes the next shape of an event, up to ATTN_PROFILE_SHAPES. */
void attn_profile_shape(attn_profile_event *event, int ndim, const int64_t *shape);
/* Fills in thread and duration, and keeps the event. */
void attn_profile_add(attn_profile_event *event);

#endif
