/* SPDX-License-Identifier: MIT */
/* progress.c - see progress.h */
#include "progress.h"

#include "allocator/staging.h"

#include <stdio.h>
#include <unistd.h>

#define FIRST_NS UINT64_C(1000000000)
#define EVERY_NS UINT64_C(200000000)

void ph_progress_begin(struct ph_progress *p, const char *command, uint64_t epoch)
{
    *p = (struct ph_progress){.command = command, .epoch = epoch, .began_ns = ph_now_ns()};
}

bool ph_progress_due(const struct ph_progress *p)
{
    uint64_t now = ph_now_ns();
    return now - p->began_ns >= FIRST_NS && now - p->last_ns >= EVERY_NS && isatty(2);
}

void ph_progress_show(void *progress, uint64_t done, uint64_t total)
{
    struct ph_progress *p = progress;
    if (!total || !ph_progress_due(p))
        return;
    fprintf(stderr, "\r%s: reading epoch %llu: %.1f of %.1f GiB, %llu %%\033[K", p->command,
            (unsigned long long)p->epoch, (double)done / (1 << 30), (double)total / (1 << 30),
            (unsigned long long)(done * 100 / total));
    p->shown = true;
    p->last_ns = ph_now_ns();
}

void ph_progress_end(struct ph_progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}
