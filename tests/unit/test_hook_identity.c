/* SPDX-License-Identifier: MIT */
/* test_hook_identity.c - who sees the program's first numbers, and where they lead */
#include "allocator/syscall.h"
#include "pyhook/signals.h"
#include "pyhook/agent.h"
#include "pyhook/hook.h"
#include "pyhook/children.h"
#include "pyhook/identity.h"
#include "pyhook/undo.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of a recovered program only. */
void ph_signals_directed(void)
{
}

pid_t ph_children_lost(pid_t pid, int *status, bool keep)
{
    (void)pid, (void)status, (void)keep;
    return 0;
}

/* Above the kernel's largest pid, so they are nobody's. */
#define FIRST_PID     4194400
#define FIRST_PARENT  4194401
#define FIRST_GROUP   4194402
#define FIRST_SESSION 4194403

/*
 * The agent of a program that was recovered: its numbers are not what they were. Criterion
 * itself goes by getpid, so each test looks first, under recovered(true), and judges
 * afterwards. volatile, as the compiler knows that libc's getpid looks at nothing of this file.
 */
static volatile bool forked = true, later;

int ph_agent_first_pid(void)
{
    return FIRST_PID;
}

struct ph_undo_open ph_undo_before_open(int dir, const char *path, int flags)
{
    (void)dir, (void)path, (void)flags;
    return (struct ph_undo_open){0};
}

struct ph_undo_open ph_undo_before_stream(const char *path, int flags)
{
    return ph_undo_before_open(0, path, flags);
}

void ph_undo_after_open(struct ph_undo_open o, int fd)
{
    (void)o, (void)fd;
}

bool ph_agent_forked(void)
{
    return forked;
}

void ph_agent_get_outside(struct ph_agent_outside *out)
{
    *out = later ? (struct ph_agent_outside){(int)ph_syscall(SYS_getppid),
                                             (int)ph_syscall(SYS_getpgrp),
                                             (int)ph_syscall(SYS_getsid, 0)}
                 : (struct ph_agent_outside){FIRST_PARENT, FIRST_GROUP, FIRST_SESSION};
}

static void recovered(bool on)
{
    static bool enabled;
    if (!enabled)
        ph_identity_enable();
    enabled = later = true;
    forked = !on;
}

static void mark_forked(void)
{
    forked = true;
    ph_identity_fork_child();
}

static pid_t real_pid(void)
{
    return (pid_t)ph_syscall(SYS_getpid);
}

