/* SPDX-License-Identifier: MIT */
/*
 * agent.c - life of the agent: connecting, taking epochs, waiting for them, recovery
 *
 * The state is in ordinary memory, so a recovered program finds it as the epoch left it. What
 * the kernel does not bring back is replaced by ph_agent_recovered: the descriptors, the
 * staging memory (the restorer has mapped the new one at the same place) and the scratch range
 * (empty). The generation in the control page tells the two returns of an epoch apart: it is
 * greater than ours exactly when we have been recovered.
 */
#include "agent_internal.h"

#include "allocator/pool.h"
#include "allocator/syscall.h"
#include "children.h"
#include "identity.h"
#include "signals.h"
#include "undo.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ph_agent ph_agent;

/* ---- small helpers ------------------------------------------------------------------ */

#define AREA_STEP ((size_t)256 << 10)

/** Raw system calls: threads are parked, and errno is part of what is captured. */
bool ph_area_reach(struct ph_area *area, size_t n)
{
    uint64_t *mapped = &PH_SCRATCH->mapped[area->number];
    if (PH_SCRATCH->whole ? n <= area->size : n <= *mapped)
        return true;
    size_t to = (n + AREA_STEP - 1) / AREA_STEP * AREA_STEP;
    uintptr_t at = (uintptr_t)area->base + *mapped;
    if (to > area->size)
        return false;
    if (ph_syscall(SYS_mmap, at, to - *mapped, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                   0) != (long)at) {
        ph_agent.no_memory = true;
        return false;
    }
    ph_syscall(SYS_madvise, at, to - *mapped, MADV_DONTFORK);
    *mapped = to;
    return true;
}

void *ph_area_push(struct ph_area *area, size_t n)
{
    n = (n + 7) & ~(size_t)7;
    if (area->overflow || n > area->size - area->used || !ph_area_reach(area, area->used + n)) {
        static uint64_t nowhere[32]; /* as large as any entry */
        area->overflow = true;
        return n <= sizeof nowhere ? nowhere : NULL; /* the epoch will be refused */
    }
    void *p = area->base + area->used;
    area->used += n;
    memset(p, 0, n);
    return p;
}

#define READ_MOST ((size_t)64 << 10) /* the files of /proc give less at once */

long ph_read_file(const char *path, struct ph_area *area)
{
    /* Not by open, which takes the ids in /proc/self/task for those that the program knows. */
    int fd = (int)ph_syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fd;
    size_t start = area->used, room = area->size - area->used;
    long n = 0;
    if (!ph_area_reach(area, start + 1)) {
        close(fd);
        return -ENOMEM;
    }
    while (area->used - start + 1 < room) {
        size_t want = room - 1 - (area->used - start);
        want = want < READ_MOST ? want : READ_MOST;
        if (!ph_area_reach(area, area->used + want + 1)) {
            n = -1;
            errno = ENOMEM;
            break;
        }
        n = read(fd, area->base + area->used, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        area->used += (size_t)n;
    }
    long err = n < 0 ? -errno : 0;
    close(fd);
    area->base[area->used] = 0;
    long length = (long)(area->used - start);
    area->used = (area->used + 8) & ~(size_t)7;
    return err ? err : length;
}

uint32_t ph_record_string(const char *s, size_t n)
{
    struct ph_area *a = &ph_agent.areas.strings;
    if (a->used == 0)
        ph_area_push(a, 8); /* reference 0 is the empty string */
    char *p = ph_area_push(a, n + 1);
    if (a->overflow)
        return 0;
    memcpy(p, s, n);
    return (uint32_t)((unsigned char *)p - a->base);
}

void ph_agent_detail(const char *text, const char *subject, int err)
{
    char *d = ph_agent.detail;
    size_t size = sizeof ph_agent.detail, n = ph_append(d, 0, size, text);
    if (subject) {
        n = ph_append(d, n, size, " ");
        n = ph_append(d, n, size, subject);
    }
    if (err) {
        n = ph_append(d, n, size, ": ");
        ph_append(d, n, size, strerrordesc_np(err));
    }
}

void ph_agent_say(const char *piece, ...)
{
    char line[512];
    size_t n = ph_append(line, 0, sizeof line - 1, "pyheap: ");
    va_list ap;
    va_start(ap, piece);
    for (const char *p = piece; p; p = va_arg(ap, const char *))
        n = ph_append(line, n, sizeof line - 1, p);
    va_end(ap);
    line[n++] = '\n';
    ssize_t ignored = write(2, line, n);
    (void)ignored;
}

/* ---- connecting --------------------------------------------------------------------- */

static int fail(int code, const char *text, int err)
{
    ph_agent_detail(text, NULL, err);
    return code;
}

static int map_scratch(void)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    void *at = (void *)PH_SCRATCH_BASE;
    bool whole = mmap(at, PH_SCRATCH_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0) == at;
    if (!whole &&
        (errno != ENOMEM || mmap(at, PH_PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) != at))
        return errno == EEXIST ? PH_EMAP : PH_ENOMEM;
    PH_SCRATCH->whole = whole;
    return 0;
}

