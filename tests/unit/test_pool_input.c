/* SPDX-License-Identifier: MIT */
/* test_pool_input - files that are no pool, no longer one, or not to be trusted */
#include "tests/unit/pool_fixture.h"

#include <sys/resource.h>
#include <sys/wait.h>

TestSuite(pool_input, .init = fixture_setup, .fini = fixture_teardown);

static int open_status(enum ph_pool_mode mode)
{
    struct ph_pool *p;
    int err = ph_pool_open(&p, fixture_path, mode);

    cr_assert((err == 0) == (p != NULL));
    ph_pool_close(p);
    return err;
}

static void both(int expected)
{
    RETURNS(expected, open_status(PH_POOL_READ));
    RETURNS(expected, open_status(PH_POOL_WRITE));
}

/* A pool with a home image and a log. */
static void make_pool(void)
{
    struct ph_pool *p = fixture_create_sized(24 << 20, 0);
    struct model m = {.seed = 20};

    fixture_run(p, &m, 30);
    cr_assert_gt(p->root.home_epoch, 0);
    ph_pool_close(p);
}

static void write_file(const void *bytes, size_t size)
{
    int fd = open(fixture_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    cr_assert_eq(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

Test(pool_input, missing_file)
{
    both(PH_ENOENT);
}

Test(pool_input, foreign_files_are_not_pools)
{
    static char zeros[1 << 20], text[] = "PMEMPOOLSET\n100G /etc/passwd\n";

    write_file("", 0);
    both(PH_ENOTPOOL);
    write_file("x", 1);
    both(PH_ENOTPOOL);
    write_file(text, sizeof(text) - 1);
    both(PH_ENOTPOOL);
    write_file(zeros, sizeof(zeros));
    both(PH_ENOTPOOL);
    unlink(fixture_path);
    cr_assert_eq(mkdir(fixture_path, 0700), 0);
    cr_assert(open_status(PH_POOL_READ) == PH_ENOTPOOL &&
              open_status(PH_POOL_WRITE) == PH_ENOTPOOL);
    rmdir(fixture_path);
    cr_assert_eq(mkfifo(fixture_path, 0600), 0);
    both(PH_ENOTPOOL);
}

Test(pool_input, other_programs_pmemobj_pools_are_not_ours)
{
    PMEMobjpool *other = pmemobj_create(fixture_path, "other", PMEMOBJ_MIN_POOL, 0600);

    cr_assert_not_null(other);
    pmemobj_close(other);
    both(PH_ENOTPOOL);
    unlink(fixture_path);
    other = pmemobj_create(fixture_path, PH_POOL_LAYOUT, 32 << 20, 0600);
    cr_assert_not_null(other);
    pmemobj_close(other);
    both(PH_ECORRUPT);
}

Test(pool_input, files_of_others_and_links_are_refused)
{
    char link[300];
    struct ph_pool *p;

    make_pool();
    for (mode_t mode = 0; mode < 0100; mode++) {
        cr_assert_eq(chmod(fixture_path, 0600 | mode), 0);
        both(mode & 022 ? PH_EOWNER : 0);
    }
    cr_assert_eq(chmod(fixture_path, 0600), 0);
    snprintf(link, sizeof(link), "%s.link", fixture_path);
    cr_assert_eq(symlink(fixture_path, link), 0);
    RETURNS(PH_ENOTPOOL, ph_pool_open(&p, link, PH_POOL_READ));
    RETURNS(PH_ENOTPOOL, ph_pool_open(&p, link, PH_POOL_WRITE));
    RETURNS(PH_EUNFINISHED, ph_pool_create(&p, link, NULL));
    unlink(link);
    if (geteuid() == 0) { /* giving a file away, and losing rights, takes root */
        cr_assert_eq(chown(fixture_path, 12345, (gid_t)-1), 0);
        both(PH_EOWNER);
        cr_assert_eq(chown(fixture_path, 0, (gid_t)-1), 0);
        cr_assert_eq(chmod(fixture_dir, 0755), 0);
        pid_t pid = fork();
        int status;
        if (pid == 0)
            _exit(setresuid(12345, 12345, 12345) || open_status(PH_POOL_READ) != PH_EACCES);
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert_eq(status, 0);
    } else {
        cr_assert_eq(chmod(fixture_path, 0), 0);
        both(PH_EACCES);
    }
}

Test(pool_input, truncated_anywhere)
{
    struct stat st;

    make_pool();
    cr_assert_eq(stat(fixture_path, &st), 0);
    for (off_t size = st.st_size - 1; size >= 0; size -= 1 + size / 23) {
        int fd = open(fixture_path, O_RDWR), expected;
        cr_assert_eq(ftruncate(fd, size), 0);
        close(fd);
        expected = size < 8 ? PH_ENOTPOOL : PH_ETRUNC;
        both(expected);
    }
}

static void other_version(uint32_t version)
{
    struct ph_pool *p;
    uint64_t at;
    int fd;

    make_pool();
    p = fixture_open(PH_POOL_READ);
    at = p->super.self + offsetof(struct ph_super_pm, version);
    ph_pool_close(p);
    fd = open(fixture_path, O_WRONLY);
    cr_assert_eq(pwrite(fd, &version, sizeof(version), (off_t)at), sizeof(version));
    close(fd);
    both(PH_ENEWER);
}

Test(pool_input, newer_format_is_named_as_such)
{
    other_version(PH_POOL_VERSION + 1);
}

Test(pool_input, older_format_is_named_as_such)
{
    other_version(PH_POOL_VERSION - 1);
}

/* ---- flipped bytes ------------------------------------------------------------------ */

/* Everything a damaged pool says must be right or be reported. @return whether it is. */
static bool right_or_reported(struct ph_pool *p)
{
    struct ph_epoch_info info[64];
    size_t n = ph_pool_epochs(p, info, 64);
    struct model m = {.seed = 20};
    bool ok = n <= 64;

    for (size_t i = n; ok && i-- > 0;) {
        struct ph_view *v;
        while (m.epoch < info[i].number && m.epoch < 1000)
            model_step(&m);
        if (ph_pool_view(p, info[i].number, &v))
            continue;
        if (ph_view_verify(v, NULL, NULL, NULL) == 0)
            ok = info[i].number == m.epoch && model_compare(&m, p, v) == NULL;
        ph_view_free(v);
    }
    return ok;
}

static unsigned char *whole;
static size_t whole_size;

static void restore(int fd, uint64_t at, size_t n)
{
    cr_assert_eq(pwrite(fd, whole + at, n, (off_t)at), (ssize_t)n);
}

/* Pages of ours that are metadata: superblock, roots, slots, headers, indexes, tables. */
static size_t metadata_pages(uint64_t *page, size_t max)
{
    struct ph_pool *p = fixture_open(PH_POOL_READ);
    size_t n = 0;

    whole_size = p->super.file_size;
    whole = malloc(whole_size);
    cr_assert_eq(pread(ph_pool_fd(p), whole, whole_size, 0), (ssize_t)whole_size);
    for (uint64_t at = p->super.self; at < p->super.slots + 2 * PH_PAGE; at += PH_PAGE)
        page[n++] = at;
    for (size_t i = 0; i < p->epochs && n + 40 < max; i++) {
        struct ph_header_pm h;
        OK(ph_header_load(p, p->epoch[i].header, p->epoch[i].info.number, &h));
        page[n++] = p->epoch[i].header;
        for (uint32_t k = 0; k < h.pieces; k++)
            page[n++] = h.piece[k].offset;
    }
    for (uint32_t i = 0; i < p->extents; i++)
        if (p->extent[p->by_offset[i]].role == PH_EXTENT_HOME)
            page[n++] = p->extent[p->by_offset[i]].offset;
    ph_pool_close(p);
    return n;
}

Test(pool_input, flipped_bytes_in_our_metadata_are_noticed_or_harmless)
{
    uint64_t page[400];
    size_t n;
    unsigned opened = 0, refused = 0;
    int fd;

    make_pool();
    n = metadata_pages(page, 400);
    fd = open(fixture_path, O_RDWR);
    for (uint64_t i = 0; i < 4000; i++) {
        uint64_t r = model_mix(i + 1), base = page[r % n];
        unsigned bytes = r >> 20 & 1 ? 1 : (unsigned)(1 + (r >> 21) % 64);
        /* most fields are at the start of a page */
        uint64_t at = base + ((r >> 28 & 3) ? (r >> 32) % 640 : (r >> 32) % (PH_PAGE - 64));
        unsigned char bad[64];
        struct ph_pool *p;
        for (unsigned k = 0; k < bytes; k++)
            bad[k] = (unsigned char)(whole[at + k] ^ (1u << (model_mix(r + k) % 8)));
        cr_assert_eq(pwrite(fd, bad, bytes, (off_t)at), bytes);
        if (ph_pool_open(&p, fixture_path, PH_POOL_READ)) {
            refused++;
        } else {
            opened++;
            cr_assert(right_or_reported(p), "flip %llu at %llx: wrong content, not reported",
                      (unsigned long long)i, (unsigned long long)at);
        }
        ph_pool_close(p);
        restore(fd, at, bytes);
    }
    close(fd);
    cr_assert_gt(opened, 0);
    cr_assert_gt(refused, 0);
    both(0);
}

/* libpmemobj believes its own metadata. @return what opening the pool to write gives, in a
 * process of its own: what libpmemobj has got stuck in cannot be undone. */
static int opened_by_a_child(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        int err = open_status(PH_POOL_WRITE);
        _exit(err == 0 ? 0 : err == PH_ECORRUPT ? 1 : 2);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

Test(pool_input, damaged_metadata_of_libpmemobj_is_an_error, .timeout = 120)
{
    const uint64_t zone = 0x302400, chunk = zone + 64, none = 0, all = UINT64_MAX;
    uint64_t page[400];
    int fd, found[3] = {0};

    make_pool();
    metadata_pages(page, 400);
    fd = open(fixture_path, O_RDWR);
    /* A chunk of no size: looking for the next one never ends. */
    cr_assert_eq(pwrite(fd, &none, sizeof(none), (off_t)chunk), sizeof(none));
    cr_assert_eq(opened_by_a_child(), 1);
    restore(fd, chunk, sizeof(none));
    for (uint64_t i = 0; i < 150; i++) {
        uint64_t r = model_mix(i + 500);
        uint64_t at = i % 3 ? 8192 + r % (zone - 8192) / 8 * 8 : zone + r % 800 / 8 * 8;
        cr_assert_eq(pwrite(fd, r >> 40 & 1 ? &all : &r, 8, (off_t)at), 8);
        int got = opened_by_a_child();
        cr_assert(got == 0 || got == 1, "%llx: %d", (unsigned long long)at, got);
        found[got]++;
        restore(fd, 0, zone + (64 << 10)); /* what was opened may have repaired itself */
    }
    close(fd);
    cr_assert(found[0] && found[1], "%d %d", found[0], found[1]);
    both(0);
}

/* Garbage whose checksum is right: sizes and offsets must not be believed either. */
Test(pool_input, absurd_numbers_with_right_checksums_are_refused)
{
    uint64_t page[400];
    size_t n;
    int fd;

    make_pool();
    n = metadata_pages(page, 400);
    fd = open(fixture_path, O_RDWR);
    for (uint64_t i = 0; i < 3000; i++) {
        uint64_t r = model_mix(i + 77), base = page[r % n],
                 odd[4] = {r, UINT64_MAX, 1, r % 4096 * 4096};
        unsigned char bytes[4096];
        size_t sum_at;
        struct ph_sum_pm sum;
        uint64_t magic;
        struct ph_pool *p;
        memcpy(bytes, whole + base, sizeof(bytes));
        memcpy(&magic, bytes, sizeof(magic));
        if (magic == PH_SUPER_MAGIC)
            sum_at = offsetof(struct ph_super_pm, sum);
        else if (magic == PH_ROOT_MAGIC)
            sum_at = offsetof(struct ph_root_pm, sum);
        else if (magic == PH_HEADER_MAGIC)
            sum_at = offsetof(struct ph_header_pm, sum);
        else
            continue;
        memcpy(bytes + 8 + (r >> 16) % 40 * 4, &odd[r >> 8 & 3], r >> 10 & 1 ? 8 : 4);
        sum = ph_sum(bytes, sum_at);
        memcpy(bytes + sum_at, &sum, sizeof(sum));
        cr_assert_eq(pwrite(fd, bytes, sizeof(bytes), (off_t)base), sizeof(bytes));
        if (ph_pool_open(&p, fixture_path, PH_POOL_READ) == 0) {
            struct ph_epoch_info info[64];
            size_t epochs = ph_pool_epochs(p, info, 64);
            for (size_t k = 0; k < epochs && k < 64; k++) {
                struct ph_view *v;
                if (ph_pool_view(p, info[k].number, &v) == 0)
                    ph_view_verify(v, NULL, NULL, NULL);
                else
                    v = NULL;
                ph_view_free(v);
            }
        }
        ph_pool_close(p);
        restore(fd, base, sizeof(bytes));
    }
    close(fd);
    both(0);
}

Test(pool_input, damaged_newest_epoch_leaves_the_older_ones)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 20};
    struct ph_epoch_info info[8];
    uint64_t header;

    fixture_run(p, &m, 3);
    header = p->epoch[2].header;
    cr_assert_eq(pwrite(ph_pool_fd(p), "damage", 6, (off_t)header + 64), 6);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_READ);
    cr_assert_eq(ph_pool_epochs(p, info, 8), 2);
    cr_assert_eq(info[0].number, 2);
    cr_assert(right_or_reported(p));
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE); /* goes on from there */
    model_at(&m, 20, 2);
    fixture_run(p, &m, 20);
    RIGHT(20, p);
    ph_pool_close(p);
}

