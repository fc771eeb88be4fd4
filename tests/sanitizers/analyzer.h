/* Put before each file that clang-tidy reads (run.py): what it cannot see across files. */
#include "../../csrc/attnnet.h"

/* It returns its code, which is never ATTN_OK. */
#define attn_fail(code, ...) ((void)attn_fail(code, __VA_ARGS__), code)
