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
#include "pyhook/record.h"

/* Inside [PH_RESTORER_BASE, PH_RESTORER_END): text and data, thread stacks, the plan. */
#define PH_RESTORER_STACKS  UINT64_C(0x011000000000)
#define PH_PLAN_BASE        UINT64_C(0x012000000000)
#define PH_VDSO_TEMPORARY   UINT64_C(0x017000000000)

#define PH_PLAN_MAGIC       UINT64_C(0x324e4c5050594850) /* "PHYPPLN2" */

#define PH_PLAN_TRAMPOLINES 1u /* treat the vdso as different, whatever it is: for tests */
#define PH_PLAN_VERBOSE     2u

struct ph_plan {
    uint64_t magic;
    uint64_t size;          /* of the plan, bytes */
    uint64_t record_offset; /* struct ph_record_pm and what follows it */
    uint64_t runs_offset;   /* struct ph_run[nruns] */
    uint64_t nruns;
    uint64_t marked_offset; /* struct ph_page_span[nmarked]: where owners of locks may be */
    uint64_t nmarked;
    uint64_t ring_pages;
    int32_t pool_fd, memfd, plan_fd;
    uint32_t flags; /* PH_PLAN_* */
};

#endif
