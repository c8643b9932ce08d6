/* SPDX-License-Identifier: MIT */
/*
 * pages.h - between the parts of staging pages: pages.c, outside.c, holes.c, live.c, moved.c
 */
#ifndef PH_PAGES_H
#define PH_PAGES_H

#include "agent_internal.h"

/** A list of spans, ascending, that is gone through once. */
struct ph_pages_cursor {
    const struct ph_track_region *at, *end;
};

/** Stage [start, end). Pages come in ascending order. @return 0, PH_EKEEPER, PH_EKERNEL. */
int ph_pages_stage(uint64_t start, uint64_t end);

/** Stage what of [start, end), which is present, is in @p changed. */
int ph_pages_stage_both(uint64_t start, uint64_t end, struct ph_pages_cursor *changed);

/**
 * Stage what is present in [start, end), and is in @p changed; NULL: all. Outside of the heap
 * also note what is present. @p anonymous: no part of it is a file's.
 */
int ph_pages_take_present(uint64_t start, uint64_t end, bool anonymous,
                          struct ph_pages_cursor *changed);

/** Note [start, end), above all that was noted, as having content of its own (M2). */
void ph_pages_note_present(uint64_t start, uint64_t end);

/** As ph_track_scan for PH_TRACK_CHANGED, but does not protect what is few. */
long ph_pages_changed(uint64_t *at, uint64_t end, struct ph_track_region *r, size_t max);

/** Protect what is present in [start, end) again, without staging it. */
int ph_pages_protect(uint64_t start, uint64_t end);

/** Register [start, end) with the tracker; a failure is named. */
int ph_pages_register(uint64_t start, uint64_t end);

/** Whether a mapping in [start, end) is not registered; negative: PH_EKERNEL. */
long ph_pages_unregistered(uint64_t start, uint64_t end);

/** outside.c: before the mappings are compared with those of the epoch before: parts are as if
 * they were the same. */
void ph_outside_suppose_same(void);
/**
 * The end of a part of the mappings [v, end), all private: either those that a scan for changes
 * must look at, or those that cannot have changed. *scan: which.
 */
const struct ph_vma_pm *ph_outside_part(const struct ph_vma_pm *v, const struct ph_vma_pm *end,
                                        bool *scan);

/** outside.c: what the epoch before has noted as present is what was; before staging. */
void ph_outside_begin(void);

/** Of what the epoch before has noted as present, the first in [at, end), or @p end; *until:
 * its end, at most @p end. Asked for ascending ones. */
uint64_t ph_outside_was_present(uint64_t at, uint64_t end, uint64_t *until);

/** Stage the private mappings [first, last), between which there is none of another kind. */
int ph_outside_stage(const struct ph_vma_pm *first, const struct ph_vma_pm *last, bool full);

/** holes.c: before the scans outside of the heap. */
void ph_holes_begin(bool full);
/** Note the holes of [start, end), which has been reported as changed. All ascending.
 * @return how many of its pages are in holes. */
uint64_t ph_holes_in(uint64_t start, uint64_t end);
/** All of them up to @p to have been noted, of what is scanned there. */
void ph_holes_known(uint64_t to);
/** As ph_track_scan for PH_TRACK_CHANGED, from *at to the next hole, which is left out. */
long ph_holes_scan(uint64_t *at, uint64_t end, struct ph_track_region *r, size_t max);

/** live.c: before the scans of the heap; what they have found changed; then, for each part of
 * the heap, what of it is live is noted as present. All ascending. */
void ph_live_begin(uint64_t epoch, bool full);
void ph_live_changed(uint64_t start, uint64_t end);
void ph_live_note(uint64_t start, uint64_t end);

/** moved.c, while all are parked: whether the program has called madvise since last time; has
 * made memory writable. */
bool ph_memory_advised(void);
bool ph_memory_made_writable(void);

#endif
