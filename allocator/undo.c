/* SPDX-License-Identifier: MIT */
/* undo.c - the directory of what a program has done to its files; see undo.h */
#include "undo.h"

#include "error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

enum entry { NONE, RECORD, FILE_OF_PROGRAM, ASIDE };

static enum entry parse(const char *name, uint64_t *epoch, uint64_t *number)
{
    unsigned long long e, n;
    char end[8];
    int found = sscanf(name, "%llu-%llu%7s", &e, &n, end);
    if (found < 2)
        return NONE;
    *epoch = e;
    *number = n;
    return found == 2 || end[0] == ':'       ? RECORD
           : strcmp(end, PH_UNDO_LINK) == 0  ? FILE_OF_PROGRAM
           : strcmp(end, PH_UNDO_ASIDE) == 0 ? ASIDE
                                             : NONE;
}

bool ph_undo_name(const char *name, uint64_t *epoch, uint64_t *number)
{
    return parse(name, epoch, number) == RECORD;
}

static void remove_one(int dir, const char *name)
{
    unlinkat(dir, name, 0);
}

/** In place of a note, one for all of its epoch. */
static void forget_note(int dir, const char *name, uint64_t epoch)
{
    char mark[32];
    snprintf(mark, sizeof mark, "%llu-0", (unsigned long long)epoch);
    if (strcmp(name, mark) != 0 && (symlinkat("-", dir, mark) == 0 || errno == EEXIST))
        unlinkat(dir, name, 0);
}

static void forget_one(int dir, const char *name)
{
    struct ph_undo_pm head;
    uint64_t epoch, number;
    if (parse(name, &epoch, &number) == FILE_OF_PROGRAM) {
        unlinkat(dir, name, 0);
        return;
    }
    if (strchr(name, ':')) {
        forget_note(dir, name, epoch);
        return;
    }
    int fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ELOOP)
        forget_note(dir, name, epoch);
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

static bool is_base(const char *name, uint64_t *pool)
{
    size_t n = strlen(PH_UNDO_BASE);
    if (strncmp(name, PH_UNDO_BASE, n) != 0)
        return false;
    *pool = strtoull(name + n, NULL, 16);
    return true;
}

static uint64_t owner(DIR *d)
{
    const struct dirent *e;
    uint64_t pool;
    while ((e = readdir(d)))
        if (is_base(e->d_name, &pool))
            return pool;
    return 0;
}

uint64_t ph_undo_owner(const char *directory)
{
    DIR *d = directory[0] ? opendir(directory) : NULL;
    uint64_t pool = d ? owner(d) : 0;
    if (d)
        closedir(d);
    return pool;
}

/** @return how much there is that @p fn was not called for; < 0: no directory of that pool. */
static int each(const char *directory, uint64_t pool, uint64_t first, uint64_t last,
                void (*fn)(int dir, const char *name))
{
    DIR *d = directory[0] ? opendir(directory) : NULL;
    if (!d)
        return -1; /* the usual case: nothing was done */
    const struct dirent *e;
    uint64_t whose = owner(d);
    rewinddir(d);
    if (pool && whose && whose != pool) {
        closedir(d);
        return -1;
    }
    uint64_t epoch, number;
    int others = 0;
    while ((e = readdir(d))) {
        enum entry what = parse(e->d_name, &epoch, &number);
        /* What was put aside stays for a person to look at, until the run ends. */
        if (what && epoch >= first && epoch <= last &&
            (what != ASIDE || last - first == UINT64_MAX))
            fn(dirfd(d), e->d_name);
        else if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
                 !is_base(e->d_name, &whose))
            others++;
    }
    closedir(d);
    return others;
}

void ph_undo_remove(const char *directory, uint64_t pool, uint64_t first, uint64_t last)
{
    char base[PH_UNDO_MAX + 32], going[sizeof base + 1];
    if (each(directory, pool, first, last, remove_one) != 0)
        return;
    if (!pool)
        pool = ph_undo_owner(directory);
    snprintf(base, sizeof base, "%s/%s%016llx", directory, PH_UNDO_BASE,
             (unsigned long long)pool);
    snprintf(going, sizeof going, "%s%c", base, PH_UNDO_GOING);
    rename(base, going);
    /* Something may be made there at any moment; if it has been, it is seen here (U5). */
    if (each(directory, pool, 1, 0, remove_one) != 0) {
        rename(going, base);
        return;
    }
    unlink(going);
    rmdir(directory);
}