/** Divide the scratch range. Also after recovery, when the restorer has mapped it. */
static void divide_scratch(void)
{
    unsigned char *at = (unsigned char *)PH_SCRATCH_BASE + PH_SCRATCH_HEAD;
    uint8_t number = 0;
#define X(name, mib)                                                                           \
    ph_agent.areas.name = (struct ph_area){at, 0, (size_t)(mib) << 20, false, number++};       \
    at += (size_t)(mib) << 20;
    PH_AREAS(X)
#undef X
    /* Where it is in pieces, so is the advice. */
    madvise((void *)PH_SCRATCH_BASE, PH_SCRATCH->whole ? PH_SCRATCH_SIZE : PH_PAGE,
            MADV_DONTFORK);
}

static void attach_stage(void)
{
    struct ph_control *c = PH_CONTROL;
    ph_agent.stage = (struct ph_stage){.control = c,
                                       .ring = (unsigned char *)PH_RING_BASE,
                                       .ring_pages = c->ring_pages,
                                       .position = atomic_load(&c->produced),
                                       .populate = !PH_SCRATCH->whole,
                                       .peer_alive = ph_agent_keeper_alive};
    ph_agent.status.staging_size = c->ring_pages * PH_PAGE;
    madvise(c, PH_CONTROL_SIZE, MADV_DONTFORK);
    madvise((void *)PH_RING_BASE, c->ring_pages * PH_PAGE, MADV_DONTFORK);
}

static int map_staging(int memfd)
{
    struct stat st;
    struct ph_control *c =
        mmap((void *)PH_CONTROL_BASE, PH_CONTROL_SIZE, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED_NOREPLACE, memfd, 0);
    if (c != PH_CONTROL)
        return fail(errno == EEXIST ? PH_EMAP : PH_ENOMEM, "mapping the control page", errno);
    if (c->magic != PH_CONTROL_MAGIC || c->version != PH_CONTROL_VERSION)
        return fail(PH_EINTERNAL, "pyheap-run and libpyheap.so are of different versions", 0);
    if (fstat(memfd, &st) != 0 || (uint64_t)st.st_size != ph_staging_size(c->ring_pages))
        return fail(PH_EINTERNAL, "the staging memory has a wrong size", 0);
    if (mmap((void *)PH_RING_BASE, c->ring_pages * PH_PAGE, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, memfd,
             PH_CONTROL_SIZE) != (void *)PH_RING_BASE)
        return fail(errno == EEXIST ? PH_EMAP : PH_ENOMEM,
                    "the staging ring; is there a limit, ulimit -v?", errno);
    return 0;
}