Test(pool_input, damaged_record_of_the_newest_epoch_leaves_the_older_ones)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 20};
    struct ph_header_pm h;

    fixture_run(p, &m, 2);
    do
        fixture_run(p, &m, 1);
    while (p->epoch[p->epochs - 1].info.record_size < 50);
    OK(ph_header_load(p, p->epoch[p->epochs - 1].header, m.epoch, &h));
    cr_assert_eq(pwrite(ph_pool_fd(p), "damage", 6,
                        (off_t)(h.piece[h.pieces - 1].offset + h.piece[h.pieces - 1].size - 9)),
                 6);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_READ);
    cr_assert_lt(p->epoch[p->epochs - 1].info.number, m.epoch);
    RIGHT(20, p);
    ph_pool_close(p);
}

/* With each byte of a structure flipped in turn: superblock, newer root, newest header. */
Test(pool_input, no_byte_of_superblock_root_and_header_goes_unchecked)
{
    struct ph_pool *p;
    uint64_t super, root, header, seq, newest;
    int fd;

    make_pool();
    p = fixture_open(PH_POOL_READ);
    super = p->super.self;
    seq = p->root.seq;
    root = super + PH_PAGE * (1 + (seq & 1));
    newest = p->epoch[p->epochs - 1].info.number;
    header = p->epoch[p->epochs - 1].header;
    ph_pool_close(p);
    fd = open(fixture_path, O_RDWR);
    for (uint64_t i = 0; i < PH_PAGE; i++) {
        const uint64_t at[3] = {super + i, root + i, header + i};
        const uint64_t size[3] = {sizeof(struct ph_super_pm), sizeof(struct ph_root_pm),
                                  sizeof(struct ph_header_pm)};
        for (unsigned k = 0; k < 3; k++) {
            unsigned char good, bad;
            if (i >= size[k])
                continue;
            cr_assert_eq(pread(fd, &good, 1, (off_t)at[k]), 1);
            bad = (unsigned char)(good ^ (1u << i % 8));
            cr_assert_eq(pwrite(fd, &bad, 1, (off_t)at[k]), 1);
            int err = ph_pool_open(&p, fixture_path, PH_POOL_READ);
            if (k == 0) {
                cr_assert(err == PH_ECORRUPT || err == PH_ENEWER, "superblock, byte %llu: %s",
                          (unsigned long long)i, ph_error_name(err));
            } else {
                cr_assert_eq(err, 0);
                cr_assert(k == 1 ? p->root.seq < seq
                                 : p->epoch[p->epochs - 1].info.number < newest,
                          "byte %llu of structure %u is not checked", (unsigned long long)i, k);
            }
            ph_pool_close(p);
            cr_assert_eq(pwrite(fd, &good, 1, (off_t)at[k]), 1);
        }
    }
    close(fd);
}

