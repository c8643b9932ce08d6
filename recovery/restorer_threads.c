/* SPDX-License-Identifier: MIT */
/*
 * restorer_threads.c - the program's threads: made, held until all is right, let go
 *
 * Each has its registers in the signal frame that the epoch left on its stack; it becomes
 * itself by rt_sigreturn from there. No thread of the program runs before every one can.
 */
#include "allocator/syscall.h"
#include "restorer.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define XFEATURE_XTILEDATA 18
#define STACK_SIZE         4096

static const struct ph_record_pm *record;
static _Atomic uint32_t gate, second_gate, ready, ushers;

static void wait_at(_Atomic uint32_t *word)
{
    while (!atomic_load(word))
        ph_syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, 0);
}

static void open_gate(_Atomic uint32_t *word)
{
    atomic_store(word, 1);
    ph_syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

/**
 * The frame says whether the thread had AMX tiles. The kernel grows a thread's state buffer on
 * first use only; restoring tiles into a buffer that has not grown is fatal: use them once.
 */
static void touch_amx(const struct ph_thread_pm *t)
{
    /* Offsets: uc_mcontext.fpregs in the ucontext; xfeatures in the software-reserved bytes of
     * the frame's FXSAVE area (arch/x86/include/uapi/asm/sigcontext.h). */
    uint64_t frame = *(const uint64_t *)(t->context + 0xe0);
    if (!frame || !(record->xcomp_perm & (UINT64_C(1) << XFEATURE_XTILEDATA)))
        return;
    uint64_t features = *(const uint64_t *)(frame + 464 + 8);
    if (!(features & (UINT64_C(1) << XFEATURE_XTILEDATA)))
        return;
    _Alignas(64) uint8_t config[64] = {0};
    config[0] = 1;                                      /* palette */
    config[16] = 64;                                    /* bytes in a row of tile 0 */
    config[48] = 16;                                    /* its rows */
    __asm__ volatile(".byte 0xc4,0xe2,0x78,0x49,0x00\n" /* ldtilecfg (%rax) */
                     ".byte 0xc4,0xe2,0x7b,0x49,0xc0\n" /* tilezero %tmm0 */
                     :
                     : "a"(config)
                     : "memory");
}

/** The signals that a thread of this process blocks, or 0 if that cannot be told. */
static uint64_t blocked(uint64_t tid)
{
    static char text[8192];
    char path[64] = "/proc/self/task/", *p = path + 16, digits[24];
    unsigned n = 0;
    do
        digits[n++] = (char)('0' + tid % 10);
    while (tid /= 10);
    while (n)
        *p++ = digits[--n];
    memcpy(p, "/status", 8);
    long fd = ph_syscall(SYS_open, path, O_RDONLY, 0);
    if (fd < 0)
        return 0;
    long got = ph_syscall(SYS_read, fd, text, sizeof text - 1);
    ph_syscall(SYS_close, fd);
    text[got > 0 ? got : 0] = 0;
    for (const char *s = text; *s; s++)
        if (ph_r_contains(s, s + 8, "SigBlk:\t")) {
            s += 8;
            return ph_r_hex(&s);
        }
    return 0;
}

/**
 * The leader goes first: a signal that is sent to the process, or a timer's, is the leader's
 * unless it blocks it, and shall not go to another thread only because the leader is still
 * here, with everything blocked. One of the others sees to that.
 */
static void after_the_leader(void)
{
    if (atomic_fetch_add(&ushers, 1) == 0) {
        const struct ph_thread_pm *t = ph_r_table(&record->threads);
        uint64_t wanted = 0;
        for (uint64_t i = 0; i < record->threads.count; i++)
            if (t[i].flags & PH_THREAD_LEADER)
                wanted = *(const uint64_t *)(t[i].context + 296); /* uc_sigmask */
        uint64_t all = blocked((uint64_t)ph_syscall(SYS_gettid)), pid;
        pid = (uint64_t)ph_syscall(SYS_getpid);
        /* Not without end: the program may block them all again, for a moment at a time. */
        for (int n = 0; n < 1000 && (wanted & all) != all && blocked(pid) == all; n++)
            ph_syscall(SYS_sched_yield);
        open_gate(&second_gate);
    }
    wait_at(&second_gate);
}

_Noreturn void ph_r_resume(const struct ph_thread_pm *t)
{
    if (t->robust_list)
        ph_syscall(SYS_set_robust_list, t->robust_list, t->robust_length);
    ph_syscall(SYS_prctl, PR_SET_NAME, t->name);
    ph_syscall(SYS_prctl, PR_SET_TIMERSLACK, t->timer_slack);
    if (t->gs)
        ph_syscall(SYS_arch_prctl, ARCH_SET_GS, t->gs);
    if (t->rseq) {
        long r = ph_syscall(SYS_rseq, t->rseq, t->rseq_length, 0, t->rseq_signature);
        if (r < 0)
            ph_r_fail(PH_EKERNEL, "registering rseq", t->rseq, r);
    }
    ph_r_xsave_frame(*(const uint64_t *)(t->context + 0xe0)); /* uc_mcontext.fpregs */
    touch_amx(t);
    /* All or none: no thread runs before every other one can. */
    if (atomic_fetch_add(&ready, 1) + 1 == record->threads.count)
        open_gate(&gate);
    wait_at(&gate);
    if (!(t->flags & PH_THREAD_LEADER))
        after_the_leader();
    __asm__ volatile("mov %0, %%rsp\n"
                     "mov $15, %%eax\n" /* rt_sigreturn */
                     "syscall\n"
                     "hlt\n"
                     :
                     : "r"(t->context)
                     : "memory");
    __builtin_unreachable();
}

static _Atomic uint32_t owners_done;

void ph_r_owners_fixed(void)
{
    open_gate(&owners_done);
}

__attribute__((used)) _Noreturn void ph_r_thread(const struct ph_thread_pm *t);
_Noreturn void ph_r_thread(const struct ph_thread_pm *t)
{
    wait_at(&owners_done);
    ph_r_resume(t);
}

static void start_thread(const struct ph_thread_pm *t, uint64_t stack_end)
{
    uint64_t *sp = (uint64_t *)stack_end;
    *--sp = 0;
    *--sp = (uint64_t)t;
    long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                 CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    long r;
    register long cleared __asm__("r10") = (long)t->cleared_address;
    register long fs __asm__("r8") = (long)t->fs;
    __asm__ volatile("syscall\n"
                     "test %%rax, %%rax\n"
                     "jnz 1f\n"
                     "pop %%rdi\n" /* in the new thread: its entry, from its own stack */
                     "xor %%ebp, %%ebp\n"
                     "movabs $ph_r_thread, %%rax\n"
                     "call *%%rax\n"
                     "hlt\n"
                     "1:\n"
                     : "=a"(r)
                     : "a"(SYS_clone), "D"(flags), "S"(sp), "d"(t->tid_address), "r"(cleared),
                       "r"(fs)
                     : "rcx", "r11", "memory");
    if (r < 0)
        ph_r_fail(PH_ENOMEM, "making a thread", t->context, r);
}

const struct ph_thread_pm *ph_r_threads(const struct ph_record_pm *of)
{
    record = of;
    const struct ph_thread_pm *t = ph_r_table(&record->threads), *leader = t;
    uint64_t stacks = record->threads.count * STACK_SIZE;
    ph_r_map_at(PH_RESTORER_STACKS, stacks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0, "restorer's stacks");
    for (uint64_t i = 0; i < record->threads.count; i++) {
        if (t[i].flags & PH_THREAD_LEADER)
            leader = &t[i];
        else
            start_thread(&t[i], PH_RESTORER_STACKS + (i + 1) * STACK_SIZE);
    }
    long tid = ph_syscall(SYS_set_tid_address, leader->cleared_address);
    *(volatile uint32_t *)leader->tid_address = (uint32_t)tid;
    ph_syscall(SYS_arch_prctl, ARCH_SET_FS, leader->fs);
    return leader;
}

/** Signals that were under way at the epoch. Everyone has everything blocked still. */
void ph_r_send_pending(void)
{
    const struct ph_thread_pm *t = ph_r_table(&record->threads);
    long pid = ph_syscall(SYS_getpid);
    for (uint64_t i = 0; i < record->threads.count; i++)
        for (int sig = 1; sig <= 64; sig++) {
            int timer = sig == 14 ? 0 : sig == 26 ? 1 : sig == 27 ? 2 : -1;
            /* The signal of a timer that runs comes by itself. */
            bool comes = (timer >= 0 &&
                          (record->itimer[timer].value_s | record->itimer[timer].value_us)) ||
                         ph_r_timers_signal(record, sig);
            if ((t[i].pending >> (sig - 1) & 1) && !comes && sig != 33)
                ph_syscall(SYS_tgkill, pid, *(volatile uint32_t *)t[i].tid_address, sig);
        }
}
