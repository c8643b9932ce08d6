/* SPDX-License-Identifier: MIT */
/*
 * clock.c - a monotonic clock that does not go back
 *
 * After a reboot, or on another machine, CLOCK_MONOTONIC starts again. A program that waits for
 * a moment of the old clock would wait for as long as the old machine had been up. A time
 * namespace (time_namespaces(7)) gives the program a clock that goes on from the epoch. It
 * needs CAP_SYS_ADMIN, which an ordinary user has in a user namespace of his own, where the
 * system allows that; in it he is who he was, but other users have no names. Without, he is
 * told.
 */
#include "recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

#define NS INT64_C(1000000000)

/** What this process's namespace adds to the clock already, nanoseconds. */
static int64_t present_offset(void)
{
    char name[32];
    long long seconds, ns, offset = 0;
    FILE *f = fopen("/proc/self/timens_offsets", "re");
    while (f && fscanf(f, "%31s %lld %lld", name, &seconds, &ns) == 3)
        if (strcmp(name, "monotonic") == 0)
            offset = seconds * NS + ns;
    if (f)
        fclose(f);
    return offset;
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    int saved = errno;
    close(fd);
    errno = saved;
    return n == (ssize_t)strlen(text) ? 0 : -1;
}

static int write_offsets(int64_t offset)
{
    /* The nanoseconds are not negative, whatever the seconds are. */
    int64_t seconds = offset / NS - (offset % NS < 0), ns = offset - seconds * NS;
    char text[160];
    snprintf(text, sizeof text, "monotonic %lld %lld\nboottime %lld %lld\n", (long long)seconds,
             (long long)ns, (long long)seconds, (long long)ns);
    return write_file("/proc/self/timens_offsets", text);
}

/** A time namespace for our children, by way of a user namespace if need be. */
static int new_namespace(void)
{
    char uid[64], gid[64];
    if (unshare(CLONE_NEWTIME) == 0)
        return 0;
    snprintf(uid, sizeof uid, "%u %u 1\n", geteuid(), geteuid());
    snprintf(gid, sizeof gid, "%u %u 1\n", getegid(), getegid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWTIME) != 0)
        return -1;
    return write_file("/proc/self/setgroups", "deny") ||
                   write_file("/proc/self/gid_map", gid) ||
                   write_file("/proc/self/uid_map", uid)
               ? -1
               : 0;
}

/**
 * Namespaces must be entered by a process without threads, which the keeper is not. So a helper
 * does it, and makes the child as its own sibling: the keeper stays the parent.
 */
static pid_t fork_with_clock(int64_t offset, int *err)
{
    struct {
        pid_t child;
        int err;
    } *shared = mmap(NULL, PH_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -1;
    pid_t helper = fork();
    if (helper == 0) {
        pid_t child = -1;
        if (new_namespace() == 0 && write_offsets(offset) == 0)
            child = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        if (child == 0)
            return 0;
        shared->child = child;
        shared->err = errno;
        _exit(0);
    }
    pid_t child = -1;
    if (helper > 0) {
        waitpid(helper, NULL, 0);
        child = shared->child;
        *err = shared->err;
    }
    munmap(shared, PH_PAGE);
    return child;
}

pid_t ph_recovery_fork(struct ph_recovery *r)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    int64_t now = ts.tv_sec * NS + ts.tv_nsec, then = (int64_t)r->record->monotonic_ns;
    int err = ENOMEM;
    r->detail[0] = 0;
    if (now >= then)
        return fork();
    pid_t child = fork_with_clock(present_offset() + (then - now), &err);
    if (child >= 0)
        return child;
    snprintf(
        r->detail, sizeof r->detail,
        "the monotonic clock is %lld s behind the epoch's (%s): timeouts that were pending "
        "may take that much longer",
        (long long)((then - now) / NS), strerror(err));
    return fork();
}