/** Where the program knows the vdso to be. It stays the truth in every recovered program. */
static int find_vdso(void)
{
    struct ph_area *text = &ph_agent.areas.text;
    text->used = 0;
    if (ph_read_file("/proc/self/maps", text) < 0)
        return fail(PH_EKERNEL, "/proc/self/maps", errno);
    for (char *line = (char *)text->base; *line;) {
        char *next = strchr(line, '\n'), *p;
        if (next)
            *next++ = 0;
        else
            next = line + strlen(line);
        uint64_t start = strtoul(line, &p, 16);
        uint64_t end = strtoul(p + 1, &p, 16);
        if (strstr(p, "[vvar") && !ph_agent.vvar_start)
            ph_agent.vvar_start = start;
        if (strstr(p, "[vdso]")) {
            ph_agent.vdso_start = start;
            ph_agent.vdso_end = end;
        }
        line = next;
    }
    return 0;
}

int ph_agent_init(void)
{
    const char *s = getenv("PYHEAP_CONTROL");
    if (!s)
        return PH_EINACTIVE;
    char *end;
    long pid = strtol(s, &end, 10);
    long memfd = *end == ',' ? strtol(end + 1, &end, 10) : -1;
    long sock = *end == ',' ? strtol(end + 1, &end, 10) : -1;
    long preload_dir = *end == ',' ? strtol(end + 1, &end, 10) : -1;
    if (memfd < 0 || sock < 0)
        return fail(PH_EINTERNAL, "PYHEAP_CONTROL is malformed", 0);
    if (pid != syscall(SYS_getpid))
        return PH_EINACTIVE;
    unsetenv("PYHEAP_CONTROL");
    if (preload_dir >= 0)
        close((int)preload_dir); /* by which LD_PRELOAD named us */

    int rc = map_scratch();
    if (rc)
        return fail(rc, "the agent's memory; is there a limit, ulimit -v or -d?", errno);
    divide_scratch();
    if ((rc = map_staging((int)memfd)) != 0 || (rc = find_vdso()) != 0)
        return rc;
    close((int)memfd);
    attach_stage();
    ph_agent.socket_fd = ph_files_hide((int)sock);
    ph_agent.generation = PH_CONTROL->generation;
    ph_agent.pid = (pid_t)pid;
    ph_agent.track = (struct ph_track){.uffd = -1, .pagemap = -1, .maps = -1};
    ph_agent.full = true;
    ph_agent.status.tracker = "none yet";
    ph_files_inherit();
    ph_ahead_init();
    ph_signals_init();

    /* glibc 2.35 and newer register rseq; its place relative to fs is the same in all threads.
     */
    const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
    const unsigned *size = dlsym(RTLD_DEFAULT, "__rseq_size");
    if (offset && size && *size) {
        ph_agent.rseq = true;
        ph_agent.rseq_offset = *offset;
    }
    ph_agent.active = true;
    atomic_store(&PH_CONTROL->attached, 1);
    return 0;
}

/** The second return of an epoch: replace what did not come back. */
static void recovered(void)
{
    struct ph_control *c = PH_CONTROL;
    divide_scratch();
    attach_stage();
    ph_agent.generation = c->generation;
    atomic_store(&PH_CONTROL->attached, 1);
    ph_agent.socket_fd = c->socket_fd;
    ph_agent.epoch = c->first_epoch;
    ph_agent.failed_seen = 0;
    ph_agent.tracking = false;
    ph_agent.restorer_mapped = true;
    ph_agent.track = (struct ph_track){.uffd = -1, .pagemap = -1, .maps = -1};
    ph_agent.full = true;
    ph_files_inherit_again();
    ph_terminal_again();
    ph_children_tell();
    struct ph_agent_status *s = &ph_agent.status;
    s->recoveries = c->generation;
    s->total_pages_staged = s->total_bytes_staged = 0;
    ph_agent.ahead.looked = 0;
    atomic_store(&ph_agent.ahead.lost, false);
}

