/* SPDX-License-Identifier: MIT */
/*
 * identity_syscall.c - syscall(2), through which CPython asks for thread ids
 *
 * Calls that take or give a number of identity.h are translated as by identity_calls.c, those
 * with a time as by clock.c; all others go to the kernel from here exactly as from libc: in
 * assembler, because a call that returns twice on one stack (vfork) must find nothing of ours
 * on it, and because no types are known here.
 */
#include "identity.h"

#include "allocator/syscall.h"
#include "clock.h"
#include "hook.h"
#include "signals.h"

#include <errno.h>
#include <linux/ioprio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif
#define LAST 435

/* Which calls are translated, by number. */
__attribute__((used, visibility("hidden"))) const unsigned char ph_identity_translated[LAST] = {
    [SYS_getpid] = 1,
    [SYS_gettid] = 1,
    [SYS_getppid] = 1,
    [SYS_getpgrp] = 1,
    [SYS_getpgid] = 1,
    [SYS_setpgid] = 1,
    [SYS_getsid] = 1,
    [SYS_setsid] = 1,
    [SYS_kill] = 1,
    [SYS_tkill] = 1,
    [SYS_tgkill] = 1,
    [SYS_rt_sigqueueinfo] = 1,
    [SYS_rt_tgsigqueueinfo] = 1,
    [SYS_wait4] = 1,
    [SYS_waitid] = 1,
    [SYS_sched_getaffinity] = 1,
    [SYS_sched_setaffinity] = 1,
    [SYS_sched_getscheduler] = 1,
    [SYS_sched_setscheduler] = 1,
    [SYS_sched_getparam] = 1,
    [SYS_sched_setparam] = 1,
    [SYS_sched_getattr] = 1,
    [SYS_sched_setattr] = 1,
    [SYS_sched_rr_get_interval] = 1,
    [SYS_getpriority] = 1,
    [SYS_setpriority] = 1,
    [SYS_ioprio_get] = 1,
    [SYS_ioprio_set] = 1,
    [SYS_prlimit64] = 1,
    [SYS_pidfd_open] = 1,
    [SYS_process_vm_readv] = 1,
    [SYS_process_vm_writev] = 1,
    [SYS_kcmp] = 1,
    [SYS_mremap] = 1, /* this and what follows: see moved.c */
    [SYS_munmap] = 1,
    [SYS_mprotect] = 1,
    [SYS_pkey_mprotect] = 1,
    [SYS_perf_event_open] = 1,
    [SYS_move_pages] = 1,
    [SYS_migrate_pages] = 1,
    [SYS_get_robust_list] = 1,
    [SYS_futex] = 1,
    [SYS_clock_gettime] = 1,
    [SYS_getrusage] = 1,
    [SYS_times] = 1,
    [SYS_clock_nanosleep] = 1,
    [SYS_timerfd_settime] = 1,
    [SYS_io_uring_setup] = 1,
};

__asm__(".text\n"
        ".globl syscall\n"
        ".type syscall, @function\n"
        "syscall:\n"
        "  .cfi_startproc\n"
        "  endbr64\n"
        "  cmp $435, %rdi\n"
        "  jae 1f\n"
        "  lea ph_identity_translated(%rip), %rax\n"
        "  cmpb $0, (%rax,%rdi)\n"
        "  jne ph_identity_syscall\n" /* with the same arguments in the same places */
        ".globl ph_kernel_call\n"
        ".hidden ph_kernel_call\n"
        "ph_kernel_call:\n" /* what the library itself calls as syscall: see CMakeLists.txt */
        "1:\n"
        "  mov %rdi, -8(%rsp)\n" /* for signals.c, which finds it there if it interrupts */
        "  mov %rdi, %rax\n"
        "  mov %rsi, %rdi\n"
        "  mov %rdx, %rsi\n"
        "  mov %rcx, %rdx\n"
        "  mov %r8, %r10\n"
        "  mov %r9, %r8\n"
        "  mov 8(%rsp), %r9\n"
        "  syscall\n"
        ".globl ph_kernel_call_return\n"
        ".hidden ph_kernel_call_return\n"
        "ph_kernel_call_return:\n"
        "  cmp $-4095, %rax\n"
        "  jb 2f\n"
        "  mov %rax, %rdi\n"
        "  jmp ph_identity_failed\n"
        "2:\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".size syscall, .-syscall\n");

__attribute__((used, visibility("hidden"))) long ph_identity_failed(long r);
long ph_identity_failed(long r)
{
    errno = (int)-r;
    return -1;
}

static long real_io_who(long which, long who)
{
    return which == IOPRIO_WHO_PROCESS ? ph_identity_real((pid_t)who)
           : which == IOPRIO_WHO_PGRP  ? ph_identity_real_group((pid_t)who)
                                       : who;
}

__attribute__((used, visibility("hidden"))) long
ph_identity_syscall(long nr, long a, long b, long c, long d, long e, long f);
long ph_identity_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
    switch (nr) {
    case SYS_futex:
    case SYS_clock_gettime:
    case SYS_getrusage:
    case SYS_times:
    case SYS_clock_nanosleep:
    case SYS_timerfd_settime:
        return ph_clock_syscall(nr, a, b, c, d, e, f);
    case SYS_io_uring_setup:
        if (ph_ring_refused(__builtin_return_address(0)))
            return ph_identity_failed(-ENOSYS);
        break;
    case SYS_mremap:
        return (long)mremap((void *)a, (size_t)b, (size_t)c, (int)d, (void *)e);
    case SYS_munmap:
        return munmap((void *)a, (size_t)b);
    case SYS_mprotect:
        return mprotect((void *)a, (size_t)b, (int)c);
    case SYS_pkey_mprotect:
        return pkey_mprotect((void *)a, (size_t)b, (int)c, (int)d);
    case SYS_getpid:
        return getpid();
    case SYS_gettid:
        return gettid();
    case SYS_getppid:
        return getppid();
    case SYS_getpgrp:
        return getpgrp();
    case SYS_getpgid:
        return getpgid((pid_t)a);
    case SYS_setpgid:
        return setpgid((pid_t)a, (pid_t)b);
    case SYS_getsid:
        return getsid((pid_t)a);
    case SYS_setsid:
        return setsid();
    case SYS_kill:
        a = ph_identity_real_target((pid_t)a);
        break;
    case SYS_wait4:
        a = ph_identity_real_child((pid_t)a);
        break;
    case SYS_waitid:
        b = a == P_PGID ? ph_identity_real_group((pid_t)b) : b;
        break;
    case SYS_tgkill:
    case SYS_rt_tgsigqueueinfo:
    case SYS_kcmp:
        a = ph_identity_real((pid_t)a);
        b = ph_identity_real((pid_t)b);
        break;
    case SYS_getpriority:
    case SYS_setpriority:
        b = ph_identity_real_who((int)a, (id_t)b);
        break;
    case SYS_ioprio_get:
    case SYS_ioprio_set:
        b = real_io_who(a, b);
        break;
    case SYS_perf_event_open:
        b = ph_identity_real((pid_t)b);
        break;
    default:
        a = ph_identity_real((pid_t)a);
    }
    bool directed = nr == SYS_tgkill || nr == SYS_rt_tgsigqueueinfo;
    if (directed)
        ph_signals_directed();
    long r = ph_syscall(nr, a, b, c, d, e, f);
    if (directed)
        ph_signals_directed();
    return r < 0 && r >= -4095 ? ph_identity_failed(r) : r;
}
