/* SPDX-License-Identifier: MIT */
/*
 * recover.c - pyheap-recover: list, verify, or continue what a pool holds
 *
 * Everything is read and checked before anything is touched: the epoch's checksums, the
 * record, the machine. Only then the child is made that becomes the program, and this process
 * becomes its keeper.
 */
#include "allocator/cli.h"
#include "allocator/keeper.h"
#include "plan.h"
#include "recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ME "pyheap-recover"

static const char usage[] =
    "usage: pyheap-recover [options] pool.pm\n"
    "Go on with the program in the pool, after its last durable epoch.\n"
    "\n"
    "  --list         print the recoverable epochs and end\n"
    "  --verify       check every checksum of every recoverable epoch and end\n"
    "  --pack FILE    write a compact copy of the pool, for another machine, and end\n"
    "  --epoch N      go on from epoch N; later ones are discarded\n"
    "  --keep-files   do not cut output files back to their length at the epoch\n"
    "  --staging SIZE memory for epochs on their way to the pool (default: memory / 8, at "
    "most\n"
    "                 1G)\n"
    "  --every TIME, --on-signal NAME, --final-epoch, --strict\n"
    "                 as for pyheap-run; they are not remembered\n"
    "  --help, --version\n";

struct options {
    const char *path, *pack;
    bool list, verify, keep_files;
    unsigned long long epoch;
    struct ph_keeper_options keeper;
};

static _Noreturn void die(int code, const char *detail)
{
    ph_cli_die(ME, code, detail);
}

static void parse(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {{"list", no_argument, 0, 'l'},
                                          {"verify", no_argument, 0, 'v'},
                                          {"pack", required_argument, 0, 'p'},
                                          {"epoch", required_argument, 0, 'e'},
                                          {"keep-files", no_argument, 0, 'k'},
                                          {"help", no_argument, 0, 'h'},
                                          {"version", no_argument, 0, 'V'},
                                          PH_KEEPER_LONG_OPTIONS,
                                          {0, 0, 0, 0}};
    *o = (struct options){0};
    opterr = 0;
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        char detail[128];
        switch (option) {
        case 'l':
            o->list = true;
            break;
        case 'v':
            o->verify = true;
            break;
        case 'p':
            o->pack = optarg;
            break;
        case 'e':
            if (!ph_cli_size(optarg, &o->epoch) || !o->epoch)
                die(PH_EUSAGE, "--epoch takes the number of an epoch");
            break;
        case 'k':
            o->keep_files = true;
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        case 'V':
            puts(ME " " PYHEAP_VERSION);
            exit(0);
        default:
            if (ph_keeper_option(ME, option, optarg, &o->keeper))
                break;
            snprintf(detail, sizeof detail, "option %s", argv[optind - 1]);
            die(PH_EUSAGE, detail);
        }
    }
    if (optind + 1 != argc) {
        fputs(usage, stderr);
        exit(ph_error_status(PH_EUSAGE));
    }
    o->path = argv[optind];
}

/** All recoverable epochs, newest first; freed by the caller. */
static struct ph_epoch_info *epochs(struct ph_pool *pool, size_t *n)
{
    *n = ph_pool_epochs(pool, NULL, 0);
    struct ph_epoch_info *e = calloc(*n + 1, sizeof *e);
    if (!e)
        die(PH_ENOMEM, NULL);
    size_t again = ph_pool_epochs(pool, e, *n);
    *n = again < *n ? again : *n;
    return e;
}

/* ---- --list, --verify ---------------------------------------------------------------------
 */

/** Whether recovery of the newest epoch needs any mapped file on disk. */
static void list_files(struct ph_pool *pool, uint64_t newest)
{
    struct ph_view *view;
    size_t size, missing;
    uint64_t bytes;
    const char *why, *first;
    if (!newest || ph_pool_view(pool, newest, &view) != 0)
        return;
    const void *record = ph_view_record(view, &size);
    if (ph_record_check(record, size, &why) == 0) {
        size_t n = ph_recovery_needed(pool, record, &bytes, &missing, &first);
        if (missing)
            printf("self-contained: no, %zu of %zu mapped files are not in the pool (%s%s)\n",
                   missing, n, first, missing > 1 ? ", ..." : "");
        else
            printf("self-contained: yes, %zu mapped files, %.1f MiB\n", n,
                   (double)bytes / (1 << 20));
    }
    ph_view_free(view);
}

