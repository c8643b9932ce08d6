/* SPDX-License-Identifier: MIT */
/*
 * terminal.c - a program that goes on in another terminal
 *
 * What the program has set in its terminal (no echo, no lines) it finds set in the one in which
 * it is recovered. Only that: what it has left alone, such as the erase character, stays as the
 * new terminal has it. So the attributes at the start are kept and compared at each epoch. A
 * window of another size is told by SIGWINCH, as when a window changes.
 *
 *  T1  `base` is what the present terminal had before the program touched it; `then` what it
 *      had at the epoch. Without a terminal both stay as they were.
 */
#include "files.h"
#include "hook.h"
#include "proc_stat.h"

#include "allocator/syscall.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NCCS_KERNEL 19

/* The kernel's struct termios on x86-64 (asm-generic/termbits.h); libc's is another one. */
struct attributes {
    uint32_t flag[4]; /* input, output, control, local */
    uint8_t line, cc[NCCS_KERNEL];
};
_Static_assert(sizeof(struct attributes) == 36, "as TCGETS writes it");

static struct {
    bool known;
    struct attributes base, then;
    struct winsize size;
} terminal;

/** The first of the standard streams that is a terminal; -1: none. */
static int find(struct attributes *now)
{
    for (int fd = 0; fd < 3; fd++)
        if (ioctl(fd, TCGETS, now) == 0)
            return fd;
    return -1;
}

void ph_terminal_start(void)
{
    terminal.known = find(&terminal.base) >= 0;
}

void ph_terminal_note(void)
{
    struct attributes now;
    int fd = find(&now);
    if (fd < 0)
        return;
    if (!terminal.known)
        terminal.base = now;
    terminal.known = true;
    terminal.then = now;
    ioctl(fd, TIOCGWINSZ, &terminal.size);
}

/** @p here, with what the program had changed. */
static struct attributes merged(const struct attributes *here)
{
    struct attributes a = *here;
    for (int i = 0; i < 4; i++) {
        uint32_t changed = terminal.base.flag[i] ^ terminal.then.flag[i];
        a.flag[i] = (a.flag[i] & ~changed) | (terminal.then.flag[i] & changed);
    }
    for (int i = 0; i < NCCS_KERNEL; i++)
        if (terminal.base.cc[i] != terminal.then.cc[i])
            a.cc[i] = terminal.then.cc[i];
    return a;
}

/** Only a program in the foreground may set them: the terminal is another one's otherwise. */
static void set(int fd, const struct attributes *a)
{
    int group;
    sigset_t ttou, old;
    if (ioctl(fd, TIOCGPGRP, &group) != 0 || group != ph_syscall(SYS_getpgid, 0))
        return;
    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou, &old);
    ioctl(fd, TCSETS, a);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void ph_terminal_again(void)
{
    struct attributes here;
    int fd = find(&here);
    if (fd < 0 || !terminal.known)
        return;
    struct attributes wanted = merged(&here);
    terminal.base = here;
    terminal.then = wanted;
    if (memcmp(&wanted, &here, sizeof here) != 0)
        set(fd, &wanted);
}

void ph_terminal_let_main_wait(void)
{
    char text[512];
    const struct timespec nap = {0, 1000000};
    if (ph_syscall(SYS_gettid) == ph_syscall(SYS_getpid))
        return;
    for (int i = 0; i < 100; i++) {
        int fd = (int)ph_syscall(SYS_openat, AT_FDCWD, "/proc/self/stat", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
            close(fd);
        text[n > 0 ? n : 0] = 0;
        const char *state = ph_stat_field(text, PH_STAT_STATE);
        if (!state || *state == 'S')
            return;
        nanosleep(&nap, NULL);
    }
}

void ph_terminal_tell_size(void)
{
    struct attributes here;
    struct winsize size;
    int fd = find(&here);
    if (fd < 0 || !terminal.known || ioctl(fd, TIOCGWINSZ, &size) != 0 ||
        memcmp(&size, &terminal.size, sizeof size) == 0)
        return;
    ph_terminal_let_main_wait();
    ph_syscall(SYS_kill, ph_syscall(SYS_getpid), SIGWINCH);
}
