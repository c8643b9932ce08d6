/* SPDX-License-Identifier: MIT */
/*
 * files_locks.c - the program's locks on its files
 */
#include "files.h"

#include "calls.h"
#include "children.h"
#include "clock.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/** fcntl(F_SETLEASE): the file comes back, the kernel's promise to tell of others does not. */
static void lose_lease(const struct ph_file_pm *f)
{
    char what[512];
    const char *path = (const char *)ph_agent.areas.strings.base + f->path;
    ph_join(what, sizeof what, "the lease on ", path, NULL);
    ph_files_lost(f, what, "; take it again in a pyheap.on_restore callback");
}

/** The next word of a line. @return whether there was one. */
static bool word(const char **p, char *buf, size_t size)
{
    *p += strspn(*p, " \t");
    size_t n = strcspn(*p, " \t\n");
    size_t copied = n < size ? n : size - 1;
    memcpy(buf, *p, copied);
    buf[copied] = 0;
    *p += n;
    return n > 0;
}

/** Descriptors that had no lock when they were last looked at. A child may take one, too: there
 * must have been none since. */
static struct without {
    int fd;
    uint64_t dev, ino;
    struct ph_asked asked;
    uint64_t ended; /* ph_clock_children_ended() of then */
} without[256];

static struct without *without_of(const struct ph_file_pm *f)
{
    return &without[(size_t)f->fd % (sizeof without / sizeof without[0])];
}

static bool has_none(const struct ph_file_pm *f)
{
    const struct without *w = without_of(f);
    return w->fd == f->fd && w->dev == f->dev && w->ino == f->ino &&
           w->ended == ph_clock_children_ended() && !ph_children_any() &&
           ph_asked_holds(&w->asked, PH_CALLS_LOCKS);
}

/**
 * Those that the program holds by this description, from fdinfo (proc_pid_fdinfo(5)):
 * "lock: 1: POSIX  ADVISORY  WRITE 359 00:13:11691 0 EOF": number, kind, mode, type, pid, file,
 * first and last byte.
 */
void ph_files_capture_locks(const struct ph_file_pm *f)
{
    bool any = false;
    if (has_none(f))
        return;
    for (const char *p = ph_files_info(f->fd); (p = strstr(p, "lock:\t"));) {
        char w[8][32];
        p += strlen("lock:\t");
        int words = 0;
        while (words < 8 && word(&p, w[words], sizeof w[0]))
            words++;
        if (words < 8)
            break;
        int kind = strcmp(w[1], "POSIX") == 0    ? PH_LOCK_POSIX
                   : strcmp(w[1], "OFDLCK") == 0 ? PH_LOCK_OFD
                   : strcmp(w[1], "FLOCK") == 0  ? PH_LOCK_FLOCK
                                                 : 0;
        any = true;
        if (!kind) {
            lose_lease(f);
            continue;
        }
        struct ph_lock_pm *l = ph_area_push(&ph_agent.areas.locks, sizeof *l);
        l->fd = f->fd;
        l->kind = (uint16_t)kind;
        l->exclusive = strcmp(w[3], "WRITE") == 0;
        l->start = strtoull(w[6], NULL, 10);
        if (strcmp(w[7], "EOF") != 0)
            l->length = strtoull(w[7], NULL, 10) - l->start + 1;
    }
    if (!any)
        *without_of(f) = (struct without){f->fd, f->dev, f->ino, ph_asked_now(PH_CALLS_LOCKS),
                                          ph_clock_children_ended()};
}

/* fcntl(2) */
bool ph_files_is_touchy(const struct ph_file_pm *f)
{
    size_t n = ph_agent.areas.locks.used / sizeof(struct ph_lock_pm), nfiles;
    const struct ph_lock_pm *l = (const struct ph_lock_pm *)ph_agent.areas.locks.base;
    const struct ph_file_pm *all = ph_files_all(&nfiles);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; l[i].kind == PH_LOCK_POSIX && j < nfiles; j++)
            if (all[j].fd == l[i].fd && all[j].ino == f->ino && all[j].dev == f->dev)
                return true;
    int lease = fcntl(f->fd, F_GETLEASE);
    return lease == F_RDLCK || lease == F_WRLCK;
}