/* ---- epochs ------------------------------------------------------------------------- */

bool ph_agent_keeper_alive(void)
{
    char byte;
    errno = 0;
    ssize_t n = recv(ph_agent.socket_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0)
        return true;
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static int in_program(void)
{
    if (ph_agent.forked)
        return PH_EFORKED;
    if (!ph_agent.active)
        return PH_EINACTIVE;
    /* Else a child made by _Fork or clone, which has no handlers. */
    return ph_identity_is_program() ? 0 : PH_EFORKED;
}

static int usable(void)
{
    ph_agent.detail[0] = 0;
    int rc = in_program();
    if (rc)
        return rc;
    if (ph_agent_keeper_alive())
        return 0;
    if (errno == EBADF || errno == ENOTSOCK) {
        char number[24];
        ph_agent_detail("the program has closed pyheap's descriptor",
                        ph_format_u64(number, (uint64_t)ph_agent.socket_fd), 0);
    }
    return PH_EKEEPER;
}

/** Open what finds changed pages, if it is not, or if the program has closed it. */
static int open_track(void)
{
    struct ph_track *t = &ph_agent.track;
    bool closed = (t->uffd >= 0 && fcntl(t->uffd, F_GETFD) < 0) ||
                  (t->maps >= 0 && fcntl(t->maps, F_GETFD) < 0) ||
                  fcntl(t->pagemap, F_GETFD) < 0;
    if (ph_agent.tracking && !closed)
        return 0;
    ph_agent.tracking = false;
    ph_agent.full = true;
    int rc = ph_track_open(t, ph_agent.socket_fd);
    if (rc) {
        int err = errno;
        ph_agent_detail("/proc/self/pagemap", NULL, err);
        return ph_error_of(err) == PH_EMFILE ? PH_EMFILE : rc;
    }
    ph_agent.status.tracker = ph_track_protects(t) ? "userfaultfd"
                              : t->soft_dirty      ? "soft-dirty"
                                                   : "compare";
    ph_agent.tracking = true;
    return 0;
}

/** An epoch that failed after epoch() had returned is reported once, by the next call. */
static int earlier_failure(void)
{
    struct ph_control *c = PH_CONTROL;
    uint64_t failed = atomic_load(&c->failed);
    if (failed <= ph_agent.failed_seen)
        return 0;
    ph_agent.failed_seen = failed;
    ph_agent.full = true;
    char number[24];
    ph_agent_detail("epoch", ph_format_u64(number, failed), 0);
    size_t n = strlen(ph_agent.detail);
    n = ph_append(ph_agent.detail, n, sizeof ph_agent.detail, ": ");
    ph_append(ph_agent.detail, n, sizeof ph_agent.detail, c->failed_detail);
    return atomic_load(&c->failed_code);
}

/** Whether what is staged ahead can be gone on with; if not, forget it. */
static void check_ahead(void)
{
    uint64_t failed = atomic_load(&PH_CONTROL->failed);
    ph_agent.full |= atomic_load(&ph_agent.ahead.lost);
    atomic_store(&ph_agent.ahead.lost, false);
    if (ph_agent.ahead.open && failed >= ph_agent.ahead.epoch) {
        ph_agent.full = true;
        ph_agent.epoch = failed; /* its number is used up (S3) */
    }
    ph_agent.ahead.open &= !ph_agent.full;
}

static int take(const char *label, uint64_t *number, bool *was_recovered)
{
    check_ahead();
    int rc = earlier_failure();
    if (rc == 0)
        rc = open_track();
    if (rc)
        return rc;
    check_ahead();
    ph_capture = (struct ph_capture){ph_agent.epoch + 1, label, ph_agent.full, 0};
    ph_capture.full |= !ph_track_tells_changes(&ph_agent.track);
    while (atomic_load(&ph_agent.settling))
        ph_settle_pause();
    ph_agent.stage.quiet = true;
    rc = ph_park_and_run(ph_files_find_inherited, ph_capture_run);
    bool second = PH_CONTROL->generation != ph_agent.generation;
    if (second)
        recovered();
    ph_agent.stage.quiet = false;
    ph_stage_wake(&ph_agent.stage);
    if (!second && rc == 0)
        rc = ph_capture.result;
    ph_agent.ahead.open = false;
    if (rc) {
        ph_agent.full = true;
        return rc;
    }
    if (!second) {
        ph_agent.epoch = ph_capture.epoch;
        ph_agent.full = false;
        ph_heap_epoch_mark();
    }
    *number = ph_agent.epoch;
    *was_recovered = second;
    return 0;
}

int ph_agent_epoch(const char *label, uint64_t *number, bool *was_recovered)
{
    /* One at a time, where the interpreter has no lock that sees to that. Nothing of Python
     * runs while this is held, so nobody who waits for it keeps its holder waiting. */
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    int rc = in_program(); /* before: in a child another thread may have had its turn */
    if (rc)
        return rc;
    pthread_mutex_lock(&turn);
    rc = usable();
    if (rc == 0) {
        atomic_store(&ph_agent.in_epoch, 1);
        ph_undo_epoch_begin();
        ph_ahead_end();
        bool second = false;
        rc = take(label, number, &second);
        ph_undo_epoch_end();
        if (was_recovered)
            *was_recovered = second;
        if (rc == 0 && !second)
            ph_hot_mend(ph_agent.status.pause_ns / 2);
        atomic_store(&ph_agent.in_epoch, 0);
    }
    pthread_mutex_unlock(&turn);
    return rc;
}

int ph_agent_wait(uint64_t number, int timeout_ms)
{
    int rc = usable();
    if (rc && rc != PH_EKEEPER)
        return rc;
    struct ph_control *c = PH_CONTROL;
    uint32_t seq = atomic_load(&c->outcome_seq);
    if (atomic_load(&c->durable) >= number)
        return 0;
    if (atomic_load(&c->failed) >= number) {
        int code = earlier_failure();
        return code ? code : atomic_load(&c->failed_code);
    }
    if (rc)
        return rc;
    ph_futex_wait(&c->outcome_seq, seq, timeout_ms);
    return atomic_load(&c->durable) >= number ? 0 : PH_EINTR;
}

void ph_agent_get_status(struct ph_agent_status *out)
{
    *out = ph_agent.status;
    if (!ph_agent_active())
        return;
    struct ph_control *c = PH_CONTROL;
    out->epoch = ph_agent.epoch;
    out->durable = atomic_load(&c->durable);
    out->pages_written = atomic_load(&c->pages_written);
    out->bytes_written = atomic_load(&c->bytes_written);
    out->commit_ns = atomic_load(&c->commit_ns);
    out->total_pages_written = atomic_load(&c->total_pages_written);
    out->total_bytes_written = atomic_load(&c->total_bytes_written);
}

bool ph_agent_active(void)
{
    return ph_agent.active && !ph_agent.forked;
}

bool ph_agent_forked(void)
{
    return ph_agent.forked;
}

const char *ph_agent_error_detail(void)
{
    return ph_agent.detail;
}

int ph_agent_first_pid(void)
{
    return ph_agent.pid;
}

void ph_agent_get_outside(struct ph_agent_outside *out)
{
    const struct ph_control *c = PH_CONTROL;
    *out = (struct ph_agent_outside){c->keeper_pid, c->keeper_group, c->keeper_session};
}

void ph_agent_fork_prepare(void)
{
    if (ph_agent_active())
        ph_settle_before_fork();
}

void ph_agent_fork_child(void)
{
    if (!ph_agent.active)
        return;
    /* The child must not keep the keeper's socket open, nor see the parent's memory tracked. */
    close(ph_agent.socket_fd);
    ph_track_close(&ph_agent.track);
    ph_agent.forked = true;
}
