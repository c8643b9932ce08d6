/* SPDX-License-Identifier: MIT */
/*
 * capture.c - one epoch, from BEGIN to COMMIT
 *
 * Runs in the caller's signal handler while the other threads are parked. Order: the mappings
 * first, since staging pages needs their protection; then pages; then the small things. An
 * epoch that fails half-way is never committed: the keeper drops what it has at the next BEGIN.
 */
#include "agent_internal.h"
#include "calls.h"
#include "children.h"
#include "clock.h"
#include "undo.h"

#include "allocator/syscall.h"
#include "record_cpu.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define ARCH_GET_XCOMP_PERM_ 0x1022 /* asm/prctl.h of Linux 5.16 */

struct ph_capture ph_capture;

/** All but what park.c has filled already, and what is compared with the epoch before. */
static void reset_areas(void)
{
    const struct ph_areas was = ph_agent.areas;
#define X(name, mib)                                                                           \
    ph_agent.areas.name.used = 0;                                                              \
    ph_agent.areas.name.overflow = false;
    PH_AREAS(X)
#undef X
    ph_agent.areas.threads.used = was.threads.used;
    ph_agent.areas.present.used = was.present.used;
    ph_agent.areas.bounds.used = was.bounds.used;
    ph_agent.areas.vmas.used = was.vmas.used;
}

static bool areas_overflow(void)
{
    bool overflow = false;
#define X(name, mib) overflow |= ph_agent.areas.name.overflow;
    PH_AREAS(X)
#undef X
    return overflow;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

#define HOLDS UINT64_C(1000000000) /* ns (calls.h, K2) */

struct ph_asked ph_asked_now(enum ph_calls kind)
{
    return (struct ph_asked){ph_now_ns(), ph_agent.generation, ph_calls_made(kind)};
}

bool ph_asked_holds(const struct ph_asked *then, enum ph_calls kind)
{
    uint64_t made = ph_calls_made(kind);
    return then->ns && then->generation == ph_agent.generation && then->calls == made &&
           made != UINT64_MAX && ph_now_ns() - then->ns < HOLDS;
}

uint32_t ph_record_link(const char *path)
{
    char name[4096];
    ssize_t n = readlink(path, name, sizeof name);
    return n > 0 ? ph_record_string(name, (size_t)n) : 0;
}

/** What getcwd cannot tell, of a directory that is removed or out of reach, /proc does. */
static uint32_t working_directory(void)
{
    char name[4096];
    long n = ph_syscall(SYS_getcwd, name, sizeof name);
    return n > 1 && *name == '/' ? ph_record_string(name, (size_t)n - 1)
                                 : ph_record_link("/proc/self/cwd");
}

static int begin(void)
{
    if (ph_agent.ahead.open)
        return 0; /* it has begun, and goes on (ahead.c) */
    ph_stage_rewind(&ph_agent.stage);
    struct ph_batch *b = ph_stage_reserve(&ph_agent.stage, 0);
    if (!b)
        return PH_EKEEPER;
    b->kind = PH_BATCH_BEGIN;
    b->epoch = ph_capture.epoch;
    b->flags = ph_capture.full ? PH_EPOCH_FULL : 0;
    b->time = ph_now_ns();
    ph_stage_publish(&ph_agent.stage);
    return 0;
}

/** Whose leader the program has made itself, and whether that group has the terminal. */
static uint32_t leads(void)
{
    long pid = ph_syscall(SYS_getpid);
    if (ph_syscall(SYS_getpgid, 0) != pid)
        return 0;
    uint32_t flags = PH_LEADS_GROUP;
    if (ph_syscall(SYS_getsid, 0) == pid)
        flags |= PH_LEADS_SESSION;
    for (int fd = 0; fd < 3; fd++) {
        int group = 0;
        if (ioctl(fd, TIOCGPGRP, &group) == 0 && group == pid)
            flags |= PH_FOREGROUND;
    }
    return flags;
}

static void fill_header(struct ph_record_pm *r)
{
    r->magic = PH_RECORD_MAGIC;
    r->version = PH_RECORD_VERSION;
    r->header_size = sizeof *r;
    r->epoch = ph_capture.epoch;
    r->generation = ph_agent.generation;
    r->realtime_ns = clock_ns(CLOCK_REALTIME);
    ph_clock_note(r, (struct ph_thread_pm *)ph_agent.areas.threads.base,
                  ph_agent.areas.threads.used / sizeof(struct ph_thread_pm));
    r->socket_fd = (uint64_t)ph_agent.socket_fd;
    r->pid = ph_agent.pid;
    r->pid_actual = (int32_t)syscall(SYS_getpid);
    r->umask = umask(077);
    umask(r->umask);
    r->leads = leads();
    r->cwd = working_directory();
    r->exe = ph_memory_executable();
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    r->hostname = ph_record_string(host, strlen(host));
    r->vdso_start = ph_agent.vdso_start;
    r->vvar_start = ph_agent.vvar_start;
    ph_syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM_, &r->xcomp_perm);
    static uint64_t cpu_generation = UINT64_MAX;
    static struct ph_cpu_pm cpu;
    static uint16_t xsave_size, cpu_more;
    if (cpu_generation != ph_agent.generation) { /* CPUID is slow in virtual machines */
        ph_cpu_read(&cpu);
        xsave_size = (uint16_t)ph_cpu_states_end(cpu.xcr0);
        cpu_more = ph_cpu_more();
        cpu_generation = ph_agent.generation;
    }
    r->cpu = cpu;
    r->xsave_size = xsave_size;
    r->cpu_more = cpu_more;

    r->sigaction[PH_PARK_SIGNAL - 1] = ph_park_old_action;
    for (int i = 0; i < 3; i++) {
        struct itimerval timer;
        if (getitimer((__itimer_which_t)i, &timer) != 0)
            continue;
        /* Expired while parked: the kernel starts it again only when its signal, which is
         * pending, is taken. Setting a timer to 0 would end it; let it expire at once. */
        if ((timer.it_interval.tv_sec | timer.it_interval.tv_usec) && !timer.it_value.tv_sec &&
            !timer.it_value.tv_usec)
            timer.it_value.tv_usec = 1;
        r->itimer[i] =
            (struct ph_itimer_pm){timer.it_interval.tv_sec, timer.it_interval.tv_usec,
                                  timer.it_value.tv_sec, timer.it_value.tv_usec};
    }
}

