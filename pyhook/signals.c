/* SPDX-License-Identifier: MIT */
/*
 * signals.c - a program cannot tell from its system calls that an epoch was taken
 *
 * A thread that is parked in a system call has that call interrupted. The parking signal has
 * SA_RESTART, so for calls that restart the frame says already: enter it again. Those that
 * never restart (signal(7)) have ended with EINTR in the frame and are set back here.
 *
 * But a signal for the program that waited while the thread was parked is delivered on the way
 * back, between the frame and the call, and a call that it should have ended would be entered
 * after its handler. So the program's handlers run behind one of ours, which ends such a call
 * as the kernel would have. Both halves tell each other by a mark in the frame's r11, which
 * the instruction `syscall` overwrites: it means nothing to the program and lasts no longer
 * than needed.
 *
 *   S1  Mark RESTARTS or NEVER: rip is at a `syscall` that the parking signal interrupted; of
 *       which kind it is. A signal that finds it has come during the call.
 *   S2  Mark ENDED: a signal of the program came as the call ended, with EINTR or a part of
 *       what was to be written. The parking signal must not set it back. Only handlers set
 *       through libc leave this mark.
 *   S3  In ph_signals_leave the stack pointer is the parked frame: a signal that comes there
 *       finds by it what it interrupts. rbx has the address of the word to be set.
 *   S4  A signal that is sent to the process goes to the main thread, as without epochs,
 *       unless that blocks it: see also P4 in park.c.
 *   S5  A handler of the program sees in its context what it would without epochs.
 *   S6  A signal for which the keeper takes an epoch, sent to the program by others, is the
 *       keeper's: timeout(1), systemd and batch systems send theirs to all processes of a job,
 *       and a program that it ends, or that begins to end, is in no state to be saved. For that
 *       the default action stands behind our handler, too. What the program sends to itself
 *       and what the keeper sends is delivered.
 *
 * A call with a relative timeout cannot be set back, since what has passed of it is known to
 * the kernel alone: it ends with EINTR, as after a signal.
 */
#include "signals.h"

#include "agent_internal.h"
#include "allocator/syscall.h"
#include "calls.h"
#include "libc_next.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
#define NSIG_  64
#define PAGE   4096

enum mark { /* no value of the flags register, which r11 has after any call */
            RESTARTS = 0x7079686561700001,
            NEVER = 0x7079686561700002,
            ENDED = 0x7079686561700003,
};

/* ---- frames --------------------------------------------------------------------------- */

static bool marks; /* `syscall` overwrites rcx and r11 (not so with FRED) */

extern const char ph_kernel_call_return[] __attribute__((visibility("hidden")));
extern const char ph_signals_leaving[] __attribute__((visibility("hidden")));
extern const char ph_signals_left[] __attribute__((visibility("hidden")));

/* uc_sigmask is at 296 in the kernel's struct ucontext, as in glibc's. */
_Static_assert(offsetof(ucontext_t, uc_sigmask) == 296, "the mask's place in a frame");
__asm__(".text\n"
        ".globl ph_signals_leave, ph_signals_leaving, ph_signals_left\n"
        ".hidden ph_signals_leave, ph_signals_leaving, ph_signals_left\n"
        "ph_signals_leave:\n"
        "  mov %rdi, %rsp\n"
        "ph_signals_leaving:\n"
        "  mov %rsi, %rbx\n"
        "  mov $14, %eax\n" /* rt_sigprocmask */
        "  mov $2, %edi\n"  /* SIG_SETMASK */
        "  lea 296(%rsp), %rsi\n"
        "  xor %edx, %edx\n"
        "  mov $8, %r10d\n"
        "  syscall\n"
        "  movl $1, (%rbx)\n"
        "  mov $15, %eax\n" /* rt_sigreturn */
        "  syscall\n"
        "ph_signals_left:\n"
        "  hlt\n");

/*
 * The rest of a write to a pipe of which a part had been written when it was interrupted. rsp
 * is at a struct rest, rsi and rdx are what is left. Kept in order, see end_call.
 */
struct rest {
    int64_t stop, done, rip, rsi, rdx, rsp;
};
extern const char ph_signals_rest[], ph_signals_rest_returned[], ph_signals_rest_added[],
    ph_signals_rest_finish[], ph_signals_rest_end[];
