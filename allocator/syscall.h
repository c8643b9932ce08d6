/* SPDX-License-Identifier: MIT */
/*
 * syscall.h - system calls without libc
 *
 * For the two places where libc must not be touched: a thread parked in the middle of
 * anything, whose errno is part of what is captured, and the restorer, which has no libc.
 * Return value as the kernel gives it: negative errno on failure.
 */
#ifndef PH_SYSCALL_H
#define PH_SYSCALL_H

#include <sys/syscall.h>

static inline long ph_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

#define PH_SYSCALL_(nr, a, b, c, d, e, f, ...)                                                 \
    ph_syscall6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/** ph_syscall(nr, up to six arguments) */
#define ph_syscall(...) PH_SYSCALL_(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

#endif
