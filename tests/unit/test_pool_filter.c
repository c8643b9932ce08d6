/* SPDX-License-Identifier: MIT */
/* test_pool_filter - the volatile table from page to checksum */
#include "tests/unit/pool_fixture.h"

static struct ph_sum_pm sum_of(uint64_t v)
{
    return (struct ph_sum_pm){v, ~v};
}

Test(pool_filter, empty_table_has_nothing)
{
    struct ph_filter f = {0};

    cr_assert(ph_sum_is_zero(ph_filter_get(&f, 0)));
    cr_assert(ph_sum_is_zero(ph_filter_get(&f, 0x7ffffffff000)));
    ph_filter_put(&f, 0x1000, (struct ph_sum_pm){0, 0}); /* forgetting what is not there */
    ph_filter_free(&f);
}

Test(pool_filter, reserving_alone_makes_nothing_present)
{
    struct ph_filter f = {0};

    OK(ph_filter_reserve(&f, 0x5000));
    cr_assert(ph_sum_is_zero(ph_filter_get(&f, 0x5000)));
    ph_filter_free(&f);
}

static int count(void *arg, uint64_t addr)
{
    uint64_t *seen = arg;

    seen[0]++;
    seen[1] += addr / PH_PAGE;
    return 0;
}

Test(pool_filter, agrees_with_a_plain_array_after_random_changes)
{
    enum { PAGES = 60000 };
    uint64_t *value = calloc(PAGES, sizeof(*value)), expect[2] = {0, 0}, seen[2] = {0, 0};
    struct ph_filter f = {0};

    for (uint64_t i = 0; i < 300000; i++) {
        uint64_t r = model_mix(i), at = r % PAGES;
        /* half of the pages in one run, half spread over the address space */
        uint64_t addr = (at < PAGES / 2 ? at : at * 131071) * PH_PAGE;
        value[at] = r >> 40 & 3 ? i + 1 : 0;
        OK(ph_filter_reserve(&f, addr));
        ph_filter_put(&f, addr, value[at] ? sum_of(value[at]) : (struct ph_sum_pm){0, 0});
    }
    for (uint64_t at = 0; at < PAGES; at++) {
        uint64_t addr = (at < PAGES / 2 ? at : at * 131071) * PH_PAGE;
        struct ph_sum_pm s = ph_filter_get(&f, addr);
        cr_assert(value[at] ? ph_sum_equal(s, sum_of(value[at])) : ph_sum_is_zero(s));
        if (value[at]) {
            expect[0]++;
            expect[1] += addr / PH_PAGE;
        }
    }
    cr_assert_eq(ph_filter_each(&f, count, seen), 0);
    cr_assert_eq(seen[0], expect[0]);
    cr_assert_eq(seen[1], expect[1]);
    ph_filter_free(&f);
    free(value);
}

Test(pool_filter, takes_at_most_32_bytes_a_page_of_memory_in_runs)
{
    struct ph_filter f = {0};

    for (uint64_t n = 1; n <= 300000; n++) {
        OK(ph_filter_reserve(&f, UINT64_C(0x200000000000) + n * PH_PAGE));
        if (n >= 4096)
            cr_assert_leq(ph_filter_bytes(&f), 32 * n);
    }
    ph_filter_free(&f);
}