__asm__(".text\n"
        ".hidden ph_signals_rest, ph_signals_rest_returned, ph_signals_rest_added\n"
        ".hidden ph_signals_rest_finish, ph_signals_rest_end\n"
        ".globl ph_signals_rest, ph_signals_rest_returned, ph_signals_rest_added\n"
        ".globl ph_signals_rest_finish, ph_signals_rest_end\n"
        "ph_signals_rest:\n"
        "  mov $1, %eax\n" /* write */
        "  syscall\n"
        "ph_signals_rest_returned:\n"
        "  test %rax, %rax\n"
        "  jle ph_signals_rest_finish\n"
        "  add %rax, 8(%rsp)\n"
        "ph_signals_rest_added:\n"
        "  add %rax, %rsi\n"
        "  sub %rax, %rdx\n"
        "  jz ph_signals_rest_finish\n"
        "  cmpl $0, (%rsp)\n"
        "  je ph_signals_rest\n"
        "ph_signals_rest_finish:\n"
        "  movabs $0x7079686561700003, %r11\n" /* ENDED */
        "  mov 8(%rsp), %rax\n"
        "  mov 16(%rsp), %rcx\n"
        "  mov 24(%rsp), %rsi\n"
        "  mov 32(%rsp), %rdx\n"
        "  mov 40(%rsp), %rsp\n"
        "  jmp *%rcx\n"
        "ph_signals_rest_end:\n");

static bool is_syscall(uint64_t at)
{
    const unsigned char *p = (const unsigned char *)at;
    return p[0] == 0x0f && p[1] == 0x05;
}

/** The frame is that of a call that has just returned, or been set back by the kernel. */
static bool after_call(const greg_t *r)
{
    return r[REG_RCX] == r[REG_RIP] && is_syscall((uint64_t)r[REG_RIP] - 2);
}

static bool at_call(const greg_t *r)
{
    return r[REG_RCX] == r[REG_RIP] + 2 && is_syscall((uint64_t)r[REG_RIP]);
}

/** Where libc's code is. */
static struct {
    uint64_t start, end;
} code;

static int find_code(struct dl_phdr_info *info, size_t size, void *inside)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uint64_t start = info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_LOAD && p->p_flags & PF_X &&
            (uint64_t)inside - start < p->p_memsz) {
            code.start = start;
            code.end = start + p->p_memsz;
            return 1;
        }
    }
    return 0;
}

/** Whether @p at is behind a call in libc of one of its functions, that at *callee. */
static bool returns_from(uint64_t at, uint64_t *callee)
{
    int32_t distance;
    if (at < code.start + 5 || at >= code.end || *(const unsigned char *)(at - 5) != 0xe8)
        return false;
    memcpy(&distance, (const void *)(at - 4), sizeof distance);
    *callee = at + (uint64_t)(int64_t)distance;
    return true;
}

/**
 * The number of a call that a function of libc has made for all that threads can be cancelled
 * in, as glibc has it since 2.41: it is that function's seventh argument, which is on the stack
 * behind the return address. It makes the call itself, or by another function, which has the
 * number in a register.
 */
static long number_on_stack(const greg_t *r)
{
    const uint64_t *sp = (const uint64_t *)r[REG_RSP];
    uint64_t inside = (uint64_t)r[REG_RIP], function;
    int i = 0;
    if (inside < code.start || inside >= code.end)
        return -1;
    if (returns_from(sp[0], &function) && inside - function < 128)
        inside = sp[i++];
    for (int end = i + 12; i < end; i++)
        if (returns_from(sp[i], &function) && inside - function < 1024)
            return sp[i + 1] < 512 ? (long)sp[i + 1] : -1;
    return -1;
}

/**
 * The number of a call that has returned. It is not in the frame any more: it is what the code
 * before the call put into eax, or on the stack.
 */
static long number_of_call(const greg_t *r)
{
    if (r[REG_RIP] == (greg_t)ph_kernel_call_return)
        return *(const long *)(r[REG_RSP] - 8); /* see identity_syscall.c */
    uint64_t call = (uint64_t)r[REG_RIP] - 2;
    uint64_t least =
        call - 32 > (call & ~(uint64_t)(PAGE - 1)) ? call - 32 : call & ~(uint64_t)(PAGE - 1);
    for (uint64_t at = call - 5; at > least; at--) {
        const unsigned char *p = (const unsigned char *)at;
        uint32_t number;
        memcpy(&number, p + 1, sizeof number);
        if (p[0] == 0xb8 && (p[-1] & 0xf0) != 0x40 && number < 512) /* mov $number, %eax */
            return number;
    }
    return number_on_stack(r);
}