static void list(struct ph_pool *pool, const char *path)
{
    struct ph_pool_info info;
    ph_pool_get_info(pool, &info);
    size_t n;
    struct ph_epoch_info *e = epochs(pool, &n);
    printf("%s: %s, %s; %.1f MiB on disk\n", path, info.command,
           info.state == PH_POOL_FINISHED ? "finished" : "not finished",
           (double)info.allocated / (1 << 20));
    list_files(pool, info.newest);
    printf("%10s  %-19s  %10s  %14s  %s\n", "epoch", "time", "pages", "bytes", "label");
    for (size_t i = 0; i < n; i++) {
        char when[32];
        time_t t = (time_t)(e[i].time / 1000000000u);
        struct tm tm;
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
        printf("%10llu  %-19s  %10llu  %14llu  %s\n", (unsigned long long)e[i].number, when,
               (unsigned long long)e[i].pages, (unsigned long long)e[i].bytes, e[i].label);
    }
    free(e);
}

static uint64_t view_bytes(const struct ph_view *view)
{
    size_t n;
    const struct ph_run *run = ph_view_runs(view, &n);
    uint64_t pages = 0;
    for (size_t i = 0; i < n; i++)
        pages += run[i].npages;
    return pages * PH_PAGE;
}

/** Open the view of @p number, check its record and pages. @return 0 or why not. */
static int open_checked(struct ph_pool *pool, uint64_t number, struct ph_view **view,
                        char *detail, size_t size)
{
    *view = NULL;
    int rc = ph_pool_view(pool, number, view);
    if (rc) {
        snprintf(detail, size, "epoch %llu: %s", (unsigned long long)number,
                 ph_pool_error_detail(pool));
        return rc;
    }
    size_t record_size;
    const char *why = "";
    const void *record = ph_view_record(*view, &record_size);
    rc = ph_record_check(record, record_size, &why);
    if (rc) {
        snprintf(detail, size, "epoch %llu: record: %s", (unsigned long long)number, why);
    } else {
        uint64_t bad = 0;
        rc = ph_view_verify(*view, NULL, NULL, &bad);
        if (rc)
            snprintf(detail, size, "epoch %llu: page at 0x%llx", (unsigned long long)number,
                     (unsigned long long)bad);
    }
    if (rc) {
        ph_view_free(*view);
        *view = NULL;
    }
    return rc;
}

static int verify_files(struct ph_pool *pool)
{
    size_t n = ph_pool_files(pool);
    int result = 0;
    for (size_t i = 0; i < n; i++) {
        const struct ph_stored *file = ph_pool_file(pool, i);
        int rc = ph_stored_verify(pool, file);
        if (rc) {
            ph_cli_complain(ME, "the copy of a mapped file cannot be read",
                            ph_stored_path(file));
            result = rc;
        }
    }
    if (n && !result)
        printf("copies of %zu mapped files: intact\n", n);
    return result;
}

static int verify(struct ph_pool *pool)
{
    size_t n;
    struct ph_epoch_info *e = epochs(pool, &n);
    int result = n ? 0 : PH_ENOEPOCH;
    for (size_t i = 0; i < n; i++) {
        struct ph_view *view;
        char detail[256];
        int rc = open_checked(pool, e[i].number, &view, detail, sizeof detail);
        if (rc) {
            ph_cli_complain(ME, ph_error_text(rc), detail);
            result = rc;
            continue;
        }
        printf("epoch %llu: intact, %.1f MiB\n", (unsigned long long)e[i].number,
               (double)view_bytes(view) / (1 << 20));
        ph_view_free(view);
    }
    free(e);
    if (!n)
        ph_cli_complain(ME, ph_error_text(PH_ENOEPOCH), NULL);
    int rc = verify_files(pool);
    return result ? result : rc;
}

/* ---- recovering ---------------------------------------------------------------------------
 */

/** The epoch that was asked for, or the newest one that is intact. */
static struct ph_view *choose(struct ph_pool *pool, const struct options *o, uint64_t *number)
{
    struct ph_view *view = NULL;
    char detail[256];
    if (o->epoch) {
        int rc = open_checked(pool, o->epoch, &view, detail, sizeof detail);
        if (rc)
            die(rc, detail);
        *number = o->epoch;
        return view;
    }
    size_t n;
    struct ph_epoch_info *e = epochs(pool, &n);
    int rc = PH_ENOEPOCH;
    detail[0] = 0;
    for (size_t i = 0; i < n && !view; i++) {
        rc = open_checked(pool, e[i].number, &view, detail, sizeof detail);
        *number = e[i].number;
        if (rc)
            ph_cli_complain(ME, "an epoch is damaged; trying the one before", detail);
    }
    free(e);
    if (!view)
        die(rc, detail);
    return view;
}

