/* SPDX-License-Identifier: MIT */
/*
 * files_list.c - which descriptors there are, and what the kernel calls them
 *
 * Listing /proc/self/fd takes 11 us, and 2.6 us for each to see where it leads. Most are those
 * of the epoch before.
 *
 *   D1  As many descriptors as at the epoch before, each of which is still open, are the same
 *       numbers. How many there are is what Linux 6.2 and newer call the directory's size; it
 *       is asked once, as the epoch begins, and until all are listed what is opened is closed.
 *   D2  A number that leads to the same inode as at the epoch before has the name that it
 *       had, if that leads there now, or is made of the inode ("pipe:[...]").
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FEW   64 /* descriptors; of more, all is asked anew */
#define SPARE 4  /* at once: /proc/self/fd, both ends of a pipe, a file */

static struct known {
    int fd, flags;     /* F_GETFD, now; -1: not asked */
    uint64_t dev, ino; /* of what `name` is the name of */
    char name[128];
} known[FEW];
static size_t nknown;  /* 0: not known */
static size_t counted; /* all there are, ours among them; 0: the kernel does not tell */
static int dir = -1;   /* /proc/self/fd, when it is needed */

/** Our own; -1: not open. */
static const int *const own[] = {&ph_agent.socket_fd, &ph_agent.track.uffd,
                                 &ph_agent.track.pagemap, &ph_agent.track.maps};
#define OWN (sizeof own / sizeof own[0])

static bool ours(int fd)
{
    bool is = false;
    for (size_t i = 0; i < OWN; i++)
        is |= fd == *own[i];
    return is;
}

static bool open_dir(void)
{
    if (dir < 0)
        dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir >= 0;
}

/** By having them: 0, or errno. */
static int try_spare(void)
{
    int fd[SPARE], n = 0;
    while (n < SPARE && (fd[n] = fcntl(ph_agent.socket_fd, F_DUPFD_CLOEXEC, 0)) >= 0)
        n++;
    int err = n < SPARE ? errno : 0;
    while (n > 0)
        close(fd[--n]);
    return err;
}

int ph_files_spare(void)
{
    struct stat st;
    struct rlimit limit;
    counted = stat("/proc/self/fd", &st) == 0 ? (size_t)st.st_size : 0;
    if (counted && getrlimit(RLIMIT_NOFILE, &limit) == 0 && counted + SPARE <= limit.rlim_cur)
        return 0;
    int err = try_spare();
    if (err)
        ph_agent_detail("for the epoch itself", NULL, 0);
    return err ? ph_error_of(err) : 0;
}

/** Whether the numbers are those that are known (D1). */
static bool same_numbers(void)
{
    size_t open = 0;
    for (size_t i = 0; i < OWN; i++)
        open += *own[i] >= 0;
    if (!nknown || counted != nknown + open)
        return false;
    for (size_t i = 0; i < nknown; i++)
        if (ours(known[i].fd) || (known[i].flags = fcntl(known[i].fd, F_GETFD)) < 0)
            return false;
    return true;
}

static struct known *known_of(int fd)
{
    for (size_t i = 0; i < nknown; i++)
        if (known[i].fd == fd)
            return &known[i];
    return NULL;
}

/** Keep the names of those in @p list that were known; of the others there are none yet. */
static void remember(const int *list, size_t n)
{
    static struct known fresh[FEW];
    for (size_t i = 0; i < n && n <= FEW; i++) {
        const struct known *k = known_of(list[i]);
        fresh[i] = k ? *k : (struct known){.fd = list[i]};
        fresh[i].flags = -1;
    }
    nknown = n <= FEW ? n : 0;
    memcpy(known, fresh, nknown * sizeof *known);
}

long ph_files_numbers(int *list, size_t max)
{
    const struct ph_dirent *d;
    char buf[8192];
    size_t count = 0;
    if (same_numbers()) {
        for (; count < nknown && count < max; count++)
            list[count] = known[count].fd;
        return (long)count;
    }
    if (!open_dir())
        return -1;
    long n;
    while ((n = syscall(SYS_getdents64, dir, buf, sizeof buf)) > 0)
        for (long at = 0; at < n; at += d->reclen) {
            d = (void *)(buf + at);
            int fd = (int)strtol(d->name, NULL, 10);
            if (d->name[0] != '.' && fd != dir && !ours(fd) && count < max)
                list[count++] = fd;
        }
    remember(list, count);
    return (long)count;
}

uint32_t ph_files_flags(int fd)
{
    const struct known *k = known_of(fd);
    return (uint32_t)(k && k->flags >= 0 ? k->flags : fcntl(fd, F_GETFD));
}

static bool has_name(const struct known *k, const struct stat *st)
{
    struct stat now;
    int how = S_ISLNK(st->st_mode) ? AT_SYMLINK_NOFOLLOW : 0;
    if (k->dev != st->st_dev || k->ino != st->st_ino)
        return false;
    if (*k->name == '/')
        return fstatat(AT_FDCWD, k->name, &now, how) == 0 && now.st_dev == st->st_dev &&
               now.st_ino == st->st_ino;
    return ph_starts_with(k->name, "pipe:[") || ph_starts_with(k->name, "socket:[");
}

size_t ph_files_name(int fd, const struct stat *st, char *name, size_t size)
{
    struct known *k = known_of(fd);
    char number[24];
    if (k && has_name(k, st)) {
        strcpy(name, k->name);
        return strlen(name);
    }
    /* To begin there halves the time to find the name. */
    ssize_t n =
        open_dir() ? readlinkat(dir, ph_format_u64(number, (uint64_t)fd), name, size - 1) : -1;
    name[n > 0 ? n : 0] = 0;
    if (k && (size_t)n < sizeof k->name) {
        k->dev = st->st_dev;
        k->ino = st->st_ino;
        strcpy(k->name, name);
    }
    return n > 0 ? (size_t)n : 0;
}

void ph_files_named(void)
{
    if (dir >= 0)
        close(dir);
    dir = -1;
}
