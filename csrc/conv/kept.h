/* Weights of a convolution that serve many calls: each form that a plan reads them in is made when
 * it is first asked for, and kept. Of one convolution that is at most the panels, as large as the
 * weights, and the transformed weights, four times as large.
 *
 * The weights may not be written to in between: whoever keeps them sees to that.
 */
#ifndef ATTN_CONV_KEPT_H
#define ATTN_CONV_KEPT_H

#include "plan.h"

attn_status attn_conv_kept_new(attn_conv_kept **kept, attn_tensor *weight);
void attn_conv_kept_free(attn_conv_kept *kept);

/* The weights as they came (borrowed). */
attn_tensor *attn_conv_kept_weight(const attn_conv_kept *kept);
/* The same in the form of a plan of this kernel; lives as long as `kept`. From any thread. */
attn_status attn_conv_kept_form(const float **form, attn_conv_kept *kept,
                                const attn_conv_plan *plan);

#endif