static struct ph_record_pm record;

/* What is asked for again only if it may have changed (calls.h). */
static struct {
    struct ph_asked signals, limits;
    bool ask_limits; /* in this epoch */
    struct ph_sigaction_pm action[64];
    struct ph_limit_pm limit[PH_LIMITS];
} asked;

#define SIGNALS 8 /* of 64, in a piece */

static uint64_t bit(unsigned sig)
{
    return UINT64_C(1) << (sig - 1);
}

/** Signals whose handler the kernel itself takes away as it calls it, or libc sets, unseen. */
static uint64_t asked_always(void)
{
    uint64_t signals = bit(32);
    for (unsigned i = 0; i < 64; i++)
        if (asked.action[i].flags & SA_RESETHAND)
            signals |= bit(i + 1);
    return signals;
}

static void ask_actions(uint64_t signals)
{
    signals &= ~(bit(SIGKILL) | bit(SIGSTOP)); /* have none */
    for (; signals; signals &= signals - 1) {
        unsigned i = (unsigned)__builtin_ctzll(signals);
        ph_syscall(SYS_rt_sigaction, i + 1, NULL, &asked.action[i], 8);
    }
}

/** What any thread may ask for: limits, signal actions. */
static void ask_piece(uint32_t number)
{
    if (number > 0) {
        ask_actions((bit(SIGNALS + 1) - 1) << (number - 1) * SIGNALS);
        return;
    }
    ask_actions(asked_always());
    for (unsigned i = 0; i < PH_LIMITS && asked.ask_limits; i++) {
        uint64_t limit[2];
        if (ph_syscall(SYS_prlimit64, 0, i, NULL, limit) == 0)
            asked.limit[i] = (struct ph_limit_pm){limit[0], limit[1]};
    }
}

