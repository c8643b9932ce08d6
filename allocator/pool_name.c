/* SPDX-License-Identifier: MIT */
/*
 * pool_name.c - how a pool's file gets its name
 *
 * A file is made without a name (O_TMPFILE) and gets one when it is ready, so nobody ever finds
 * half of it, and a process that dies before leaves nothing. Where the file system has no
 * nameless files, a name beside the one wanted stands in, made of the id of whoever makes it:
 * nobody else has such a name, and whoever finds that id's owner dead may remove it.
 *
 * Invariant: the name never stands for another file in between. It is given where there was
 * none, or goes from one whole file to the next by rename(2).
 */
#include "allocator/pool_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* "heat.pm" -> "heat.pm.0123456789abcdef". @return false: too long. */
static bool beside(const char *path, const uint64_t id[2], char name[PATH_MAX])
{
    return snprintf(name, PATH_MAX, "%s.%016llx", path, (unsigned long long)id[0]) < PATH_MAX;
}

/* Where @p path lies, or NULL. To be freed. */
static char *directory_of(const char *path)
{
    char *copy = strdup(path), *name = copy ? strdup(dirname(copy)) : NULL;

    free(copy);
    return name;
}

int ph_name_new_file(const char *path, const uint64_t id[2], int *fd)
{
    char name[PATH_MAX], *directory = directory_of(path);

    if (!directory)
        return PH_ENOMEM;
    *fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    free(directory);
    /* What file systems and kernels say that have no nameless files (open(2)). */
    if (*fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        if (!beside(path, id, name))
            errno = ENAMETOOLONG;
        else
            *fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    if (*fd < 0)
        return ph_pool_open_error(errno);
    if (fchmod(*fd, 0600) == 0) /* whatever the umask */
        return 0;
    ph_name_discard(path, id);
    close(*fd);
    return PH_EIO;
}

void ph_name_discard(const char *path, const uint64_t id[2])
{
    char name[PATH_MAX];

    if (beside(path, id, name))
        unlink(name);
}

/* @return 0, or as ph_pool_open_error; PH_EKERNEL: the call is denied. */
static int link_nameless(int fd, const char *to)
{
    char from[32];

    snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    return errno == EPERM || errno == ENOSYS ? PH_EKERNEL : ph_pool_open_error(errno);
}

bool ph_name_is_of(int fd, const char *path)
{
    struct stat a, b;

    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

bool ph_name_find(int fd, const char *path, char name[PATH_MAX])
{
    char link[32];
    const char *slash = strrchr(path, '/');
    int length = slash ? (int)(slash - path) + 1 : 0;
    bool found = false;

    if (ph_name_is_of(fd, path))
        return false;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, name, PATH_MAX - 1);
    name[n > 0 ? n : 0] = 0;
    if (ph_name_is_of(fd, name))
        return true;
    snprintf(name, PATH_MAX, "%.*s", length ? length : 1, length ? path : ".");
    DIR *d = opendir(name);
    for (const struct dirent *e; d && !found && (e = readdir(d));)
        found = snprintf(name, PATH_MAX, "%.*s%s", length, path, e->d_name) < PATH_MAX &&
                ph_name_is_of(fd, name);
    if (d)
        closedir(d);
    return found;
}

/* Unlike a rename, a hard link never replaces anything; not every file system has them. */
int ph_name_move(const char *from, const char *to)
{
    if (link(from, to) == 0)
        return unlink(from);
    if (errno == EEXIST)
        return -1;
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
}

int ph_name_give(int fd, const char *path, const uint64_t id[2])
{
    char name[PATH_MAX];

    if (!beside(path, id, name))
        return ph_pool_open_error(errno);
    if (!ph_name_is_of(fd, name))
        return link_nameless(fd, path);
    return ph_name_move(name, path) == 0 ? 0 : ph_pool_open_error(errno);
}

int ph_name_pass_on(int old, int fd, const char *path, const uint64_t id[2])
{
    char name[PATH_MAX];

    if (!beside(path, id, name))
        return PH_EIO;
    if (!ph_name_is_of(old, path)) {
        /* Somebody has removed it: then it is as at the start. Else it is another's. */
        int err = ph_name_give(fd, path, id);
        return err == PH_EUNFINISHED ? PH_EBUSY : err;
    }
    int err = ph_name_is_of(fd, name) ? 0 : link_nameless(fd, name);
    if (err)
        return err;
    return rename(name, path) == 0 ? 0 : ph_pool_open_error(errno);
}

int ph_name_sync(const char *path)
{
    char *directory = directory_of(path);
    int fd, err = 0;

    if (!directory)
        return PH_ENOMEM;
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(directory);
    if (fd < 0)
        return 0; /* no right to read it: nothing can be done */
    if (fsync(fd) && errno != EINVAL)
        err = PH_EIO;
    close(fd);
    return err;
}
