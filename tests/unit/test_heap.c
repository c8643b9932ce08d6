/* SPDX-License-Identifier: MIT */
/* test_heap.c - the heap as an allocator, seen from one thread */
#include "test_heap_model.h"
#include "allocator/error.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

static void start(void)
{
    cr_assert_eq(ph_heap_init(), 0);
}

TestSuite(heap, .init = start);
TestSuite(heap_start);

static struct ph_heap_stats stats(void)
{
    struct ph_heap_stats s;
    ph_heap_get_stats(&s);
    return s;
}

/* ---- start --------------------------------------------------------------------------- */

Test(heap_start, twice_is_once)
{
    cr_assert_eq(ph_heap_init(), 0);
    void *p = ph_heap_malloc(10);
    cr_assert_eq(ph_heap_init(), 0);
    cr_assert(ph_heap_owns(p));
    cr_assert_neq(p, ph_heap_malloc(10));
}

Test(heap_start, before_init_there_is_no_memory)
{
    errno = 0;
    cr_assert_null(ph_heap_malloc(10));
    cr_assert_eq(errno, ENOMEM);
    cr_assert_null(ph_heap_malloc(1 << 20));
    struct ph_span run;
    cr_assert_eq(ph_heap_used_spans(&run, 1), 0);
    cr_assert_not(ph_heap_live_run(PH_HEAP_BASE, PH_HEAP_END, &run));
}