/* Whoever maps the runs of a view must not be led outside of the file. */
Test(pool_input, pages_outside_of_the_log_are_refused)
{
    struct ph_pool *p = fixture_create();
    uint64_t header, home = 0, odd[6];
    struct ph_header_pm h;
    struct ph_index index;

    /* What each epoch has anew does not go home. */
    fixture_one_page(p, 1, PH_HEAP_BASE + PH_PAGE, 1, false);
    for (uint64_t i = 2; i <= 20; i++)
        fixture_one_page(p, i, PH_HEAP_BASE, i, false);
    header = p->epoch[p->epochs - 1].header;
    OK(ph_header_load(p, header, 20, &h));
    OK(ph_index_load(p, &h, &index));
    for (uint32_t i = 0; i < p->extents; i++)
        if (p->extent[p->by_offset[i]].role == PH_EXTENT_HOME)
            home = p->extent[p->by_offset[i]].offset;
    cr_assert_neq(home, 0);
    odd[0] = p->super.file_size;
    odd[1] = UINT64_MAX - PH_PAGE + 1;
    odd[2] = index.entry[0].offset + 8;
    odd[3] = p->super.self & ~(PH_PAGE - 1);
    odd[4] = home;
    odd[5] = p->super.file_size - PH_PAGE;
    for (unsigned i = 0; i < 6; i++) {
        struct ph_pool *r;
        struct ph_view *v;
        index.entry[0].offset = odd[i];
        h.index_sum = ph_sum(index.entry, sizeof(*index.entry));
        h.sum = ph_sum(&h, offsetof(struct ph_header_pm, sum));
        OK(ph_io_write(&p->io, index.entry, sizeof(*index.entry), h.piece[0].offset));
        OK(ph_io_write(&p->io, &h, sizeof(h), header));
        r = fixture_open(PH_POOL_READ);
        RETURNS(PH_ENOEPOCH, ph_pool_view(r, 20, &v));
        ph_pool_close(r);
    }
    ph_index_free(&index);
    ph_pool_close(p);
}

