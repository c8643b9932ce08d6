/* SPDX-License-Identifier: MIT */
/*
 * park.c - all threads stand still, each with its registers on its own stack
 *
 * Signal 33 is glibc's own (setxid) and the one signal that no program blocks through glibc.
 * For the moment of an epoch its action is ours. Each thread that gets it has had its whole
 * register state written to its stack by the kernel, notes where, and waits. Bringing a thread
 * back means: make a thread with the same fs base, point rsp at that frame, rt_sigreturn.
 *
 * Invariants
 *  P1  When the body runs, every thread of the process but the caller waits in `parked_here`,
 *      and no other can come into being: a scan of /proc/self/task found none that had not
 *      announced itself, or the kernel counts as many as have, and only running threads create
 *      threads. Or there is no other.
 *  P2  A parked thread has made no libc call since the signal: its errno is the program's.
 *      That goes for what it helps with, too (pieces.c).
 *  P3  In a recovered program no thread returns to parked_here; `parking` may hold any value.
 *  P4  The main thread is parked last and leaves first, and a parked thread blocks all signals:
 *      one that is sent to the process while it is stopped waits, and goes to the main thread
 *      as it would without epochs. What an interrupted call does then: signals.c.
 *  P5  A signal that comes late, after its turn has failed, is known by the turn in it and
 *      changes nothing; nor does the failed turn end before all that took part have left.
 */
#include "agent_internal.h"

#include "allocator/syscall.h"
#include "identity.h"
#include "signals.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define SA_RESTORER_FLAG UINT64_C(0x04000000)
#define RSEQ_SIGNATURE   0x53053053u /* glibc's, sysdeps/unix/sysv/linux/x86/bits/rseq.h */
#define PARK_TIMEOUT_NS  UINT64_C(10000000000)
#define SPIN_NS          UINT64_C(50000)
#define MAX_THREADS      16384
/* A main thread that the scheduler forgets must not hold up the others. */
#define MAIN_TIMEOUT_NS  UINT64_C(100000000)
/* 1 to 31 without SIGKILL and SIGSTOP, and what programs send in real time. */
#define ORDINARY_SIGNALS UINT64_C(0xfffffffe7ffbfeff)

struct ph_sigaction_pm ph_park_old_action;

static struct {
    int caller, main;
    unsigned processor; /* of the caller, when it began */
    int result;
    void (*meanwhile)(void), (*body)(void);
    _Atomic uint32_t turn;   /* counts the calls of ph_park_and_run */
    _Atomic uint64_t inside; /* the turn, and in the lower half how many are in parked_here */
    _Atomic uint32_t main_released, rest_released; /* futexes: the turn that is over */
    _Atomic uint32_t announced;
    _Atomic uint32_t parked;  /* futex */
    _Atomic uint32_t awaited; /* how many must be parked before the caller is to be woken */
    _Atomic uint32_t main_left, others_left;
    uint32_t number;     /* how many were parked the last time: as many are expected at first */
    uint32_t nsignalled; /* whose numbers are in `signalled`, in this turn or the last one */
    bool known;          /* those of the last one have been signalled */
    bool ran;
} parking;

__asm__(".text\n"
        "ph_park_restorer:\n"
        "  mov $15, %eax\n" /* rt_sigreturn */
        "  syscall\n");
extern void ph_park_restorer(void) __attribute__((visibility("hidden")));

