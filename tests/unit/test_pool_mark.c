/* SPDX-License-Identifier: MIT */
/* test_pool_mark.c - pages that may hold the owner of a lock are marked, others hardly ever */
#include "allocator/lock_shape.h"
#include "allocator/pool_internal.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WORDS (PH_PAGE / 8)

static uint64_t memory[3][WORDS] __attribute__((aligned(4096)));

static bool marked(const uint64_t *page)
{
    bool plain = ph_page_may_own_plain(page);
    cr_assert_eq(ph_page_may_own(page), plain, "both ways of looking agree");
    cr_assert_eq(ph_sum_is_marked(ph_sum_page(page)), plain);
    return plain;
}

static void fill(unsigned char byte)
{
    memset(memory, byte, sizeof memory);
}

/* Where in the three pages a lock can lie so that it begins in the first or the second. */
#define EACH_PLACE(at) for (size_t at = 0; at < 2 * PH_PAGE; at += 8)

static void owner_is_marked(size_t at, size_t owner, const char *what)
{
    size_t page = (at + owner) / PH_PAGE;
    cr_assert(marked(memory[page]), "%s at %zu", what, at);
}

static void make_mutex(pthread_mutex_t *m, int type, int protocol, int robust)
{
    pthread_mutexattr_t a;
    cr_assert_eq(pthread_mutexattr_init(&a), 0);
    cr_assert_eq(pthread_mutexattr_settype(&a, type), 0);
    cr_assert_eq(pthread_mutexattr_setprotocol(&a, protocol), 0);
    cr_assert_eq(pthread_mutexattr_setrobust(&a, robust), 0);
    cr_assert_eq(pthread_mutex_init(m, &a), 0);
    cr_assert_eq(pthread_mutex_lock(m), 0);
}

static void mutexes_are_marked(int type, int protocol, int robust, unsigned char around)
{
    pthread_mutex_t held;
    make_mutex(&held, type, protocol, robust);
    cr_assert(ph_mutex_shape((void *)&held) || ph_id_mutex_shape((void *)&held));
    EACH_PLACE(at)
    {
        fill(around);
        memcpy((char *)memory + at, &held, sizeof held);
        owner_is_marked(at, PH_MUTEX_OWNER, "mutex");
    }
    pthread_mutex_unlock(&held);
    fill(around);
    memcpy(&memory[0][64], &held, sizeof held);
    cr_assert(!marked(memory[0]), "a mutex that nobody holds");
}

Test(pool_mark, held_mutexes_of_all_kinds_at_all_places)
{
    static const int types[] = {PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK};
    for (int t = 0; t < 2; t++)
        for (int inherit = 0; inherit < 2; inherit++)
            for (int robust = 0; robust < 2; robust++)
                mutexes_are_marked(types[t], inherit ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE,
                                   robust ? PTHREAD_MUTEX_ROBUST : PTHREAD_MUTEX_STALLED,
                                   t ? 0x00 : 0xa5);
    mutexes_are_marked(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_INHERIT, PTHREAD_MUTEX_STALLED, 0x5a);
    mutexes_are_marked(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_ROBUST, 0xff);
}

Test(pool_mark, write_locks_at_all_places)
{
    static const unsigned char around[] = {0, 0xa5, 0xff};
    pthread_rwlock_t held = PTHREAD_RWLOCK_INITIALIZER;
    cr_assert_eq(pthread_rwlock_wrlock(&held), 0);
    cr_assert(ph_rwlock_shape((void *)&held));
    for (size_t k = 0; k < sizeof around; k++)
        EACH_PLACE(at)
        {
            fill(around[k]);
            memcpy((char *)memory + at, &held, sizeof held);
            owner_is_marked(at, PH_RWLOCK_OWNER, "rwlock");
        }
    pthread_rwlock_unlock(&held);
    fill(0xa5);
    memcpy(&memory[0][64], &held, sizeof held);
    cr_assert(!marked(memory[0]), "a rwlock that nobody holds");
}

/* Words that come near, at random: both ways must say the same, whatever that is. */
Test(pool_mark, both_ways_agree_on_what_comes_near)
{
    static const uint64_t near[] = {0,
                                    1,
                                    2,
                                    3,
                                    77,
                                    UINT64_C(1) << 32,
                                    (UINT64_C(1) << 32) | 77,
                                    (UINT64_C(2) << 32) | 1,
                                    (UINT64_C(3) << 32) | 3,
                                    UINT64_C(1) << 22,
                                    (UINT64_C(1) << 22) - 1,
                                    (UINT64_C(1) << 32) | (UINT64_C(1) << 22),
                                    UINT64_MAX};
    unsigned yes = 0, seed = 4711;
    for (int round = 0; round < 20000; round++) {
        for (unsigned i = 0; i < WORDS; i++)
            memory[0][i] = i % 64 < 8 ? near[(unsigned)rand_r(&seed) % 13] : UINT64_MAX;
        yes += marked(memory[0]);
    }
    cr_assert(yes > 100 && yes < 19900, "%u of 20000", yes);
}

Test(pool_mark, ordinary_data_is_not_marked)
{
    unsigned seed = 1, yes = 0;
    fill(0);
    cr_assert(!marked(memory[0]));
    for (int page = 0; page < 1000; page++) {
        for (unsigned i = 0; i < WORDS; i++) {
            double d = 1.0 / (1 + rand_r(&seed));
            memcpy(&memory[0][i], &d, 8);                       /* an array of doubles */
            memory[1][i] = i % 4 ? (uint64_t)(uintptr_t)&d : 1; /* objects: count, pointers */
            memory[2][i] = (unsigned)rand_r(&seed) % 1000 + 1;  /* an array of integers */
        }
        yes += marked(memory[0]) + marked(memory[1]) + marked(memory[2]);
    }
    cr_assert_eq(yes, 0);
}

Test(pool_mark, memory_at_any_address_can_be_asked_about)
{
    pthread_mutex_t held;
    char *odd = (char *)memory[0] + 3;
    make_mutex(&held, PTHREAD_MUTEX_RECURSIVE, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_STALLED);
    fill(0);
    memcpy(odd + 64, &held, sizeof held);
    cr_assert(ph_page_may_own(odd));
}