Test(pool_input, either_root_record_may_be_lost)
{
    struct ph_pool *p = fixture_create_sized(64 << 20, 4);
    struct model m = {.seed = 20};

    fixture_run(p, &m, 20);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t newest, lost = 1; /* commit: the older record names the epoch before */
        if (i % 4 == 3) {
            model_at(&m, 20, m.epoch - 2);
            OK(ph_pool_rewind(p, m.epoch));
            lost = 0; /* going back renews both records */
        }
        fixture_scribble(p); /* nothing that the older record reaches may be reused */
        p = fixture_lose_root(p);
        newest = p->epoch[p->epochs - 1].info.number;
        cr_assert(newest == m.epoch || newest == m.epoch - lost);
        RIGHT(20, p);
        model_at(&m, 20, newest);
        fixture_run(p, &m, 3 + i % 3);
        RIGHT(20, p);
    }
    ph_pool_close(p);
}

/* From the n-th sync on the disk fails. */
static long syncs_left;

static int fail_sync(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)offset, (void)size;
    if (op == PH_IO_SYNC && syncs_left-- <= 0)
        return EIO;
    return op == PH_IO_WRITE && syncs_left < 0 ? EIO : 0;
}

static void cut_off_after(long n)
{
    static const struct ph_io_hooks hooks = {.before = fail_sync};

    syncs_left = n;
    ph_io_hooks = &hooks;
}

/* A migration that ended between the two root records, then epochs, then a lost record. */
Test(pool_input, roots_that_disagree_are_settled_before_anything_is_reused)
{
    unsigned disagreed = 0;

    for (long at = 0; at < 40; at++) {
        struct ph_pool *p = fixture_create();
        struct model m = {.seed = 21};
        fixture_run(p, &m, 12);
        cut_off_after(at);
        for (unsigned i = 0; i < 12 && !p->broken; i++) {
            model_step(&m);
            if (model_commit(&m, p))
                break;
        }
        ph_io_hooks = NULL;
        ph_pool_close(p);
        p = fixture_open(PH_POOL_WRITE);
        disagreed += p->unsettled;
        RIGHT(21, p);
        fixture_scribble(p);
        p = fixture_lose_root(p);
        RIGHT(21, p);
        ph_pool_close(p);
        unlink(fixture_path);
    }
    cr_assert_gt(disagreed, 0);
}
