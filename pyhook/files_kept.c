/* SPDX-License-Identifier: MIT */
/*
 * files_kept.c - files that recovery is to leave as they are
 *
 * The program names them by a descriptor, and means that file, whatever it is called; or by a
 * path, and means whatever has that name, or is in that directory, then and later.
 */
#include "files.h"

#include "allocator/undo.h"
#include "undo.h"

#include <pthread.h>
#include <string.h>

/* Of those who add: there may be no interpreter lock. */
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;

static struct {
    uint64_t dev, ino;
} kept[256];
static unsigned nkept;

static char name[1 << 16]; /* one after the other, each with its 0 */
static size_t used;

/** What was done to it since the newest epoch, before this was said, has been noted. */
static void note(uint64_t dev, uint64_t ino, const char *path)
{
    if (!ph_undo_enter())
        return;
    ph_undo_note(&(struct ph_undo_note){
        .kind = PH_UNDO_KEPT, .link = -1, .dev = dev, .ino = ino, .path = path});
    ph_undo_after(true);
}

static int keep(const struct stat *st, const char *path)
{
    for (unsigned i = 0; i < nkept; i++)
        if (kept[i].dev == st->st_dev && kept[i].ino == st->st_ino)
            return 0;
    if (nkept == sizeof kept / sizeof kept[0])
        return PH_ENOMEM;
    kept[nkept].dev = st->st_dev;
    kept[nkept++].ino = st->st_ino;
    if (path)
        note(st->st_dev, st->st_ino, path);
    return 0;
}

int ph_files_keep(int fd)
{
    char path[PH_UNDO_PATH];
    struct stat st;
    if (fstat(fd, &st) != 0)
        return PH_EFILES;
    bool named = ph_undo_path_of(fd, path, sizeof path);
    pthread_mutex_lock(&adding);
    int err = keep(&st, named ? path : NULL);
    pthread_mutex_unlock(&adding);
    return err;
}

bool ph_files_is_kept_name(const char *path)
{
    size_t n;
    for (const char *at = name; at < name + used; at += n + 1) {
        n = strlen(at);
        if (strncmp(path, at, n) == 0 && (!path[n] || path[n] == '/'))
            return true;
    }
    return false;
}

static int keep_path(const char *path)
{
    size_t n = strlen(path);
    if (ph_files_is_kept_name(path))
        return 0;
    if (path[0] != '/' || n < 2) /* not all there is */
        return PH_EFILES;
    if (n + 1 > sizeof name - used)
        return PH_ENOMEM;
    memcpy(name + used, path, n + 1);
    used += n + 1;
    note(0, 0, path);
    return 0;
}

int ph_files_keep_path(const char *path)
{
    pthread_mutex_lock(&adding);
    int err = keep_path(path);
    pthread_mutex_unlock(&adding);
    return err;
}

bool ph_files_is_kept(uint64_t dev, uint64_t ino, const char *path)
{
    for (unsigned i = 0; i < nkept; i++)
        if (kept[i].dev == dev && kept[i].ino == ino)
            return true;
    return ph_files_is_kept_name(path);
}