static int fill_images(void)
{
    struct ph_areas *a = &ph_agent.areas;
    size_t n = ph_agent.vdso_end - ph_agent.vdso_start;
    void *vdso = ph_area_push(&a->vdso, n);
    if (vdso)
        memcpy(vdso, (const void *)ph_agent.vdso_start, n);
    /* It never changes (prctl(PR_SET_MM_AUXV) apart, which is a matter for ps). */
    static uint64_t generation = UINT64_MAX;
    static size_t used;
    if (generation == ph_agent.generation) {
        a->auxv.used = used;
        return 0;
    }
    if (ph_read_file("/proc/self/auxv", &a->auxv) < 0)
        return PH_EKERNEL;
    generation = ph_agent.generation;
    used = a->auxv.used;
    return 0;
}

/** Stage the record: the header, then the tables in the order in which it names them. */
static int stage_record(struct ph_record_pm *r)
{
    struct {
        struct ph_table_pm *table;
        const struct ph_area *area;
        size_t entry;
    } part[] = {
        {&r->vmas, &ph_agent.areas.vmas, sizeof(struct ph_vma_pm)},
        {&r->threads, &ph_agent.areas.threads, sizeof(struct ph_thread_pm)},
        {&r->files, &ph_agent.areas.files, sizeof(struct ph_file_pm)},
        {&r->locks, &ph_agent.areas.locks, sizeof(struct ph_lock_pm)},
        {&r->timers, &ph_agent.areas.timers, sizeof(struct ph_timer_pm)},
        {&r->auxv, &ph_agent.areas.auxv, 1},
        {&r->vdso, &ph_agent.areas.vdso, 1},
        {&r->data, &ph_agent.areas.data, 1},
        {&r->strings, &ph_agent.areas.strings, 1},
    };
    size_t parts = sizeof part / sizeof part[0];
    r->size = sizeof *r;
    for (size_t i = 0; i < parts; i++) {
        part[i].table->offset = r->size;
        part[i].table->count = part[i].area->used / part[i].entry;
        r->size += part[i].area->used;
    }
    uint64_t epoch = ph_capture.epoch;
    bool ok = ph_stage_bytes(&ph_agent.stage, PH_BATCH_RECORD, epoch, r, sizeof *r);
    for (size_t i = 0; i < parts && ok; i++)
        ok = ph_stage_bytes(&ph_agent.stage, PH_BATCH_RECORD, epoch, part[i].area->base,
                            part[i].area->used);
    ph_agent.status.bytes_staged =
        ph_agent.status.pages_staged * PH_PAGE + r->size + ph_agent.areas.present.used;
    return ok ? 0 : PH_EKEEPER;
}

static int commit(uint64_t time)
{
    struct ph_batch *b = ph_stage_reserve(&ph_agent.stage, 0);
    if (!b)
        return PH_EKEEPER;
    b->kind = PH_BATCH_COMMIT;
    b->epoch = ph_capture.epoch;
    b->time = time;
    b->messages = ph_agent.fd_messages;
    if (ph_capture.label)
        strncpy(b->label, ph_capture.label, sizeof b->label - 1);
    ph_stage_publish(&ph_agent.stage);
    return 0;
}

/** Recovery needs to know where libc keeps a thread's id, which not every kernel tells, nor
 * every libc. */