static int make_plan(const struct ph_recovery *r, const struct ph_view *view,
                     const struct ph_keeper *keeper, struct ph_plan **out)
{
    size_t nruns, nmarked, record_size;
    struct ph_run *runs = ph_recovery_runs(r, view, &nruns);
    const struct ph_page_span *marked = ph_view_marked(view, &nmarked);
    if (!runs)
        die(PH_ENOMEM, "plan");
    const void *record = ph_view_record(view, &record_size);
    uint64_t record_offset = PH_PAGE;
    uint64_t runs_offset = (record_offset + record_size + 63) & ~UINT64_C(63);
    uint64_t marked_offset = runs_offset + nruns * sizeof *runs;
    uint64_t size = (marked_offset + nmarked * sizeof *marked + PH_PAGE - 1) & ~(PH_PAGE - 1);
    int fd = memfd_create("pyheap-plan", 0);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0)
        die(PH_ENOMEM, "plan");
    struct ph_plan *plan = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (plan == MAP_FAILED)
        die(PH_ENOMEM, "plan");
    *plan = (struct ph_plan){.magic = PH_PLAN_MAGIC,
                             .size = size,
                             .record_offset = record_offset,
                             .runs_offset = runs_offset,
                             .nruns = nruns,
                             .marked_offset = marked_offset,
                             .nmarked = nmarked,
                             .ring_pages = keeper->control->ring_pages};
    if (getenv("PYHEAP_FORCE_TRAMPOLINES"))
        plan->flags |= PH_PLAN_TRAMPOLINES;
    memcpy((char *)plan + record_offset, record, record_size);
    ph_recovery_detach(r, (void *)((char *)plan + record_offset));
    memcpy((char *)plan + runs_offset, runs, nruns * sizeof *runs);
    if (nmarked)
        memcpy((char *)plan + marked_offset, marked, nmarked * sizeof *marked);
    free(runs);
    *out = plan;
    return fd;
}

static bool used_by_program(const struct ph_record_pm *record, int fd)
{
    const struct ph_file_pm *f = (const void *)((const char *)record + record->files.offset);
    for (uint64_t i = 0; i < record->files.count; i++)
        if (f[i].fd == fd)
            return true;
    return fd == (int)record->socket_fd;
}

/** A copy of @p fd, at a number that the program does not use; high, where nothing else is. */
static int out_of_the_way(int fd, const struct ph_record_pm *record)
{
    struct rlimit limit;
    int number = 1023;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1024)
        number = (int)limit.rlim_cur - 1;
    for (; number > 2; number--) {
        int copy = used_by_program(record, number) ? -1 : fcntl(fd, F_DUPFD, number);
        if (copy == number)
            return copy;
        if (copy >= 0)
            close(copy); /* this number is taken by a descriptor of ours */
    }
    die(PH_EFILES, "no descriptor is left for recovery; raise ulimit -n");
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

/** In the child: the descriptors, the process attributes, then the restorer. */
static _Noreturn void become_program(struct ph_recovery *r, struct ph_keeper *k,
                                     struct ph_plan *plan, int plan_fd, const char *restorer,
                                     int gone)
{
    const struct ph_record_pm *record = r->record;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    int keep[6] = {(int)record->socket_fd,
                   out_of_the_way(ph_pool_fd(k->pool), record),
                   out_of_the_way(k->memfd, record),
                   out_of_the_way(plan_fd, record),
                   out_of_the_way(open(restorer, O_PATH | O_CLOEXEC), record),
                   out_of_the_way(gone, record)};
    if (dup2(k->program_socket, keep[0]) < 0)
        die(PH_EFILES, "ulimit -n is lower than it was for the program");
    plan->pool_fd = keep[1];
    plan->memfd = keep[2];
    plan->plan_fd = keep[3];
    k->control->socket_fd = keep[0];
    fcntl(keep[4], F_SETFD, FD_CLOEXEC);
    fcntl(keep[5], F_SETFD, FD_CLOEXEC);

    int rc = ph_recovery_open_files(r, keep, 6);
    if (rc == 0 && chdir(ph_record_text(record, record->cwd)) != 0) {
        snprintf(r->detail, sizeof r->detail, "working directory: %s", strerror(errno));
        rc = PH_EFILES;
    }
    if (rc) {
        ph_cli_complain(ME, ph_error_text(rc), r->detail);
        _exit(ph_error_status(rc));
    }
    restore_process(record);
    lead_again(record);
    char fd_text[16], size_text[24];
    snprintf(fd_text, sizeof fd_text, "%d", keep[3]);
    snprintf(size_text, sizeof size_text, "%llu", (unsigned long long)plan->size);
    char *argv[] = {"pyheap-restorer", fd_text, size_text, NULL}, *envp[] = {NULL};
    fexecve(keep[4], argv, envp);
    ph_cli_complain(ME, "cannot execute the restorer", strerror(errno));
    _exit(ph_error_status(PH_EINTERNAL));
}

