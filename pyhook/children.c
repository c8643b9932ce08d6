/* SPDX-License-Identifier: MIT */
/* children.c - child processes do not come back; see children.h */
#include "children.h"

#include "allocator/syscall.h"
#include "files.h"
#include "identity.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define MOST 1024

static struct child {
    _Atomic pid_t pid; /* 0: free */
    int status;
    bool ended;
    uint64_t generation;
} child[MOST];
static _Atomic unsigned nchildren;

static bool is_lost(const struct child *c)
{
    return c->generation < PH_CONTROL->generation;
}

/** The status of a child that has ended and was not waited for. */
static bool has_ended(pid_t pid, int *status)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (ph_syscall(SYS_waitid, P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL, 0) !=
            0 ||
        info.si_pid != pid)
        return false;
    *status = info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status & 0x7f;
    return true;
}

static void add(pid_t pid)
{
    unsigned n = nchildren;
    if (n == MOST)
        return;
    struct child *c = &child[n];
    c->generation = PH_CONTROL->generation;
    c->status = SIGKILL;
    c->ended = has_ended(pid, &c->status);
    c->pid = pid;
    nchildren = n + 1;
}

/** Those of one thread (proc_pid_task_children(5)). */
static void add_of(uint32_t thread)
{
    char path[64] = "/proc/self/task/", number[24];
    strcat(strcat(path, ph_format_u64(number, thread)), "/children");
    ph_agent.areas.text.used = 0;
    if (ph_read_file(path, &ph_agent.areas.text) <= 0)
        return;
    char *end;
    for (char *p = (char *)ph_agent.areas.text.base; *p; p = end) {
        long pid = strtol(p, &end, 10);
        if (end == p)
            break;
        add((pid_t)pid);
        end += strspn(end, " ");
    }
}

void ph_children_note(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < nchildren; i++) /* lost ones stay until they are waited for */
        if (child[i].pid && is_lost(&child[i])) {
            child[n].generation = child[i].generation;
            child[n].status = child[i].status;
            child[n].ended = child[i].ended;
            child[n++].pid = child[i].pid;
        }
    nchildren = n;
    siginfo_t info;
    if (ph_syscall(SYS_waitid, P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL, 0) != 0)
        return; /* no children at all */
    const struct ph_thread_pm *t = (const void *)ph_agent.areas.threads.base;
    for (size_t i = 0; i < ph_agent.areas.threads.used / sizeof *t; i++)
        add_of(t[i].tid);
}

bool ph_children_any(void)
{
    for (unsigned i = 0; i < nchildren; i++)
        if (child[i].pid && !is_lost(&child[i]))
            return true;
    return false;
}

void ph_children_name(void)
{
    pid_t tracker;
    if (ph_segments_tracker(&tracker) < 0)
        tracker = 0;
    for (unsigned i = 0; i < nchildren; i++) {
        char path[64] = "/proc/", number[24], what[96];
        struct child *c = &child[i];
        if (!c->pid || c->ended || is_lost(c) || c->pid == tracker)
            continue; /* another one of that will be there */
        strcat(strcat(path, ph_format_u64(number, (uint64_t)c->pid)), "/comm");
        ph_agent.areas.text.used = 0;
        long n = ph_read_file(path, &ph_agent.areas.text);
        char *name = (char *)ph_agent.areas.text.base;
        name[n > 0 ? strcspn(name, "\n") : 0] = 0;
        ph_join(what, sizeof what, "a child process, ", *name ? name : "?", NULL);
        ph_files_cannot(what, ": after a recovery it will have been ended by SIGKILL; start it "
                              "again in a pyheap.on_restore callback");
    }
}

void ph_children_tell(void)
{
    for (unsigned i = 0; i < nchildren; i++)
        if (child[i].pid && is_lost(&child[i])) {
            ph_syscall(SYS_kill, ph_syscall(SYS_getpid), SIGCHLD);
            return;
        }
}

pid_t ph_children_lost(pid_t pid, int *status, bool keep)
{
    if (!nchildren || !ph_identity_is_program())
        return 0;
    for (unsigned i = 0; i < nchildren; i++) {
        pid_t found = child[i].pid;
        if (!found || !is_lost(&child[i]) || (pid != -1 && pid != found))
            continue;
        *status = child[i].status;
        if (keep || atomic_compare_exchange_strong(&child[i].pid, &found, 0))
            return found;
    }
    return 0;
}
