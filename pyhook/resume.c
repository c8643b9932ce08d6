/* SPDX-License-Identifier: MIT */
/* resume.c - pyheap-run --resume; see resume.h */
#include "resume.h"

#include "allocator/cli.h"
#include "allocator/keeper.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ME "pyheap-run"

static _Noreturn void become_recover(const char *path, char *const *options,
                                     const sigset_t *mask)
{
    char recover[PATH_MAX];
    size_t n = 0;
    int rc = ph_cli_installed("bin/pyheap-recover", recover, sizeof recover);
    while (options[n])
        n++;
    char **argv = calloc(n + 4, sizeof *argv);
    if (!rc && !argv)
        rc = PH_ENOMEM;
    if (rc)
        ph_cli_die(ME, rc, recover);
    argv[0] = "pyheap-recover";
    memcpy(argv + 1, options, n * sizeof *argv);
    argv[n + 1] = "--";
    argv[n + 2] = (char *)path;
    ph_keeper_unblock_signals(mask);
    execv(recover, argv);
    ph_cli_die(ME, ph_error_of(errno), recover);
}

void ph_resume(const char *path, const char *command, char *const *options,
               const sigset_t *mask)
{
    struct ph_pool *pool;
    struct ph_pool_info info;
    char detail[PATH_MAX + PH_COMMAND_MAX + 64];
    if (ph_pool_open(&pool, path, PH_POOL_READ))
        return;
    ph_pool_get_info(pool, &info);
    ph_pool_close(pool);
    bool same = strncmp(info.command, command, sizeof info.command - 1) == 0;
    if (!info.newest || (!same && info.state == PH_POOL_FINISHED))
        return;
    if (!same) {
        snprintf(detail, sizeof detail, "%s, of another command: %s", path, info.command);
        ph_cli_die(ME, PH_EUNFINISHED, detail);
    }
    if (info.state == PH_POOL_FINISHED) {
        fprintf(stderr,
                "%s: the run in %s has finished, nothing is left to do; --fresh "
                "starts the program again\n",
                ME, path);
        exit(0);
    }
    fprintf(stderr, "%s: going on with the run in %s, after epoch %llu\n", ME, path,
            (unsigned long long)info.newest);
    become_recover(path, options, mask);
}
