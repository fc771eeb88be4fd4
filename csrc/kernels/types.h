/* Small structs that kernels receive. */
#ifndef ATTN_KERNEL_TYPES_H
#define ATTN_KERNEL_TYPES_H

#include "../attnnet.h"

#endif
