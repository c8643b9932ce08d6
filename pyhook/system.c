/* SPDX-License-Identifier: MIT */
/*
 * system.c - a command of system(3) that an epoch has found running
 *
 * It is a child like others: to a recovered program it has been ended by SIGKILL. libc's own
 * system() waits for it by a call that nobody can stand before, and would find no child; so it
 * is made here of calls that are told of the lost.
 *
 *   S1  While a command runs in any thread, SIGINT and SIGQUIT are ignored; the last one puts
 *       back what there was. The lock covers that alone.
 */
#include "allocator/heap_lock.h"
#include "hook.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

static struct ph_lock lock;
static unsigned running;
static struct sigaction before[2];
static const int ignored[2] = {SIGINT, SIGQUIT};

static void ignore(sigset_t *as_default)
{
    sigemptyset(as_default);
    ph_lock_acquire(&lock);
    for (int i = 0; i < 2; i++) {
        if (running == 0)
            sigaction(ignored[i], &(struct sigaction){.sa_handler = SIG_IGN}, &before[i]);
        if (before[i].sa_handler != SIG_IGN)
            sigaddset(as_default, ignored[i]);
    }
    running++;
    ph_lock_release(&lock);
}

static void ignore_no_more(void)
{
    ph_lock_acquire(&lock);
    running--;
    for (int i = 0; i < 2 && running == 0; i++)
        sigaction(ignored[i], &before[i], NULL);
    ph_lock_release(&lock);
}

static int run(const char *command, const sigset_t *mask, const sigset_t *as_default)
{
    const char *const argv[] = {"sh", "-c", "--", command, NULL};
    posix_spawnattr_t attributes;
    pid_t pid, got;
    int status = -1;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, mask);
    posix_spawnattr_setsigdefault(&attributes, as_default);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    int error = posix_spawn(&pid, "/bin/sh", NULL, &attributes, (char *const *)argv, environ);
    posix_spawnattr_destroy(&attributes);
    if (error) {
        errno = error;
        return 127 << 8; /* as if the shell had ended so (system(3)) */
    }
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -1 : status;
}

__attribute__((visibility("default"))) int system(const char *command)
{
    int cancel;
    sigset_t child, mask, as_default;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    ignore(&as_default);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &child, &mask);
    int status = run(command ? command : "exit 0", &mask, &as_default);
    int saved = errno;
    ignore_no_more();
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    pthread_setcancelstate(cancel, NULL);
    errno = saved;
    return command ? status : status == 0;
}