Test(heap_start, a_taken_range_is_refused)
{
    void *p = mmap((void *)(PH_HEAP_EXTENTS + (1 << 30)), 4096, PROT_READ,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    cr_assert_neq(p, MAP_FAILED);
    cr_assert_eq(ph_heap_init(), PH_EMAP);
    munmap(p, 4096);
    cr_assert_eq(ph_heap_init(), 0, "the failed attempt must leave nothing behind");
    cr_assert_not_null(ph_heap_malloc(1));
}

Test(heap_start, without_any_memory_it_is_reported)
{
    struct rlimit limit = {1 << 20, 1 << 20};
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
    cr_assert_eq(ph_heap_init(), PH_ENOMEM);
}

/* ---- where not all addresses are to be had (heap_space.h) ---------------------------- */

#define ROOM (UINT64_C(512) << 20)

/* As with vm.overcommit_memory=2, only what is writable counts. */
static void start_reserved(void)
{
    struct rlimit limit = {ROOM, ROOM};
    cr_assert_eq(setrlimit(RLIMIT_DATA, &limit), 0);
    cr_assert_eq(ph_heap_init(), 0);
    cr_assert_not(ph_heap_is_whole());
}

static void start_in_pieces(void)
{
    struct rlimit limit = {ROOM + (ROOM >> 1), ROOM + (ROOM >> 1)};
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
    cr_assert_eq(ph_heap_init(), 0);
    cr_assert_not(ph_heap_is_whole());
}

TestSuite(heap_reserved, .init = start_reserved);
TestSuite(heap_pieces, .init = start_in_pieces);

static void operate(struct model *m, long operations)
{
    for (long i = 0; i < operations; i++) {
        model_operate(m);
        if (i % 5000 == 0)
            model_validate();
        if (i % 7777 == 0)
            ph_heap_epoch_mark();
    }
    model_free_all(m);
    model_validate();
    cr_assert_eq(stats().live_blocks, 0);
}

static struct model larger_blocks = {.state = 4711, .max_log = 21, .items = MODEL_ITEMS / 20};

Test(heap_reserved, random_operations_keep_contents_and_invariants)
{
    operate(&larger_blocks, 50000);
}

Test(heap_pieces, random_operations_keep_contents_and_invariants)
{
    operate(&larger_blocks, 50000);
}

/* Blocks of @p size until there is no memory; then all but @p size bytes are given back. */
static void fill_up(size_t size)
{
    static unsigned char *block[1 << 20];
    size_t n = 0;
    for (; n < sizeof block / sizeof block[0]; n++) {
        errno = 0;
        if (!(block[n] = ph_heap_malloc(size)))
            break;
        memset(block[n], (int)n, size);
    }
    cr_assert_eq(errno, ENOMEM);
    cr_assert_geq(n * size, ROOM / 2, "%zu blocks of %zu bytes", n, size);
    cr_assert_null(ph_heap_calloc(4, ROOM));
    if (size > 1 << 20)
        cr_assert_null(ph_heap_realloc(block[0], ROOM));
    cr_assert_eq(block[0][size - 1], 0);
    struct ph_span run;
    uint64_t pages = 0;
    for (uint64_t at = PH_HEAP_BASE; ph_heap_live_run(at, PH_HEAP_END, &run); at = run.end)
        for (uint64_t page = run.start; page < run.end; page += PH_PAGE)
            pages += *(volatile const unsigned char *)page != 255; /* all of it is memory */
    cr_assert_geq(pages * PH_PAGE, n * size / 2);
    for (size_t i = 1; i < n; i++)
        ph_heap_free(block[i]);
    model_validate();
    cr_assert_not_null(ph_heap_malloc(size));
}

Test(heap_reserved, a_full_one_refuses_and_goes_on)
{
    fill_up(3 << 20);
}

Test(heap_reserved, one_full_of_small_blocks_refuses_and_goes_on)
{
    fill_up(2000);
}

Test(heap_pieces, a_full_one_refuses_and_goes_on)
{
    fill_up(3 << 20);
}

Test(heap_pieces, one_full_of_small_blocks_refuses_and_goes_on)
{
    fill_up(2000);
}

Test(heap_reserved, free_of_what_was_never_a_block_is_fatal, .signal = SIGABRT)
{
    ph_heap_free((void *)(PH_HEAP_EXTENTS - (1 << 16)));
}

Test(heap_pieces, free_of_what_was_never_an_extent_is_fatal, .signal = SIGABRT)
{
    ph_heap_free((void *)(PH_HEAP_END - (1 << 20)));
}

/* ---- blocks -------------------------------------------------------------------------- */

Test(heap, random_operations_keep_contents_and_invariants)
{
    static struct model m = {.state = 12345, .max_log = 19, .items = MODEL_ITEMS};
    operate(&m, 100000 * model_scale());
}

Test(heap, small_blocks_alone_keep_contents_and_invariants)
{
    static struct model m = {.state = 777, .max_log = 10, .items = MODEL_ITEMS};
    for (long i = 0; i < 200000 * model_scale(); i++) {
        model_operate(&m);
        if (i % 10000 == 0)
            model_validate();
        if (i % 1000 == 0)
            ph_heap_epoch_mark();
    }
    model_free_all(&m);
    model_validate();
    cr_assert_eq(stats().live_blocks, 0);
}

Test(heap, every_size_is_aligned_usable_and_not_wasteful)
{
    for (size_t size = 0; size < 70000; size += size < 2100 ? 1 : 61) {
        unsigned char *p = ph_heap_malloc(size);
        cr_assert_not_null(p);
        cr_assert_eq((uintptr_t)p % 16, 0, "size %zu", size);
        size_t usable = ph_heap_usable_size(p);
        cr_assert(usable >= size && usable <= size + size / 2 + 128, "%zu for %zu", usable,
                  size);
        memset(p, 0xff, usable);
        ph_heap_free(p);
    }
    model_validate();
}

Test(heap, blocks_of_size_zero_are_distinct)
{
    void *a = ph_heap_malloc(0), *b = ph_heap_malloc(0), *c = ph_heap_calloc(0, 8);
    cr_assert(a && b && c && a != b && b != c && a != c);
    void *d = ph_heap_realloc(a, 0);
    cr_assert(d && d != b && d != c);
    ph_heap_free(NULL);
}

Test(heap, calloc_zeroes_recycled_memory)
{
    for (size_t size = 1; size < (4 << 20); size = size * 3 / 2 + 1) {
        void *p[8];
        for (int i = 0; i < 8; i++)
            memset(p[i] = ph_heap_malloc(size), 0xaa, size);
        for (int i = 0; i < 8; i++)
            ph_heap_free(p[i]);
        for (int i = 0; i < 8; i++) {
            p[i] = ph_heap_calloc(1, size);
            cr_assert(all_zero(p[i], size), "size %zu", size);
        }
        for (int i = 0; i < 8; i++)
            ph_heap_free(p[i]);
    }
}

Test(heap, calloc_zeroes_what_the_top_extends)
{
    size_t mib = 1 << 20;
    unsigned char *p = ph_heap_malloc(mib);
    memset(p, 0xaa, mib);
    ph_heap_free(p);
    unsigned char *q = ph_heap_calloc(3, mib); /* part recycled, part never used before */
    cr_assert_eq(q, p);
    cr_assert(all_zero(q, 3 * mib));
}

Test(heap, calloc_of_fresh_memory_touches_no_page)
{
    unsigned char *p = ph_heap_calloc(1 << 10, 1 << 20), resident;
    cr_assert_not_null(p);
    cr_assert_eq(mincore(p + (512 << 20), 4096, &resident), 0);
    cr_assert_eq(resident & 1, 0);
}

Test(heap, products_that_overflow_are_refused)
{
    errno = 0;
    cr_assert_null(ph_heap_calloc(SIZE_MAX / 2, 3));
    cr_assert_eq(errno, ENOMEM);
    cr_assert_null(ph_heap_calloc((size_t)1 << 33, (size_t)1 << 33));
}

Test(heap, huge_requests_succeed_while_range_remains)
{
    size_t tib = (size_t)1 << 40;
    unsigned char *a = ph_heap_malloc(tib), *b = ph_heap_malloc(4 * tib);
    cr_assert(a && b);
    a[0] = a[tib - 1] = b[4 * tib - 1] = 7;
    errno = 0;
    cr_assert_null(ph_heap_malloc(2 * tib));
    cr_assert_eq(errno, ENOMEM);
    cr_assert_null(ph_heap_realloc(a, 3 * tib));
    cr_assert_eq(a[tib - 1], 7, "a failed realloc leaves the block");
    ph_heap_free(b);
    cr_assert_not_null(b = ph_heap_malloc(2 * tib));
    const size_t absurd[] = {SIZE_MAX, SIZE_MAX - 4095, (size_t)PTRDIFF_MAX + 1, 7 * tib};
    for (int i = 0; i < 4; i++) {
        cr_assert_null(ph_heap_malloc(absurd[i]));
        cr_assert_null(ph_heap_calloc(1, absurd[i]));
        cr_assert_null(ph_heap_realloc(b, absurd[i]));
        cr_assert_null(ph_heap_memalign(64, absurd[i]));
    }
    cr_assert_null(ph_heap_memalign((size_t)1 << 62, 1));
    model_validate();
}

Test(heap, memalign_gives_every_power_of_two)
{
    for (size_t align = 1; align <= (64 << 20); align *= 2) {
        for (size_t size = 0; size < (1 << 20); size = size * 3 + 1) {
            void *p = ph_heap_memalign(align, size), *q = ph_heap_memalign(align, size);
            cr_assert(p && q && p != q);
            cr_assert_eq((uintptr_t)p % align, 0);
            cr_assert_eq((uintptr_t)q % align, 0);
            cr_assert(ph_heap_usable_size(p) >= size);
            ph_heap_free(p);
            ph_heap_free(q);
        }
        model_validate();
    }
}

Test(heap, memalign_refuses_what_is_no_power_of_two)
{
    const size_t bad[] = {0, 3, 24, 4097};
    for (int i = 0; i < 4; i++) {
        errno = 0;
        cr_assert_null(ph_heap_memalign(bad[i], 10));
        cr_assert_eq(errno, EINVAL);
    }
}

/* ---- resizing and reuse -------------------------------------------------------------- */

Test(heap, realloc_keeps_contents_across_kinds)
{
    static const size_t sizes[] = {10,       600,   40000, 30000, 5 << 20, 100,
                                   33 << 10, 1000,  8192,  70000, 1,       2 << 20,
                                   17,       32768, 32769, 0,     100000,  1};
    struct model_item item = {ph_heap_malloc(1), 1, 4711};
    model_fill(&item);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t old = item.size, common = old < sizes[i] ? old : sizes[i];
        unsigned char *p = ph_heap_realloc(item.p, sizes[i]);
        cr_assert_not_null(p);
        for (size_t k = 0; k < common; k += model_step(old))
            cr_assert_eq(p[k], model_byte(item.seed, k), "%zu to %zu at %zu", old, sizes[i], k);
        item = (struct model_item){p, sizes[i], item.seed + 1};
        model_fill(&item);
        model_validate();
    }
}

