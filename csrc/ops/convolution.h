/* What the operations that convolve share. */
#ifndef ATTN_CONVOLUTION_H
#define ATTN_CONVOLUTION_H

#include "../conv/plan.h"

/* The plan for x and weight, or what is wrong with them or with the bias. */
attn_status attn_convolution_plan(attn_conv_plan *plan, const attn_tensor *x,
                                  const attn_tensor *weight, const attn_tensor *bias, bool keep,
                                  const attn_convolution_options *options);

#endif
