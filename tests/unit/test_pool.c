/* SPDX-License-Identifier: MIT */
/* test_pool - epochs: written, listed, viewed, given up, gone back to */
#include "tests/unit/pool_fixture.h"

#include <sys/wait.h>

TestSuite(pool, .init = fixture_setup, .fini = fixture_teardown);

#define HEAP PH_HEAP_BASE

Test(pool, new_pool_is_empty_and_private)
{
    struct ph_pool *p = fixture_create();
    struct ph_pool_info info;
    struct stat st;

    ph_pool_get_info(p, &info);
    cr_assert_eq(info.state, PH_POOL_RUNNING);
    cr_assert_eq(info.newest, 0);
    cr_assert_eq(info.oldest, 0);
    cr_assert_eq(info.keep, 2);
    cr_assert_eq(info.size, 64 << 20);
    cr_assert_lt(info.allocated, 16 << 20, "the file is sparse");
    cr_assert_str_eq(info.command, "python3 prog.py");
    cr_assert_eq(ph_pool_epochs(p, NULL, 0), 0);
    cr_assert_eq(stat(fixture_path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0600);
    ph_pool_close(p);
}

Test(pool, create_refuses_what_exists_and_leaves_it_alone)
{
    struct ph_pool *p;
    struct stat st;
    int fd = open(fixture_path, O_WRONLY | O_CREAT, 0600);

    cr_assert_eq(write(fd, "abc", 3), 3);
    close(fd);
    RETURNS(PH_EUNFINISHED, ph_pool_create(&p, fixture_path, NULL));
    cr_assert_null(p);
    cr_assert_eq(stat(fixture_path, &st), 0);
    cr_assert_eq(st.st_size, 3);
}

Test(pool, failed_create_leaves_no_file)
{
    struct ph_pool *p;
    struct ph_pool_options small = {.size = 1 << 20}, tight = {.size = 16 << 20};

    RETURNS(PH_EPOOLSIZE, ph_pool_create(&p, fixture_path, &small));
    cr_assert_neq(access(fixture_path, F_OK), 0);
    ph_tuning.stretch_pages = PH_STRETCH_PAGES;
    RETURNS(PH_EPOOLSIZE, ph_pool_create(&p, fixture_path, &tight));
    cr_assert_neq(access(fixture_path, F_OK), 0);
    RETURNS(PH_ENOENT, ph_pool_create(&p, "/nonexistent/x.pm", &small));
}

Test(pool, default_size_is_sparse_and_large)
{
    struct ph_pool *p;
    struct ph_pool_info info;

    ph_tuning.stretch_pages = PH_STRETCH_PAGES;
    OK(ph_pool_create(&p, fixture_path, NULL));
    ph_pool_get_info(p, &info);
    cr_assert_geq(info.size, UINT64_C(64) << 30);
    cr_assert_lt(info.allocated, UINT64_C(256) << 20);
    ph_pool_close(p);
}

Test(pool, epochs_survive_closing_with_label_time_and_record)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 1};
    struct ph_epoch_info e[4];

    fixture_run(p, &m, 4);
    RIGHT(1, p);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_READ);
    cr_assert_eq(ph_pool_epochs(p, e, 4), 4);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(e[i].number, 4 - i, "newest first");
    cr_assert_str_eq(e[0].label, "epoch 4");
    cr_assert_str_eq(e[1].label, "");
    cr_assert_eq(e[0].time, 4000);
    RIGHT(1, p);
    RETURNS(PH_EUSAGE, ph_pool_begin(p, 5));
    ph_pool_close(p);
}

Test(pool, long_labels_are_cut)
{
    struct ph_pool *p = fixture_create();
    struct ph_epoch_info e;
    char label[200];

    memset(label, 'x', sizeof(label));
    label[sizeof(label) - 1] = 0;
    OK(ph_pool_begin(p, 1));
    OK(ph_pool_commit(p, label, 0));
    cr_assert_eq(ph_pool_epochs(p, &e, 1), 1);
    cr_assert_eq(strlen(e.label), PH_LABEL_MAX - 1);
    ph_pool_close(p);
}

