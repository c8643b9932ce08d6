/* SPDX-License-Identifier: MIT */
/*
 * pool_room.c - the log's room: segments, and where the log ends
 *
 * The log fills one segment after the other, always the first that is free: of those that have
 * their blocks before holes, so that the file takes what the log needed at its largest and no
 * more; and of extents that it has something in already before others, so that it lies together
 * at the start of the file, and whole extents stay free to become home. Segments that
 * were free all the time from one migration to the next become holes, the last ones first;
 * those that the log needs again and again keep their blocks, since writing into a hole costs
 * the file system more, and would take as much of the disk at its largest.
 *
 *   free --take--> used, PH_EPOCH_OPEN --adopt--> used by an epoch --retire--> free
 *                        |                                                      |
 *                        +------------------ abort ----> as it was     punch: a hole
 *
 * Invariants
 *  S1  A segment is free only if neither root record reaches anything in it (P5), and nobody
 *      holds a view that may.
 *  S2  What the epoch in progress writes to has last_epoch == PH_EPOCH_OPEN, so that migration
 *      does not free it; so has what is being punched, so that nobody takes it.
 *  S3  An extent is LOG if and only if one of its segments is used.
 *  S4  Of the segment where the log ends only what follows the end is written (P5).
 *  S5  Room in the log is given only if the disk has room for all of the log, with it, to go
 *      home: else a disk could fill with log that nothing takes away any more. Only for what is
 *      to be written now: a small epoch must find room where a whole segment has none, since
 *      it may be the one that gives up what fills the disk. For that reason an epoch may have
 *      more, as long as the disk has room for the epoch itself to go home (`tight`). But then
 *      it is committed only if the log has room without what it replaces and forgets
 *      (pool_log.c), which never goes home once the epoch is the oldest that is kept.
 */
#include "allocator/pool_internal.h"

#include <string.h>

static uint64_t segment_offset(const struct ph_pool *p, uint32_t slot, uint32_t segment)
{
    return p->extent[slot].offset + segment * ph_segment_pages(&p->super) * PH_PAGE;
}

static void use(struct ph_extent *e, uint32_t segment, uint64_t epoch)
{
    e->role = PH_EXTENT_LOG; /* S3 */
    e->used |= 1u << segment;
    e->last_epoch[segment] = epoch;
}

static void set_free(struct ph_extent *e, uint32_t segment)
{
    e->used &= ~(1u << segment);
    e->last_epoch[segment] = 0;
    if (!e->used) {
        e->role = PH_EXTENT_FREE; /* S3 */
        e->heir = false;
    }
}

static bool has_segments(const struct ph_extent *e)
{
    return e->role == PH_EXTENT_FREE || e->role == PH_EXTENT_LOG;
}

/* Free segments that take space on the disk. */
static uint32_t count_spare(const struct ph_pool *p)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        if (has_segments(e))
            n += (uint32_t)__builtin_popcount(~(e->used | e->holes) & PH_ALL_SEGMENTS);
    }
    return n;
}

void ph_room_note_spare(struct ph_pool *p)
{
    uint32_t spare = count_spare(p);

    if (spare < p->least_spare)
        p->least_spare = spare;
}

void ph_room_end_at(struct ph_pool *p, uint64_t offset)
{
    uint32_t slot = ph_extent_find(p, offset);
    uint32_t page = (uint32_t)((offset - p->extent[slot].offset) / PH_PAGE);

    p->end = (struct ph_end){slot, page + 1,
                             ph_segment_end(&p->super, ph_segment_of(&p->super, page)), true};
}

/* Note that the epoch in progress writes to a segment. */
static int touch(struct ph_pool *p, uint32_t slot, uint32_t segment)
{
    struct ph_writing *w = &p->writing;
    struct ph_extent *e = &p->extent[slot];
    const struct ph_touched *last = w->ntouched ? &w->touched[w->ntouched - 1] : NULL;

    if (last && last->slot == slot && last->segment == segment)
        return 0;
    if (ph_pool_grow(&w->touched, &w->touched_capacity, w->ntouched + 1, sizeof(*w->touched)))
        return PH_ENOMEM;
    w->touched[w->ntouched++] = (struct ph_touched){slot, segment, e->last_epoch[segment]};
    use(e, segment, PH_EPOCH_OPEN); /* S2 */
    e->blank = false;
    return 0;
}

