/* SPDX-License-Identifier: MIT */
/* test_pool_files - copies of mapped files: whole or not there, stored once, second to epochs
 */
#include "tests/unit/pool_fixture.h"

TestSuite(pool_files, .init = fixture_setup, .fini = fixture_teardown);

#define BIG (3 * 508 * 1024 + 777) /* more than three extents of the fixture's */

static unsigned char *content_of(uint64_t value, size_t size)
{
    unsigned char *bytes = aligned_alloc(PH_PAGE, (size / PH_PAGE + 1) * PH_PAGE);

    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)model_mix(value * 1000003 + i / 8);
    return bytes;
}

static struct ph_file_id id_of(const char *path, size_t size, uint64_t mtime)
{
    return (struct ph_file_id){path, size, mtime};
}

/* All but the end of it. */
static int put(struct ph_pool *p, const char *path, size_t size, uint64_t mtime, uint64_t value)
{
    struct ph_file_id id = id_of(path, size, mtime);
    unsigned char *bytes = content_of(value, size);
    int err = ph_pool_file_begin(p, &id);

    for (size_t at = 0; at < size && !err; at += 40 * PH_PAGE)
        err = ph_pool_file_append(p, bytes + at,
                                  size - at < 40 * PH_PAGE ? size - at : 40 * PH_PAGE);
    free(bytes);
    return err;
}

static void store(struct ph_pool *p, const char *path, size_t size, uint64_t mtime,
                  uint64_t value)
{
    OK(put(p, path, size, mtime, value));
    OK(ph_pool_file_end(p));
}

static bool has(struct ph_pool *p, const char *path, size_t size, uint64_t mtime)
{
    struct ph_file_id id = id_of(path, size, mtime);

    return ph_pool_file_find(p, &id) != NULL;
}

/* Whether the copy is there and has the content of @p value, zeros after its end included. */
static bool holds(struct ph_pool *p, const char *path, size_t size, uint64_t mtime,
                  uint64_t value)
{
    struct ph_file_id id = id_of(path, size, mtime);
    const struct ph_stored *f = ph_pool_file_find(p, &id);
    unsigned char page[PH_PAGE], *want = content_of(value, size);
    bool good = f && ph_stored_size(f) == size && ph_stored_verify(p, f) == 0;

    memset(want + size, 0, PH_PAGE - size % PH_PAGE);
    for (uint64_t at = 0, n; good && at < size; at += PH_PAGE) {
        uint64_t place = ph_stored_place(f, at, &n);
        good = place % PH_PAGE == 0 && n > 0 &&
               pread(ph_pool_fd(p), page, PH_PAGE, (off_t)place) == (ssize_t)PH_PAGE &&
               memcmp(page, want + at, PH_PAGE) == 0;
    }
    free(want);
    return good;
}

Test(pool_files, a_published_file_is_there_after_opening_again)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 60};

    fixture_run(p, &m, 3);
    store(p, "/bin/python", BIG, 5, 1);
    store(p, "/lib/empty", 0, 6, 2);
    store(p, "/lib/page", PH_PAGE, 7, 3);
    cr_assert(has(p, "/bin/python", BIG, 5));
    OK(ph_pool_file_publish(p));
    for (int i = 0; i < 2; i++) {
        cr_assert(holds(p, "/bin/python", BIG, 5, 1));
        cr_assert(holds(p, "/lib/empty", 0, 6, 2));
        cr_assert(holds(p, "/lib/page", PH_PAGE, 7, 3));
        cr_assert_not(has(p, "/bin/python", BIG, 6), "another time");
        cr_assert_not(has(p, "/bin/python", BIG - 1, 5), "another size");
        cr_assert_not(has(p, "/bin/pytho", BIG, 5), "another path");
        ph_pool_close(p);
        p = fixture_open(i ? PH_POOL_WRITE : PH_POOL_READ);
    }
    RIGHT(60, p);
    ph_pool_close(p);
}

