/* SPDX-License-Identifier: MIT */
/*
 * track.h - which pages of this process have changed
 *
 * Asynchronous userfaultfd write-protection with PAGEMAP_SCAN (Linux 6.7; kernel
 * Documentation/admin-guide/mm/userfaultfd.rst and pagemap.rst). A page table entry without
 * the write-protect bit counts as changed. Scanning reports such pages and sets the bit; the
 * kernel clears it on the first write, without a message, also for writes by system calls.
 *
 * Where the kernel has no such thing or denies it, its soft-dirty bits do the same (Linux 3.11,
 * where it is built with them; soft-dirty.rst). They are cleared for the whole process at once,
 * so an epoch notes what has changed before it clears them. Someone else who clears them, by
 * /proc/PID/clear_refs, hides changes from us.
 *
 * Without either, every page that is present counts as changed, always ("compare"): the keeper
 * finds out by hash which ones really have. Costs a copy of the whole program an epoch, and
 * nothing else.
 *
 * Invariants
 *  T1  A private page whose content differs from the last epoch's lacks the bit, or its
 *      mapping is not registered. New mappings are not registered, and mremap loses the
 *      registration: therefore every page of an unregistered mapping counts as changed.
 *  T2  Pages that a private file mapping still shares with the page cache, and the zero page,
 *      are never reported: their content is known without us.
 */
#ifndef PH_TRACK_H
#define PH_TRACK_H

#include "layout.h"

#include <stdbool.h>
#include <stddef.h>

/** What PAGEMAP_SCAN fills in: struct page_region of the kernel. */
struct ph_track_region {
    uint64_t start, end, categories;
};

struct ph_track {
    int uffd, pagemap; /* -1: not open; uffd: also where write-protection is not to be had */
    int maps;          /* /proc/self/maps, to ask about mappings (PROCMAP_QUERY); or -1 */
    bool scan;         /* PAGEMAP_SCAN is there; otherwise entries are read one by one */
    bool swap;         /* the machine has swap space: absent pages may have content there */
    bool soft_dirty;   /* changes are told by soft-dirty bits */
    /* What has been noted of them, ascending; room is the caller's. */
    struct ph_track_region *noted;
    size_t nnoted, noted_max;
};

/** Whether single pages can be protected, and left unprotected. */
static inline bool ph_track_protects(const struct ph_track *track)
{
    return track->uffd >= 0;
}

/** Whether changes can be told; if not, only PH_TRACK_PRESENT is of use. */
static inline bool ph_track_tells_changes(const struct ph_track *track)
{
    return track->uffd >= 0 || track->soft_dirty;
}

/**
 * Open what there is, close-on-exec, at numbers from @p lowest_fd up.
 * @return 0, also when changes cannot be told; PH_EKERNEL: not even /proc/self/pagemap is
 * there.
 */
int ph_track_open(struct ph_track *track, int lowest_fd);
void ph_track_close(struct ph_track *track);

/**
 * Before the scans of an epoch. The marks that protection leaves on absent pages look like
 * swapped pages to a scan: only where there is swap these must be taken for pages, at the cost
 * of some zero pages.
 */
void ph_track_begin(struct ph_track *track);

enum ph_track_what {
    PH_TRACK_CHANGED,      /* registered, written since the last scan; protects them again. Some
                              pages that are not present are reported too, once: ask for
                              PH_TRACK_PRESENT in what is reported. The kernel is ten times
                              faster when it need not tell them apart. */
    PH_TRACK_WRITTEN,      /* the same, but does not protect them */
    PH_TRACK_UNREGISTERED, /* of mappings that are not registered, whether present or not */
    PH_TRACK_PRESENT,      /* present in any mapping */
    PH_TRACK_ANONYMOUS,    /* the same in mappings without a file, three times as fast */
    PH_TRACK_POPULATED, /* that have an entry in a page table: a page, be it the file's or the
                           zero page, or a mark of protection; in registered mappings */
    PH_TRACK_PROTECT,   /* present in registered mappings; protects them */
};

/**
 * Report the pages of [*at, end) as regions, ascending, at most @p max. *at moves to where the
 * scan stopped: @p end when all is reported.
 * @return the number of regions, or PH_EKERNEL.
 */
long ph_track_scan(const struct ph_track *track, enum ph_track_what what, uint64_t *at,
                   uint64_t end, struct ph_track_region *out, size_t max);

/**
 * Where soft-dirty bits tell the changes: begin to note them in @p room for @p max regions; add
 * what has changed in [start, end), above all that was added before; and let no page count as
 * changed until it is written again. PH_TRACK_CHANGED and _WRITTEN then report what was noted,
 * _UNREGISTERED and _PROTECT nothing. If the room does not suffice, more is noted than changed.
 * @return 0, or PH_EKERNEL with errno.
 */
void ph_track_note_begin(struct ph_track *track, struct ph_track_region *room, size_t max);
int ph_track_note(struct ph_track *track, uint64_t start, uint64_t end);
int ph_track_clear(const struct ph_track *track);

/**
 * Register all mappings in [start, end), which may contain holes and mappings already
 * registered. Nothing to do where changes are not told.
 * @return 0, or PH_EKERNEL with errno when one of them cannot be.
 */
int ph_track_register(const struct ph_track *track, uint64_t start, uint64_t end);

/**
 * Let all pages of [start, end), registered mappings without a hole, count as changed until a
 * scan protects them again. @return 0, or PH_EKERNEL with errno.
 */
int ph_track_unprotect(const struct ph_track *track, uint64_t start, uint64_t end);

#endif