Test(pool, numbers_must_grow_but_may_skip)
{
    struct ph_pool *p = fixture_create();

    RETURNS(PH_EUSAGE, ph_pool_begin(p, 0));
    fixture_one_page(p, 10, HEAP, 1, false);
    RETURNS(PH_EUSAGE, ph_pool_begin(p, 10));
    RETURNS(PH_EUSAGE, ph_pool_begin(p, 9));
    fixture_one_page(p, 1000, HEAP, 2, false);
    OK(ph_pool_begin(p, 1001));
    RETURNS(PH_EUSAGE, ph_pool_begin(p, 1002));
    ph_pool_abort(p);
    cr_assert(fixture_holds(p, 10, HEAP, 1));
    cr_assert(fixture_holds(p, 1000, HEAP, 2));
    ph_pool_close(p);
}

Test(pool, equal_pages_are_dropped_compared_with_the_committed_epoch)
{
    struct ph_pool *p = fixture_create();
    uint64_t page[PH_PAGE / 8], addr = HEAP;
    const void *from = page;
    size_t written;

    fixture_one_page(p, 1, HEAP, 1, false);
    model_fill(2, page);
    OK(ph_pool_begin(p, 2));
    OK(ph_pool_append(p, &addr, &from, 1, &written));
    cr_assert_eq(written, 1);
    ph_pool_abort(p);
    OK(ph_pool_begin(p, 2)); /* what was given up is not what is stored */
    OK(ph_pool_append(p, &addr, &from, 1, &written));
    cr_assert_eq(written, 1);
    OK(ph_pool_commit(p, NULL, 0));
    OK(ph_pool_begin(p, 3));
    OK(ph_pool_append(p, &addr, &from, 1, &written));
    cr_assert_eq(written, 0);
    OK(ph_pool_commit(p, NULL, 0));
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE); /* the table is rebuilt from the file */
    OK(ph_pool_begin(p, 4));
    OK(ph_pool_append(p, &addr, &from, 1, &written));
    cr_assert_eq(written, 0);
    model_fill(1, page);
    addr += PH_PAGE;
    OK(ph_pool_append(p, &addr, &from, 1, &written));
    cr_assert_eq(written, 1);
    OK(ph_pool_commit(p, NULL, 0));
    cr_assert(fixture_holds(p, 4, HEAP, 2));
    ph_pool_close(p);
}

Test(pool, forgotten_pages_are_absent_and_may_reappear)
{
    struct ph_pool *p = fixture_create();

    fixture_one_page(p, 1, HEAP, 1, false);
    fixture_one_page(p, 2, HEAP + 5 * PH_PAGE, 2, false);
    fixture_one_page(p, 3, HEAP + 5 * PH_PAGE, 3, true); /* forgets the first */
    fixture_one_page(p, 4, HEAP, 1, false);              /* the content that it had before */
    cr_assert(fixture_holds(p, 1, HEAP, 1));
    cr_assert(fixture_holds(p, 2, HEAP, 1));
    cr_assert(fixture_holds(p, 3, HEAP, 0));
    cr_assert(fixture_holds(p, 4, HEAP, 1));
    cr_assert(fixture_holds(p, 4, HEAP + 5 * PH_PAGE, 3));
    ph_pool_close(p);
}

Test(pool, empty_span_list_forgets_everything)
{
    struct ph_pool *p = fixture_create();
    struct ph_view *v;
    size_t n;

    fixture_one_page(p, 1, HEAP, 1, false);
    OK(ph_pool_begin(p, 2));
    OK(ph_pool_set_present(p, NULL, 0));
    OK(ph_pool_commit(p, NULL, 0));
    OK(ph_pool_view(p, 2, &v));
    ph_view_runs(v, &n);
    cr_assert_eq(n, 0);
    ph_view_free(v);
    ph_pool_close(p);
}

