/* SPDX-License-Identifier: MIT */
/* test_pool_claim - the name before the pool, and the making of the pool with the first epoch
 */
#include "tests/unit/pool_fixture.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

TestSuite(pool_claim, .init = fixture_setup, .fini = fixture_teardown);

#define HEAP PH_HEAP_BASE

static const struct ph_pool_options small = {.size = 64 << 20, .command = "python3 prog.py"};

/* In the place of libc's: a file system without nameless files, and others that come between.
 */
static bool no_nameless;
static void (*after_open)(void); /* of the pool's name for writing; once */

int open(const char *path, int flags, ...)
{
    va_list more;
    mode_t mode;

    va_start(more, flags);
    mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (no_nameless && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    void (*fn)(void) = after_open;
    if (fn && (flags & O_ACCMODE) == O_RDWR && strcmp(path, fixture_path) == 0) {
        after_open = NULL;
        fn();
    }
    return fd;
}

static struct ph_pool *claim(void)
{
    struct ph_pool *p;

    OK(ph_pool_claim(&p, fixture_path, &small));
    cr_assert(ph_pool_is_claim(p));
    return p;
}

static unsigned files_in(const char *directory)
{
    DIR *d = opendir(directory);
    unsigned n = 0;

    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static unsigned files_in_directory(void)
{
    return files_in(fixture_dir);
}

static int open_status(enum ph_pool_mode mode)
{
    struct ph_pool *p;
    int err = ph_pool_open(&p, fixture_path, mode);

    ph_pool_close(p);
    return err;
}

static void write_file(const char *bytes, size_t n)
{
    int fd = open(fixture_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    cr_assert_eq(write(fd, bytes, n), (ssize_t)n);
    close(fd);
}

static uint64_t file_size(void)
{
    struct stat st;

    return stat(fixture_path, &st) == 0 ? (uint64_t)st.st_size : UINT64_MAX;
}

static void assert_no_epochs(struct ph_pool *p)
{
    struct ph_pool_info info;
    struct ph_view *v;

    ph_pool_get_info(p, &info);
    cr_assert_eq(info.newest, 0);
    cr_assert_eq(info.oldest, 0);
    cr_assert_eq(info.state, PH_POOL_RUNNING);
    cr_assert_eq(info.keep, 2);
    cr_assert_eq(info.size, 64 << 20);
    cr_assert_str_eq(info.command, "python3 prog.py");
    cr_assert_eq(ph_pool_epochs(p, NULL, 0), 0);
    cr_assert_eq(ph_pool_files(p), 0);
    RETURNS(PH_ENOEPOCH, ph_pool_view(p, 1, &v));
}

Test(pool_claim, is_a_private_page_and_to_others_a_pool_without_epochs)
{
    struct ph_pool *p = claim(), *q;
    struct stat st;

    cr_assert_eq(stat(fixture_path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0600);
    cr_assert_eq(st.st_size, (off_t)PH_PAGE);
    assert_no_epochs(p);
    q = fixture_open(PH_POOL_READ);
    assert_no_epochs(q);
    RETURNS(PH_EUSAGE, ph_pool_begin(q, 1));
    ph_pool_close(q);
    ph_pool_close(p);
    q = fixture_open(PH_POOL_WRITE);
    assert_no_epochs(q);
    RETURNS(PH_ENOEPOCH, ph_pool_rewind(q, 1));
    RETURNS(PH_ENOEPOCH, ph_pool_pack(q, "/nonexistent/copy.pm"));
    RETURNS(PH_EUSAGE, ph_pool_finish(q, 0));
    ph_pool_remove(q);
    cr_assert_eq(files_in_directory(), 0);
}

Test(pool_claim, nobody_else_gets_the_name_before_and_after_the_making)
{
    struct ph_pool *p = claim(), *q;

    for (int made = 0; made < 2; made++) {
        RETURNS(PH_EUNFINISHED, ph_pool_claim(&q, fixture_path, &small));
        RETURNS(PH_EBUSY, open_status(PH_POOL_WRITE));
        RETURNS(PH_EBUSY, ph_pool_clear(fixture_path, false));
        RETURNS(PH_EBUSY, ph_pool_clear(fixture_path, true));
        cr_assert_eq(files_in_directory(), 1);
        fixture_one_page(p, 1 + (uint64_t)made, HEAP, 7, false);
        cr_assert(!ph_pool_is_claim(p));
    }
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    cr_assert(fixture_holds(p, 2, HEAP, 7));
    ph_pool_close(p);
    RETURNS(PH_EUNFINISHED, ph_pool_clear(fixture_path, false));
    OK(ph_pool_clear(fixture_path, true));
    OK(ph_pool_clear(fixture_path, false)); /* nothing there */
    cr_assert_eq(files_in_directory(), 0);
}

Test(pool_claim, limits_and_sizes_are_noticed_at_once)
{
    struct ph_pool *p;
    struct ph_pool_options tiny = {.size = 1 << 20}, tight = {.size = 16 << 20};

    RETURNS(PH_EPOOLSIZE, ph_pool_claim(&p, fixture_path, &tiny));
    ph_tuning.stretch_pages = PH_STRETCH_PAGES;
    RETURNS(PH_EPOOLSIZE, ph_pool_claim(&p, fixture_path, &tight));
    RETURNS(PH_ENOENT, ph_pool_claim(&p, "/nonexistent/x.pm", &small));
    cr_assert_eq(files_in_directory(), 0);
}

/* ---- a making that fails -------------------------------------------------------------- */

static struct {
    enum ph_io_op op;
    long countdown; /* -1: never */
    bool ends;      /* the process, there */
} fault;

static int inject(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)offset, (void)size;
    if (op != fault.op || fault.countdown < 0 || fault.countdown-- > 0)
        return 0;
    if (fault.ends)
        _exit(77);
    return ENOSPC;
}

static const struct ph_io_hooks hooks = {.before = inject};

static void fail_at_each_step(void)
{
    unsigned long failed = 0;

    ph_io_hooks = &hooks;
    for (enum ph_io_op op = PH_IO_READ; op <= PH_IO_TRUNCATE; op++)
        for (long at = 0, err = 1; err; at++) {
            fault.countdown = -1;
            struct ph_pool *p = claim();
            unsigned descriptors = files_in("/proc/self/fd");
            fault.op = op;
            fault.countdown = at;
            err = ph_pool_begin(p, 1);
            bool hit = fault.countdown < 0;
            fault.countdown = -1;
            if (err) {
                cr_assert(err == PH_EFULL || err == PH_EIO, "%s", ph_error_name((int)err));
                cr_assert_neq(strlen(ph_pool_error_detail(p)), 0);
                cr_assert(ph_pool_is_claim(p));
                cr_assert_eq(files_in("/proc/self/fd"), descriptors);
                cr_assert_eq(file_size(), PH_PAGE);
                cr_assert_eq(files_in_directory(), 1);
                assert_no_epochs(p);
                RETURNS(PH_EBUSY, open_status(PH_POOL_WRITE));
                failed++;
            } else {
                ph_pool_abort(p);
                err = hit; /* some reads are tried again */
            }
            fixture_one_page(p, 2, HEAP, 9, false); /* there is space again */
            ph_pool_close(p);
            p = fixture_open(PH_POOL_READ);
            cr_assert(fixture_holds(p, 2, HEAP, 9));
            ph_pool_close(p);
            OK(ph_pool_clear(fixture_path, true));
        }
    cr_assert_gt(failed, 5);
}

Test(pool_claim, failed_making_leaves_the_claim_and_the_next_epoch_tries_again)
{
    fail_at_each_step();
}

Test(pool_claim, the_same_without_nameless_files)
{
    no_nameless = true;
    fail_at_each_step();
}

/* What a process that ends within the making leaves is a claim, and nothing for good. */
static void end_at_each_step(void)
{
    unsigned ended = 0;

    ph_io_hooks = &hooks;
    fault.ends = true;
    for (enum ph_io_op op = PH_IO_READ; op <= PH_IO_TRUNCATE; op++)
        for (long at = 0, went_on = 0; !went_on; at++) {
            int status;
            pid_t pid = fork();
            if (pid == 0) {
                struct ph_pool *p;
                fault.countdown = -1;
                if (ph_pool_claim(&p, fixture_path, &small))
                    _exit(1);
                fault.op = op;
                fault.countdown = at;
                _exit(ph_pool_begin(p, 1) ? 2 : 0);
            }
            cr_assert_eq(waitpid(pid, &status, 0), pid);
            went_on = WEXITSTATUS(status) != 77;
            cr_assert(WIFEXITED(status) && (!went_on || status == 0));
            ended += !went_on;
            fault.countdown = -1;
            struct ph_pool *p = fixture_open(PH_POOL_READ);
            cr_assert_eq(ph_pool_is_claim(p), !went_on);
            assert_no_epochs(p);
            ph_pool_close(p);
            OK(open_status(PH_POOL_WRITE));
            OK(ph_pool_clear(fixture_path, false));
            cr_assert_eq(files_in_directory(), 0);
        }
    cr_assert_gt(ended, 8);
}

Test(pool_claim, a_process_that_ends_within_the_making_leaves_a_claim)
{
    end_at_each_step();
}

Test(pool_claim, likewise_without_nameless_files)
{
    no_nameless = true;
    end_at_each_step();
}

Test(pool_claim, a_name_that_was_removed_is_given_again_and_that_of_another_is_left)
{
    struct ph_pool *p = claim();
    char away[300];

    cr_assert_eq(unlink(fixture_path), 0);
    fixture_one_page(p, 1, HEAP, 3, false);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_READ);
    cr_assert(fixture_holds(p, 1, HEAP, 3));
    ph_pool_close(p);
    OK(ph_pool_clear(fixture_path, true));

    p = claim();
    snprintf(away, sizeof(away), "%s.away", fixture_path);
    cr_assert_eq(rename(fixture_path, away), 0);
    write_file("another's", 9);
    RETURNS(PH_EBUSY, ph_pool_begin(p, 1));
    RETURNS(PH_EBUSY, ph_pool_begin(p, 2));
    ph_pool_remove(p);
    cr_assert_eq(file_size(), 9);
    cr_assert_eq(files_in_directory(), 2);
    unlink(away);
}

/* ---- what is found under the name ------------------------------------------------------ */

static void refused(int code, bool may_go)
{
    RETURNS(code, open_status(PH_POOL_READ));
    RETURNS(code, open_status(PH_POOL_WRITE));
    RETURNS(code, ph_pool_clear(fixture_path, false));
    RETURNS(may_go ? 0 : code, ph_pool_clear(fixture_path, true));
    cr_assert_eq(access(fixture_path, F_OK), may_go ? -1 : 0);
}

Test(pool_claim, damaged_claims_are_recognised)
{
    for (size_t at = 8; at < sizeof(struct ph_claim_pm); at += 5) {
        char byte;
        ph_pool_close(claim());
        int fd = open(fixture_path, O_RDWR);
        cr_assert_eq(pread(fd, &byte, 1, (off_t)at), 1);
        byte ^= 0x10;
        cr_assert_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
        close(fd);
        refused(at < 12 ? PH_ENEWER : PH_ECORRUPT, true);
    }
    ph_pool_close(claim());
    cr_assert_eq(truncate(fixture_path, 100), 0);
    refused(PH_ETRUNC, true);
}

Test(pool_claim, an_empty_file_may_be_taken_but_nothing_else_that_is_no_pool)
{
    write_file("", 0);
    RETURNS(PH_ENOTPOOL, open_status(PH_POOL_READ));
    OK(ph_pool_clear(fixture_path, false));
    cr_assert_eq(files_in_directory(), 0);
    write_file("text", 4);
    refused(PH_ENOTPOOL, false);
    unlink(fixture_path);
    cr_assert_eq(mkdir(fixture_path, 0700), 0);
    RETURNS(PH_ENOTPOOL, ph_pool_clear(fixture_path, true));
    rmdir(fixture_path);
}

Test(pool_claim, a_finished_run_makes_way)
{
    struct ph_pool *p = claim();

    fixture_one_page(p, 1, HEAP, 3, false);
    OK(ph_pool_finish(p, 0));
    ph_pool_close(p);
    OK(ph_pool_clear(fixture_path, false));
    cr_assert_eq(files_in_directory(), 0);
}

static struct ph_pool *other;

static void another_takes_the_name(void)
{
    OK(ph_pool_clear(fixture_path, false));
    OK(ph_pool_claim(&other, fixture_path, &small));
}

Test(pool_claim, what_has_taken_the_name_meanwhile_is_not_cleared_away)
{
    ph_pool_close(claim()); /* left by a keeper that is dead */
    after_open = another_takes_the_name;
    RETURNS(PH_EBUSY, ph_pool_clear(fixture_path, true));
    cr_assert(ph_name_is_of(ph_pool_fd(other), fixture_path));
    ph_pool_remove(other);
}

/* ---- many at once ---------------------------------------------------------------------- */

#define RIVALS 4
#define ROUNDS 150

struct race {
    _Atomic int holders;
    _Atomic unsigned won, lost;
};

static int hold(struct race *r, struct ph_pool *p, unsigned round)
{
    int wrong = atomic_fetch_add(&r->holders, 1) != 0;

    if (round % 3)
        wrong |= ph_pool_begin(p, 1) != 0 || ph_pool_commit(p, NULL, 0) != 0;
    if (round % 3 == 2)
        wrong |= ph_pool_finish(p, 0) != 0;
    wrong |= !ph_name_is_of(ph_pool_fd(p), fixture_path);
    atomic_fetch_sub(&r->holders, 1);
    atomic_fetch_add(&r->won, 1);
    if (round % 2)
        ph_pool_close(p);
    else
        ph_pool_remove(p);
    return wrong;
}

static int rival(struct race *r)
{
    int wrong = 0;

    for (unsigned i = 0; i < ROUNDS && !wrong; i++) {
        struct ph_pool *p;
        int err = ph_pool_clear(fixture_path, true);
        if (!err)
            err = ph_pool_claim(&p, fixture_path, &small);
        if (!err)
            wrong = hold(r, p, i) ? 1 : 0;
        else if (err == PH_EBUSY || err == PH_EUNFINISHED)
            atomic_fetch_add(&r->lost, 1);
        else
            wrong = 2;
    }
    return wrong;
}

Test(pool_claim, of_many_that_want_one_name_one_has_it)
{
    struct race *r =
        mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid[RIVALS];
    int status;

    for (int i = 0; i < RIVALS; i++) {
        pid[i] = fork();
        if (pid[i] == 0)
            _exit(rival(r));
    }
    for (int i = 0; i < RIVALS; i++) {
        cr_assert_eq(waitpid(pid[i], &status, 0), pid[i]);
        cr_expect_eq(status, 0, "rival %d: %x", i, (unsigned)status);
    }
    cr_assert_gt(atomic_load(&r->won), RIVALS);
    OK(ph_pool_clear(fixture_path, true));
    cr_assert_eq(files_in_directory(), 0);
}
