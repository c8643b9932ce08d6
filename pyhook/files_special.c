/* SPDX-License-Identifier: MIT */
/*
 * files_special.c - descriptors that the kernel makes up: pipes, epoll, eventfd, timerfd,
 * signalfd, inotify
 *
 * What they hold is read without taking it out, from fdinfo (proc_pid_fdinfo(5)) or, for pipes,
 * with tee(2).
 */
#include "files.h"
#include "proc_stat.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS UINT64_C(1000000000)

static const char *after(const char *text, const char *key)
{
    const char *p = strstr(text, key);
    return p ? p + strlen(key) : NULL;
}

static uint64_t number_after(const char *text, const char *key, int base)
{
    const char *p = after(text, key);
    return p ? strtoull(p, NULL, base) : 0;
}

/** "it_value: (1, 5)": seconds, nanoseconds. */
static uint64_t time_after(const char *text, const char *key)
{
    const char *p = after(text, key);
    if (!p || !(p = strchr(p, '(')))
        return 0;
    char *end;
    uint64_t seconds = strtoull(p + 1, &end, 10);
    return seconds * NS + (*end == ',' ? strtoull(end + 1, NULL, 10) : 0);
}

static void capture_epoll(struct ph_file_pm *f)
{
    f->kind = PH_FILE_EPOLL;
    const char *p = ph_files_info(f->fd);
    while ((p = after(p, "tfd:"))) {
        struct ph_epoll_pm *e = ph_files_data(f, sizeof *e);
        e->fd = (int32_t)strtol(p, NULL, 10);
        e->events = (uint32_t)number_after(p, "events:", 16);
        e->data = number_after(p, "data:", 16);
    }
}

static void capture_eventfd(struct ph_file_pm *f)
{
    const char *text = ph_files_info(f->fd);
    f->kind = PH_FILE_EVENTFD;
    f->position = number_after(text, "eventfd-count:", 16);
    if (number_after(text, "eventfd-semaphore:", 10))
        f->flags |= PH_FILE_SEMAPHORE;
}

static void capture_timerfd(struct ph_file_pm *f)
{
    struct itimerspec now;
    struct ph_timerfd_pm t;
    int tries = 0;
    /* A periodic timer that has expired shows no remaining time until somebody asks for it:
     * asking makes the kernel count and go on. It may expire again before we have read. */
    do {
        timerfd_gettime(f->fd, &now);
        const char *text = ph_files_info(f->fd);
        t = (struct ph_timerfd_pm){.clock = (int32_t)number_after(text, "clockid:", 10),
                                   .flags = (uint32_t)number_after(text, "settime flags:", 8),
                                   .ticks = number_after(text, "ticks:", 10),
                                   .value_ns = time_after(text, "it_value:"),
                                   .interval_ns = time_after(text, "it_interval:")};
    } while (t.interval_ns && !t.value_ns && tries++ < 100);
    if (t.interval_ns && !t.value_ns)
        t.value_ns = 1;
    /* Relative, or by a clock that starts with the machine: what remains, remains. A moment of
     * the calendar stays that moment. */
    bool calendar = t.clock == CLOCK_REALTIME || t.clock == CLOCK_REALTIME_ALARM;
    if (!calendar)
        t.flags = 0;
    if ((t.flags & TFD_TIMER_ABSTIME) && t.value_ns) {
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        t.value_ns += (uint64_t)ts.tv_sec * NS + (uint64_t)ts.tv_nsec;
    }
    f->kind = PH_FILE_TIMERFD;
    *(struct ph_timerfd_pm *)ph_files_data(f, sizeof t) = t;
}

static void capture_signalfd(struct ph_file_pm *f)
{
    f->kind = PH_FILE_SIGNALFD;
    f->position = number_after(ph_files_info(f->fd), "sigmask:", 16);
}

/**
 * The kernel knows the inodes that are watched and not their names; those we have from the
 * calls that asked for them (watches.c).
 */
static void capture_inotify(struct ph_file_pm *f)
{
    f->kind = PH_FILE_INOTIFY;
    for (const char *p = ph_files_info(f->fd); (p = after(p, "inotify wd:"));) {
        uint64_t wd = strtoull(p, NULL, 16), sdev = number_after(p, "sdev:", 16);
        /* The kernel's own encoding: 20 bits for the minor number. */
        const char *path = ph_watches_path(makedev((unsigned)(sdev >> 20), sdev & 0xfffff),
                                           number_after(p, "ino:", 16));
        if (!path || wd > PH_WATCH_MAX) {
            f->data_size = 0;
            ph_files_dead(f, "inotify, watching something whose path is not known");
            return;
        }
        struct ph_watch_pm *w = ph_files_data(f, sizeof *w);
        w->wd = (int32_t)wd;
        w->mask = (uint32_t)number_after(p, " mask:", 16);
        w->path = ph_record_string(path, strlen(path));
    }
}

/* ---- pipes ---------------------------------------------------------------------------- */

/** Whether no descriptor anywhere has the other end of @p fd open. */
static bool hung_up(int fd)
{
    struct pollfd p = {.fd = fd};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR));
}