Test(pool, wrong_use_is_refused_and_fails_the_epoch_alone)
{
    struct ph_pool *p = fixture_create();
    static char page[2 * PH_PAGE];
    const void *from[2] = {page, page + PH_PAGE};
    uint64_t odd = HEAP + 1, twice[2] = {HEAP, HEAP};
    struct ph_page_span backward[2] = {{HEAP + PH_PAGE, HEAP + 2 * PH_PAGE},
                                       {HEAP, HEAP + PH_PAGE}};

    RETURNS(PH_EUSAGE, ph_pool_append(p, &odd, from, 1, NULL));
    RETURNS(PH_EUSAGE, ph_pool_commit(p, NULL, 0));
    OK(ph_pool_begin(p, 1));
    RETURNS(PH_EUSAGE, ph_pool_append(p, &odd, from, 1, NULL));
    RETURNS(PH_EUSAGE, ph_pool_commit(p, NULL, 0));
    ph_pool_abort(p);
    OK(ph_pool_begin(p, 1));
    OK(ph_pool_append(p, twice, from, 1, NULL));
    OK(ph_pool_append(p, twice + 1, from, 1, NULL));
    odd = HEAP - PH_PAGE;
    OK(ph_pool_append(p, &odd, from, 1, NULL));
    RETURNS(PH_EUSAGE, ph_pool_commit(p, NULL, 0));
    ph_pool_abort(p);
    OK(ph_pool_begin(p, 1));
    RETURNS(PH_EUSAGE, ph_pool_set_present(p, backward, 2));
    ph_pool_abort(p);
    fixture_one_page(p, 1, HEAP, 1, false);
    cr_assert(fixture_holds(p, 1, HEAP, 1));
    ph_pool_close(p);
}

Test(pool, given_up_epochs_leave_no_trace)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 2}, ahead;

    for (unsigned i = 0; i < 60; i++) {
        fixture_run(p, &m, 1);
        ahead = m;
        ahead.seed = 99; /* something else than what follows */
        model_step(&ahead);
        OK(model_append(&ahead, p));
        if (i % 3)
            ph_pool_abort(p);
        else { /* closing gives it up as well */
            ph_pool_close(p);
            p = fixture_open(PH_POOL_WRITE);
        }
        RIGHT(2, p);
    }
    ph_pool_close(p);
}

Test(pool, given_up_epochs_give_back_their_extents)
{
    struct ph_pool *p = fixture_create();
    uint32_t extents;

    fixture_one_page(p, 1, HEAP, 1, false);
    OK(fixture_big_append(p, 2, 4 * p->super.extent_pages, 1));
    extents = p->extents;
    for (unsigned i = 0; i < 20; i++) {
        ph_pool_abort(p);
        OK(fixture_big_append(p, 2, 4 * p->super.extent_pages, i * 100000));
        cr_assert_eq(p->extents, extents);
    }
    ph_pool_close(p);
}

Test(pool, unaligned_memory_is_stored_as_well)
{
    struct ph_pool *p = fixture_create();
    enum { N = 600 };
    char *memory = malloc((N + 1) * PH_PAGE);
    uint64_t *addr = malloc(N * sizeof(*addr));
    const void **from = malloc(N * sizeof(*from));

    for (unsigned i = 0; i < N; i++) {
        addr[i] = HEAP + i * PH_PAGE;
        from[i] = memory + 24 + i * PH_PAGE;
        model_fill(i + 1, (uint64_t *)(void *)(memory + 24 + i * PH_PAGE));
    }
    OK(ph_pool_begin(p, 1));
    OK(ph_pool_append(p, addr, from, N, NULL));
    OK(ph_pool_commit(p, NULL, 0));
    cr_assert(fixture_holds(p, 1, addr[0], 1));
    cr_assert(fixture_holds(p, 1, addr[N - 1], N));
    ph_pool_close(p);
    free(memory);
    free(addr);
    free(from);
}

Test(pool, records_larger_than_an_extent_come_back_whole)
{
    struct ph_pool *p = fixture_create();
    size_t size = 3000001, got;
    unsigned char *record = malloc(size);
    struct ph_view *v;

    for (size_t i = 0; i < size; i++)
        record[i] = (unsigned char)model_mix(i);
    OK(ph_pool_begin(p, 1));
    for (size_t at = 0; at < size; at += 77777)
        OK(ph_pool_append_record(p, record + at, size - at < 77777 ? size - at : 77777));
    OK(ph_pool_commit(p, NULL, 0));
    OK(ph_pool_view(p, 1, &v));
    cr_assert_eq(memcmp(ph_view_record(v, &got), record, size), 0);
    cr_assert_eq(got, size);
    ph_view_free(v);
    ph_pool_close(p);
    free(record);
}

