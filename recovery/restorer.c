/* SPDX-License-Identifier: MIT */
/*
 * restorer.c - turns this process into the program
 *
 * A static program without libc: nothing has registered rseq, robust lists or a thread id with
 * the kernel, nothing lies where the program's memory must go, and no code of its own vanishes
 * under its feet. The order, and why:
 *
 *   1 plan         everything that can be checked has been; from here on only the kernel can
 *                  refuse
 *   2 unmap        all but ourselves and the vdso, which cannot be made anew
 *   3 vdso         away first, since the program's memory may belong where it is; then to where
 *                  the program knows it, or jumps to it there
 *   4 memory       map every mapping at its place, never over another; fill, verify, protect
 *     files        as nothing is damaged: wait until pyheap-recover has undone what the program
 *                  did, cut output files back, open what is there only then
 *   5 mm           brk and the other numbers that the kernel keeps about the address space
 *   6 signals      actions, with everything blocked until each thread is itself again
 *   7 threads      clone; each waits. Their new ids are written to where glibc keeps them
 *   8 owners       locks that hold the id of a thread get the new id
 *   9 go           robust list, rseq, AMX, timers; rt_sigreturn from the frame that the epoch
 *                  left on each thread's stack; the leader first, then the others
 *
 * A failure ends this process with a line on stderr and PH_EMAP's or another status: the pool
 * is only read here, so nothing is lost.
 */
#include "allocator/syscall.h"
#include "plan.h"
#include "restorer.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <sys/mman.h>

#define ARCH_REQ_XCOMP_PERM_ 0x1023
#define XFEATURE_XTILEDATA   18
#define MAX_VMAS             4096
#define F_ADD_SEALS_         1033 /* linux/fcntl.h; here fcntl.h hides it */

static struct ph_plan *plan;
static const struct ph_record_pm *record;

/* ---- without libc --------------------------------------------------------------------- */

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    void *ret = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return ret;
}

void *memset(void *to, int c, size_t n)
{
    void *ret = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
    return ret;
}