static int check_threads(void)
{
    const struct ph_thread_pm *t = (const void *)ph_agent.areas.threads.base;
    for (size_t i = 0; i < ph_agent.areas.threads.used / sizeof *t; i++)
        if (!t[i].tid_address) {
            ph_agent_detail(t[i].cleared_address ? "where libc keeps a thread's id"
                                                 : "prctl(PR_GET_TID_ADDRESS)",
                            NULL, 0);
            return PH_EKERNEL;
        }
    return 0;
}

static int no_memory(void)
{
    ph_agent_detail("memory to note what the program consists of", NULL, 0);
    return PH_ENOMEM;
}

static bool ask_again(struct ph_asked *then, enum ph_calls kind)
{
    bool again = !ph_asked_holds(then, kind);
    if (again)
        *then = ph_asked_now(kind);
    return again;
}

static int map_and_ask(void)
{
    asked.ask_limits = ask_again(&asked.limits, PH_CALLS_LIMITS);
    bool signals = ask_again(&asked.signals, PH_CALLS_SIGNALS);
    ph_pieces_add(signals ? 1 + 64 / SIGNALS : 1, ask_piece);
    int rc = ph_memory_map(&record);
    ph_pieces_finish();
    memcpy(record.sigaction, asked.action, sizeof record.sigaction);
    memcpy(record.limit, asked.limit, sizeof record.limit);
    return rc;
}

static int capture(void)
{
    int rc = check_threads();
    ph_children_note(); /* before the pages are copied */
    ph_clock_note_usage();
    ph_timers_begin();
    if (rc == 0)
        rc = begin();
    if (rc == 0)
        rc = map_and_ask();
    if (rc == 0)
        rc = ph_memory_stage(ph_capture.epoch, ph_capture.full);
    if (rc == 0)
        rc = ph_files_capture(ph_capture.epoch);
    if (rc && ph_agent.no_memory)
        return no_memory();
    if (rc)
        return rc;
    fill_header(&record);
    ph_timers_note();
    ph_park_note_pending();
    ph_timers_expired();
    rc = fill_images();
    if (rc)
        return rc;
    if (ph_agent.no_memory)
        return no_memory();
    if (areas_overflow()) {
        ph_agent_detail("more mappings, descriptors or fragments than an epoch can hold", NULL,
                        0);
        return PH_EUNSUPPORTED;
    }
    if (!ph_stage_bytes(&ph_agent.stage, PH_BATCH_PRESENT, ph_capture.epoch,
                        ph_agent.areas.present.base, ph_agent.areas.present.used))
        return PH_EKEEPER;
    rc = ph_mapped_stage(ph_capture.epoch, record.realtime_ns);
    if (rc == 0)
        rc = stage_record(&record);
    if (rc)
        return rc;
    rc = ph_undo_capture_end();
    if (rc == 0)
        rc = commit(record.realtime_ns);
    if (rc)
        ph_agent.epoch = ph_capture.epoch; /* what has been kept is kept under this number */
    return rc;
}

void ph_capture_run(void)
{
    struct ph_agent_status *s = &ph_agent.status;
    uint64_t began = ph_now_ns();
    memset(&record, 0, sizeof record);
    int rc = ph_settle();
    if (rc == 0)
        rc = ph_files_spare();
    ph_capture.full |= ph_memory_moved();
    reset_areas();
    ph_agent.stage.wait_ns = 0;
    ph_agent.no_memory = ph_agent.stage.no_memory = false;
    s->pages_staged = s->pages_ahead = ph_agent.ahead.open ? ph_agent.ahead.pages : 0;
    ph_capture.result = rc ? rc : capture();
    if (ph_capture.result == PH_EKEEPER && ph_agent.stage.no_memory) {
        ph_agent_detail("staging memory", NULL, 0);
        ph_capture.result = PH_ENOMEM;
    }
    s->pause_ns = ph_now_ns() - began;
    s->wait_ns = ph_agent.stage.wait_ns;
    s->total_pages_staged += s->pages_staged;
    s->total_bytes_staged += s->bytes_staged;
}