static int exit_code_of(pid_t child)
{
    int status = -1;
    pid_t ended = waitpid(child, &status, 0);
    return ended == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Test(identity, changes_nothing_until_enabled)
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

Test(identity, program_sees_its_first_pid_and_reaches_itself)
{
    signal(SIGUSR1, count);
    recovered(true);
    pid_t seen = getpid(), by_call = (pid_t)syscall(SYS_getpid);
    int by_first = kill(FIRST_PID, SIGUSR1), by_real = kill(real_pid(), SIGUSR1);
    int raised = raise(SIGUSR1), called = (int)syscall(SYS_kill, FIRST_PID, SIGUSR1);
    int bad = kill(FIRST_PID, 1000), bad_errno = errno;
    int none = (int)syscall(SYS_kill, FIRST_PID + 50, 0), none_errno = errno;
    recovered(false);
    cr_expect(seen == FIRST_PID && by_call == FIRST_PID);
    cr_expect(by_first == 0 && by_real == 0 && raised == 0 && called == 0);
    cr_expect_eq(signals, 4);
    cr_expect(bad == -1 && bad_errno == EINVAL);
    cr_expect(none == -1 && none_errno == ESRCH);
}

/* Criterion's own process leads a group already: these look from a child of it. */
static int look_around(void)
{
    recovered(true);
    return (getppid() == FIRST_PARENT) + 2 * (getpgrp() == FIRST_GROUP) +
           4 * (getsid(0) == FIRST_SESSION) + 8 * (kill(FIRST_PARENT, 0) == 0) +
           16 * (kill(-FIRST_GROUP, 0) == 0) + 32 * (killpg(FIRST_GROUP, 0) == 0) +
           64 * (getpgid(FIRST_PARENT) == FIRST_GROUP);
}

Test(identity, what_is_around_keeps_its_first_numbers)
{
    pid_t child = fork();
    if (child == 0)
        _exit(look_around());
    cr_expect_eq(exit_code_of(child), 127);
}

static int lead_a_group(void)
{
    recovered(true);
    return (setpgid(0, FIRST_PID) == 0) + 2 * (getpgrp() == FIRST_PID) +
           4 * (getpgid(FIRST_PID) == FIRST_PID) + 8 * (kill(-FIRST_PID, 0) == 0);
}

Test(identity, own_group_has_the_pid)
{
    pid_t child = fork();
    if (child == 0)
        _exit(lead_a_group());
    cr_expect_eq(exit_code_of(child), 15);
}

Test(identity, calls_about_processes_take_the_first_pid)
{
    struct sched_param param;
    struct rlimit limit;
    cpu_set_t set;
    recovered(true);
    int affinity = sched_getaffinity(FIRST_PID, sizeof set, &set);
    int again = sched_setaffinity(FIRST_PID, sizeof set, &set);
    int policy = sched_getscheduler(FIRST_PID), params = sched_getparam(FIRST_PID, &param);
    int limits = prlimit(FIRST_PID, RLIMIT_NOFILE, NULL, &limit);
    int nicer = setpriority(PRIO_PROCESS, FIRST_PID, 7),
        value = getpriority(PRIO_PROCESS, FIRST_PID);
    long raw = syscall(SYS_getpriority, PRIO_PROCESS, FIRST_PID);
    recovered(false);
    cr_expect(affinity == 0 && again == 0 && policy == SCHED_OTHER && params == 0 &&
              limits == 0);
    cr_expect(nicer == 0 && value == 7 && raw == 13, "%d %d %ld", nicer, value, raw);
}

/* ---- threads ------------------------------------------------------------------------------
 */

struct seen {
    pid_t pid, first, second, by_call, real;
    int affinity;
};

static void *look_in_thread(void *out)
{
    struct seen *s = out;
    cpu_set_t set;
    s->pid = getpid();
    s->first = gettid();
    s->second = gettid();
    s->by_call = (pid_t)syscall(SYS_gettid);
    s->real = (pid_t)ph_syscall(SYS_gettid);
    s->affinity = sched_getaffinity(s->first, sizeof set, &set);
    return NULL;
}

Test(identity, threads_see_the_pid_and_ids_of_their_own)
{
    pthread_t thread;
    struct seen leader = {0}, other = {0};
    recovered(true);
    look_in_thread(&leader);
    int created = pthread_create(&thread, NULL, look_in_thread, &other);
    int joined = pthread_join(thread, NULL);
    pid_t gone = ph_thread_real(other.first);
    recovered(false);
    cr_assert(created == 0 && joined == 0);
    cr_expect(leader.pid == FIRST_PID && other.pid == FIRST_PID);
    cr_expect(leader.first == FIRST_PID && leader.second == FIRST_PID && leader.affinity == 0);
    cr_expect(leader.by_call == FIRST_PID);
    cr_expect(other.first == other.real && other.second == other.first && other.affinity == 0);
    cr_expect_eq(gone, 0, "an ended thread is still known");
}

static pthread_barrier_t barrier;

/* As in a recovered program: the kernel's id, where libc keeps it, is not what was shown. */
static void *live_on(void *out)
{
    pid_t *ids = out;
    ids[0] = gettid();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    ids[1] = gettid();
    return NULL;
}

Test(identity, a_new_thread_is_not_taken_for_an_old_one)
{
    /* The leader goes by FIRST_PID; a thread that the kernel gives that number cannot be had,
     * so what is tested is that the numbers shown to many threads differ. */
    enum { N = 20 };
    pthread_t thread[N];
    pid_t ids[N][2];
    pthread_barrier_init(&barrier, NULL, N + 1);
    recovered(true);
    for (int i = 0; i < N; i++)
        pthread_create(&thread[i], NULL, live_on, ids[i]);
    pthread_barrier_wait(&barrier);
    int found = 0;
    for (int i = 0; i < N; i++)
        found += ph_thread_real(ids[i][0]) != 0;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < N; i++)
        pthread_join(thread[i], NULL);
    recovered(false);
    cr_expect_eq(found, N);
    for (int i = 0; i < N; i++) {
        cr_expect_eq(ids[i][0], ids[i][1]);
        for (int j = 0; j < i; j++)
            cr_expect_neq(ids[i][0], ids[j][0]);
    }
}

