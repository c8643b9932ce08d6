/* SPDX-License-Identifier: MIT */
/* pool_free.h - how many pages the log believes to be free */
#ifndef PH_POOL_FREE_H
#define PH_POOL_FREE_H

#include "allocator/pool_internal.h"

static inline uint64_t pool_free_pages(const struct ph_pool *p)
{
    uint64_t pages = 0;
    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        if (e->role != PH_EXTENT_FREE && e->role != PH_EXTENT_LOG)
            continue;
        for (uint32_t s = 0; s < PH_SEGMENTS; s++)
            if (!(e->used >> s & 1))
                pages += ph_segment_end(&p->super, s) - s * ph_segment_pages(&p->super);
    }
    return pages;
}

#endif