Test(pool, going_back_drops_newer_epochs_and_goes_on_differently)
{
    struct ph_pool *p = fixture_create_sized(64 << 20, 5);
    struct model m = {.seed = 3};
    struct ph_epoch_info e[64];

    for (unsigned round = 0; round < 30; round++) {
        fixture_run(p, &m, 9);
        size_t n = ph_pool_epochs(p, e, 64);
        uint64_t to = e[round % n].number;
        RETURNS(PH_ENOEPOCH, ph_pool_rewind(p, e[n - 1].number - 1));
        RETURNS(PH_ENOEPOCH, ph_pool_rewind(p, e[0].number + 1));
        OK(ph_pool_rewind(p, to));
        if (round % 2) {
            ph_pool_close(p);
            p = fixture_open(PH_POOL_WRITE);
        }
        cr_assert_eq(ph_pool_epochs(p, e, 64), n - round % n);
        cr_assert_eq(e[0].number, to);
        RIGHT(3, p);
        model_at(&m, 3, to);
    }
    ph_pool_close(p);
}

Test(pool, finished_runs_say_so_until_they_go_on)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 4};
    struct ph_pool_info info;

    fixture_run(p, &m, 3);
    OK(ph_pool_finish(p, 42));
    ph_pool_close(p);
    p = fixture_open(PH_POOL_READ);
    ph_pool_get_info(p, &info);
    cr_assert_eq(info.state, PH_POOL_FINISHED);
    cr_assert_eq(info.exit_status, 42);
    RETURNS(PH_EUSAGE, ph_pool_finish(p, 1));
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    fixture_run(p, &m, 1);
    ph_pool_get_info(p, &info);
    cr_assert_eq(info.state, PH_POOL_RUNNING);
    RIGHT(4, p);
    ph_pool_close(p);
}

Test(pool, second_writer_is_refused_while_the_first_lives)
{
    struct ph_pool *p = fixture_create(), *q;
    pid_t pid = fork();
    int status;

    if (pid == 0)
        _exit(ph_pool_open(&q, fixture_path, PH_POOL_WRITE) == PH_EBUSY ? 0 : 1);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    RETURNS(PH_EBUSY, ph_pool_open(&q, fixture_path, PH_POOL_WRITE)); /* same process */
    fixture_one_page(p, 1, HEAP, 1, false);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    ph_pool_close(p);
}

Test(pool, reader_follows_a_writer)
{
    struct ph_pool *p = fixture_create(), *r = fixture_open(PH_POOL_READ);
    struct model m = {.seed = 5};
    struct ph_pool_info info;

    cr_assert_eq(ph_pool_epochs(r, NULL, 0), 0);
    for (unsigned i = 0; i < 40; i++) {
        fixture_run(p, &m, 1 + i % 4);
        ph_pool_get_info(r, &info);
        cr_assert_eq(info.newest, m.epoch);
        RIGHT(5, r);
    }
    ph_pool_close(r);
    RIGHT(5, p);
    ph_pool_close(p);
}

/* The writer goes on just when the reader has read so many times. */
static struct {
    long countdown;
    struct ph_pool *writer;
    struct model *model;
} meanwhile;

static int go_on_meanwhile(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)offset, (void)size;
    if (op == PH_IO_READ && meanwhile.countdown-- == 0) {
        ph_io_hooks = NULL;
        fixture_run(meanwhile.writer, meanwhile.model, 9);
        fixture_scribble(meanwhile.writer);
    }
    return 0;
}