/* The first free segment of the extents of @p role; only one that has its blocks, if @p blocks.
 */
static bool find(const struct ph_pool *p, enum ph_extent_role role, bool blocks, uint32_t *slot,
                 uint32_t *segment)
{
    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        uint32_t found = ~(e->used | (blocks ? e->holes : 0)) & PH_ALL_SEGMENTS;
        if (e->role == role && found) {
            *slot = p->by_offset[i];
            *segment = (uint32_t)__builtin_ctz(found);
            return true;
        }
    }
    return false;
}

/* Whether there are more free extents with blocks than the next epoch's heirs may want. */
static bool has_blocks_to_spare(const struct ph_pool *p)
{
    size_t n = 0;

    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        n += e->role == PH_EXTENT_FREE && e->holes != PH_ALL_SEGMENTS;
    }
    return n > p->denses;
}

static bool find_free(const struct ph_pool *p, uint32_t *slot, uint32_t *segment)
{
    return find(p, PH_EXTENT_LOG, true, slot, segment) ||
           (has_blocks_to_spare(p) && find(p, PH_EXTENT_FREE, true, slot, segment)) ||
           find(p, PH_EXTENT_LOG, false, slot, segment) ||
           find(p, PH_EXTENT_FREE, false, slot, segment);
}

int ph_room_allows(struct ph_pool *p, uint64_t bytes)
{
    uint64_t log = p->writing.log_pages * PH_PAGE;

    for (size_t i = 0; i < p->epochs; i++)
        log += p->epoch[i].info.bytes;
    return ph_io_space(&p->io, log + bytes);
}

/* Whether there is room for @p n pages of the epoch in progress, were it the only one (S5). */
static bool fits_alone(struct ph_pool *p, uint64_t n)
{
    uint64_t pages = p->writing.log_pages + (p->end.hole ? 2 : 1) * n;

    return p->end.slot != PH_NO_SLOT && p->end.page + n <= p->end.limit &&
           ph_io_space(&p->io, pages * PH_PAGE) == 0;
}

/* Let the log give room on a full disk, or in a full pool. @return 0 to look again. */
static int make_log_room(struct ph_pool *p)
{
    if (p->punching) {
        p->room_wanted = true;
        pthread_cond_wait(&p->done, &p->lock);
        p->room_wanted = false;
        return 0;
    }
    return ph_home_force(p, true);
}

/* The same, and files, too (P10). */
static int make_room(struct ph_pool *p)
{
    return make_log_room(p) ? ph_files_give_up(p) : 0;
}

/* Go on in a new segment. */
static int next_segment(struct ph_pool *p)
{
    uint32_t slot, segment;
    int err;

    while (!find_free(p, &slot, &segment)) {
        err = ph_extent_grow(p, &slot);
        if (err && ((err != PH_EPOOLSIZE && err != PH_EFULL) || make_room(p)))
            return err;
    }
    err = touch(p, slot, segment);
    if (err)
        return err;
    p->end = (struct ph_end){slot, segment * ph_segment_pages(&p->super),
                             ph_segment_end(&p->super, segment),
                             p->extent[slot].holes >> segment & 1};
    p->extent[slot].holes &= ~(1u << segment);
    ph_room_note_spare(p);
    return 0;
}

/* Where the log goes on, for as many as @p n pages. */
static int go_on(struct ph_pool *p, uint64_t *n)
{
    int err;

    if (p->end.slot == PH_NO_SLOT || p->end.page == p->end.limit)
        err = next_segment(p);
    else
        err = touch(p, p->end.slot, ph_segment_of(&p->super, p->end.page));
    if (err)
        return err;
    if (*n > p->end.limit - p->end.page)
        *n = p->end.limit - p->end.page;
    /* S5: once where it is to be written now, and once at home. */
    return ph_room_allows(p, (p->end.hole ? 2 : 1) * *n * PH_PAGE);
}