/** Note where this thread's state is. The table is in scratch; tid is written last. */
static void announce(void *context, int tid)
{
    uint32_t i = atomic_fetch_add(&parking.announced, 1);
    if (i >= MAX_THREADS)
        return;
    struct ph_thread_pm *t = (struct ph_thread_pm *)ph_agent.areas.threads.base + i;
    t->context = (uintptr_t)context;
    ph_syscall(SYS_arch_prctl, ARCH_GET_FS, &t->fs);
    ph_syscall(SYS_arch_prctl, ARCH_GET_GS, &t->gs);
    t->tid_address = (uintptr_t)ph_thread_id(tid, &t->cleared_address);
    ph_syscall(SYS_get_robust_list, 0, &t->robust_list, &t->robust_length);
    t->rseq = 0;
    if (ph_agent.rseq) {
        /* The kernel keeps the processor number at offset 4; negative: not registered. */
        uint64_t area = t->fs + (uint64_t)ph_agent.rseq_offset;
        if (*(const volatile int32_t *)(area + 4) >= 0) {
            t->rseq = area;
            t->rseq_length = 32;
            t->rseq_signature = RSEQ_SIGNATURE;
        }
    }
    t->timer_slack = (uint64_t)ph_syscall(SYS_prctl, PR_GET_TIMERSLACK);
    ph_syscall(SYS_prctl, PR_GET_NAME, t->name);
    t->pending = ph_timers_parked((uint32_t)tid);
    t->flags = (tid == parking.main ? PH_THREAD_LEADER : 0) |
               (tid == parking.caller ? PH_THREAD_CALLER : 0);
    __atomic_store_n(&t->tid, (uint32_t)tid, __ATOMIC_SEQ_CST);
}

static void signal_known(void);
static void with_others_parked(void);

/** Add @p n to those that are inside. @return false: @p turn is over. */
static bool count_inside(uint32_t turn, int n)
{
    uint64_t was = atomic_load(&parking.inside);
    do
        if (was >> 32 != turn)
            return false;
    while (!atomic_compare_exchange_weak(&parking.inside, &was,
                                         was >> 32 << 32 | (uint32_t)((int)(uint32_t)was + n)));
    return true;
}

/** Of this process, to the thread @p tid; the value says which turn it is for. */
static long send_signal(pid_t pid, pid_t tid)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = PH_PARK_SIGNAL;
    info.si_code = SI_QUEUE;
    info.si_pid = pid;
    info.si_value.sival_int = (int)atomic_load(&parking.turn);
    return syscall(SYS_rt_tgsigqueueinfo, pid, tid, PH_PARK_SIGNAL, &info);
}

static void parked_here(int sig, siginfo_t *info, void *context)
{
    if (info->si_code != SI_QUEUE) { /* glibc's own, for all threads to change their ids */
        if (ph_park_old_action.handler > 1)
            ((void (*)(int, siginfo_t *, void *))ph_park_old_action.handler)(sig, info,
                                                                             context);
        return;
    }
    int tid = (int)ph_syscall(SYS_gettid);
    uint32_t turn = (uint32_t)info->si_value.sival_int;
    bool in_time = count_inside(turn, 1);
    ph_signals_set_back(context, info);
    if (!in_time)
        return;
    if (tid == parking.caller)
        signal_known(); /* they take their time */
    announce(context, tid);
    if (tid == parking.caller) {
        parking.ran = true;
        if (parking.meanwhile)
            parking.meanwhile();
        with_others_parked();
        count_inside(turn, -1);
        return;
    }
    bool is_main = tid == parking.main;
    _Atomic uint32_t *released = is_main ? &parking.main_released : &parking.rest_released;
    uint32_t before = atomic_load(released);
    if (atomic_fetch_add(&parking.parked, 1) + 1 == atomic_load(&parking.awaited)) {
        ph_syscall(SYS_futex, &parking.parked, FUTEX_WAKE_PRIVATE, 1);
        ph_pieces_help(turn);
    }
    while (before != turn) {
        ph_syscall(SYS_futex, released, FUTEX_WAIT_PRIVATE, before, 0);
        before = atomic_load(released);
    }
    count_inside(turn, -1);
    ph_signals_leave(context, is_main ? &parking.main_left : &parking.others_left);
}

static bool has_announced(uint32_t tid)
{
    const struct ph_thread_pm *t = (const struct ph_thread_pm *)ph_agent.areas.threads.base;
    uint32_t n = atomic_load(&parking.announced);
    for (uint32_t i = 0; i < n && i < MAX_THREADS; i++)
        if (__atomic_load_n(&t[i].tid, __ATOMIC_SEQ_CST) == tid)
            return true;
    return false;
}

