/* The kinds of elementwise operations and reductions, shared by operations and kernels. */
#ifndef ATTN_KINDS_H
#define ATTN_KINDS_H

typedef enum {
    ATTN_RELU, ATTN_SIGMOID, ATTN_TANH, ATTN_EXP, ATTN_LOG, ATTN_SQRT, ATTN_ABS, ATTN_NEG,
    ATTN_UNARY_COUNT
} attn_unary_kind;

typedef enum {
    ATTN_ADD, ATTN_SUB, ATTN_MUL, ATTN_DIV, ATTN_POW, ATTN_BINARY_COUNT,
    ATTN_POW_SLOPE,  /* d/da a^b, for the backward of pow */
    ATTN_POW_GROWTH, /* d/db a^b */
} attn_binary_kind;

typedef enum { ATTN_SUM, ATTN_MEAN, ATTN_AMAX, ATTN_AMIN, ATTN_VAR } attn_reduction;

#endif
