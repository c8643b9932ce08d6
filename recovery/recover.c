/* SPDX-License-Identifier: MIT */
/*
 * recover.c - pyheap-recover: list, verify, or continue what a pool holds
 *
 * The record and the machine are checked before anything is touched. Then a child is made that
 * becomes the program (attempt.c), and this process becomes its keeper. If pages turn out to be
 * damaged before the program has taken a step, the epoch before is tried.
 */
#include "command.h"

#include "allocator/cli.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ME PH_COMMAND

static const char usage[] =
    "usage: pyheap-recover [options] pool.pm\n"
    "Go on with the program in the pool, after its last durable epoch.\n"
    "\n"
    "  --list         print the recoverable epochs and end\n"
    "  --verify       check every checksum of every recoverable epoch and end\n"
    "  --pack FILE    write a compact copy of the pool, for another machine, and end\n"
    "  --epoch N      go on from epoch N; later ones are discarded\n"
    "  --check-first  read and verify all of the epoch before the program starts; otherwise a\n"
    "                 large heap is verified while it runs\n"
    "  --keep-files   leave files as they are, instead of as they were at the epoch\n"
    "  --keep-file PATH\n"
    "                 nor this one, or those of a pattern; may be given again\n"
    "  --count-downtime\n"
    "                 monotonic clocks count the time since the epoch; otherwise they stand "
    "still\n"
    "  --staging SIZE memory for epochs on their way to the pool (default: memory / 8, at "
    "most\n"
    "                 1G)\n"
    "  --every TIME, --on-signal NAME, --final-epoch, --strict\n"
    "                 as for pyheap-run; they are not remembered\n"
    "  --help, --version\n";

struct options {
    const char *path, *pack;
    const char **keep; /* --keep-file */
    size_t nkeep;
    bool list, verify, keep_files, check_first, count_downtime;
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
                                          {"keep-file", required_argument, 0, 'f'},
                                          {"check-first", no_argument, 0, 'c'},
                                          {"count-downtime", no_argument, 0, 'd'},
                                          {"help", no_argument, 0, 'h'},
                                          {"version", no_argument, 0, 'V'},
                                          PH_KEEPER_LONG_OPTIONS,
                                          {0, 0, 0, 0}};
    *o = (struct options){.keep = calloc((size_t)argc, sizeof *o->keep)};
    if (!o->keep)
        die(PH_ENOMEM, "options");
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
        case 'f':
            o->keep[o->nkeep++] = optarg;
            break;
        case 'c':
            o->check_first = true;
            break;
        case 'd':
            o->count_downtime = true;
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

/* ---- recovering ---------------------------------------------------------------------------
 */

#define MAP_LEAST ((UINT64_C(128) << 20) / PH_PAGE)

/** From how many pages on the heap is mapped instead of read. An older epoch is read: the
 * later ones are discarded only when it is known to be whole. */
static uint64_t map_least(const struct options *o, bool newest)
{
    const char *forced = getenv("PYHEAP_MAP_LEAST"); /* pages: for tests */
    if (o->check_first || !newest)
        return UINT64_MAX;
    return forced ? strtoull(forced, NULL, 10) : MAP_LEAST;
}

