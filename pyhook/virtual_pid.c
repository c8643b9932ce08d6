/* SPDX-License-Identifier: MIT */
/*
 * virtual_pid.c - the program keeps its pid through recoveries
 *
 * Programs remember their pid (asyncio keeps it with the running loop, multiprocessing with
 * every object) and take a different one for a fork. So getpid gives the program the pid that
 * it had first, and kill with that pid reaches the program.
 *
 * Whether the caller *is* the program cannot be told from memory alone: a child made by vfork
 * or posix_spawn shares it. The leader's thread id can tell: the kernel's number is written
 * there by libc, corrected by the restorer before any thread goes on, and is the process's
 * pid. So:
 *
 *   V1  the caller is the program if its real pid equals the leader's thread id, and no fork
 *       handler has run (a forked leader has its own id written there);
 *   V2  everyone else, children made by fork, vfork, posix_spawn or clone, sees real pids.
 *
 * V1 misses one case: a child that the leader makes with _Fork, which runs no fork handlers.
 * Where the kernel does not tell where the leader's thread id lies, only fork is recognised.
 * Other calls that take a pid (getpgid, pidfd_open, /proc/<pid>) know real pids only.
 */
#include "hook.h"

#include "agent.h"

#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

static const volatile pid_t *leader_tid;
static bool enabled;

void ph_virtual_pid_enable(void)
{
    pid_t *address = NULL;
    if (prctl(PR_GET_TID_ADDRESS, &address, 0, 0, 0) == 0)
        leader_tid = address;
    enabled = true;
}

static pid_t real_pid(void)
{
    return (pid_t)syscall(SYS_getpid);
}

static bool is_program(pid_t real)
{
    return enabled && !ph_agent_forked() && (!leader_tid || *leader_tid == real);
}

EXPORT pid_t getpid(void)
{
    pid_t real = real_pid();
    return is_program(real) ? (pid_t)ph_agent_pid() : real;
}

EXPORT int kill(pid_t pid, int sig)
{
    if (enabled && pid > 0 && pid == (pid_t)ph_agent_pid()) {
        pid_t real = real_pid();
        if (is_program(real))
            pid = real;
    }
    return (int)syscall(SYS_kill, pid, sig);
}