void ph_signals_init(void)
{
    long r = SYS_getpid, r11;
    __asm__ volatile("mov $-1, %%r11\n"
                     "syscall\n"
                     "mov %%r11, %1\n"
                     : "+a"(r), "=r"(r11)
                     :
                     : "rcx", "r11", "memory");
    marks = r11 != -1;
    dl_iterate_phdr(find_code, (void *)ph_libc_next()->unlinkat);
}

/** Calls that the kernel ends with EINTR whatever the action says, if they can be made again
 *  with the same arguments. */
static bool can_be_set_back(long number, const greg_t *r)
{
    switch (number) {
    case SYS_pause:
    case SYS_rt_sigsuspend:
    case SYS_select: /* these three have written back what is left of their timeout */
    case SYS_pselect6:
    case SYS_ppoll:
    case SYS_msgsnd:
    case SYS_msgrcv:
    case SYS_semop:
        return true;
    case SYS_poll:
        return (int)r[REG_RDX] < 0;
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
        return (int)r[REG_R10] < 0;
    case SYS_rt_sigtimedwait:
        return r[REG_RDX] == 0;
    case SYS_semtimedop:
    case SYS_epoll_pwait2:
        return r[REG_R10] == 0;
    case SYS_futex: /* with a moment, not a duration */
        return (r[REG_RSI] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
    case SYS_nanosleep: /* what is left has been written to the second */
        return r[REG_RDI] == r[REG_RSI];
    case SYS_clock_nanosleep:
        return (r[REG_RSI] & TIMER_ABSTIME) || r[REG_RDX] == r[REG_R10];
    default:
        return false;
    }
}

/** Calls that a handler without SA_RESTART ends. Others are entered again in any case. */
static bool can_end(long number, const greg_t *r)
{
    switch (number) {
    case SYS_read:
    case SYS_write:
    case SYS_readv:
    case SYS_writev:
    case SYS_pread64:
    case SYS_pwrite64:
    case SYS_preadv:
    case SYS_pwritev:
    case SYS_preadv2:
    case SYS_pwritev2:
    case SYS_sendfile:
    case SYS_splice:
    case SYS_tee:
    case SYS_vmsplice:
    case SYS_ioctl:
    case SYS_open:
    case SYS_openat:
    case SYS_flock:
    case SYS_fcntl:
    case SYS_connect:
    case SYS_accept:
    case SYS_accept4:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
    case SYS_wait4:
    case SYS_waitid:
    case SYS_getrandom:
    case SYS_mq_timedsend:
    case SYS_mq_timedreceive:
        return true;
    case SYS_futex:
        return (r[REG_RSI] & FUTEX_CMD_MASK) == FUTEX_WAIT ||
               (r[REG_RSI] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
    default:
        return false;
    }
}

/** Of a blocking write to a pipe, which ends short only if it is interrupted. */
static bool wrote_a_part(const greg_t *r)
{
    struct stat st;
    return r[REG_RAX] > 0 && r[REG_RAX] < r[REG_RDX] && after_call(r) &&
           r[REG_RIP] != (greg_t)ph_signals_rest_returned && number_of_call(r) == SYS_write &&
           ph_syscall(SYS_fstat, r[REG_RDI], &st) == 0 && S_ISFIFO(st.st_mode) &&
           !(ph_syscall(SYS_fcntl, r[REG_RDI], F_GETFL) & O_NONBLOCK);
}

void ph_signals_set_back(ucontext_t *frame, siginfo_t *info)
{
    greg_t *r = frame->uc_mcontext.gregs;
    if (!marks || r[REG_R11] != r[REG_EFL])
        return; /* not in a call, or marked already */
    if (wrote_a_part(r)) {
        /* The kernel's place for info is above the frame: with rsp there it stays. */
        struct rest *rest = (struct rest *)info;
        *rest = (struct rest){.done = r[REG_RAX],
                              .rip = r[REG_RIP],
                              .rsi = r[REG_RSI],
                              .rdx = r[REG_RDX],
                              .rsp = r[REG_RSP]};
        r[REG_RSI] += r[REG_RAX];
        r[REG_RDX] -= r[REG_RAX];
        r[REG_RSP] = (greg_t)rest;
        r[REG_RIP] = (greg_t)ph_signals_rest;
        return;
    }
    if (r[REG_RAX] == -EINTR && after_call(r)) {
        long number = number_of_call(r);
        if (!can_be_set_back(number, r))
            return;
        r[REG_RAX] = number;
        r[REG_RIP] -= 2;
        r[REG_R11] = NEVER;
    } else if (at_call(r) && can_end(r[REG_RAX], r))
        r[REG_R11] = RESTARTS;
}

static bool is_marked(const ucontext_t *frame)
{
    const greg_t *r = frame->uc_mcontext.gregs;
    return (r[REG_R11] == NEVER || r[REG_R11] == RESTARTS) && at_call(r);
}

/** A signal of the program has come: treat the call that it interrupts as the kernel does. */
static void end_call(ucontext_t *frame, bool restart)
{
    greg_t *r = frame->uc_mcontext.gregs;
    uint64_t rip = (uint64_t)r[REG_RIP];
    if (rip >= (uint64_t)ph_signals_rest && rip < (uint64_t)ph_signals_rest_end) {
        /* A part has been written: the call ends with that, whatever the action says. */
        if (rip < (uint64_t)ph_signals_rest_returned ||
            (rip >= (uint64_t)ph_signals_rest_added && rip < (uint64_t)ph_signals_rest_finish))
            r[REG_RIP] = (greg_t)ph_signals_rest_finish;
        else if (rip < (uint64_t)ph_signals_rest_added)
            ((struct rest *)r[REG_RSP])->stop = 1;
    } else if (is_marked(frame) && (r[REG_R11] == NEVER || !restart)) {
        r[REG_RIP] += 2;
        r[REG_RAX] = -EINTR;
        r[REG_R11] = ENDED;
    } else if (r[REG_R11] == r[REG_EFL] && after_call(r))
        r[REG_R11] = ENDED;
}

/* ---- the program's handlers -------------------------------------------------------------- */

/* Handler and flags in one word: an address has 47 bits. */
#define HAS_INFO    (UINT64_C(1) << 62)
#define HAS_RESTART (UINT64_C(1) << 61)
#define ONCE        (UINT64_C(1) << 60) /* the kernel has forgotten the handler by then */
#define ADDRESS     ((UINT64_C(1) << 48) - 1)
static _Atomic uint64_t handlers[NSIG_ + 1];

/** What a signal interrupts that has come in @p frame: there, or where the thread is leaving
 * to. */
static ucontext_t *interrupted(ucontext_t *frame)
{
    for (;;) {
        const greg_t *r = frame->uc_mcontext.gregs;
        uint64_t rip = (uint64_t)r[REG_RIP];
        if (rip < (uint64_t)ph_signals_leaving || rip >= (uint64_t)ph_signals_left)
            return frame;
        atomic_store((_Atomic uint32_t *)r[REG_RBX], 1); /* it may never return there */
        frame = (ucontext_t *)r[REG_RSP];
    }
}

/* A signal on its way from a thread that has taken it to the one that it is for. */
enum { FREE, BUSY, FULL };
static struct {
    _Atomic int state;
    siginfo_t info;
} passed_on[NSIG_ + 1];

/** Whether the main thread blocks a signal; asked in a handler, so without libc. */
static bool main_blocks(pid_t pid, int sig)
{
    char text[4096], path[48], number[24];
    ph_join(path, sizeof path, "/proc/self/task/", ph_format_u64(number, (uint64_t)pid),
            "/status", NULL);
    int fd = (int)ph_syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    long n = ph_syscall(SYS_read, fd, text, sizeof text - 1);
    ph_syscall(SYS_close, fd);
    text[n > 0 ? n : 0] = 0;
    const char *mask = strstr(text, "SigBlk:");
    return !mask || (strtoull(mask + 7, NULL, 16) >> (sig - 1) & 1);
}

/**
 * A signal that is sent to the process is the main thread's unless that blocks it, but the
 * kernel only wakes that thread, and whoever comes out of the kernel with signals to be looked
 * at before that has run takes it. Threads that leave do: they send it to whom it is for.
 */
static bool pass_on(int sig, const siginfo_t *info)
{
    int none = FREE;
    pid_t pid = (pid_t)ph_syscall(SYS_getpid);
    /* A negative code: perhaps sent to this very thread. */
    if (info->si_code < 0 || !ph_agent_active() || ph_syscall(SYS_gettid) == pid ||
        main_blocks(pid, sig) ||
        !atomic_compare_exchange_strong(&passed_on[sig].state, &none, BUSY))
        return false;
    ph_signals_directed();
    passed_on[sig].info = *info;
    atomic_store(&passed_on[sig].state, FULL);
    pid = (pid_t)ph_syscall(SYS_getpid); /* another one if an epoch was recovered meanwhile */
    if (ph_syscall(SYS_tgkill, pid, pid, sig) == 0)
        return true;
    atomic_store(&passed_on[sig].state, FREE);
    return false;
}

static _Atomic bool directed;

void ph_signals_directed(void)
{
    directed = true;
}

bool ph_signals_were_directed(void)
{
    return atomic_exchange(&directed, false);
}

/** Whether it is one that another thread has passed on; then *info becomes what it was. */
static bool was_passed_on(int sig, siginfo_t *info)
{
    if (atomic_load(&passed_on[sig].state) != FULL || info->si_code != SI_TKILL ||
        info->si_pid != (pid_t)ph_syscall(SYS_getpid))
        return false;
    *info = passed_on[sig].info;
    atomic_store(&passed_on[sig].state, FREE);
    return true;
}

/* Copied, since the control page is not there in children. */
static struct {
    uint64_t signals; /* bit N-1 for signal N */
    pid_t keeper;
} withheld;

uint64_t ph_signals_withheld(void)
{
    return withheld.signals;
}

static bool is_withheld(int sig)
{
    return sig >= 1 && sig <= NSIG_ && (withheld.signals >> (sig - 1) & 1);
}

/** Whether the signal is the keeper's, and the keeper is there to take it (S6). */
static bool is_keepers(int sig, const siginfo_t *info)
{
    if (!is_withheld(sig) || !ph_agent_active() ||
        (pid_t)ph_syscall(SYS_getppid) != withheld.keeper)
        return false;
    switch (info->si_code) {
    case SI_USER:
    case SI_TKILL:
    case SI_QUEUE:
        return info->si_pid != withheld.keeper && info->si_pid != (pid_t)ph_syscall(SYS_getpid);
    case SI_KERNEL: /* a terminal's */
        return sig == SIGINT || sig == SIGQUIT || sig == SIGHUP;
    default:
        return false;
    }
}

static int set_action(int sig, const struct sigaction *act, struct sigaction *old)
{
    if (act)
        ph_calls_begin(PH_CALLS_SIGNALS);
    int rc = ph_libc_next()->sigaction(sig, act, old);
    if (act)
        ph_calls_end(PH_CALLS_SIGNALS);
    return rc;
}

/** When the handler has returned, the kernel does what it does without one. */
static void act_by_default(int sig)
{
    struct sigaction none = {.sa_handler = SIG_DFL};
    set_action(sig, &none, NULL);
    ph_syscall(SYS_tgkill, ph_syscall(SYS_getpid), ph_syscall(SYS_gettid), sig);
}

static void deliver(int sig, siginfo_t *info, void *context)
{
    if (is_keepers(sig, info)) {
        ph_syscall(SYS_kill, withheld.keeper, sig); /* it may be the program's alone */
        return;
    }
    uint64_t handler = atomic_load(&handlers[sig]);
    if (!(handler & ADDRESS)) {
        act_by_default(sig);
        return;
    }
    if (marks) {
        if (!was_passed_on(sig, info) && !(handler & ONCE) && pass_on(sig, info))
            return;
        end_call(interrupted(context), handler & HAS_RESTART);
    }
    ((void (*)(int, siginfo_t *, void *))(handler & ADDRESS))(sig, info, context);
}

/** Faults are not waited for in a call, and their handlers look closely at the context. */
static bool stands_before(int sig)
{
    switch (sig) {
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
    case SIGSYS:
        return false;
    default:
        return sig >= 1 && sig <= NSIG_;
    }
}

void ph_signals_withhold(void)
{
    withheld.keeper = PH_CONTROL->keeper_pid;
    withheld.signals = PH_CONTROL->asks_on;
    for (int sig = 1; sig <= NSIG_; sig++) {
        struct sigaction act;
        if (is_withheld(sig) && sigaction(sig, NULL, &act) == 0 && act.sa_handler == SIG_DFL)
            sigaction(sig, &act, NULL);
    }
}

/* Two threads that set one signal's action at once get either's, as ever. */
EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    if (!stands_before(sig))
        return set_action(sig, act, old);
    uint64_t before = atomic_load(&handlers[sig]);
    struct sigaction ours, was;
    bool by_default = act && act->sa_handler == SIG_DFL && is_withheld(sig);
    bool set = act && act->sa_handler != SIG_IGN && (ph_agent_active() || before) &&
               (act->sa_handler != SIG_DFL || by_default);
    if (set) {
        ours = *act;
        if (by_default)
            ours.sa_flags |= (int)(SA_RESTART | SA_ONSTACK);
        if (act->sa_sigaction != deliver)
            atomic_store(&handlers[sig], (uint64_t)act->sa_sigaction |
                                             (act->sa_flags & SA_SIGINFO ? HAS_INFO : 0) |
                                             (act->sa_flags & SA_RESTART ? HAS_RESTART : 0) |
                                             (act->sa_flags & (int)SA_RESETHAND ? ONCE : 0));
        ours.sa_sigaction = deliver;
        ours.sa_flags |= SA_SIGINFO;
    }
    int r = set_action(sig, set ? &ours : act, &was);
    if (r != 0) {
        atomic_store(&handlers[sig], before);
        return r;
    }
    if (old) {
        *old = was;
        if (was.sa_sigaction == deliver) {
            old->sa_sigaction = (void (*)(int, siginfo_t *, void *))(before & ADDRESS);
            old->sa_flags &= ~(before & HAS_INFO ? 0 : SA_SIGINFO);
            if (!(before & ADDRESS)) /* the default action, see by_default */
                old->sa_flags = 0;
        }
    }
    return 0;
}

static sigset_t interrupts; /* what siginterrupt has said, for signal */

static sighandler_t set_simply(int sig, sighandler_t handler, int flags, bool blocks)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = flags}, old;
    sigemptyset(&act.sa_mask);
    if (handler == SIG_ERR || (blocks && sigaddset(&act.sa_mask, sig) != 0)) {
        errno = EINVAL;
        return SIG_ERR;
    }
    return sigaction(sig, &act, &old) == 0 ? old.sa_handler : SIG_ERR;
}

