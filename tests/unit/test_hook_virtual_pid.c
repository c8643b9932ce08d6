/* SPDX-License-Identifier: MIT */
/* test_hook_virtual_pid.c - who sees the program's first pid, and who sees real ones */
#include "pyhook/agent.h"
#include "pyhook/hook.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST_PID 4194400 /* above the kernel's largest pid, so it is nobody's */

/*
 * The agent of a program that was recovered: its pid is not what it was. Criterion itself goes
 * by getpid, so each test looks first, under recovered(true), and judges afterwards.
 * volatile, as the compiler knows that libc's getpid looks at nothing of this file.
 */
static volatile bool forked = true;

int ph_agent_pid(void)
{
    return FIRST_PID;
}

bool ph_agent_forked(void)
{
    return forked;
}

static void recovered(bool on)
{
    static bool enabled;
    if (!enabled)
        ph_virtual_pid_enable();
    enabled = true;
    forked = !on;
}

static void mark_forked(void)
{
    forked = true;
}

static pid_t real_pid(void)
{
    return (pid_t)syscall(SYS_getpid);
}

static int exit_code_of(pid_t child)
{
    int status = -1;
    pid_t ended = waitpid(child, &status, 0);
    return ended == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Test(virtual_pid, changes_nothing_until_enabled)
{
    forked = false;
    cr_expect_eq(getpid(), real_pid());
    cr_expect_eq(kill(FIRST_PID, 0), -1);
    cr_expect_eq(errno, ESRCH);
    cr_expect_eq(kill(getpid(), 0), 0);
}

static volatile sig_atomic_t signals;

static void count(int sig)
{
    (void)sig;
    signals++;
}

Test(virtual_pid, program_sees_its_first_pid_and_reaches_itself)
{
    signal(SIGUSR1, count);
    recovered(true);
    pid_t seen = getpid();
    int by_first = kill(FIRST_PID, SIGUSR1), by_real = kill(real_pid(), SIGUSR1);
    int raised = raise(SIGUSR1);
    int bad = kill(FIRST_PID, 1000), bad_errno = errno;
    recovered(false);
    cr_expect_eq(seen, FIRST_PID);
    cr_expect(by_first == 0 && by_real == 0 && raised == 0);
    cr_expect_eq(signals, 3);
    cr_expect(bad == -1 && bad_errno == EINVAL);
}

static void *pid_in_thread(void *out)
{
    *(pid_t *)out = getpid();
    return NULL;
}

Test(virtual_pid, threads_of_the_program_see_it_too)
{
    pthread_t thread;
    pid_t seen = 0;
    recovered(true);
    int created = pthread_create(&thread, NULL, pid_in_thread, &seen);
    int joined = pthread_join(thread, NULL);
    recovered(false);
    cr_assert(created == 0 && joined == 0);
    cr_expect_eq(seen, FIRST_PID);
}

static int see_real_pids(void)
{
    return getpid() == real_pid() && kill(getpid(), 0) == 0 && kill(FIRST_PID, 0) == -1;
}

Test(virtual_pid, forked_child_sees_real_pids)
{
    cr_assert_eq(pthread_atfork(NULL, NULL, mark_forked), 0);
    recovered(true);
    pid_t child = fork();
    if (child == 0)
        _exit(see_real_pids());
    int code = exit_code_of(child);
    pid_t seen = getpid();
    recovered(false);
    cr_expect_eq(code, 1);
    cr_expect_eq(seen, FIRST_PID);
}

/* A child of vfork may do less than this in portable programs; it shares all memory. */
Test(virtual_pid, vforked_child_sees_real_pids)
{
    static volatile int real;
    recovered(true);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    pid_t child = vfork();
#pragma GCC diagnostic pop
    if (child == 0) {
        real = see_real_pids();
        _exit(0);
    }
    int code = exit_code_of(child);
    pid_t seen = getpid();
    recovered(false);
    cr_expect_eq(code, 0);
    cr_expect_eq(real, 1);
    cr_expect_eq(seen, FIRST_PID);
}

static int cloned(void *arg)
{
    (void)arg;
    return see_real_pids();
}

Test(virtual_pid, cloned_child_sees_real_pids)
{
    static _Alignas(16) char stack[1 << 16];
    static const int flags[] = {SIGCHLD, SIGCHLD | CLONE_VM, SIGCHLD | CLONE_VM | CLONE_VFORK};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        recovered(true);
        int code = exit_code_of(clone(cloned, stack + sizeof stack, flags[i], NULL));
        recovered(false);
        cr_expect_eq(code, 1, "flags %x", flags[i]);
    }
}
