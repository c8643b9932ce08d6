/* SPDX-License-Identifier: MIT */
/*
 * pool_mark.c - which pages may hold the owner of a lock
 *
 * Recovery has to look at every held lock (lock_shape.h), and must not look at every page for
 * it. So whoever computes a page's checksum, and so has it in the cache, also asks whether one
 * of its words may be the owner of a lock; the answer is part of the checksum (pool_format.h).
 *
 * The answer depends on the page alone. Of a lock that reaches over the end of a page, only the
 * part on the page of its owner is looked at. A wrong yes costs time, a wrong no hangs a
 * program: whatever has the shape of a lock is marked, wherever it lies.
 */
#include "allocator/lock_shape.h"
#include "allocator/pool_internal.h"

#include <immintrin.h>
#include <string.h>

#define WORDS       (PH_PAGE / 8)
#define HIGH(n)     ((uint64_t)(n) << 32)

/* The owner's word of a mutex is 1 user and an id; of a read-write lock an id, and before it
 * an empty word and one whose only free bits are these. */
#define ONE_USER    HIGH(1)
#define FUTEX_FREE  (HIGH(3) | 2)
#define FUTEX_FIXED UINT64_C(1)

static bool small(uint32_t id)
{
    return id - 1 < (1u << PH_TID_BITS) - 1;
}

/* Whether word @p i may be the owner's of a mutex. */
static bool mutex_owner(const uint64_t *w, uint32_t i)
{
    if (w[i] >> 32 != 1 || !small((uint32_t)w[i]))
        return false;
    if (i >= 1 && i + 3 < WORDS) {
        const struct ph_mutex *m = (const struct ph_mutex *)&w[i - 1];
        return ph_mutex_shape(m) || ph_id_mutex_shape(m);
    }
    /* Over the end of the page: the kind, if it is here, has few bits. */
    return i + 1 == WORDS || ((uint32_t)w[i + 1] && (uint32_t)w[i + 1] < 0x400);
}

/* Whether word @p i may be the owner's of a read-write lock. */
static bool rwlock_owner(const uint64_t *w, uint32_t i)
{
    if (w[i] >> 32 > 1 || !small((uint32_t)w[i]))
        return false;
    if (i >= 3 && i + 3 < WORDS)
        return ph_rwlock_shape((const struct ph_rwlock *)&w[i - 3]);
    return (i < 1 || w[i - 1] == 0) && (i < 2 || (w[i - 2] & ~FUTEX_FREE) == FUTEX_FIXED) &&
           (i + 1 >= WORDS || w[i + 1] >> 8 == 0) && (i + 2 >= WORDS || w[i + 2] == 0) &&
           (i + 3 >= WORDS || (uint32_t)w[i + 3] <= 2);
}

static bool any_owner(const uint64_t *w, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        if (mutex_owner(w, i) || rwlock_owner(w, i))
            return true;
    return false;
}

/* Which of four words come near; @p w has two more before them. */
__attribute__((target("avx2"))) static inline __m256i near_four(const uint64_t *w)
{
    const __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi64x(FUTEX_FIXED),
                  fixed = _mm256_set1_epi64x((long long)~FUTEX_FREE),
                  first = _mm256_set1_epi64x((long long)(ONE_USER | 1));
    __m256i owner = _mm256_loadu_si256((const __m256i *)w);
    __m256i before = _mm256_loadu_si256((const __m256i *)(w - 1));
    __m256i futex = _mm256_loadu_si256((const __m256i *)(w - 2));
    __m256i mutex = _mm256_srli_epi64(_mm256_sub_epi64(owner, first), PH_TID_BITS);
    __m256i rwlock = _mm256_xor_si256(_mm256_and_si256(futex, fixed), one);

    rwlock = _mm256_or_si256(rwlock, before);
    return _mm256_or_si256(_mm256_cmpeq_epi64(mutex, zero), _mm256_cmpeq_epi64(rwlock, zero));
}

/* The same, eight words at a time: most pages have nothing that comes near. */
__attribute__((target("avx2"))) static bool any_owner_avx2(const uint64_t *w)
{
    if (any_owner(w, 0, 4) || any_owner(w, WORDS - 4, WORDS))
        return true;
    for (uint32_t i = 4; i < WORDS - 4; i += 8) {
        __m256i near = _mm256_or_si256(near_four(w + i), near_four(w + i + 4));
        if (!_mm256_testz_si256(near, near) && any_owner(w, i, i + 8))
            return true;
    }
    return false;
}

bool ph_page_may_own(const void *page)
{
    uint64_t copy[WORDS];

    if ((uintptr_t)page % sizeof(*copy))
        page = memcpy(copy, page, sizeof(copy));
    return __builtin_cpu_supports("avx2") ? any_owner_avx2(page) : any_owner(page, 0, WORDS);
}

bool ph_page_may_own_plain(const uint64_t *page)
{
    return any_owner(page, 0, WORDS);
}