Test(heap, extents_grow_in_place_where_there_is_room)
{
    size_t mib = 1 << 20;
    char *a = ph_heap_malloc(mib), *b = ph_heap_malloc(mib), *c = ph_heap_malloc(mib);
    cr_assert_eq(ph_heap_realloc(c, 200 * mib), c, "at the top");
    ph_heap_free(b);
    cr_assert_eq(ph_heap_realloc(a, mib + mib / 2), a, "into a part of the free neighbour");
    cr_assert_eq(ph_heap_realloc(a, 2 * mib), a, "into all of it");
    char *moved = ph_heap_realloc(a, 3 * mib);
    cr_assert(moved && moved != a, "not into the live block behind");
    cr_assert_eq(ph_heap_realloc(c, mib), c, "shrinks where it is");
    model_validate();
    cr_assert_eq(stats().extent_pages, 4 * mib / PH_PAGE);
}

Test(heap, a_temporary_gets_the_same_extent_again)
{
    void *kept = ph_heap_malloc(8 << 20), *first = ph_heap_malloc(8 << 20);
    ph_heap_free(first);
    for (int i = 0; i < 100; i++) {
        void *p = ph_heap_malloc(8 << 20), *small = ph_heap_malloc(100);
        cr_assert_eq(p, first);
        ph_heap_free(p);
        ph_heap_free(small);
    }
    ph_heap_free(kept);
}