int ph_sigaction(int sig, const struct sigaction *act,
                 struct sigaction *old) __asm__("__sigaction");
EXPORT int ph_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    return sigaction(sig, act, old);
}

sighandler_t ph_signal(int sig, sighandler_t handler) __asm__("signal");
EXPORT sighandler_t ph_signal(int sig, sighandler_t handler)
{
    return set_simply(sig, handler, sigismember(&interrupts, sig) == 1 ? 0 : SA_RESTART, true);
}

sighandler_t ph_bsd_signal(int sig, sighandler_t handler) __asm__("bsd_signal");
EXPORT sighandler_t ph_bsd_signal(int sig, sighandler_t handler)
{
    return ph_signal(sig, handler);
}

EXPORT sighandler_t ssignal(int sig, sighandler_t handler)
{
    return ph_signal(sig, handler);
}

EXPORT sighandler_t sysv_signal(int sig, sighandler_t handler)
{
    return set_simply(sig, handler, (int)(SA_RESETHAND | SA_NODEFER), false);
}

sighandler_t ph_sysv_signal(int sig, sighandler_t handler) __asm__("__sysv_signal");
EXPORT sighandler_t ph_sysv_signal(int sig, sighandler_t handler)
{
    return sysv_signal(sig, handler);
}

EXPORT int siginterrupt(int sig, int interrupt)
{
    struct sigaction act;
    if (sigaction(sig, NULL, &act) != 0)
        return -1;
    if (interrupt) {
        sigaddset(&interrupts, sig);
        act.sa_flags &= ~SA_RESTART;
    } else {
        sigdelset(&interrupts, sig);
        act.sa_flags |= SA_RESTART;
    }
    return sigaction(sig, &act, NULL);
}