/** The numbers of those that have been signalled, behind the table of threads. */
static uint32_t *signalled(void)
{
    return (uint32_t *)(ph_agent.areas.threads.base +
                        MAX_THREADS * sizeof(struct ph_thread_pm));
}

static void signal_one(uint32_t tid)
{
    if (parking.nsignalled < MAX_THREADS && send_signal(parking.main, (pid_t)tid) == 0)
        signalled()[parking.nsignalled++] = tid;
}

static bool was_signalled(uint32_t tid)
{
    for (uint32_t i = 0; i < parking.nsignalled; i++)
        if (signalled()[i] == tid)
            return true;
    return false;
}

/**
 * Signal every thread that has not been signalled; the main thread only when @p with_main.
 * @param to_park counts those that are to be parked, whether they have announced themselves
 * or not.
 * @param task /proc/self/task, to be read from its start.
 * @return how many have not announced themselves, or -1.
 */
static int signal_rest(int task, bool with_main, uint32_t *to_park, uint32_t *some_tid)
{
    char buf[4096];
    int missing = 0;
    *to_park = 0;
    if (lseek(task, 0, SEEK_SET) != 0)
        return -1;
    long n;
    while ((n = syscall(SYS_getdents64, task, buf, sizeof buf)) > 0) {
        for (long at = 0; at < n;) {
            const struct ph_dirent *d = (const void *)(buf + at);
            at += d->reclen;
            if (d->name[0] == '.')
                continue;
            uint32_t tid = (uint32_t)strtoul(d->name, NULL, 10);
            if ((int)tid == parking.caller || ((int)tid == parking.main && !with_main))
                continue;
            (*to_park)++;
            if (has_announced(tid))
                continue;
            missing++;
            *some_tid = tid;
            if (!was_signalled(tid))
                signal_one(tid);
        }
    }
    return n < 0 ? -1 : missing;
}

/** Wait until @p number threads are parked; a moment only, since one may have ended. */
static void await_parked(uint32_t number)
{
    struct timespec moment = {0, 1000000};
    atomic_store(&parking.awaited, number);
    uint32_t parked = atomic_load(&parking.parked);
    /* Most take less than it takes to fall asleep and be woken. */
    for (uint64_t began = ph_now_ns(); parked < number && ph_now_ns() - began < SPIN_NS;) {
        ph_syscall(SYS_sched_yield);
        parked = atomic_load(&parking.parked);
    }
    if (parked < number)
        syscall(SYS_futex, &parking.parked, FUTEX_WAIT_PRIVATE, parked, &moment);
}

/** Whether the caller and those that are parked are all threads, but for @p running others. */
static bool are_all(uint32_t running)
{
    struct stat st;
    uint32_t announced = atomic_load(&parking.announced);
    return announced <= MAX_THREADS && atomic_load(&parking.parked) == announced - 1 &&
           fstatat(AT_FDCWD, "/proc/self/task", &st, 0) == 0 &&
           st.st_nlink == announced + running + 2; /* each thread is a directory in it */
}

/** Signal the threads that were there the last time, but the main one (P4). */
static void signal_known(void)
{
    uint32_t known = parking.nsignalled;
    parking.known = known > 0;
    parking.nsignalled = 0;
    for (uint32_t i = 0; i < known; i++) {
        uint32_t tid = signalled()[i]; /* what is written there now lies below */
        if ((int)tid != parking.caller && (int)tid != parking.main)
            signal_one(tid);
    }
}

/**
 * Wait a moment for those that were there the last time: to list all takes longer than to count
 * them. @return whether there are no others, and all are parked.
 */
static bool park_known(void)
{
    await_parked(parking.nsignalled);
    if (parking.caller == parking.main)
        return are_all(0);
    if (!are_all(1))
        return false;
    signal_one((uint32_t)parking.main);
    await_parked(parking.nsignalled);
    return are_all(0);
}