/** Whether a FIFO's reader has nobody to read from so far: tee says EAGAIN if there is one. */
static bool awaits_writer(int fd)
{
    int copy[2];
    if (pipe2(copy, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    ssize_t n = tee(fd, copy[1], 1, SPLICE_F_NONBLOCK);
    close(copy[0]);
    close(copy[1]);
    return n == 0;
}

/** What waits in the pipe at this moment (children may be reading, too), copied with tee(2)
 * into one of our own. A read of a packet pipe gives one packet. @return false: no copy as
 * large, or none at all. */
static bool copy_waiting(struct ph_file_pm *f)
{
    int copy[2];
    unsigned char *buf = ph_agent.areas.text.base;
    ssize_t n;
    if (!ph_area_reach(&ph_agent.areas.text, f->detail) ||
        pipe2(copy, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    fcntl(copy[1], F_SETPIPE_SZ, (int)f->detail);
    bool all = fcntl(copy[1], F_GETPIPE_SZ) >= (int)f->detail;
    n = all ? tee(f->fd, copy[1], f->detail, SPLICE_F_NONBLOCK) : 0;
    all &= n >= 0 || errno == EAGAIN; /* all has been read meanwhile */
    if (n > 0)
        while ((n = read(copy[0], buf, f->detail)) > 0) {
            void *chunk = ph_files_chunk(f, 0, (size_t)n);
            if (!chunk)
                break; /* the epoch will be refused */
            memcpy(chunk, buf, (size_t)n);
        }
    close(copy[0]);
    close(copy[1]);
    return all;
}

/** @param name of a FIFO; NULL: it has none. */
static void capture_pipe(struct ph_file_pm *f, const char *name)
{
    int size = fcntl(f->fd, F_GETPIPE_SZ), waiting = 0;
    const struct ph_file_pm *g;
    f->kind = PH_FILE_PIPE;
    f->detail = size > 0 ? (uint32_t)size : 65536;
    if (!name)
        f->path = 0;
    else if (!ph_files_has_name(f, name)) {
        ph_files_dead(f, name);
        return;
    }
    if ((f->open_flags & O_ACCMODE) == O_WRONLY || ioctl(f->fd, FIONREAD, &waiting) != 0 ||
        waiting <= 0)
        return;
    for (size_t place = PH_FILES_FIRST; (g = ph_files_next_of(f->dev, f->ino, &place));)
        if (g->kind == PH_FILE_PIPE && g->data_size)
            return; /* another description of the same pipe: saved with that one */
    if (!copy_waiting(f))
        ph_files_dead(f, "a pipe with more in it than can be copied");
}

void ph_files_capture_special(struct ph_file_pm *f, const char *name)
{
    if (S_ISFIFO(f->mode))
        capture_pipe(f, strncmp(name, "pipe:", 5) == 0 ? NULL : name);
    else if (strcmp(name, "anon_inode:[eventpoll]") == 0)
        capture_epoll(f);
    else if (strcmp(name, "anon_inode:[eventfd]") == 0)
        capture_eventfd(f);
    else if (strcmp(name, "anon_inode:[timerfd]") == 0)
        capture_timerfd(f);
    else if (strcmp(name, "anon_inode:[signalfd]") == 0)
        capture_signalfd(f);
    else if (strcmp(name, "anon_inode:inotify") == 0)
        capture_inotify(f);
    else if (strcmp(name, "anon_inode:[io_uring]") == 0)
        ph_files_dead(f, "an io_uring");
    else
        ph_files_dead(f, name);
}

/* ---- both ends -------------------------------------------------------------------------- */

static bool has_other_end(const struct ph_file_pm *f)
{
    uint32_t mode = f->open_flags & O_ACCMODE;
    const struct ph_file_pm *g;
    if (mode == O_RDWR)
        return true;
    for (size_t place = PH_FILES_FIRST; (g = ph_files_next_of(f->dev, f->ino, &place));)
        if (g->kind == PH_FILE_PIPE && (g->open_flags & O_ACCMODE) != mode)
            return true;
    return false;
}

/** When a process was started, in ticks; 0: it is not there. */
static uint64_t started_at(pid_t pid)
{
    char path[64] = "/proc/", number[24];
    strcat(strcat(path, ph_format_u64(number, (uint64_t)pid)), "/stat");
    ph_agent.areas.text.used = 0;
    if (ph_read_file(path, &ph_agent.areas.text) <= 0)
        return 0;
    const char *start = ph_stat_field((const char *)ph_agent.areas.text.base, PH_STAT_START);
    return start ? strtoull(start, NULL, 10) : 0;
}

/** Python's tracker of segments reads from it: recovery starts another one (segments.c). */
static bool is_trackers(struct ph_file_pm *f)
{
    pid_t pid;
    if (f->path || (f->open_flags & O_ACCMODE) != O_WRONLY ||
        f->fd != ph_segments_tracker(&pid))
        return false;
    f->open_flags = (f->open_flags & ~(uint32_t)O_ACCMODE) | O_RDWR;
    f->flags |= PH_FILE_TRACKER;
    f->position = (uint64_t)pid;
    f->birth_ns = started_at(pid);
    return true;
}

static void match_pipe(struct ph_file_pm *f)
{
    if (has_other_end(f))
        return;
    if (hung_up(f->fd))
        f->flags |= PH_FILE_HUNGUP;
    else if (is_trackers(f))
        return;
    else if (!f->path || !awaits_writer(f->fd))
        ph_files_dead(f, (f->open_flags & O_ACCMODE) == O_RDONLY
                             ? "a pipe that another process writes to"
                             : "a pipe that another process reads from");
}

void ph_files_match_ends(void)
{
    size_t n;
    struct ph_file_pm *f = ph_files_all(&n), *first;
    for (size_t i = 0; i < n; i++)
        if (f[i].kind == PH_FILE_PIPE && f[i].same_as < 0)
            match_pipe(&f[i]);
    ph_files_match_sockets();
    /* What turned out to be dead is so under each of its numbers. */
    for (size_t i = 0; i < n; i++)
        for (size_t place = PH_FILES_FIRST;
             f[i].same_as >= 0 && (first = ph_files_next_of(f[i].dev, f[i].ino, &place));)
            if (first->fd == f[i].same_as) {
                f[i].kind = first->kind;
                f[i].flags = first->flags;
            }
}
