/* The last error message of each thread. */
#include "../attnnet.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[512];

attn_status attn_fail(attn_status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return code;
}

const char *attn_message(void) { return message; }
