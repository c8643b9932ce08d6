/* SPDX-License-Identifier: MIT */
/* cli.c - what pyheap's commands have in common */
#include "cli.h"

#include "error.h"
#include "staging.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
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

static char no_pool[4096 + 512];
static size_t no_pool_size;

static void on_sigbus(int sig)
{
    (void)sig;
    ssize_t ignored = write(2, no_pool, no_pool_size);
    (void)ignored;
    _exit(ph_error_status(PH_EIO));
}

void ph_cli_need_proc(const char *command)
{
    if (access("/proc/self/fd", X_OK) != 0)
        ph_cli_die(command, PH_EKERNEL, "/proc is not mounted");
}

void ph_cli_expect_no_pool(const char *command, const char *path)
{
    struct sigaction action = {.sa_handler = on_sigbus};
    int n = snprintf(no_pool, sizeof no_pool,
                     "%s: a part of the pool is gone: its disk fails, or somebody has cut the "
                     "file short; see what is left with pyheap-recover --verify (%.4000s)\n",
                     command, path);
    no_pool_size = n > 0 ? (size_t)n : 0;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
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

bool ph_cli_duration(const char *text, unsigned long long *ns)
{
    char *end;
    double v = strtod(text, &end);
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"", 1}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    for (size_t i = 0; end != text && i < sizeof units / sizeof units[0]; i++) {
        double seconds = v * units[i].seconds;
        if (strcmp(end, units[i].unit) == 0 && seconds >= 0.001 && seconds < 1e9) {
            *ns = (unsigned long long)(seconds * 1e9);
            return true;
        }
    }
    return false;
}

int ph_cli_signal(const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (end != text && *end == 0)
        return n > 0 && n < NSIG ? (int)n : 0;
    if (strncmp(text, "SIG", 3) == 0)
        text += 3;
    for (int sig = 1; sig < NSIG; sig++) {
        const char *name = sigabbrev_np(sig);
        if (name && strcmp(name, text) == 0)
            return sig;
    }
    return 0;
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