Test(heap, the_best_fitting_hole_is_taken)
{
    size_t kib = 1024;
    void *big = ph_heap_malloc(400 * kib), *wall = ph_heap_malloc(40 * kib);
    void *fit = ph_heap_malloc(100 * kib), *wall2 = ph_heap_malloc(40 * kib);
    ph_heap_free(big);
    ph_heap_free(fit);
    cr_assert_eq(ph_heap_malloc(96 * kib), fit);
    cr_assert_eq(ph_heap_malloc(300 * kib), big);
    ph_heap_free(wall);
    ph_heap_free(wall2);
    model_validate();
}

Test(heap, empty_slabs_serve_other_classes)
{
    static void *p[20000];
    uint64_t slab_pages = 0;
    for (int size = 64; size <= 512; size += 64) {
        for (int i = 0; i < 512 * 20000 / 512 / (size / 64); i++)
            cr_assert_not_null(p[i] = ph_heap_malloc((size_t)size));
        if (slab_pages == 0)
            slab_pages = stats().slab_pages;
        for (int i = 0; i < 512 * 20000 / 512 / (size / 64); i++)
            ph_heap_free(p[i]);
    }
    struct ph_span span[8];
    size_t n = ph_heap_used_spans(span, 8);
    uint64_t used = 0;
    for (size_t i = 0; i < n; i++)
        if (span[i].start >= PH_HEAP_BASE + (UINT64_C(1) << 40) &&
            span[i].end <= PH_HEAP_EXTENTS)
            used += (span[i].end - span[i].start) / PH_PAGE;
    /* The same bytes in eight classes; each keeps at most one slab as its current one. */
    cr_assert(slab_pages > 300 && used <= slab_pages + 9 * 16, "%lu of %lu", used, slab_pages);
}

/* ---- wrong frees --------------------------------------------------------------------- */

#define CROWD 3000

/* As many blocks as several slabs hold. */
static void allocate_crowd(void *crowd[CROWD])
{
    for (int i = 0; i < CROWD; i++)
        cr_assert_not_null(crowd[i] = ph_heap_malloc(100));
}

Test(heap, what_was_freed_last_is_handed_out_first_whichever_slab_it_is_in)
{
    static void *crowd[CROWD];
    allocate_crowd(crowd);
    for (int i = 0; i < 10; i++)
        ph_heap_free(crowd[i * CROWD / 10]);
    for (int i = 9; i >= 0; i--)
        cr_assert_eq(ph_heap_malloc(100), crowd[i * CROWD / 10]);
    model_validate();
}

Test(heap, a_slab_in_which_the_last_block_dies_leaves_no_hint_behind)
{
    static void *crowd[CROWD];
    for (int round = 0; round < 3; round++) {
        allocate_crowd(crowd);
        for (int i = 0; i < CROWD; i++)
            ph_heap_free(crowd[i]);
        model_validate();
        for (int i = 0; i < CROWD / 4; i++) /* from the slabs given back, if of another class */
            crowd[i] = memset(ph_heap_malloc(400), i, 400);
        for (int i = 0; i < 100; i++)
            memset(ph_heap_malloc(100), 0xee, 100);
        for (int i = 0; i < CROWD / 4; i++) {
            cr_assert_eq(*(unsigned char *)crowd[i], (unsigned char)i);
            ph_heap_free(crowd[i]);
        }
        model_validate();
    }
}

Test(heap, slots_that_hints_took_from_a_partial_slab_are_found_again)
{
    static void *crowd[CROWD];
    allocate_crowd(crowd);
    for (int round = 0; round < 20; round++) {
        for (int i = round % 7; i < CROWD; i += 211)
            ph_heap_free(crowd[i]); /* a few of each slab: all of them are given out again */
        for (int i = round % 7; i < CROWD; i += 211)
            crowd[i] = ph_heap_malloc(100);
        model_validate();
    }
    for (int i = 0; i < CROWD; i++)
        ph_heap_free(crowd[i]);
    model_validate();
    cr_assert_eq(stats().live_blocks, 0);
}

