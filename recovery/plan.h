/* SPDX-License-Identifier: MIT */
/*
 * plan.h - all that the restorer has to know, in one memfd
 *
 * Made by pyheap-recover, which has checked every part of it, and mapped by the restorer at
 * PH_PLAN_BASE. The restorer trusts it. Descriptors of the program are in place already when
 * the restorer starts.
 */
#ifndef PH_PLAN_H
#define PH_PLAN_H

#include "allocator/pool.h"
#include "allocator/pool_format.h"
#include "pyhook/record.h"

#include <stdatomic.h>

/* Inside [PH_RESTORER_BASE, PH_RESTORER_END): text and data, thread stacks, the plan, what is
 * mapped from the pool (allocator/mapped.h). */
#define PH_RESTORER_STACKS  UINT64_C(0x011000000000)
#define PH_PLAN_BASE        UINT64_C(0x012000000000)
#define PH_VDSO_TEMPORARY   UINT64_C(0x017000000000)

#define PH_PLAN_MAGIC       UINT64_C(0x344e4c5050594850) /* "PHYPPLN4" */

#define PH_PLAN_TRAMPOLINES 1u /* treat the vdso as different, whatever it is: for tests */
#define PH_PLAN_VERBOSE     2u
#define PH_PLAN_DOWNTIME    4u /* monotonic clocks count the time since the epoch */
#define PH_PLAN_ENTER       8u /* the working directory is there when files are undone */

enum ph_place_how {
    PH_PLACE_READ = 1, /* and hold each page against its checksum */
    PH_PLACE_COPY,     /* read; of a stored file, which has been verified as a whole */
    PH_PLACE_MAP,      /* privately; some of its pages may be other pieces, which come after */
    PH_PLACE_ZERO,     /* such a piece: absent pages */
};

/** A piece of memory and where its content comes from, ascending by address. */
struct ph_place {
    uint64_t addr, npages;
    uint64_t offset; /* in the pool file */
    uint64_t sum;    /* READ: index of the first page's checksum */
    uint64_t how;    /* enum ph_place_how */
};

static inline uint64_t ph_place_end(const struct ph_place *p)
{
    return p->addr + p->npages * PH_PAGE;
}

/** A file to be cut back to its length at the epoch. */
struct ph_cut {
    uint64_t fd, size;
};

enum ph_plan_state {
    PH_PLAN_FILLING = 0,
    PH_PLAN_FILLED,  /* all that was to be read is read and right: the program goes on */
    PH_PLAN_CUT,     /* its files are cut back: what is written to them from now on stays */
    PH_PLAN_DAMAGED, /* the page at `bad` is not */
    PH_PLAN_NO_MAP,  /* the pool cannot be mapped: try without */
};

struct ph_plan {
    uint64_t magic;
    uint64_t size;          /* of the plan, bytes */
    uint64_t record_offset; /* struct ph_record_pm and what follows it */
    uint64_t places_offset; /* struct ph_place[nplaces] */
    uint64_t nplaces;
    uint64_t sums_offset;   /* struct ph_sum_pm, one for each page that is READ */
    uint64_t marked_offset; /* struct ph_page_span[nmarked]: where owners of locks may be */
    uint64_t nmarked;
    uint64_t cuts_offset, ncuts; /* struct ph_cut: when memory is filled */
    uint64_t ring_pages;
    int32_t pool_fd, memfd, plan_fd;
    uint32_t flags; /* PH_PLAN_* */
    int64_t parent; /* pid of pyheap-recover */

    /* Between the restorer and pyheap-recover while memory is filled. */
    _Atomic uint32_t state;   /* futex; enum ph_plan_state */
    _Atomic uint32_t shown;   /* futex; while there is a line of progress the program waits */
    _Atomic uint64_t done;    /* pages read */
    _Atomic uint32_t undoing; /* futex; while files become what they were it waits too */
    uint64_t bad;
};

#endif