Test(pool_files, what_is_not_published_was_never_there)
{
    struct ph_pool *p = fixture_create();

    store(p, "/lib/a", 9000, 1, 1);
    OK(ph_pool_file_publish(p));
    store(p, "/lib/b", 9000, 1, 2);
    OK(put(p, "/lib/c", BIG, 1, 3)); /* and one in the middle */
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    cr_assert_eq(ph_pool_files(p), 1);
    cr_assert(holds(p, "/lib/a", 9000, 1, 1));
    store(p, "/lib/d", BIG, 1, 4); /* over what was left behind */
    OK(ph_pool_file_publish(p));
    cr_assert(holds(p, "/lib/a", 9000, 1, 1));
    cr_assert(holds(p, "/lib/d", BIG, 1, 4));
    ph_pool_close(p);
}

Test(pool_files, equal_content_is_stored_once)
{
    struct ph_pool *p = fixture_create();
    uint32_t extents;

    store(p, "/lib/a", BIG, 1, 1);
    extents = ph_extent_count(p, PH_EXTENT_FILES);
    for (uint64_t i = 0; i < 20; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/lib/copy%d", (int)i);
        store(p, path, BIG, i, 1);
    }
    OK(ph_pool_file_publish(p));
    cr_assert_eq(ph_extent_count(p, PH_EXTENT_FILES), extents);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    cr_assert_eq(ph_extent_count(p, PH_EXTENT_FILES), extents);
    cr_assert_eq(ph_pool_files(p), 21);
    cr_assert(holds(p, "/lib/copy7", BIG, 7, 1));
    ph_pool_close(p);
}

Test(pool_files, epochs_and_migration_leave_them_alone)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 61};

    for (uint64_t i = 0; i < 30; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/lib/file%d", (int)i);
        OK(put(p, path, 70000 + i * 1000, i, i));
        fixture_run(p, &m, 3); /* in the middle of a file */
        OK(ph_pool_file_end(p));
        if (i % 4 == 0)
            OK(ph_pool_file_publish(p));
    }
    OK(ph_pool_file_publish(p));
    OK(ph_pool_rewind(p, m.epoch - 1));
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    RIGHT(61, p);
    fixture_scribble(p);
    for (uint64_t i = 0; i < 30; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/lib/file%d", (int)i);
        cr_assert(holds(p, path, 70000 + i * 1000, i, i), "%s", path);
    }
    p = fixture_lose_root(p);
    RIGHT(61, p);
    ph_pool_close(p);
}

Test(pool_files, a_file_that_is_shorter_than_said_is_refused)
{
    struct ph_pool *p = fixture_create();
    struct ph_file_id id = id_of("/lib/a", 3 * PH_PAGE, 1);
    static unsigned char bytes[4 * PH_PAGE];

    OK(ph_pool_file_begin(p, &id));
    OK(ph_pool_file_append(p, bytes, PH_PAGE));
    RETURNS(PH_EUSAGE, ph_pool_file_end(p));
    RETURNS(PH_EUSAGE, ph_pool_file_append(p, bytes, 3 * PH_PAGE));
    ph_pool_file_abort(p);
    cr_assert_eq(ph_extent_count(p, PH_EXTENT_FILES), 0);
    RETURNS(PH_EUSAGE, ph_pool_file_end(p));
    ph_pool_close(p);
}

/* P10: damage anywhere in the chain costs the files, not the epochs. */
Test(pool_files, damage_costs_the_files_alone)
{
    for (int which = 0; which < 3; which++) {
        struct ph_pool *p = fixture_create();
        struct model m = {.seed = 62};
        uint64_t at;
        fixture_run(p, &m, 3);
        for (uint64_t i = 0; i < 3; i++) {
            char path[32];
            snprintf(path, sizeof(path), "/lib/file%d", (int)i);
            store(p, path, 20000, i, i);
        }
        OK(ph_pool_file_publish(p));
        at = p->files.file[which].header + 100;
        cr_assert_eq(pwrite(ph_pool_fd(p), "damage", 6, (off_t)at), 6);
        ph_pool_close(p);
        p = fixture_open(PH_POOL_READ);
        cr_assert_eq(ph_pool_files(p), 0);
        ph_pool_close(p);
        p = fixture_open(PH_POOL_WRITE);
        RIGHT(62, p);
        store(p, "/lib/again", 20000, 9, 9);
        OK(ph_pool_file_publish(p));
        fixture_run(p, &m, 3);
        cr_assert(holds(p, "/lib/again", 20000, 9, 9));
        p = fixture_lose_root(p);
        RIGHT(62, p);
        ph_pool_close(p);
        unlink(fixture_path);
    }
}