/* ---- children -----------------------------------------------------------------------------
 */

static int sees_real_numbers(void)
{
    return getpid() == real_pid() && gettid() == real_pid() && kill(getpid(), 0) == 0;
}

Test(identity, forked_child_sees_its_own_and_knows_its_parent)
{
    cr_assert_eq(pthread_atfork(ph_identity_fork_prepare, NULL, mark_forked), 0);
    recovered(true);
    gettid();
    pid_t child = fork();
    if (child == 0)
        _exit(sees_real_numbers() + 2 * (kill(FIRST_PID, 0) == 0) +
              4 * (getppid() == FIRST_PID));
    int code = exit_code_of(child);
    pid_t seen = getpid();
    recovered(false);
    cr_expect_eq(code, 7);
    cr_expect_eq(seen, FIRST_PID);
}

/* A child of vfork may do less than this in portable programs; it shares all memory. */
Test(identity, vforked_child_sees_its_own_and_knows_its_parent)
{
    static volatile int real, parent;
    recovered(true);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    pid_t child = vfork();
#pragma GCC diagnostic pop
    if (child == 0) {
        real = sees_real_numbers();
        parent = getppid() == FIRST_PID && kill(FIRST_PID, 0) == 0;
        _exit(0);
    }
    int code = exit_code_of(child);
    pid_t seen = getpid();
    recovered(false);
    cr_expect_eq(code, 0);
    cr_expect(real == 1 && parent == 1);
    cr_expect_eq(seen, FIRST_PID);
}

static int cloned(void *arg)
{
    (void)arg;
    return getpid() == real_pid() && kill(getpid(), 0) == 0 && !ph_identity_is_program();
}

Test(identity, cloned_child_is_not_the_program)
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

/* _Fork runs no handlers, and writes the child's own id where the leader's is. */
Test(identity, child_made_without_handlers_is_not_the_program)
{
    recovered(true);
    pid_t child = _Fork();
    if (child == 0)
        _exit(cloned(NULL));
    int code = exit_code_of(child);
    recovered(false);
    cr_expect_eq(code, 1);
}

/* ---- paths --------------------------------------------------------------------------------
 */

Test(identity, paths_below_proc_lead_to_the_program)
{
    char buf[256], small[8], real[64], task[96];
    recovered(true);
    snprintf(real, sizeof real, "/proc/%d/stat", real_pid());
    snprintf(task, sizeof task, "/proc/%d/task/%d/comm", real_pid(), real_pid());
    gettid();
    bool stat = strcmp(ph_identity_path("/proc/4194400/stat", buf, sizeof buf), real) == 0;
    bool tasks =
        strcmp(ph_identity_path("/proc/4194400/task/4194400/comm", buf, sizeof buf), task) == 0;
    static const char *const same[] = {"/proc/41944001/stat",
                                       "/proc/self/stat",
                                       "/proc/self",
                                       "/proc/4194400x",
                                       "/proc/",
                                       "/tmp/proc/4194400",
                                       ""};
    bool kept = true;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        kept = kept && ph_identity_path(same[i], buf, sizeof buf) == same[i];
    bool cut = strcmp(ph_identity_path("/proc/4194400/stat", small, sizeof small),
                      "/proc/4194400/stat") == 0;
    bool none = ph_identity_path(NULL, buf, sizeof buf) == NULL;
    recovered(false);
    cr_expect(stat && tasks && kept && cut && none, "%d %d %d %d %d", stat, tasks, kept, cut,
              none);
}
