/* SPDX-License-Identifier: MIT */
/*
 * pool_fixture.h - a small pool in a directory of its own, for tests
 *
 * Stretches are tiny (64 pages, so an extent is 508 KiB) and migration is frequent, so that a
 * few epochs do what takes days at full size.
 */
#ifndef POOL_FIXTURE_H
#define POOL_FIXTURE_H

#include "allocator/pool_internal.h"
#include "tests/unit/pool_free.h"
#include "tests/unit/pool_model.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static char fixture_dir[200], fixture_path[256];

static inline void fixture_setup(void)
{
    const char *tmp = getenv("TMPDIR");

    ph_tuning = (struct ph_tuning){.stretch_pages = 64,
                                   .trigger_bytes = 1 << 20,
                                   .trigger_epochs = 6,
                                   .heir_run = 1000000,
                                   .write_max = 16 * PH_PAGE,
                                   .ahead = 1,
                                   .single_threaded = true};
    snprintf(fixture_dir, sizeof(fixture_dir), "%s/pool_test.XXXXXX", tmp ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(fixture_dir));
    snprintf(fixture_path, sizeof(fixture_path), "%s/pool.pm", fixture_dir);
}

static inline void fixture_teardown(void)
{
    unlink(fixture_path);
    rmdir(fixture_dir);
}

static int fixture_err;

/* Assert that a call returns @p code, and say what it returned if not. */
#define RETURNS(code, call)                                                                    \
    do {                                                                                       \
        fixture_err = (call);                                                                  \
        cr_assert_eq(fixture_err, (code), "%s: %s, expected %s", #call,                        \
                     ph_error_name(fixture_err), #code);                                       \
    } while (0)
#define OK(call) RETURNS(0, call)

#define RIGHT(seed, pool)                                                                      \
    do {                                                                                       \
        const char *right_ = model_check((seed), (pool));                                      \
        cr_assert_null(right_, "%s", right_);                                                  \
    } while (0)

static inline struct ph_pool *fixture_create_sized(uint64_t size, uint32_t keep)
{
    struct ph_pool *p;
    struct ph_pool_options opt = {.size = size, .keep = keep, .command = "python3 prog.py"};

    OK(ph_pool_create(&p, fixture_path, &opt));
    return p;
}

static inline struct ph_pool *fixture_create(void)
{
    return fixture_create_sized(64 << 20, 0);
}

static inline struct ph_pool *fixture_open(enum ph_pool_mode mode)
{
    struct ph_pool *p;

    OK(ph_pool_open(&p, fixture_path, mode));
    return p;
}

/* Go on by @p n epochs. */
static inline void fixture_run(struct ph_pool *p, struct model *m, unsigned n)
{
    while (n--) {
        model_step(m);
        OK(model_commit(m, p));
    }
}

/* An epoch that sets one page, or forgets all but that one if @p only. */
static inline void fixture_one_page(struct ph_pool *p, uint64_t number, uint64_t addr,
                                    uint64_t value, bool only)
{
    static uint64_t page[PH_PAGE / 8];
    const void *from = page;
    struct ph_page_span span = {addr, addr + PH_PAGE};

    model_fill(value, page);
    OK(ph_pool_begin(p, number));
    OK(ph_pool_append(p, &addr, &from, 1, NULL));
    if (only)
        OK(ph_pool_set_present(p, &span, 1));
    OK(ph_pool_commit(p, NULL, 0));
}

/* The value of the page at @p addr as of epoch @p number: whether it is that of @p value, or,
 * for 0, absent. */
static inline bool fixture_holds(struct ph_pool *p, uint64_t number, uint64_t addr,
                                 uint64_t value)
{
    uint64_t want[PH_PAGE / 8], got[PH_PAGE / 8];
    struct ph_view *v;
    const struct ph_run *run;
    bool holds = value == 0;
    size_t n;

    OK(ph_pool_view(p, number, &v));
    run = ph_view_runs(v, &n);
    for (size_t i = 0; i < n; i++)
        if (addr >= run[i].addr && addr < run[i].addr + run[i].npages * PH_PAGE) {
            cr_assert_eq(
                pread(ph_pool_fd(p), got, PH_PAGE, (off_t)(run[i].offset + addr - run[i].addr)),
                (ssize_t)PH_PAGE);
            model_fill(value, want);
            holds = value && memcmp(want, got, PH_PAGE) == 0;
        }
    ph_view_free(v);
    return holds;
}

/* An epoch of @p n consecutive pages, up to its commit or abort. Its memory lives until the
 * next one. */
static inline int fixture_big_append(struct ph_pool *p, uint64_t number, size_t n,
                                     uint64_t value)
{
    static uint64_t *page;
    uint64_t *addr = malloc(n * sizeof(*addr));
    const void **from = malloc(n * sizeof(*from));
    int err = ph_pool_begin(p, number);

    free(page);
    page = aligned_alloc(PH_PAGE, n * PH_PAGE);
    for (size_t i = 0; i < n; i++) {
        addr[i] = PH_HEAP_BASE + i * PH_PAGE;
        from[i] = page + i * PH_PAGE / 8;
        model_fill(value + i, page + i * PH_PAGE / 8);
    }
    if (!err)
        err = ph_pool_append(p, addr, from, n, NULL);
    free(addr);
    free(from);
    return err;
}

static inline int fixture_big_epoch(struct ph_pool *p, uint64_t number, size_t n,
                                    uint64_t value)
{
    int err = fixture_big_append(p, number, n, value);

    return err ? err : ph_pool_commit(p, NULL, 0);
}

/* Write over all that the log believes to be free. */
static inline void fixture_scribble(struct ph_pool *p)
{
    size_t pages = 1 + pool_free_pages(p);
    uint64_t number = p->epochs ? p->epoch[p->epochs - 1].info.number + 1 : 1;

    OK(fixture_big_append(p, number, pages, 1000000));
    OK(ph_queue_flush(p));
    ph_pool_abort(p);
}

/* Close, lose the newer root record, open again. */
static inline struct ph_pool *fixture_lose_root(struct ph_pool *p)
{
    uint64_t at = p->super.self + PH_PAGE * (1 + (p->root.seq & 1));

    cr_assert_eq(pwrite(ph_pool_fd(p), "damage", 6, (off_t)at + 16), 6);
    ph_pool_close(p);
    return fixture_open(PH_POOL_WRITE);
}

#endif