Test(pool_files, damaged_content_is_found)
{
    struct ph_pool *p = fixture_create();
    struct ph_file_id id = id_of("/lib/a", BIG, 1);
    uint64_t n;

    store(p, "/lib/a", BIG, 1, 1);
    cr_assert_eq(pwrite(ph_pool_fd(p), "damage", 6,
                        (off_t)ph_stored_place(ph_pool_file_find(p, &id), PH_PAGE * 200, &n)),
                 6);
    RETURNS(PH_ECORRUPT, ph_stored_verify(p, ph_pool_file_find(p, &id)));
    ph_pool_close(p);
}

Test(pool_files, a_file_on_disk_is_compared)
{
    struct ph_pool *p = fixture_create();
    struct ph_file_id id = id_of("/lib/a", BIG, 1);
    unsigned char *bytes = content_of(1, BIG);
    FILE *file = tmpfile();
    const struct ph_stored *f;

    store(p, "/lib/a", BIG, 1, 1);
    f = ph_pool_file_find(p, &id);
    cr_assert_eq(pwrite(fileno(file), bytes, BIG, 0), (ssize_t)BIG);
    cr_assert(ph_stored_equals(p, f, fileno(file), true));
    cr_assert_eq(pwrite(fileno(file), "another", 7, BIG - 100), 7);
    cr_assert(ph_stored_equals(p, f, fileno(file), false), "it begins the same");
    cr_assert_not(ph_stored_equals(p, f, fileno(file), true));
    cr_assert_eq(pwrite(fileno(file), "another", 7, 1000), 7);
    cr_assert_not(ph_stored_equals(p, f, fileno(file), false));
    fclose(file);
    free(bytes);
    ph_pool_close(p);
}

/* P10: a pool of files up to its size takes as many epochs as one without. */
static uint64_t epochs_until_full(bool with_files)
{
    struct ph_pool *p = fixture_create_sized(16 << 20, 2);
    uint64_t number = 1, size = 0;
    int err = 0;

    if (with_files) {
        for (uint64_t i = 0; !err; i++) {
            char path[32];
            snprintf(path, sizeof(path), "/lib/file%d", (int)i);
            err = put(p, path, 400000, i, i);
            if (!err)
                err = ph_pool_file_end(p);
        }
        RETURNS(PH_EPOOLSIZE, err);
        ph_pool_file_abort(p);
        OK(ph_pool_file_publish(p));
        cr_assert_gt(ph_pool_files(p), 20);
    }
    for (size = 200;; size += 100, number++) {
        err = fixture_big_epoch(p, number, size, number * 100000);
        if (err)
            break;
    }
    RETURNS(PH_EPOOLSIZE, err);
    ph_pool_abort(p);
    if (with_files) {
        cr_assert_eq(ph_pool_files(p), 0);
        RETURNS(PH_EFULL, put(p, "/lib/again", 4096, 1, 1));
        p = fixture_lose_root(p);
        cr_assert_eq(ph_pool_files(p), 0, "P5: both root records have given them up");
        OK(ph_pool_commit(p, NULL, ph_pool_begin(p, number + 1) ? 1 : 0));
    }
    ph_pool_close(p);
    unlink(fixture_path);
    return number;
}

Test(pool_files, in_a_full_pool_epochs_go_first)
{
    cr_assert_eq(epochs_until_full(true), epochs_until_full(false));
}

static bool disk_full;