size_t ph_r_length(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

bool ph_r_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

void ph_r_say(const char *s)
{
    ph_syscall(SYS_write, 2, s, ph_r_length(s));
}

static void say_number(uint64_t v, unsigned base)
{
    char buf[24];
    char *p = buf + sizeof buf - 1;
    *p = 0;
    do
        *--p = "0123456789abcdef"[v % base];
    while (v /= base);
    ph_r_say(p);
}

_Noreturn void ph_r_die(int status, const char *what, uint64_t address, long err)
{
    ph_r_say("pyheap-restorer: ");
    ph_r_say(what);
    ph_r_say(" at 0x");
    say_number(address, 16);
    ph_r_say(": error ");
    say_number((uint64_t)(err < 0 ? -err : err), 10);
    ph_r_say("; the pool is unharmed\n");
    ph_syscall(SYS_exit_group, status);
    __builtin_unreachable();
}

static int status_of(int code)
{
#define X(name, value, exit_status, text)                                                      \
    if (code == (value))                                                                       \
        return (exit_status);
    PH_ERRORS(X)
#undef X
    return 96;
}

_Noreturn void ph_r_fail(int code, const char *what, uint64_t address, long err)
{
    ph_r_die(status_of(code), what, address, err);
}

_Noreturn void ph_r_leave(int code)
{
    ph_syscall(SYS_exit_group, status_of(code));
    __builtin_unreachable();
}

const void *ph_r_table(const struct ph_table_pm *t)
{
    return (const unsigned char *)record + t->offset;
}

void ph_r_map_at(uint64_t start, uint64_t size, int prot, int flags, int fd, uint64_t offset,
                 const char *what)
{
    long r = ph_syscall(SYS_mmap, start, size, prot, flags | MAP_FIXED_NOREPLACE, fd, offset);
    if (r != (long)start)
        ph_r_fail(PH_EMAP, what, start, r);
}

/* ---- 2, 3: what the kernel has given this process --------------------------------------- */

static struct {
    uint64_t start, end;
    bool vdso; /* [vvar...] or [vdso] */
} mine[MAX_VMAS];
static unsigned nmine;
static uint64_t vvar_now, vdso_now, vdso_now_end;
static char maps_text[1 << 20];

uint64_t ph_r_hex(const char **p)
{
    uint64_t v = 0;
    for (;; (*p)++) {
        char c = **p;
        if (c >= '0' && c <= '9')
            v = v * 16 + (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v * 16 + (uint64_t)(c - 'a' + 10);
        else
            return v;
    }
}

bool ph_r_contains(const char *s, const char *end, const char *what)
{
    size_t n = ph_r_length(what);
    for (; s + n <= end; s++) {
        size_t i = 0;
        while (i < n && s[i] == what[i])
            i++;
        if (i == n)
            return true;
    }
    return false;
}

static void read_maps(void)
{
    long fd = ph_syscall(SYS_open, "/proc/self/maps", O_RDONLY, 0), n, used = 0;
    if (fd < 0)
        ph_r_fail(PH_EKERNEL, "/proc/self/maps", 0, fd);
    while ((n = ph_syscall(SYS_read, fd, maps_text + used, sizeof maps_text - 1 - used)) > 0)
        used += n;
    ph_syscall(SYS_close, fd);
    for (const char *p = maps_text, *end; *p; p = end + (*end == '\n')) {
        uint64_t start = ph_r_hex(&p);
        p++;
        uint64_t stop = ph_r_hex(&p);
        for (end = p; *end && *end != '\n';)
            end++;
        bool vvar = ph_r_contains(p, end, "[vvar"), vdso = ph_r_contains(p, end, "[vdso]");
        if (ph_r_contains(p, end, "[vsyscall]") || nmine == MAX_VMAS)
            continue;
        if (vvar && !vvar_now)
            vvar_now = start;
        if (vdso) {
            vdso_now = start;
            vdso_now_end = stop;
        }
        mine[nmine].start = start;
        mine[nmine].end = stop;
        mine[nmine++].vdso = vvar || vdso;
    }
}

static void unmap_old(void)
{
    for (unsigned i = 0; i < nmine; i++) {
        bool ours = mine[i].start >= PH_RESTORER_BASE && mine[i].end <= PH_RESTORER_END;
        if (ours || mine[i].vdso)
            continue;
        long r = ph_syscall(SYS_munmap, mine[i].start, mine[i].end - mine[i].start);
        if (r < 0)
            ph_r_fail(PH_EMAP, "unmapping", mine[i].start, r);
    }
}

/** Move the kernel's pages so that the first lies at @p to. They keep their distances. */
static void move_vdso(uint64_t to)
{
    if (!vdso_now)
        return;
    uint64_t first = vvar_now ? vvar_now : vdso_now, delta = to - first;
    for (unsigned i = 0; i < nmine; i++) {
        if (!mine[i].vdso)
            continue;
        uint64_t size = mine[i].end - mine[i].start, target = mine[i].start + delta;
        long r = ph_syscall(SYS_mremap, mine[i].start, size, size,
                            MREMAP_MAYMOVE | MREMAP_FIXED, target);
        if (r != (long)target)
            ph_r_fail(PH_EMAP, "moving the vdso", target, r);
        mine[i].start = target;
        mine[i].end = target + size;
    }
    vvar_now = vvar_now ? vvar_now + delta : 0;
    vdso_now += delta;
    vdso_now_end += delta;
}

static bool same_vdso(void)
{
    uint64_t size = vdso_now_end - vdso_now;
    if ((plan->flags & PH_PLAN_TRAMPOLINES) || !vdso_now || size != record->vdso.count ||
        vdso_now - vvar_now != record->vdso_start - record->vvar_start)
        return false;
    const uint64_t *a = (const uint64_t *)vdso_now, *b = ph_r_table(&record->vdso);
    for (uint64_t i = 0; i < size / 8; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

static void place_vdso(void)
{
    uint64_t size = record->vdso.count;
    if (same_vdso()) {
        move_vdso(record->vvar_start ? record->vvar_start : record->vdso_start);
        return;
    }
    move_vdso(PH_VDSO_BASE);
    if (!size)
        return;
    uint64_t at = record->vdso_start;
    ph_r_map_at(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                "vdso jumps");
    memcpy((void *)at, ph_r_table(&record->vdso), size);
    ph_r_vdso_jumps(at, size, vdso_now, vdso_now ? vdso_now_end - vdso_now : 0);
    long r = ph_syscall(SYS_mprotect, at, size, PROT_READ | PROT_EXEC);
    if (r < 0)
        ph_r_fail(PH_EMAP, "protecting the vdso jumps", at, r);
}

/* ---- 5, 6: what the kernel keeps about a process ------------------------------------------
 */

static void restore_mm(void)
{
    /* struct prctl_mm_map of linux/prctl.h */
    struct prctl_mm_map map = {.start_code = record->mm.start_code,
                               .end_code = record->mm.end_code,
                               .start_data = record->mm.start_data,
                               .end_data = record->mm.end_data,
                               .start_brk = record->mm.start_brk,
                               .brk = record->mm.brk,
                               .start_stack = record->mm.start_stack,
                               .arg_start = record->mm.arg_start,
                               .arg_end = record->mm.arg_end,
                               .env_start = record->mm.env_start,
                               .env_end = record->mm.env_end,
                               .auxv = (__u64 *)ph_r_table(&record->auxv),
                               .auxv_size = (uint32_t)record->auxv.count,
                               .exe_fd = (uint32_t)-1};
    long r = ph_syscall(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
    if (r < 0)
        ph_r_fail(PH_EKERNEL, "prctl(PR_SET_MM_MAP), brk", map.brk, r);
    if (record->xcomp_perm & (UINT64_C(1) << XFEATURE_XTILEDATA)) {
        r = ph_syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, XFEATURE_XTILEDATA);
        if (r < 0)
            ph_r_fail(PH_ECPU, "AMX permission", 0, r);
    }
}

static void restore_signals(void)
{
    uint64_t all = ~UINT64_C(0);
    ph_syscall(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, &all, 0, 8);
    for (int sig = 1; sig <= 64; sig++)
        if (sig != 9 && sig != 19) {
            long r = ph_syscall(SYS_rt_sigaction, sig, &record->sigaction[sig - 1], 0, 8);
            if (r < 0)
                ph_r_fail(PH_EINTERNAL, "action of signal", (uint64_t)sig, r);
        }
}

static void restore_descriptor_flags(void)
{
    const struct ph_file_pm *f = ph_r_table(&record->files);
    for (uint64_t i = 0; i < record->files.count; i++)
        ph_syscall(SYS_fcntl, f[i].fd, F_SETFD, f[i].fd_flags);
    for (uint64_t i = 0; i < record->files.count; i++)
        if ((f[i].flags & PH_FILE_MEMFD) && f[i].detail)
            ph_syscall(SYS_fcntl, f[i].fd, F_ADD_SEALS_, f[i].detail);
    ph_syscall(SYS_fcntl, record->socket_fd, F_SETFD, FD_CLOEXEC);
    ph_syscall(SYS_close, plan->pool_fd);
    ph_syscall(SYS_close, plan->memfd);
    ph_syscall(SYS_close, plan->plan_fd);
    ph_syscall(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, &record->limit[7], 0);
}

/** Last of all that opens and closes files: closing one loses the locks on it (locks.c). */
static void restore_locks(void)
{
    const struct ph_lock_pm *l = ph_r_table(&record->locks), *end = l + record->locks.count;
    for (; l < end; l++) {
        struct flock how = {.l_type = l->exclusive ? F_WRLCK : F_RDLCK,
                            .l_start = (long)l->start,
                            .l_len = (long)l->length};
        long r = l->kind == PH_LOCK_POSIX ? ph_syscall(SYS_fcntl, l->fd, F_SETLK, &how) : 0;
        if (r < 0)
            ph_r_fail(PH_EFILES, "cannot lock the file of descriptor", (uint64_t)l->fd, r);
    }
}

/* ---- the whole ------------------------------------------------------------------------------
 */

static int parse_fd(const char *s)
{
    int v = 0;
    while (*s >= '0' && *s <= '9')
        v = v * 10 + (*s++ - '0');
    return v;
}

__attribute__((used)) _Noreturn void ph_r_main(const uint64_t *sp);
_Noreturn void ph_r_main(const uint64_t *sp)
{
    if (sp[0] != 3) {
        ph_r_say("pyheap-restorer is started by pyheap-recover\n");
        ph_syscall(SYS_exit_group, 70);
    }
    int fd = parse_fd((const char *)sp[2]);
    uint64_t size = 0;
    for (const char *s = (const char *)sp[3]; *s; s++)
        size = size * 10 + (uint64_t)(*s - '0');
    ph_r_map_at(PH_PLAN_BASE, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0, "plan");
    plan = (struct ph_plan *)PH_PLAN_BASE;
    if (plan->magic != PH_PLAN_MAGIC || plan->size != size)
        ph_r_fail(PH_EINTERNAL, "plan", PH_PLAN_BASE, 0);
    record = (const struct ph_record_pm *)(PH_PLAN_BASE + plan->record_offset);

    read_maps();
    unmap_old();
    move_vdso(PH_VDSO_TEMPORARY);
    place_vdso();
    ph_r_memory(plan, record);
    ph_r_files(plan, record);
    ph_r_xsave_room(record);
    restore_mm();
    restore_descriptor_flags();
    restore_locks();
    restore_signals();
    const struct ph_thread_pm *leader = ph_r_threads(record);
    ph_r_fix_owners(plan, record);
    ph_r_timers(record);
    ph_r_send_pending();
    ph_r_clocks(plan, record);
    ph_r_owners_fixed();
    for (int i = 0; i < 3; i++)
        if (record->itimer[i].value_s | record->itimer[i].value_us)
            ph_syscall(SYS_setitimer, i, &record->itimer[i], 0);
    ph_r_timers_start(record);
    ph_r_resume(leader);
}

static unsigned char stack[65536] __attribute__((aligned(64), used));

__asm__(".globl _start\n"
        "_start:\n"
        "  mov %rsp, %rdi\n"
        "  movabs $stack+65536, %rsp\n"
        "  xor %ebp, %ebp\n"
        "  movabs $ph_r_main, %rax\n"
        "  call *%rax\n"
        "  hlt\n");
