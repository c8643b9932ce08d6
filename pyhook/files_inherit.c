/* SPDX-License-Identifier: MIT */
/*
 * files_inherit.c - descriptors that were there when the program started
 *
 * stdin, stdout and stderr, and whatever else the shell or a batch system passes on. After a
 * recovery they are those that pyheap-recover was given under the same numbers. A descriptor
 * is one of them if it is the same pipe, socket or terminal under whatever number, since
 * programs save and redirect them with dup2; a regular file only under its first number, since
 * the program may well have opened it itself.
 *
 *  I1  origin[i].fd never changes. dev and ino are those of this incarnation.
 *  I2  `at` is set before an epoch's pages are copied, so that a recovered program knows under
 *      which number to find the new one.
 */
#include "files.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct origin {
    int fd, at; /* at: where it is now; -1: nowhere */
    uint64_t dev, ino;
} origin[64];
static unsigned norigins;

static bool is(const struct stat *st, const struct origin *o)
{
    return o->ino && st->st_dev == o->dev && st->st_ino == o->ino;
}

static void note(struct origin *o, int at)
{
    struct stat st;
    bool there = at >= 0 && fstat(at, &st) == 0;
    o->at = there ? at : -1;
    o->dev = there ? st.st_dev : 0;
    o->ino = there ? st.st_ino : 0;
}

void ph_files_inherit(void)
{
    const struct ph_dirent *d;
    char buf[4096];
    for (norigins = 0; norigins < 3; norigins++) {
        origin[norigins].fd = (int)norigins;
        note(&origin[norigins], (int)norigins);
    }
    int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long n;
    while (dir >= 0 && (n = syscall(SYS_getdents64, dir, buf, sizeof buf)) > 0)
        for (long at = 0; at < n; at += d->reclen) {
            d = (void *)(buf + at);
            int fd = (int)strtol(d->name, NULL, 10);
            if (d->name[0] == '.' || fd < 3 || fd == dir || fd == ph_agent.socket_fd ||
                norigins == sizeof origin / sizeof origin[0])
                continue;
            origin[norigins].fd = fd;
            note(&origin[norigins++], fd);
        }
    if (dir >= 0)
        close(dir);
    ph_terminal_start();
}

void ph_files_find_inherited(void)
{
    bool terminal = false; /* one of the standard streams may be one */
    for (struct origin *o = origin; o < origin + norigins; o++) {
        struct stat st;
        bool open = fstat(o->fd, &st) == 0;
        terminal |= open && o->fd < 3 && ph_files_may_be_terminal(&st);
        o->at = open && is(&st, o) ? o->fd : -1;
        for (int fd = 0; o->at < 0 && o->ino && fd < 1024; fd++)
            if (fstat(fd, &st) == 0 && is(&st, o))
                o->at = fd;
    }
    if (terminal)
        ph_terminal_note();
}

void ph_files_inherit_again(void)
{
    for (struct origin *o = origin; o < origin + norigins; o++)
        note(o, o->at);
}

bool ph_files_inherited(struct ph_file_pm *f, bool by_number)
{
    bool unique = S_ISFIFO(f->mode) || S_ISSOCK(f->mode) || (f->flags & PH_FILE_TTY);
    const struct origin *found = NULL;
    for (const struct origin *o = origin; o < origin + norigins; o++) {
        if (!o->ino || f->ino != o->ino || f->dev != o->dev)
            continue;
        if (f->fd == o->fd && (unique || f->fd < 3))
            found = o;
        else if (unique && !found && !by_number)
            found = o;
    }
    if (found)
        f->detail = (uint32_t)found->fd;
    return found;
}