static int full(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)offset;
    if (op == PH_IO_DISCARD)
        disk_full = false; /* what was given back is there */
    /* A root record has had its block from the beginning. */
    return disk_full && op == PH_IO_WRITE && size != PH_SECTOR ? ENOSPC : 0;
}

static const struct ph_io_hooks full_hooks = {.before = full};

Test(pool_files, on_a_full_disk_storing_fails_and_epochs_go_on)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 63};

    ph_io_hooks = &full_hooks;
    fixture_run(p, &m, 2);
    disk_full = true;
    RETURNS(PH_EFULL, put(p, "/lib/a", 9000, 1, 1));
    ph_pool_file_abort(p);
    disk_full = false;
    store(p, "/lib/b", 9000, 1, 1);
    OK(ph_pool_file_publish(p));
    fixture_run(p, &m, 2);
    disk_full = true;
    fixture_run(p, &m, 1); /* the file makes room for it */
    cr_assert_not(disk_full);
    cr_assert_eq(ph_pool_files(p), 0);
    RIGHT(63, p);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    RIGHT(63, p);
    ph_pool_close(p);
}

Test(pool_files, a_pool_without_files_in_its_format_gets_none)
{
    struct ph_pool *p = fixture_create();

    p->super.version = 1;
    RETURNS(PH_EUSAGE, put(p, "/lib/a", 9000, 1, 1));
    ph_pool_close(p);
}

/* ---- packing ---------------------------------------------------------------------------- */

static uint64_t blocks(const char *path)
{
    struct stat st;

    cr_assert_eq(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static int no_discard(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)offset, (void)size;
    return op == PH_IO_DISCARD ? EOPNOTSUPP : 0;
}

Test(pool_files, a_packed_pool_has_all_that_counts_and_no_more)
{
    static const struct ph_io_hooks cannot_punch = {.before = no_discard};
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 64};
    char packed[300];
    uint64_t large, small;

    ph_io_hooks = &cannot_punch;
    snprintf(packed, sizeof(packed), "%s.packed", fixture_path);
    store(p, "/lib/a", BIG, 1, 1);
    OK(ph_pool_file_publish(p));
    fixture_run(p, &m, 40);
    OK(fixture_big_append(p, m.epoch + 1, 4000, 12345)); /* leaves free extents behind */
    OK(ph_queue_flush(p));
    ph_pool_abort(p);
    OK(ph_pool_pack(p, packed));
    RETURNS(PH_EUSAGE, ph_pool_pack(p, packed));
    fixture_run(p, &m, 3); /* it goes on */
    RIGHT(64, p);
    large = blocks(fixture_path);
    ph_pool_close(p);
    small = blocks(packed);
    cr_assert_lt(small + 4000 * PH_PAGE / 2, large);
    unlink(fixture_path);
    cr_assert_eq(rename(packed, fixture_path), 0);
    p = fixture_open(PH_POOL_READ);
    RIGHT(64, p);
    cr_assert(holds(p, "/lib/a", BIG, 1, 1));
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    model_at(&m, 64, p->epoch[p->epochs - 1].info.number);
    fixture_run(p, &m, 40);
    RIGHT(64, p);
    cr_assert(holds(p, "/lib/a", BIG, 1, 1));
    p = fixture_lose_root(p);
    RIGHT(64, p);
    ph_pool_close(p);
}

Test(pool_files, a_copy_that_fails_leaves_nothing)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 65};
    char packed[300], entries[32];

    snprintf(packed, sizeof(packed), "%s.packed", fixture_path);
    fixture_run(p, &m, 5);
    ph_io_hooks = &full_hooks;
    disk_full = true;
    RETURNS(PH_EFULL, ph_pool_pack(p, packed));
    disk_full = false;
    snprintf(entries, sizeof(entries), "/none/there/at.all");
    RETURNS(PH_ENOENT, ph_pool_pack(p, entries));
    RIGHT(65, p);
    ph_pool_close(p);
    unlink(fixture_path);
    cr_assert_eq(rmdir(fixture_dir), 0, "something is left");
    cr_assert_eq(mkdir(fixture_dir, 0700), 0);
}
