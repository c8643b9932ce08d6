/* SPDX-License-Identifier: MIT */
/*
 * attempt.c - one attempt to bring a program back: the plan, the child that becomes it
 *
 * What is read is verified by the restorer, before the program takes its first step; damage
 * ends the attempt. What is mapped is verified while the program runs (keeper_check.h).
 */
#include "command.h"
#include "plan.h"
#include "progress.h"

#include "allocator/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void die(int code, const char *detail)
{
    ph_cli_die(PH_COMMAND, code, detail);
}

/* ---- the plan ------------------------------------------------------------------------- */

/** What the keeper's check works on. */
struct hold {
    struct ph_view *view;
    struct ph_place *mapped;
    size_t n;
    uint64_t epoch;
};

static void *part(struct ph_plan *plan, uint64_t offset)
{
    return (char *)plan + offset;
}

/** Room for @p size bytes at *end. @return where. */
static uint64_t take(uint64_t *end, uint64_t size)
{
    uint64_t at = *end;
    *end = (at + size + 63) & ~UINT64_C(63);
    return at;
}

/** The checksums of what is to be read, in that order; the places name them from now on. */
static void fill_sums(struct ph_plan *plan, const struct ph_view *view)
{
    struct ph_place *place = part(plan, plan->places_offset);
    struct ph_sum_pm *to = part(plan, plan->sums_offset);
    const struct ph_sum_pm *from = ph_view_sums(view);
    uint64_t n = 0;
    for (uint64_t i = 0; i < plan->nplaces; i++) {
        if (place[i].how != PH_PLACE_READ)
            continue;
        memcpy(to + n, from + place[i].sum, place[i].npages * sizeof *to);
        place[i].sum = n;
        n += place[i].npages;
    }
}

static uint64_t pages_to_read(const struct ph_place *place, size_t n, bool with_copies)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < n; i++)
        if (place[i].how == PH_PLACE_READ || (with_copies && place[i].how == PH_PLACE_COPY))
            pages += place[i].npages;
    return pages;
}

static int make_plan(const struct ph_recovery *r, const struct ph_view *view,
                     const struct ph_keeper *keeper, const struct ph_place *place,
                     size_t nplaces, struct ph_plan **out)
{
    size_t nmarked, record_size;
    const struct ph_page_span *marked = ph_view_marked(view, &nmarked);
    const void *record = ph_view_record(view, &record_size);
    struct ph_plan p = {.magic = PH_PLAN_MAGIC,
                        .nplaces = nplaces,
                        .nmarked = nmarked,
                        .ring_pages = keeper->control->ring_pages,
                        .parent = getpid(),
                        .undoing = r->discards || r->nundo || r->undo_forgotten};
    uint64_t end = PH_PAGE, sums = pages_to_read(place, nplaces, false);
    p.record_offset =
        take(&end, record_size + ph_recovery_located_size(r) + ph_recovery_moved_size(r));
    p.places_offset = take(&end, nplaces * sizeof *place);
    p.cuts_offset = take(&end, r->record->files.count * sizeof(struct ph_cut));
    p.marked_offset = take(&end, nmarked * sizeof *marked);
    p.sums_offset = take(&end, sums * sizeof(struct ph_sum_pm));
    p.size = (end + PH_PAGE - 1) & ~(PH_PAGE - 1);
    if (getenv("PYHEAP_FORCE_TRAMPOLINES"))
        p.flags |= PH_PLAN_TRAMPOLINES;
    if (r->count_downtime)
        p.flags |= PH_PLAN_DOWNTIME;
    if (ph_recovery_enters_late(r))
        p.flags |= PH_PLAN_ENTER;
    int fd = memfd_create("pyheap-plan", 0);
    if (fd < 0 || ftruncate(fd, (off_t)p.size) != 0)
        die(ph_error_of(errno) == PH_EMFILE ? PH_EMFILE : PH_ENOMEM, "plan");
    struct ph_plan *plan = mmap(NULL, p.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (plan == MAP_FAILED)
        die(PH_ENOMEM, "plan");
    *plan = p;
    memcpy(part(plan, p.record_offset), record, record_size);
    ph_recovery_detach(r, part(plan, p.record_offset), record_size);
    ph_recovery_undo_postpone(r, part(plan, p.record_offset));
    memcpy(part(plan, p.places_offset), place, nplaces * sizeof *place);
    if (nmarked)
        memcpy(part(plan, p.marked_offset), marked, nmarked * sizeof *marked);
    fill_sums(plan, view);
    *out = plan;
    return fd;
}

/* ---- the child ------------------------------------------------------------------------ */

static bool used_by_program(const struct ph_record_pm *record, int fd)
{
    const struct ph_file_pm *f = (const void *)((const char *)record + record->files.offset);
    for (uint64_t i = 0; i < record->files.count; i++)
        if (f[i].fd == fd)
            return true;
    return fd == (int)record->socket_fd;
}

#define COPIES 16 /* more than there are */

/** A copy of @p fd, at a number that the program does not use; high, where nothing else is. */
static int out_of_the_way(int fd, const struct ph_record_pm *record)
{
    const struct ph_file_pm *f = (const void *)((const char *)record + record->files.offset);
    struct rlimit limit;
    int number = 1023;
    for (uint64_t i = 0; i < record->files.count; i++)
        if (f[i].fd > number - COPIES)
            number = f[i].fd + COPIES;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= (rlim_t)number)
        number = (int)limit.rlim_cur - 1;
    for (; number > 2; number--) {
        int copy = used_by_program(record, number) ? -1 : fcntl(fd, F_DUPFD, number);
        if (copy == number)
            return copy;
        if (copy >= 0)
            close(copy); /* this number is taken by a descriptor of ours */
    }
    die(PH_EMFILE, "for recovery");
}