int ph_room_take(struct ph_pool *p, uint64_t want, uint64_t *offset, uint64_t *got)
{
    bool again;
    int err;

    pthread_mutex_lock(&p->lock);
    do {
        *got = want;
        err = go_on(p, got);
        again = err == PH_EFULL && make_log_room(p) == 0;
        if (err == PH_EFULL && !again && fits_alone(p, *got)) {
            p->writing.tight = true;
            err = 0;
        }
    } while (again || (err == PH_EFULL && ph_files_give_up(p) == 0));
    if (!err) {
        *offset = p->extent[p->end.slot].offset + p->end.page * PH_PAGE;
        p->end.page += (uint32_t)*got;
        p->writing.log_pages += *got;
    } else if (err == PH_EFULL) {
        p->disk_full = true;
        ph_pool_fail(p, err, "asking for free space");
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

void ph_room_adopt(struct ph_pool *p)
{
    const struct ph_writing *w = &p->writing;

    for (size_t i = 0; i < w->ntouched; i++)
        p->extent[w->touched[i].slot].last_epoch[w->touched[i].segment] = w->number;
}

void ph_room_abort(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;

    p->end = w->start;
    while (w->ntouched) {
        const struct ph_touched *t = &w->touched[--w->ntouched];
        if (t->old_last)
            p->extent[t->slot].last_epoch[t->segment] = t->old_last;
        else
            set_free(&p->extent[t->slot], t->segment);
    }
}

/* An epoch on a full disk leaves blocks where it was, but the next one may go elsewhere; and
 * what it gives back migration must have before, which frees more of the log than it needs. */
void ph_room_give_back(struct ph_pool *p)
{
    pthread_mutex_lock(&p->lock);
    bool full = p->disk_full;
    p->disk_full = false;
    if (full)
        p->least_spare = count_spare(p);
    pthread_mutex_unlock(&p->lock);
    if (!full)
        return;
    ph_room_punch(p);
    pthread_mutex_lock(&p->lock);
    ph_home_force(p, true); /* a failure leaves all as it was */
    pthread_mutex_unlock(&p->lock);
}

void ph_room_retire(struct ph_pool *p)
{
    if (p->views) /* S1; done when the last is freed */
        return;
    for (uint32_t i = 0; i < p->extents; i++) {
        uint32_t slot = p->by_offset[i];
        struct ph_extent *e = &p->extent[slot];
        if (e->role != PH_EXTENT_LOG)
            continue;
        for (uint32_t s = 0; s < PH_SEGMENTS; s++)
            if (e->used >> s & 1 && e->last_epoch[s] <= p->root.home_epoch &&
                !(slot == p->end.slot && s == ph_segment_of(&p->super, p->end.page - 1)))
                set_free(e, s);
    }
}

/* The last free segment that takes space on the disk. */
static bool find_spare(const struct ph_pool *p, uint32_t *slot, uint32_t *segment)
{
    for (uint32_t i = p->extents; i-- > 0;) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        uint32_t spare = ~(e->used | e->holes) & PH_ALL_SEGMENTS;
        if (has_segments(e) && spare) {
            *slot = p->by_offset[i];
            *segment = 31u - (uint32_t)__builtin_clz(spare);
            return true;
        }
    }
    return false;
}

/* Nothing reaches free segments (S1), unless a record could not be written: then nobody knows
 * what the disk holds. The lock is not held while the file system works. Once the pool is to be
 * closed no more is given back: where the device is told, that may take a second. */
void ph_room_punch(struct ph_pool *p)
{
    uint32_t slot, segment;

    pthread_mutex_lock(&p->lock);
    while (p->least_spare && !p->views && !p->broken && !p->room_wanted && !p->stop &&
           find_spare(p, &slot, &segment)) {
        uint64_t pages = ph_segment_end(&p->super, segment) -
                         (uint64_t)segment * ph_segment_pages(&p->super);
        p->least_spare--;
        use(&p->extent[slot], segment, PH_EPOCH_OPEN); /* S2 */
        p->punching++;
        pthread_mutex_unlock(&p->lock);
        ph_io_discard(&p->io, segment_offset(p, slot, segment), pages * PH_PAGE);
        pthread_mutex_lock(&p->lock);
        p->extent[slot].holes |= 1u << segment;
        set_free(&p->extent[slot], segment);
        p->punching--;
        pthread_cond_broadcast(&p->done);
    }
    p->least_spare = count_spare(p);
    pthread_mutex_unlock(&p->lock);
}
