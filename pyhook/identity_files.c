/* SPDX-License-Identifier: MIT */
/*
 * identity_files.c - what the program reads about itself in /proc: its first numbers
 *
 * A recovered program that opens its own `stat` or `status` for reading gets a copy of what it
 * says at that moment, in memory, with the numbers that the program knows and the moment of its
 * first start, by which a process is told from another of the same number. All else is the
 * kernel's: who keeps such a file open over a recovery, or opened it before, reads real
 * numbers.
 */
#include "identity.h"

#include "agent.h"
#include "allocator/syscall.h"
#include "libc_next.h"
#include "proc_stat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM 8192 /* bytes; more than both files have */

static unsigned long long first_start; /* clock ticks since the boot of then; 0: unknown */

/** @return the length of what @p path says, with a 0 behind it, or -1. */
static ssize_t read_all(const char *path, char *text)
{
    int fd = ph_libc_next()->open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = 0;
    ssize_t n = 0;
    while (length < ROOM - 1 && (n = read(fd, text + length, ROOM - 1 - length)) > 0)
        length += (size_t)n;
    close(fd);
    text[length] = 0;
    return n == 0 ? (ssize_t)length : -1;
}

void ph_identity_files_enable(void)
{
    char text[ROOM];
    const char *start =
        read_all("/proc/self/stat", text) < 0 ? NULL : ph_stat_field(text, PH_STAT_START);
    first_start = start ? strtoull(start, NULL, 10) : 0;
}

static pid_t same(pid_t real)
{
    return real;
}

/** @return the length of @p to, or 0 if @p from is not as expected. */
static size_t show_stat(char *from, char *to)
{
    static pid_t (*const shown[])(pid_t) = {[4] = ph_identity_shown,
                                            [5] = ph_identity_shown_group,
                                            [6] = ph_identity_shown_session,
                                            [7] = same,
                                            [8] = ph_identity_shown_group};
    const char *p = ph_stat_field(from, PH_STAT_STATE);
    if (!p)
        return 0;
    char *name = strchr(from, ' ');
    size_t n = (size_t)snprintf(to, ROOM, "%d%.*s", ph_identity_shown(atoi(from)),
                                (int)(p - name), name);
    for (int field = PH_STAT_STATE; *p && n < ROOM; field++) {
        int length = (int)strcspn(p, " ");
        const char *gap = p[length] ? " " : "";
        if (field >= 4 && field <= 8)
            n += (size_t)snprintf(to + n, ROOM - n, "%d%s", shown[field](atoi(p)), gap);
        else if (field == PH_STAT_START && first_start)
            n += (size_t)snprintf(to + n, ROOM - n, "%llu%s", first_start, gap);
        else
            n += (size_t)snprintf(to + n, ROOM - n, "%.*s%s", length, p, gap);
        p += length + (*gap != 0);
    }
    return n < ROOM ? n : 0;
}

static size_t show_status(char *from, char *to)
{
    static const struct {
        const char *key;
        pid_t (*shown)(pid_t);
    } lines[] = {{"Tgid:\t", ph_identity_shown},         {"Pid:\t", ph_identity_shown},
                 {"PPid:\t", ph_identity_shown},         {"NStgid:\t", ph_identity_shown},
                 {"NSpid:\t", ph_identity_shown},        {"NSpgid:\t", ph_identity_shown_group},
                 {"NSsid:\t", ph_identity_shown_session}};
    size_t n = 0;
    for (char *p = from, *next; *p && n < ROOM; p = next) {
        size_t length = strcspn(p, "\n"), i = 0;
        next = p + length + (p[length] == '\n');
        while (i < sizeof lines / sizeof *lines &&
               strncmp(p, lines[i].key, strlen(lines[i].key)) != 0)
            i++;
        if (i < sizeof lines / sizeof *lines &&
            !memchr(p + strlen(lines[i].key), '\t', length - strlen(lines[i].key)))
            n += (size_t)snprintf(to + n, ROOM - n, "%s%d\n", lines[i].key,
                                  lines[i].shown(atoi(p + strlen(lines[i].key))));
        else
            n += (size_t)snprintf(to + n, ROOM - n, "%.*s", (int)(next - p), p);
    }
    return n < ROOM ? n : 0;
}

int ph_identity_file(const char *path, int flags)
{
    if (!path || strncmp(path, "/proc/", 6) != 0 ||
        (flags & (O_ACCMODE | O_PATH | O_DIRECTORY)) != O_RDONLY)
        return -1;
    const char *tail = strchr(path + 6, '/');
    bool stat = tail && strcmp(tail, "/stat") == 0;
    if (!tail || (!stat && strcmp(tail, "/status") != 0))
        return -1;
    pid_t first = (pid_t)ph_agent_first_pid();
    if (strncmp(path + 6, "self/", 5) != 0 && atoi(path + 6) != first)
        return -1;
    if (!ph_identity_is_program() || ph_identity_real(first) == first)
        return -1;
    char from[ROOM], to[ROOM];
    int error = errno;
    size_t n = 0;
    if (read_all(stat ? "/proc/self/stat" : "/proc/self/status", from) > 0)
        n = stat ? show_stat(from, to) : show_status(from, to);
    int fd = n ? memfd_create(path, flags & O_CLOEXEC ? MFD_CLOEXEC : 0) : -1;
    if (fd >= 0 && (write(fd, to, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) != 0)) {
        close(fd);
        fd = -1;
    }
    errno = error;
    return fd;
}