static void restore_process(const struct ph_record_pm *record)
{
    for (unsigned i = 0; i < PH_LIMITS; i++) {
        struct rlimit now, then = {record->limit[i].soft, record->limit[i].hard};
        if (i == RLIMIT_NOFILE || getrlimit((__rlimit_resource_t)i, &now) != 0)
            continue; /* the restorer sets that one, when it needs no descriptors any more */
        if (then.rlim_max > now.rlim_max)
            then.rlim_max = now.rlim_max;
        if (then.rlim_cur > then.rlim_max)
            then.rlim_cur = then.rlim_max;
        setrlimit((__rlimit_resource_t)i, &then);
    }
    umask(record->umask);
}

/**
 * A program that led a group or a session leads one again, and has the terminal if it had and
 * this command has it now.
 */
static void lead_again(const struct ph_record_pm *record)
{
    pid_t before = getpgrp();
    sigset_t ttou;
    if (record->leads & PH_LEADS_SESSION)
        setsid();
    else if (record->leads & PH_LEADS_GROUP)
        setpgid(0, 0);
    if (!(record->leads & PH_FOREGROUND))
        return;
    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou, NULL); /* the restorer sets the program's own mask */
    for (int fd = 0; fd < 3; fd++)
        if (tcgetpgrp(fd) == before)
            tcsetpgrp(fd, getpid());
}

/** In the parent: a child that has come to nothing may have had the terminal. */
static void take_terminal_back(pid_t child)
{
    sigset_t ttou, old;
    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou, &old);
    for (int fd = 0; fd < 3; fd++)
        if (tcgetpgrp(fd) == child)
            tcsetpgrp(fd, getpgrp());
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/** In the child: the descriptors, the process attributes, then the restorer. */
static _Noreturn void become_program(struct ph_recovery *r, struct ph_keeper *k,
                                     struct ph_plan *plan, int plan_fd, const char *restorer)
{
    const struct ph_record_pm *record = r->record;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    int keep[5] = {(int)record->socket_fd, out_of_the_way(ph_pool_fd(k->pool), record),
                   out_of_the_way(k->memfd, record), out_of_the_way(plan_fd, record),
                   out_of_the_way(open(restorer, O_PATH | O_CLOEXEC), record)};
    if (dup2(k->program_socket, keep[0]) < 0)
        die(PH_EMFILE, "the limit is lower than it was for the program");
    plan->pool_fd = keep[1];
    r->pool_fd = keep[1];
    plan->memfd = keep[2];
    plan->plan_fd = keep[3];
    k->control->socket_fd = keep[0];
    fcntl(keep[4], F_SETFD, FD_CLOEXEC);

