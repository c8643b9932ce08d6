/* SPDX-License-Identifier: MIT */
/* cli.c - what pyheap's commands have in common */
#include "cli.h"

#include "error.h"
#include "staging.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void ph_cli_complain(const char *command, const char *text, const char *detail)
{
    bool more = detail && *detail;
    fprintf(stderr, "%s: %s%s%s%s\n", command, text, more ? " (" : "", more ? detail : "",
            more ? ")" : "");
}

void ph_cli_die(const char *command, int err, const char *detail)
{
    ph_cli_complain(command, ph_error_text(err), detail);
    exit(ph_error_status(err));
}

bool ph_cli_size(const char *text, unsigned long long *bytes)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (end == text || text[0] == '-' || errno)
        return false;
    static const char units[] = "KMGTP";
    const char *unit = *end ? strchr(units, *end >= 'a' ? *end - 32 : *end) : NULL;
    if (unit) {
        unsigned shift = 10 * (unsigned)(unit - units + 1);
        if (v > ~0ull >> shift)
            return false;
        v <<= shift;
        end++;
        if (*end == 'i')
            end++;
        if (*end == 'B' || *end == 'b')
            end++;
    }
    *bytes = v;
    return *end == 0;
}

bool ph_cli_staging(const char *text, unsigned long long *bytes)
{
    return ph_cli_size(text, bytes) && *bytes >= PH_RING_MIN && *bytes <= UINT64_C(1) << 43;
}

int ph_cli_installed(const char *relative, char *buf, size_t size)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return PH_EINTERNAL;
    self[n] = 0;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(self, '/');
        if (slash)
            *slash = 0;
    }
    int length = snprintf(buf, size, "%s/%s", self, relative);
    return length < 0 || (size_t)length >= size || access(buf, R_OK) != 0 ? PH_ENOENT : 0;
}