void ph_undo_forget(const char *directory, uint64_t pool, uint64_t first, uint64_t last)
{
    each(directory, pool, first, last, forget_one);
}

void ph_undo_clear(const char *path)
{
    char directory[PH_UNDO_MAX];
    ph_undo_directory(path, directory);
    ph_undo_remove(directory, 0, 0, UINT64_MAX);
}

/** @return 0, errno */
static int copy_bytes(int in, int out)
{
    ssize_t n;
    while ((n = copy_file_range(in, NULL, out, NULL, SIZE_MAX >> 1, 0)) > 0)
        ;
    if (n == 0)
        return fdatasync(out) == 0 ? 0 : errno;
    if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
        return errno;
    char buf[65536]; /* between file systems of different kinds */
    while ((n = read(in, buf, sizeof buf)) > 0)
        if (write(out, buf, (size_t)n) != n)
            return errno ? errno : ENOSPC;
    return n == 0 && fdatasync(out) == 0 ? 0 : errno;
}

/** What has been copied and has more names: one file stays one file. */
struct links {
    struct link {
        ino_t ino;
        char *name;
    } * link;
    size_t n;
};

/** @return whether @p name has become one more name of what was copied. */
static bool link_again(const struct links *links, ino_t ino, int to, const char *name)
{
    size_t i = links->n;
    while (i && links->link[i - 1].ino != ino)
        i--;
    return i && linkat(to, links->link[i - 1].name, to, name, 0) == 0;
}

/** If there is no memory for that, it becomes several. */
static void remember(struct links *links, ino_t ino, const char *name)
{
    struct link *more = realloc(links->link, (links->n + 1) * sizeof *more);
    if (!more)
        return;
    links->link = more;
    char *copy = strdup(name);
    if (copy)
        links->link[links->n++] = (struct link){ino, copy};
}

static int copy_one(int from, int to, const char *name, struct links *links)
{
    char text[PH_UNDO_MAX];
    ssize_t n = readlinkat(from, name, text, sizeof text - 1);
    if (n > 0) {
        text[n] = 0;
        return symlinkat(text, to, name) == 0 ? 0 : errno;
    }
    struct stat st;
    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno;
    if (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))
        return mknodat(to, name, st.st_mode, 0) == 0 ? 0 : errno;
    if (st.st_nlink > 1 && link_again(links, st.st_ino, to, name))
        return 0;
    int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (in < 0)
        return errno;
    int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int err = out < 0 ? errno : copy_bytes(in, out);
    if (!err && fchmod(out, st.st_mode & 07777) != 0)
        err = errno;
    if (out >= 0)
        close(out);
    close(in);
    if (!err && st.st_nlink > 1)
        remember(links, st.st_ino, name);
    return err;
}

static int copy_all(DIR *from, const char *directory)
{
    uint64_t epoch, number;
    const struct dirent *e;
    int to = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int err = to < 0 ? errno : 0;
    struct links links = {0};
    while (!err && (e = readdir(from)))
        if (parse(e->d_name, &epoch, &number))
            err = copy_one(dirfd(from), to, e->d_name, &links);
    while (links.n)
        free(links.link[--links.n].name);
    free(links.link);
    if (!err && fsync(to) != 0)
        err = errno;
    if (to >= 0)
        close(to);
    return err;
}

int ph_undo_copy(const char *path, const char *to, char failed[PH_UNDO_MAX])
{
    char from[PH_UNDO_MAX];
    ph_undo_directory(path, from);
    ph_undo_directory(to, failed);
    DIR *d = from[0] ? opendir(from) : NULL;
    if (!d)
        return 0;
    int err = mkdir(failed[0] ? failed : to, 0700) != 0 ? errno : 0;
    if (!err && (err = copy_all(d, failed)) != 0)
        ph_undo_remove(failed, 0, 0, UINT64_MAX);
    closedir(d);
    return err == EEXIST ? PH_EUSAGE : err ? ph_error_of(err) : 0;
}