    r->cut = part(plan, plan->cuts_offset);
    r->ncut = 0;
    int rc = ph_recovery_open_files(r, keep, 5);
    if (rc == 0)
        rc = ph_recovery_enter_directory(r);
    if (rc) {
        ph_cli_complain(PH_COMMAND, ph_error_text(rc), r->detail);
        _exit(ph_error_status(rc));
    }
    plan->ncuts = r->ncut;
    restore_process(record);
    lead_again(record);
    char fd_text[16], size_text[24];
    snprintf(fd_text, sizeof fd_text, "%d", keep[3]);
    snprintf(size_text, sizeof size_text, "%llu", (unsigned long long)plan->size);
    char *argv[] = {"pyheap-restorer", fd_text, size_text, NULL}, *envp[] = {NULL};
    fexecve(keep[4], argv, envp);
    /* Filters that are older than execveat deny it in a way that libc takes for an answer. */
    char path[48];
    snprintf(path, sizeof path, "/proc/self/fd/%d", keep[4]);
    execve(path, argv, envp);
    ph_cli_complain(PH_COMMAND, "cannot execute the restorer", strerror(errno));
    _exit(ph_error_status(PH_EINTERNAL));
}

static bool has_ended(pid_t child)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid;
}

/** Show how far the restorer has come, but never over what the program writes: it waits for
 * the line to be gone. */
static void show_progress(struct ph_plan *plan, struct ph_progress *progress, uint64_t total)
{
    if (!ph_progress_due(progress))
        return;
    atomic_store(&plan->shown, 1);
    if (atomic_load(&plan->state) == PH_PLAN_FILLING)
        ph_progress_show(progress, atomic_load(&plan->done) * PH_PAGE, total * PH_PAGE);
}

static enum ph_plan_state wait_until_filled(struct ph_plan *plan, pid_t child, uint64_t epoch,
                                            uint64_t total)
{
    struct ph_progress progress;
    uint32_t state;
    ph_progress_begin(&progress, PH_COMMAND, epoch);
    while ((state = atomic_load(&plan->state)) == PH_PLAN_FILLING && !has_ended(child)) {
        show_progress(plan, &progress, total);
        ph_futex_wait(&plan->state, PH_PLAN_FILLING, 100);
    }
    ph_progress_end(&progress);
    fflush(stderr);
    atomic_store(&plan->shown, 0);
    ph_futex_wake(&plan->shown);
    return state;
}

static _Noreturn void give_up(pid_t child, int rc, const char *detail)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    take_terminal_back(child);
    die(rc, detail);
}

/** All memory is right: now files may change, but not while the pool still says that it goes on
 *  from a later epoch, which needs them as they are. The program waits for it. */
static void undo(struct ph_recovery *r, struct ph_plan *plan, pid_t child)
{
    int rc = r->discards ? ph_pool_rewind(r->pool, r->record->epoch) : 0;
    if (rc)
        give_up(child, rc, ph_pool_error_detail(r->pool));
    if ((rc = ph_recovery_undo(r)) != 0)
        give_up(child, rc, r->detail);
    atomic_store(&plan->undoing, 0);
    ph_futex_wake(&plan->undoing);
}

/** Our standard error may be the program's, and be cut back: what we say before that is lost.
 */