Test(pool, views_are_right_whenever_the_writer_goes_on)
{
    static const struct ph_io_hooks hooks = {.before = go_on_meanwhile};
    struct ph_pool *p = fixture_create(), *r;
    struct model m = {.seed = 9}, then;
    unsigned interrupted = 0;

    fixture_run(p, &m, 20);
    r = fixture_open(PH_POOL_READ);
    for (long at = 0; at < 60; at++) {
        struct ph_view *v;
        struct ph_pool_info before, after;
        int err;
        ph_pool_get_info(r, &before);
        then = m;
        meanwhile.countdown = at;
        meanwhile.writer = p;
        meanwhile.model = &m;
        ph_io_hooks = &hooks;
        err = ph_pool_view(r, before.newest, &v);
        interrupted += ph_io_hooks == NULL;
        ph_io_hooks = NULL;
        if (err) {
            RETURNS(PH_ENOEPOCH, err);
            ph_pool_get_info(r, &after);
            cr_assert_gt(after.oldest, before.newest, "it is there, and was not found");
            continue;
        }
        const char *wrong = model_compare(&then, r, v);
        cr_assert_null(wrong, "interrupted at read %ld: %s", at, wrong);
        ph_view_free(v);
    }
    cr_assert_gt(interrupted, 5);
    ph_pool_close(r);
    ph_pool_close(p);
}

Test(pool, reader_is_right_while_another_process_writes_and_migrates)
{
    struct ph_pool *p, *r;
    struct model m = {.seed = 6};
    pid_t pid;
    int status;

    ph_tuning.single_threaded = false;
    p = fixture_create();
    fixture_run(p, &m, 2);
    ph_pool_close(p);
    pid = fork();
    if (pid == 0) {
        if (ph_pool_open(&p, fixture_path, PH_POOL_WRITE))
            _exit(1);
        for (unsigned i = 0; i < 400; i++) {
            model_step(&m);
            if (model_commit(&m, p))
                _exit(2);
        }
        ph_pool_close(p);
        _exit(0);
    }
    r = fixture_open(PH_POOL_READ);
    do {
        struct ph_pool_info info;
        RIGHT(6, r);
        ph_pool_get_info(r, &info);
        cr_assert_leq(info.oldest, info.newest);
    } while (waitpid(pid, &status, WNOHANG) == 0);
    cr_assert_eq(status, 0, "writer: %x", (unsigned)status);
    RIGHT(6, r);
    ph_pool_close(r);
}

Test(pool, verify_reports_progress_and_the_damaged_page)
{
    struct ph_pool *p = fixture_create();
    struct ph_view *v;
    const struct ph_run *run;
    uint64_t bad = 0;
    size_t n;

    fixture_one_page(p, 1, HEAP, 1, false);
    fixture_one_page(p, 2, HEAP + 7 * PH_PAGE, 2, false);
    OK(ph_pool_view(p, 2, &v));
    OK(ph_view_verify(v, NULL, NULL, &bad));
    run = ph_view_runs(v, &n);
    cr_assert_eq(n, 2);
    cr_assert_eq(pwrite(ph_pool_fd(p), "x", 1, (off_t)run[1].offset + 100), 1);
    RETURNS(PH_ECORRUPT, ph_view_verify(v, NULL, NULL, &bad));
    cr_assert_eq(bad, HEAP + 7 * PH_PAGE);
    ph_view_free(v);
    ph_pool_close(p);
}

/* ---- pages that are appended again in the same epoch ------------------------------- */

static void append_value(struct ph_pool *p, uint64_t addr, uint64_t value, size_t written)
{
    static uint64_t page[1000][PH_PAGE / 8]; /* must stay until they are written */
    static unsigned next;
    uint64_t *to = page[next++ % 1000];
    const void *from = to;
    size_t got;

    model_fill(value, to);
    OK(ph_pool_append(p, &addr, &from, 1, &got));
    cr_assert_eq(got, written, "page %llx", (unsigned long long)addr);
}

static void commit_present(struct ph_pool *p, uint64_t end)
{
    struct ph_page_span span = {HEAP, end};

    OK(ph_pool_set_present(p, &span, 1));
    OK(ph_pool_commit(p, NULL, 0));
}

#define AT(n) (HEAP + (n)*PH_PAGE)