static int park_listed(int task)
{
    uint32_t to_park = 0, some_tid = 0;
    uint64_t began = ph_now_ns();
    bool with_main = parking.caller == parking.main;
    for (;;) {
        int missing = signal_rest(task, with_main, &to_park, &some_tid);
        uint32_t announced = atomic_load(&parking.announced);
        if (missing < 0 || announced > MAX_THREADS)
            return PH_ETHREAD;
        /* The caller has announced itself, but does not park. */
        if (missing == 0 && atomic_load(&parking.parked) == announced - 1) {
            if (with_main)
                return 0;
            with_main = true;
            continue;
        }
        if (ph_now_ns() - began > PARK_TIMEOUT_NS) {
            char number[24];
            ph_agent_detail("it does not react to signals for 10 s: thread",
                            ph_format_u64(number, some_tid), 0);
            return PH_ETHREAD;
        }
        await_parked(to_park);
    }
}

static int park_others(void)
{
    if (parking.known && park_known())
        return 0;
    /* Without effect, and allowed, where there is no other thread (unshare(2)). */
    if (parking.caller == parking.main && ph_syscall(SYS_unshare, CLONE_THREAD) == 0)
        return 0;
    int task = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (task < 0) {
        int err = errno;
        ph_agent_detail("/proc/self/task", NULL, err);
        return ph_error_of(err) == PH_EMFILE ? PH_EMFILE : PH_ETHREAD;
    }
    int rc = park_listed(task);
    close(task);
    return rc;
}

uint32_t ph_park_turn(void)
{
    return atomic_load(&parking.turn);
}

unsigned ph_park_processor(void)
{
    return parking.processor;
}