static void say_undone(const struct ph_recovery *r, struct ph_plan *plan, pid_t child)
{
    while (atomic_load(&plan->state) == PH_PLAN_FILLED && !has_ended(child))
        ph_futex_wait(&plan->state, PH_PLAN_FILLED, 100);
    if (r->put_aside)
        fprintf(stderr,
                "%s: %llu file%s that the program had not open at the epoch %s; "
                "what was made or appended since is in %s until the run ends\n",
                PH_COMMAND, (unsigned long long)r->put_aside, r->put_aside == 1 ? "" : "s",
                r->put_aside == 1 ? "is as it was" : "are as they were", r->undo_directory);
    if (r->undo_forgotten)
        fprintf(stderr,
                "%s: what the program has done to other files since this epoch is undone in "
                "part only: it is kept for the newest epochs\n",
                PH_COMMAND);
}

/* ---- what is verified later ----------------------------------------------------------- */

static struct ph_run run_of(const struct ph_place *place)
{
    return (struct ph_run){place->addr, place->npages, place->offset};
}

static int verify_mapped(void *arg, const _Atomic bool *stop, char *detail, size_t size)
{
    const struct hold *h = arg;
    int rc = 0;
    uint64_t bad = 0;
    for (size_t i = 0; i < h->n && rc == 0; i++) {
        struct ph_run run = run_of(&h->mapped[i]), next;
        bool last = i + 1 == h->n;
        if (!last)
            next = run_of(&h->mapped[i + 1]);
        rc = ph_view_verify_run(h->view, &run, last ? NULL : &next, h->mapped[i].sum, stop,
                                &bad);
    }
    if (rc)
        snprintf(detail, size,
                 "epoch %llu: page at 0x%llx, found while the program was running: it was "
                 "ended, and nothing of it saved",
                 (unsigned long long)h->epoch, (unsigned long long)bad);
    return rc;
}

static void release(void *arg)
{
    struct hold *h = arg;
    ph_view_free(h->view);
    free(h->mapped);
    free(h);
}

/* ---- the whole ------------------------------------------------------------------------ */

static int outcome(struct ph_recovery *r, const struct ph_plan *plan, enum ph_plan_state state,
                   pid_t child)
{
    if (state != PH_PLAN_DAMAGED && state != PH_PLAN_NO_MAP)
        return 0;
    waitpid(child, NULL, 0);
    take_terminal_back(child);
    snprintf(r->detail, sizeof r->detail, "page at 0x%llx", (unsigned long long)plan->bad);
    return state == PH_PLAN_DAMAGED ? PH_ECORRUPT : PH_EMAP;
}

int ph_attempt(struct ph_recovery *r, struct ph_view *view, struct ph_keeper *keeper,
               const char *restorer, uint64_t epoch, uint64_t least, pid_t *child, bool *mapped)
{
    size_t n;
    struct hold *hold = calloc(1, sizeof *hold);
    struct ph_place *place = ph_recovery_places(r, view, &n);
    if (!place || !hold)
        die(PH_ENOMEM, "plan");
    *mapped = ph_recovery_map(r->record, &place, &n, &hold->mapped, &hold->n, least) != 0;
    uint64_t total = pages_to_read(place, n, true);
    keeper->control->undo_number = keeper->control->undo_first = r->undo_number;
    struct ph_plan *plan;
    int plan_fd = make_plan(r, view, keeper, place, n, &plan);
    free(place);
    fflush(NULL);
    *child = fork();
    if (*child < 0)
        die(PH_ENOMEM, "fork");
    if (*child == 0)
        become_program(r, keeper, plan, plan_fd, restorer);
    enum ph_plan_state state = wait_until_filled(plan, *child, epoch, total);
    if (state == PH_PLAN_FILLED && atomic_load(&plan->undoing))
        undo(r, plan, *child);
    say_undone(r, plan, *child);
    int rc = outcome(r, plan, state, *child);
    close(plan_fd);
    munmap(plan, plan->size);
    hold->view = view;
    hold->epoch = epoch;
    if (rc == 0 && *mapped) {
        keeper->check.run = verify_mapped;
        keeper->check.release = release;
        keeper->check.arg = hold;
    } else {
        *mapped = false;
        free(hold->mapped);
        free(hold);
    }
    return rc;
}