static _Noreturn void recover(struct ph_pool *pool, const struct options *o)
{
    struct ph_pool_info info;
    ph_pool_get_info(pool, &info);
    if (info.state == PH_POOL_FINISHED && !o->epoch)
        die(PH_EFINISHED, o->path);
    char restorer[PATH_MAX];
    int rc = ph_cli_installed("libexec/pyheap/pyheap-restorer", restorer, sizeof restorer);
    if (rc)
        die(rc, restorer);

    uint64_t number = 0;
    struct ph_view *view = choose(pool, o, &number);
    size_t record_size;
    struct ph_recovery r = {.record = ph_view_record(view, &record_size),
                            .pool = pool,
                            .keep_files = o->keep_files};
    rc = ph_recovery_check(&r);
    if (rc)
        die(rc, r.detail);
    if (r.note[0])
        ph_cli_complain(ME, "going on, but", r.note);
    if (number != info.newest && (rc = ph_pool_rewind(pool, number)) != 0)
        die(rc, ph_pool_error_detail(pool));

    struct ph_keeper keeper;
    struct ph_plan *plan;
    rc = ph_keeper_open(&keeper, ME, o->path, pool, &o->keeper, r.record->generation + 1,
                        number);
    if (rc)
        die(rc, strerror(errno));
    int gone[2]; /* closed when the child is the restorer, or dead */
    if (pipe2(gone, O_CLOEXEC) != 0)
        die(PH_ENOMEM, strerror(errno));
    int plan_fd = make_plan(&r, view, &keeper, &plan);
    fflush(NULL);
    pid_t child = ph_recovery_fork(&r);
    if (child < 0)
        die(PH_ENOMEM, "fork");
    if (child == 0)
        become_program(&r, &keeper, plan, plan_fd, restorer, gone[1]);
    /* Until then the child may cut back a file that is our stderr, and with it what we say. */
    char none;
    close(gone[1]);
    while (read(gone[0], &none, 1) < 0 && errno == EINTR)
        ;
    close(gone[0]);
    ph_recovery_say_copies(&r, ME);
    if (r.detail[0])
        ph_cli_complain(ME, "going on, but", r.detail);
    close(plan_fd);
    munmap(plan, plan->size);
    free(r.copy);
    ph_view_free(view);
    ph_keeper_exit_like(ph_keeper_watch(&keeper, child));
}

int main(int argc, char **argv)
{
    struct options o;
    sigset_t mask; /* the restorer gives the program its own */
    ph_recovery_note_given();
    ph_keeper_block_signals(&mask);
    parse(&o, argc, argv);
    struct ph_pool *pool;
    bool read_only = o.list || o.verify;
    int rc = ph_pool_open(&pool, o.path, read_only ? PH_POOL_READ : PH_POOL_WRITE);
    if (rc)
        die(rc,
            rc == PH_ENOMEM ? "addresses for the pool; is there a limit, ulimit -v?" : o.path);
    if (o.pack) {
        rc = ph_pool_pack(pool, o.pack);
        if (rc)
            die(rc, ph_pool_error_detail(pool));
        ph_pool_close(pool);
        return 0;
    }
    if (!read_only)
        recover(pool, &o);
    if (o.list)
        list(pool, o.path);
    rc = o.verify ? verify(pool) : 0;
    ph_pool_close(pool);
    return ph_error_status(rc);
}