Test(heap, double_free_of_a_small_block_is_fatal, .signal = SIGABRT)
{
    void *p = ph_heap_malloc(40);
    ph_heap_free(p);
    ph_heap_free(p);
}

Test(heap, double_free_of_an_extent_is_fatal, .signal = SIGABRT)
{
    void *a = ph_heap_malloc(1 << 20), *p = ph_heap_malloc(1 << 20);
    ph_heap_free(a);
    ph_heap_free(p);
    ph_heap_free(p);
}

Test(heap, free_inside_a_block_is_fatal, .signal = SIGABRT)
{
    ph_heap_free((char *)ph_heap_malloc(40) + 16);
}

Test(heap, free_inside_an_extent_is_fatal, .signal = SIGABRT)
{
    ph_heap_free((char *)ph_heap_malloc(1 << 20) + 4096);
}

Test(heap, free_behind_the_last_slot_is_fatal, .signal = SIGABRT)
{
    uintptr_t p = (uintptr_t)ph_heap_malloc(48);
    ph_heap_free((void *)((p & ~(uintptr_t)0xffff) + 65536 / 48 * 48));
}

Test(heap, free_of_what_was_never_a_block_is_fatal, .signal = SIGABRT)
{
    ph_heap_free((void *)(PH_HEAP_EXTENTS - 65536));
}

Test(heap, free_of_a_table_is_fatal, .signal = SIGABRT)
{
    ph_heap_free((void *)PH_HEAP_BASE);
}

Test(heap, free_outside_of_the_heap_is_fatal, .signal = SIGABRT)
{
    static int outside;
    ph_heap_free(&outside);
}

Test(heap, realloc_of_a_dead_block_is_fatal, .signal = SIGABRT)
{
    void *p = ph_heap_malloc(40);
    ph_heap_free(p);
    p = ph_heap_realloc(p, 400);
}

/* ---- epochs -------------------------------------------------------------------------- */

Test(heap, epochs_do_not_make_a_steady_heap_grow)
{
    static struct model m = {.state = 99, .max_log = 9, .items = MODEL_ITEMS};
    for (int i = 0; i < 20000; i++)
        model_operate(&m);
    uint64_t before = stats().slab_pages;
    for (int epoch = 0; epoch < 300; epoch++) {
        ph_heap_epoch_mark();
        for (int i = 0; i < 500; i++)
            model_operate(&m);
    }
    model_validate();
    uint64_t after = stats().slab_pages;
    cr_assert(after <= before * 2, "%lu slab pages became %lu", before, after);
}

Test(heap, cold_slabs_are_filled_before_many_new_ones)
{
    enum { N = 64000, EPOCHS = 200, EACH = 1500 };
    static void *p[N];
    struct model random = {.state = 31};
    for (int i = 0; i < N; i++)
        p[i] = ph_heap_malloc(64);
    uint64_t before = stats().slab_pages;
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        static void *fresh[EACH];
        ph_heap_epoch_mark();
        for (int i = 0; i < EACH; i++) /* more than a slab holds, and none is hot */
            fresh[i] = ph_heap_malloc(64);
        for (int i = 0; i < EACH; i++) {
            void **victim = &p[model_random(&random) % N];
            ph_heap_free(*victim);
            *victim = fresh[i];
        }
    }
    uint64_t after = stats().slab_pages;
    cr_assert(after <= before * 3 / 2, "%lu slab pages became %lu", before, after);
    model_validate();
}

Test(heap, a_new_epoch_does_not_scatter_allocations)
{
    /* Half of 64,000 blocks die, all over 64 slabs; then an epoch's worth of 500 new ones. */
    static void *p[64000];
    for (int i = 0; i < 64000; i++)
        p[i] = ph_heap_malloc(64);
    for (int i = 0; i < 64000; i += 2)
        ph_heap_free(p[i]);
    ph_heap_epoch_mark();
    bool seen[2000] = {false};
    unsigned pages = 0;
    for (int i = 0; i < 500; i++) {
        size_t page = ((uintptr_t)ph_heap_malloc(64) - PH_HEAP_BASE) / PH_PAGE % 2000;
        pages += !seen[page];
        seen[page] = true;
    }
    cr_assert(pages <= 500 / 32 + 2, "%u pages dirtied", pages);
}
