/* SPDX-License-Identifier: MIT */
/*
 * watches.c - the paths by which the program asks for inotify watches
 *
 * The kernel tells which inodes are watched, and nobody can be asked for the name of an inode.
 * So inotify_add_watch is interposed and the name remembered. A list that only grows, newest
 * first, so that an epoch can read it whatever the parked threads were doing: an entry is
 * complete before it is linked. A path that leads elsewhere by now is not used.
 */
#include "files.h"
#include "hook.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct watch {
    struct watch *next;
    uint64_t dev, ino;
    char path[];
};

static _Atomic(struct watch *) newest;

static bool leads_to(const char *path, uint64_t dev, uint64_t ino)
{
    struct stat st;
    return stat(path, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

const char *ph_watches_path(uint64_t dev, uint64_t ino)
{
    for (const struct watch *w = atomic_load(&newest); w; w = w->next)
        if (w->dev == dev && w->ino == ino && leads_to(w->path, dev, ino))
            return w->path;
    return NULL;
}

static void remember(const char *name, uint32_t mask)
{
    struct stat st;
    char path[PATH_MAX];
    if (((mask & IN_DONT_FOLLOW) ? lstat : stat)(name, &st) != 0 || S_ISLNK(st.st_mode) ||
        !realpath(name, path) || ph_watches_path(st.st_dev, st.st_ino))
        return;
    size_t n = strlen(path) + 1;
    struct watch *w = malloc(sizeof *w + n);
    if (!w)
        return;
    w->dev = st.st_dev;
    w->ino = st.st_ino;
    memcpy(w->path, path, n);
    w->next = atomic_load(&newest);
    while (!atomic_compare_exchange_weak(&newest, &w->next, w)) {
    }
}

__attribute__((visibility("default"))) int inotify_add_watch(int fd, const char *name,
                                                             uint32_t mask)
{
    int wd = (int)syscall(SYS_inotify_add_watch, fd, name, mask);
    if (wd >= 0 && ph_agent_active())
        remember(name, mask);
    return wd;
}
