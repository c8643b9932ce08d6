/* SPDX-License-Identifier: MIT */
/*
 * mapped.h - memory of a recovered program that is still mapped from its pool
 *
 * A recovered program starts before all of its heap has been read: large stretches are private
 * mappings of the pool file. That is a state for a short time. The first epoch, or a fork,
 * makes ordinary memory of them (pyhook/settle.c); and until the first epoch the keeper writes
 * nowhere that they reach (allocator/keeper_check.h).
 *
 * The restorer leaves the list of them here, in its own range, which is unmapped after it.
 */
#ifndef PH_MAPPED_H
#define PH_MAPPED_H

#include "layout.h"

#define PH_MAPPED_BASE UINT64_C(0x016000000000)
#define PH_MAPPED_MAX  8192 /* stretches: well below the kernel's limit of 65530 mappings */

struct ph_mapped {
    uint64_t n;
    struct {
        uint64_t start, end;
    } stretch[PH_MAPPED_MAX]; /* ascending */
};

#define PH_MAPPED ((struct ph_mapped *)PH_MAPPED_BASE)

#endif