/** Bring @p view back and stay with it. Returns only if its pages are damaged. */
static void try_epoch(struct ph_pool *pool, const struct options *o, struct ph_view *view,
                      uint64_t number, bool newest, char *detail, size_t size)
{
    char restorer[PATH_MAX];
    size_t record_size;
    struct ph_pool_info info;
    ph_pool_get_info(pool, &info);
    struct ph_recovery r = {.record = ph_view_record(view, &record_size),
                            .pool_id = info.id,
                            .pool = pool,
                            .discards = !newest,
                            .pool_path = o->path,
                            .count_downtime = o->count_downtime,
                            .keep_files = o->keep_files,
                            .keep = o->keep,
                            .nkeep = o->nkeep};
    int rc = ph_cli_installed("libexec/pyheap/pyheap-restorer", restorer, sizeof restorer);
    if (rc)
        die(rc, restorer);
    rc = ph_recovery_check(&r);
    if (rc)
        die(rc, r.detail);
    ph_recovery_say_located(&r, ME);
    if (r.note[0])
        ph_cli_complain(ME, "going on, but", r.note);

    struct ph_keeper keeper;
    pid_t child;
    bool mapped;
    uint64_t least = map_least(o, newest);
    for (int i = 0; i < 2; i++) {
        rc = ph_keeper_open(&keeper, ME, o->path, pool, &o->keeper, r.record->generation + 1,
                            number);
        if (rc)
            die(rc, keeper.detail);
        rc = ph_attempt(&r, view, &keeper, restorer, number, least, &child, &mapped);
        if (rc)
            ph_keeper_close(&keeper);
        if (rc != PH_EMAP)
            break;
        least = UINT64_MAX;
    }
    if (rc == PH_ECORRUPT) {
        snprintf(detail, size, "epoch %llu: %.64s", (unsigned long long)number, r.detail);
        ph_recovery_mapped_free(&r);
        ph_recovery_undo_free(&r);
        ph_recovery_locate_free(&r);
        return;
    }
    if (rc)
        die(rc, "mapping the pool");
    ph_recovery_say_copies(&r, ME);
    if (!newest && !o->epoch)
        fprintf(stderr, "%s: going on from epoch %llu, the newest that is intact\n", ME,
                (unsigned long long)number);
    ph_recovery_mapped_free(&r);
    ph_recovery_undo_free(&r);
    ph_recovery_locate_free(&r);
    if (!mapped)
        ph_view_free(view);
    ph_keeper_exit_like(ph_keeper_watch(&keeper, child));
}

/** The epoch that was asked for, or the newest one that is intact. */
static _Noreturn void recover(struct ph_pool *pool, const struct options *o)
{
    struct ph_pool_info info;
    char detail[256] = "";
    size_t n;
    int rc = PH_ENOEPOCH;
    ph_pool_get_info(pool, &info);
    if (info.state == PH_POOL_FINISHED && !o->epoch)
        die(PH_EFINISHED, o->path);
    struct ph_epoch_info *e = ph_command_epochs(pool, &n);
    for (size_t i = 0; i < (o->epoch ? 1 : n); i++) {
        uint64_t number = o->epoch ? o->epoch : e[i].number;
        struct ph_view *view;
        rc = ph_command_view(pool, number, &view, detail, sizeof detail);
        if (rc == 0) {
            try_epoch(pool, o, view, number, number == info.newest, detail, sizeof detail);
            rc = PH_ECORRUPT;
            ph_view_free(view);
        }
        if (!o->epoch && i == 0 && n > 1)
            ph_cli_complain(ME, "the newest epoch is damaged; trying those before", detail);
    }
    free(e);
    die(rc, detail);
}

/** What the program has cut off its files goes first: without it the copy is of little use. */
static _Noreturn void pack(struct ph_pool *pool, const struct options *o)
{
    char directory[PH_UNDO_MAX];
    bool is_new = access(o->pack, F_OK) != 0; /* else packing refuses */
    int rc = is_new ? ph_undo_copy(o->path, o->pack, directory) : 0;
    if (rc)
        die(rc, directory);
    rc = ph_pool_pack(pool, o->pack);
    if (rc && is_new)
        ph_undo_clear(o->pack);
    if (rc)
        die(rc, ph_pool_error_detail(pool));
    ph_pool_close(pool);
    exit(0);
}

int main(int argc, char **argv)
{
    struct options o;
    sigset_t mask; /* the restorer gives the program its own */
    ph_recovery_note_given();
    ph_keeper_block_signals(&mask);
    parse(&o, argc, argv);
    ph_cli_expect_no_pool(ME, o.path);
    struct ph_pool *pool;
    bool read_only = o.list || o.verify;
    if (!read_only)
        ph_cli_need_proc(ME);
    int rc = ph_pool_open(&pool, o.path, read_only ? PH_POOL_READ : PH_POOL_WRITE);
    if (rc)
        die(rc, rc == PH_ENOMEM
                    ? "addresses or a thread for the pool; is there a limit, ulimit -v or -u?"
                    : o.path);
    if (o.pack)
        pack(pool, &o);
    if (!read_only)
        recover(pool, &o);
    if (o.list)
        ph_command_list(pool, o.path);
    rc = o.verify ? ph_command_verify(pool) : 0;
    ph_pool_close(pool);
    return ph_error_status(rc);
}
