/* SPDX-License-Identifier: MIT */
/* undo.c - the directory of what was cut off; see undo.h */
#include "undo.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void ph_undo_directory(const char *path, char buf[PH_UNDO_MAX])
{
    /* Of the pool the directory alone is sure to be there; the program may leave it. */
    char directory[PATH_MAX], real[PATH_MAX];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int length = slash ? (int)(slash - path) + 1 : 1;
    snprintf(directory, sizeof directory, "%.*s", length, slash ? path : ".");
    if (!realpath(directory, real) ||
        snprintf(buf, PH_UNDO_MAX, "%s/%s.undo", real, name) >= PH_UNDO_MAX)
        buf[0] = 0;
}

bool ph_undo_name(const char *name, uint64_t *epoch, uint64_t *number)
{
    unsigned long long e, n;
    char end;
    if (sscanf(name, "%llu-%llu%c", &e, &n, &end) != 2)
        return false;
    *epoch = e;
    *number = n;
    return true;
}

static void remove_one(int dir, const char *name)
{
    unlinkat(dir, name, 0);
}

static void forget_one(int dir, const char *name)
{
    struct ph_undo_pm head;
    int fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    if (pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head) {
        head.flags |= PH_UNDO_FORGOTTEN;
        /* The mark first: without it, what is not whole is of no cut. */
        if (pwrite(fd, &head, sizeof head, 0) == (ssize_t)sizeof head &&
            ftruncate(fd, (off_t)sizeof head + head.path_size) != 0)
            unlinkat(dir, name, 0);
    }
    close(fd);
}

/** @return whether there is a directory. */
static bool each(const char *directory, uint64_t first, uint64_t last,
                 void (*fn)(int dir, const char *name))
{
    DIR *d = directory[0] ? opendir(directory) : NULL;
    if (!d)
        return false; /* the usual case: nothing was cut */
    const struct dirent *e;
    uint64_t epoch, number;
    while ((e = readdir(d)))
        if (ph_undo_name(e->d_name, &epoch, &number) && epoch >= first && epoch <= last)
            fn(dirfd(d), e->d_name);
    closedir(d);
    return true;
}

void ph_undo_remove(const char *directory, uint64_t first, uint64_t last)
{
    if (each(directory, first, last, remove_one))
        rmdir(directory);
}

void ph_undo_forget(const char *directory, uint64_t first, uint64_t last)
{
    each(directory, first, last, forget_one);
}

void ph_undo_clear(const char *path)
{
    char directory[PH_UNDO_MAX];
    ph_undo_directory(path, directory);
    ph_undo_remove(directory, 0, UINT64_MAX);
}
