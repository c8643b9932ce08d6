/* SPDX-License-Identifier: MIT */
/* restorer_sum.c - the checksum of a page, without libc */
#include "restorer.h"

#define XXH_NO_STDLIB
#define XXH_NO_STREAM
#define XXH_FORCE_MEMORY_ACCESS 1 /* loads, not calls of memcpy */
#define XXH_INLINE_ALL
#include <xxhash.h>

bool ph_r_page_right(const void *page, const struct ph_sum_pm *sum)
{
    XXH128_hash_t h = XXH3_128bits(page, PH_PAGE);
    uint64_t lo = h.low64, hi = h.high64 & ~PH_SUM_MARK;
    if (!lo && !hi && !(sum->hi & PH_SUM_MARK)) /* as ph_sum_page: zero is taken */
        lo = 1;
    return sum->lo == lo && (sum->hi & ~PH_SUM_MARK) == hi;
}