static void release(_Atomic uint32_t *released)
{
    atomic_store(released, atomic_load(&parking.turn));
    syscall(SYS_futex, released, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

/** All but the caller go on, the main thread first. */
static void release_others(void)
{
    atomic_store(&parking.main_left, 0); /* it may have come late to say so the last time */
    release(&parking.main_released);
    const struct ph_thread_pm *t = (const struct ph_thread_pm *)ph_agent.areas.threads.base;
    uint64_t began = ph_now_ns();
    bool any = false;
    for (uint32_t i = 0; i < atomic_load(&parking.announced) && i < MAX_THREADS; i++) {
        /* Who blocks all signals takes none from the main thread: the thread of asked.c. */
        const ucontext_t *frame = (const ucontext_t *)t[i].context;
        any |= !(t[i].flags & PH_THREAD_LEADER) && frame &&
               (*(const uint64_t *)&frame->uc_sigmask & ORDINARY_SIGNALS) != ORDINARY_SIGNALS;
    }
    bool wait = any && parking.result == 0;
    for (unsigned n = 0; wait && !atomic_load(&parking.main_left); n++) {
        struct timespec ts = {0, 20000};
        syscall(n < 20 ? SYS_sched_yield : SYS_nanosleep, &ts, NULL);
        wait = ph_now_ns() - began < MAIN_TIMEOUT_NS;
    }
    release(&parking.rest_released);
}

static void with_others_parked(void)
{
    parking.result = park_others();
    if (parking.result == 0) {
        parking.number = atomic_load(&parking.parked);
        ph_agent.areas.threads.used =
            atomic_load(&parking.announced) * sizeof(struct ph_thread_pm);
        parking.body();
    }
    if (parking.caller != parking.main)
        release_others();
}

void ph_park_note_pending(void)
{
    struct ph_area *text = &ph_agent.areas.text;
    struct ph_thread_pm *t = (struct ph_thread_pm *)ph_agent.areas.threads.base;
    uint32_t n = atomic_load(&parking.announced);
    uint64_t some = 0;
    /* Reading /proc takes 20 us a thread. Each has asked for itself when it was parked; later
     * may have come what was sent to the process, of which the caller knows as well, or to a
     * thread, by one that was still running, or by a timer. */
    bool sure = syscall(SYS_rt_sigpending, &some, 8) == 0;
    for (uint32_t i = 0; i < n; i++)
        some |= t[i].pending;
    sure &= !ph_signals_were_directed() && ph_agent.areas.timers.used == 0;
    if (!some && (sure || n == 1))
        return;
    for (uint32_t i = 0; i < n; i++) {
        char path[64] = "/proc/self/task/", number[24];
        strcat(path, ph_format_u64(number, t[i].tid));
        strcat(path, "/status");
        t[i].pending = 0;
        text->used = 0;
        if (ph_read_file(path, text) < 0)
            continue;
        const char *own = strstr((const char *)text->base, "SigPnd:");
        const char *shared = strstr((const char *)text->base, "ShdPnd:");
        t[i].pending = own ? strtoull(own + 7, NULL, 16) : 0;
        /* What this epoch is taken for must not end the recovered program. Others send it to
         * the process; to a thread only the program itself does. */
        if (shared && (t[i].flags & PH_THREAD_LEADER))
            t[i].pending |= strtoull(shared + 7, NULL, 16) & ~ph_signals_withheld();
        /* Who stops the program lets it go on later, but not the one that is recovered. */
        t[i].pending &= ~(UINT64_C(1) << (SIGSTOP - 1));
    }
}

/** Wait until all have left a turn that has failed (P5). @return whether they have. */
static bool await_left(void)
{
    struct timespec moment = {0, 1000000};
    uint64_t began = ph_now_ns();
    while ((uint32_t)atomic_load(&parking.inside) && ph_now_ns() - began < PARK_TIMEOUT_NS)
        syscall(SYS_nanosleep, &moment, NULL);
    return !(uint32_t)atomic_load(&parking.inside);
}

int ph_park_and_run(void (*meanwhile)(void), void (*body)(void))
{
    if (parking.result != 0 && !await_left()) {
        ph_agent_detail("a thread has not left the epoch that failed", NULL, 0);
        return PH_ETHREAD;
    }
    struct ph_area *area = &ph_agent.areas.threads;
    _Static_assert(MAX_THREADS * (sizeof(struct ph_thread_pm) + 4) <= (8u << 20),
                   "thread table and list of the signalled fit in their area");
    if (!ph_area_reach(area, MAX_THREADS * (sizeof(struct ph_thread_pm) + 4))) {
        ph_agent_detail("memory for the list of threads", NULL, 0);
        return PH_ENOMEM;
    }
    memset(area->base, 0, (atomic_load(&parking.announced) + 1) * sizeof(struct ph_thread_pm));

    parking.caller = (int)syscall(SYS_gettid);
    parking.main = (int)syscall(SYS_getpid);
    ph_syscall(SYS_getcpu, &parking.processor, NULL, NULL);
    parking.meanwhile = meanwhile;
    parking.body = body;
    atomic_store(&parking.announced, 0);
    ph_timers_before();
    atomic_store(&parking.parked, 0);
    atomic_store(&parking.awaited, parking.number);
    uint32_t turn = atomic_fetch_add(&parking.turn, 1) + 1;
    atomic_store(&parking.inside, (uint64_t)turn << 32);
    parking.ran = false;
    parking.result = 0;

    struct ph_sigaction_pm action = {.handler = (uintptr_t)parked_here,
                                     .flags = SA_SIGINFO | SA_RESTART | SA_RESTORER_FLAG,
                                     .restorer = (uintptr_t)ph_park_restorer,
                                     .mask = ~UINT64_C(0)};
    struct ph_sigaction_pm old;
    if (syscall(SYS_rt_sigaction, PH_PARK_SIGNAL, &action, &old, 8) != 0)
        return PH_ETHREAD;
    if (old.handler != action.handler)
        ph_park_old_action = old;
    long sent = send_signal(parking.main, parking.caller);
    /* Here twice: as the signal returns, and in every recovered program. The main thread has
     * its signals again; only now do the others. */
    if (parking.caller == parking.main)
        release(&parking.rest_released);
    if (parking.result == 0) /* else our signal may still be on its way to some thread */
        syscall(SYS_rt_sigaction, PH_PARK_SIGNAL, &ph_park_old_action, NULL, 8);
    if (!parking.ran) {
        ph_agent_detail(sent == 0 ? "signal 33 is blocked in the calling thread"
                                  : "signal 33 cannot be sent; is there a limit, ulimit -i?",
                        NULL, 0);
        return PH_ETHREAD;
    }
    return parking.result;
}
