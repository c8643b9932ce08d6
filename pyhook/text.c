/* SPDX-License-Identifier: MIT */
/* text.c - strings, without libc's locale, locks and allocation */
#include "agent_internal.h"

#include <stdarg.h>
#include <string.h>

char *ph_format_u64(char *buf, uint64_t v)
{
    char tmp[24];
    int n = 0;
    do
        tmp[n++] = (char)('0' + v % 10);
    while (v /= 10);
    for (int i = 0; i < n; i++)
        buf[i] = tmp[n - 1 - i];
    buf[n] = 0;
    return buf;
}

size_t ph_append(char *buf, size_t used, size_t size, const char *s)
{
    while (s && *s && used + 1 < size)
        buf[used++] = *s++;
    buf[used] = 0;
    return used;
}

char *ph_join(char *buf, size_t size, const char *piece, ...)
{
    size_t n = 0;
    va_list ap;
    va_start(ap, piece);
    buf[0] = 0;
    for (const char *p = piece; p; p = va_arg(ap, const char *))
        n = ph_append(buf, n, size, p);
    va_end(ap);
    return buf;
}