Test(pool, of_a_page_that_is_appended_again_the_last_version_counts)
{
    struct ph_pool *p = fixture_create();

    OK(ph_pool_begin(p, 1));
    append_value(p, AT(0), 10, 1);
    append_value(p, AT(1), 11, 1);
    append_value(p, AT(2), 12, 1);
    commit_present(p, AT(5));

    OK(ph_pool_begin(p, 2));
    OK(ph_pool_allow_again(p));
    append_value(p, AT(0), 20, 1);
    append_value(p, AT(1), 21, 1);
    append_value(p, AT(3), 23, 1);
    append_value(p, AT(4), 24, 1);
    append_value(p, AT(0), 30, 1); /* again, another */
    append_value(p, AT(1), 11, 0); /* again, as the epoch before has it */
    append_value(p, AT(2), 12, 0); /* for the first time, unchanged */
    append_value(p, AT(3), 23, 0); /* again, the same */
    append_value(p, AT(0), 40, 1);
    append_value(p, AT(1), 11, 0);
    commit_present(p, AT(4)); /* and page 4 is not there in the end */

    for (int opened = 0; opened < 2; opened++) {
        cr_assert(fixture_holds(p, 1, AT(0), 10));
        cr_assert(fixture_holds(p, 2, AT(0), 40));
        cr_assert(fixture_holds(p, 2, AT(1), 11));
        cr_assert(fixture_holds(p, 2, AT(2), 12));
        cr_assert(fixture_holds(p, 2, AT(3), 23));
        cr_assert(fixture_holds(p, 2, AT(4), 0));
        ph_pool_close(p);
        p = fixture_open(PH_POOL_WRITE);
    }
    /* The filter knows the versions that count. */
    OK(ph_pool_begin(p, 3));
    append_value(p, AT(0), 40, 0);
    append_value(p, AT(1), 11, 0);
    append_value(p, AT(3), 23, 0);
    append_value(p, AT(4), 24, 1);
    ph_pool_abort(p);
    ph_pool_close(p);
}

Test(pool, a_version_that_goes_back_and_forth_is_not_lost)
{
    struct ph_pool *p = fixture_create();

    fixture_one_page(p, 1, AT(0), 5, false);
    OK(ph_pool_begin(p, 2));
    OK(ph_pool_allow_again(p));
    append_value(p, AT(0), 6, 1);
    append_value(p, AT(0), 5, 0);
    append_value(p, AT(0), 6, 1);
    OK(ph_pool_commit(p, NULL, 0));
    cr_assert(fixture_holds(p, 2, AT(0), 6));
    ph_pool_close(p);
}

Test(pool, many_versions_of_many_pages_match_a_shadow)
{
    enum { PAGES_ = 700 };
    struct ph_pool *p = fixture_create();
    uint64_t value[PAGES_] = {0}, seed = 9;

    for (uint64_t number = 1; number <= 4; number++) {
        OK(ph_pool_begin(p, number));
        OK(ph_pool_allow_again(p));
        for (unsigned i = 0; i < 3 * PAGES_; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            unsigned at = (unsigned)(seed >> 33) % PAGES_;
            uint64_t now = 1 + (seed >> 50) % 3, addr = AT(at);
            static uint64_t page[4][PH_PAGE / 8];
            const void *from = page[now];
            model_fill(now, page[now]);
            OK(ph_pool_append(p, &addr, &from, 1, NULL));
            value[at] = now;
        }
        commit_present(p, AT(PAGES_));
        for (unsigned at = 0; at < PAGES_; at += 7)
            cr_assert(fixture_holds(p, number, AT(at), value[at]), "page %u", at);
    }
    ph_pool_close(p);
}

Test(pool, only_an_epoch_that_has_just_begun_may_allow_versions)
{
    struct ph_pool *p = fixture_create();

    RETURNS(PH_EUSAGE, ph_pool_allow_again(p));
    OK(ph_pool_begin(p, 1));
    append_value(p, AT(0), 1, 1);
    RETURNS(PH_EUSAGE, ph_pool_allow_again(p));
    OK(ph_pool_commit(p, NULL, 0));
    OK(ph_pool_begin(p, 2)); /* what the epoch before was allowed is not allowed again */
    append_value(p, AT(0), 2, 1);
    append_value(p, AT(0), 3, 1);
    RETURNS(PH_EUSAGE, ph_pool_commit(p, NULL, 0));
    ph_pool_abort(p);
    ph_pool_close(p);
}
