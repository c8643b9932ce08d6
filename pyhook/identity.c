/* SPDX-License-Identifier: MIT */
/*
 * identity.c - which numbers the program has, and which it knows
 *
 * Whether the caller *is* the program cannot be told from memory alone: a child made by vfork
 * or posix_spawn shares it, any other child has a copy.
 *
 *   V1  A copy is recognised by a page that the kernel empties in children (MADV_WIPEONFORK),
 *       which no call that makes them can avoid, and by fork's handlers where there are any.
 *   V2  Who shares the memory is recognised by the leader's thread id: the kernel's number is
 *       written there by libc, corrected by the restorer before any thread goes on, and is the
 *       program's pid.
 *   V3  Children see their own real numbers. Those of the program they may have been told, so
 *       its first ones lead to it from them as well. A child made without fork's handlers
 *       (_Fork, clone) knows nothing of them.
 *
 * A number of ours can be that of another process at the same time, since the kernel does not
 * know that it is taken; then it is ours. Processes that do not have this library, such as
 * programs that the program executes, know the real numbers only.
 */
#include "identity.h"

#include "agent.h"
#include "allocator/layout.h"
#include "allocator/syscall.h"
#include "hook.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define INTACT 1u

static const volatile pid_t *leader_tid;
static const volatile uint32_t *guard; /* a page; INTACT where it has not been emptied */
static bool enabled;

/** What is around the program: as it was at the start, and of a forked child's parent. */
static struct ph_agent_outside first;
static struct numbers {
    pid_t program;
    struct ph_agent_outside outside;
} frozen;

static pid_t real_pid(void)
{
    return (pid_t)ph_syscall(SYS_getpid);
}

void ph_identity_enable(void)
{
    uint64_t cleared;
    ph_thread_enable();
    leader_tid = ph_thread_id(real_pid(), &cleared);
    uint32_t *page =
        mmap(NULL, PH_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return;
    madvise(page, PH_PAGE, MADV_WIPEONFORK);
    *page = INTACT;
    guard = page;
    ph_agent_get_outside(&first);
    ph_identity_files_enable();
    enabled = true;
}

bool ph_identity_is_program(void)
{
    if (!enabled || *guard != INTACT || ph_agent_forked())
        return false;
    pid_t leader = leader_tid ? *leader_tid : 0; /* 0: unknown, or the leader has ended */
    return leader == 0 || leader == real_pid();
}

/** The real numbers of the program. @return whether they are known here. */
static bool look(struct numbers *n)
{
    if (!enabled || *guard != INTACT)
        return false;
    if (ph_agent_forked()) {
        *n = frozen;
        return true;
    }
    n->program = leader_tid ? *leader_tid : 0;
    if (n->program == 0)
        n->program = real_pid();
    ph_agent_get_outside(&n->outside);
    return true;
}

pid_t ph_identity_real(pid_t shown)
{
    struct numbers now;
    if (shown <= 0 || !look(&now))
        return shown;
    if (shown == (pid_t)ph_agent_first_pid())
        return now.program;
    if (shown == first.parent)
        return now.outside.parent;
    pid_t thread = ph_agent_forked() ? 0 : ph_thread_real(shown);
    return thread ? thread : shown;
}

pid_t ph_identity_real_group(pid_t shown)
{
    struct numbers now;
    if (shown <= 0 || !look(&now))
        return shown;
    return shown == (pid_t)ph_agent_first_pid() ? now.program
           : shown == first.group               ? now.outside.group
                                                : shown;
}

/** The number shown for @p real, where @p around is shown as @p at_first. */
static pid_t show(pid_t real, pid_t program, pid_t around, pid_t at_first)
{
    return real == program ? (pid_t)ph_agent_first_pid() : real == around ? at_first : real;
}

pid_t ph_identity_shown(pid_t real)
{
    struct numbers now;
    return real > 0 && look(&now) ? show(real, now.program, now.outside.parent, first.parent)
                                  : real;
}

pid_t ph_identity_shown_group(pid_t real)
{
    struct numbers now;
    return real > 0 && look(&now) ? show(real, now.program, now.outside.group, first.group)
                                  : real;
}

pid_t ph_identity_shown_session(pid_t real)
{
    struct numbers now;
    return real > 0 && look(&now) ? show(real, now.program, now.outside.session, first.session)
                                  : real;
}

pid_t ph_identity_real_target(pid_t shown)
{
    return shown < -1 ? -ph_identity_real_group(-shown) : ph_identity_real(shown);
}

pid_t ph_identity_real_child(pid_t shown)
{
    return shown < -1 ? -ph_identity_real_group(-shown) : shown;
}

id_t ph_identity_real_who(int which, id_t who)
{
    return which == PRIO_PROCESS ? (id_t)ph_identity_real((pid_t)who)
           : which == PRIO_PGRP  ? (id_t)ph_identity_real_group((pid_t)who)
                                 : who;
}

void ph_identity_fork_prepare(void)
{
    if (!ph_agent_forked())
        look(&frozen);
}

void ph_identity_fork_child(void)
{
    if (guard)
        *(uint32_t *)(uintptr_t)guard = INTACT; /* this child has been told all it needs */
    ph_thread_fork_child();
}
