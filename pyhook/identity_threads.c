/* SPDX-License-Identifier: MIT */
/*
 * identity_threads.c - thread ids that outlive the threads' kernel halves
 *
 * A thread that asks for its id is entered here, with the id that it is shown from then on; in
 * a recovered program it has another one for the kernel, which the restorer writes to where
 * libc keeps it.
 *
 *   T1  An entry lies in its thread's own storage and is in the list while that exists: a
 *       destructor of the thread takes it out. Where it cannot be known that one will run, or
 *       where libc keeps the id, the thread is shown its real id.
 *   T2  Shown ids differ from each other. If the kernel gives a new thread one that an older
 *       thread goes by, the new one is shown a number that no kernel gives.
 *   T3  The lock is held with all signals blocked, so that a handler may ask for its id.
 *
 * Threads that have never asked are known by their real ids.
 */
#include "identity.h"

#include "agent.h"
#include "allocator/syscall.h"

#include <asm/prctl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/prctl.h>

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif
#define BEYOND_ALL 4194304 /* PID_MAX_LIMIT, include/linux/threads.h */

static __thread struct entry {
    pid_t shown; /* 0: this thread has not asked */
    const volatile pid_t *real;
    struct entry *next, *prev;
} mine;

static struct entry *head;
static atomic_flag lock = ATOMIC_FLAG_INIT;
static pthread_key_t key;
static enum { UNTRIED, MADE, NONE } key_state;
static pid_t last_beyond = BEYOND_ALL;
static uint32_t id_offset; /* of the id behind a thread's fs; 0: libc does not tell */

void ph_thread_enable(void)
{
    /* What libc says to debuggers: bits, elements, offset in bytes (nptl_db/db_info.c). */
    const uint32_t *field = dlsym(RTLD_DEFAULT, "_thread_db_pthread_tid");
    id_offset = field && field[0] == 32 ? field[2] : 0;
}

const volatile pid_t *ph_thread_id(pid_t real, uint64_t *cleared)
{
    *cleared = 0;
    if (ph_syscall(SYS_prctl, PR_GET_TID_ADDRESS, cleared) != 0 || !*cleared)
        return NULL;
    const volatile pid_t *place = (const volatile pid_t *)(uintptr_t)*cleared;
    if (*place == real)
        return place;
    uint64_t fs = 0;
    if (id_offset == 0 || ph_syscall(SYS_arch_prctl, ARCH_GET_FS, &fs) != 0)
        return NULL;
    place = (const volatile pid_t *)(uintptr_t)(fs + id_offset);
    return *place == real ? place : NULL;
}

static uint64_t enter(void)
{
    uint64_t all = ~UINT64_C(0), old = 0;
    ph_syscall(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, &all, &old, 8);
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
        ph_syscall(SYS_sched_yield);
    return old;
}

static void leave(uint64_t old)
{
    atomic_flag_clear_explicit(&lock, memory_order_release);
    ph_syscall(SYS_rt_sigprocmask, 2, &old, 0, 8);
}

static struct entry *find(pid_t shown)
{
    struct entry *e = head;
    while (e && e->shown != shown)
        e = e->next;
    return e;
}

static void forget(void *entry)
{
    struct entry *e = entry;
    if (!ph_identity_is_program() || !e->real)
        return;
    uint64_t old = enter();
    if (e->prev)
        e->prev->next = e->next;
    else
        head = e->next;
    if (e->next)
        e->next->prev = e->prev;
    e->real = NULL;
    leave(old);
}

pid_t ph_thread_shown(pid_t real)
{
    if (mine.shown)
        return mine.shown;
    uint64_t cleared;
    const volatile pid_t *address = ph_thread_id(real, &cleared);
    if (!address)
        return real;
    bool leader = real == (pid_t)ph_syscall(SYS_getpid);
    uint64_t old = enter();
    if (key_state == UNTRIED)
        key_state = pthread_key_create(&key, forget) == 0 ? MADE : NONE;
    leave(old);
    pid_t shown = leader ? (pid_t)ph_agent_first_pid() : real;
    if (key_state != MADE || pthread_setspecific(key, &mine) != 0)
        return shown;
    old = enter();
    if (!leader)
        while (shown == (pid_t)ph_agent_first_pid() || find(shown))
            shown = ++last_beyond;
    mine = (struct entry){shown, address, head, NULL};
    if (head)
        head->prev = &mine;
    head = &mine;
    leave(old);
    return shown;
}

pid_t ph_thread_real(pid_t shown)
{
    if (!head)
        return 0;
    uint64_t old = enter();
    const struct entry *e = find(shown);
    pid_t real = e ? *e->real : 0;
    leave(old);
    return real;
}

void ph_thread_fork_child(void)
{
    if (key_state == MADE && mine.shown)
        pthread_setspecific(key, NULL);
    mine = (struct entry){0};
    head = NULL;
    atomic_flag_clear(&lock);
}
