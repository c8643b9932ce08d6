/* SPDX-License-Identifier: MIT */
/*
 * pool_extent.c - extents and their slots
 *
 * An extent is a run of pages inside one libpmemobj object; its slot, in the root object, holds
 * the object's id and says whether it is home of a stretch. libpmemobj allocates the object and
 * fills the id in one atomic step. Whether an extent that is not home belongs to the log is
 * found from the log itself, down to its segments (pool_room.c). All extents have one size, so
 * each can become any other's successor.
 *
 * Invariants: extents do not overlap, and lie within the file; an extent is home of at most one
 * stretch, and a stretch has at most one home but for P11; P5, P7 and P11 of pool_format.h hold
 * where extents are freed and named.
 */
#include "allocator/pool_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* libpmemobj's huge objects are whole chunks; its first page and the object's header cost one
 * page of alignment. */
#define CHUNK        (UINT64_C(256) << 10)
#define OBJECT_SLACK 64
/* What libpmemobj may need for its own metadata when it allocates. */
#define SPACE_MARGIN (UINT64_C(4) << 20)
#define TYPE_EXTENT  1

static uint64_t extent_bytes(const struct ph_pool *p)
{
    return p->super.extent_pages * PH_PAGE;
}

static uint64_t first_page(uint64_t object)
{
    return (object + PH_PAGE - 1) & ~(PH_PAGE - 1);
}

static uint32_t check_of(const struct ph_slot_pm *s)
{
    struct {
        uint64_t oid, stretch, role;
    } v = {s->oid[1], s->stretch, s->role};

    return (uint32_t)ph_sum(&v, sizeof(v)).lo;
}

static uint64_t slot_offset(const struct ph_pool *p, uint32_t slot)
{
    return p->super.slots + slot * sizeof(struct ph_slot_pm);
}

/* Keep by_offset ascending. */
static void insert(struct ph_pool *p, uint32_t slot)
{
    uint32_t i = p->extents++;

    while (i && p->extent[p->by_offset[i - 1]].offset > p->extent[slot].offset) {
        p->by_offset[i] = p->by_offset[i - 1];
        i--;
    }
    p->by_offset[i] = slot;
}

static int load_slot(struct ph_pool *p, uint32_t slot, const struct ph_slot_pm *s)
{
    struct ph_extent *e = &p->extent[slot];

    *e = (struct ph_extent){0};
    if (s->oid[1] == 0)
        return 0;
    if (s->oid[1] >= p->super.file_size)
        return PH_ECORRUPT;
    e->offset = first_page(s->oid[1]);
    if (e->offset < PH_PAGE || e->offset > p->super.file_size ||
        extent_bytes(p) > p->super.file_size - e->offset)
        return PH_ECORRUPT;
    e->role = PH_EXTENT_FREE;
    if (s->role != PH_SLOT_NONE || s->check != 0) {
        if (s->role != PH_SLOT_HOME || s->check != check_of(s) ||
            s->stretch % (p->super.stretch_pages * PH_PAGE))
            return PH_ECORRUPT;
        e->role = PH_EXTENT_HOME;
        e->stretch = s->stretch;
        e->lost = true; /* for all we know */
    }
    insert(p, slot);
    return 0;
}

static int check_extents(const struct ph_pool *p)
{
    for (uint32_t i = 1; i < p->extents; i++)
        if (p->extent[p->by_offset[i]].offset - p->extent[p->by_offset[i - 1]].offset <
            extent_bytes(p))
            return PH_ECORRUPT;
    return 0;
}

int ph_extent_load(struct ph_pool *p)
{
    struct ph_slot_pm *slot = malloc(p->super.slot_count * sizeof(*slot));
    int err = slot ? 0 : PH_ENOMEM;

    if (!p->extent)
        p->extent = calloc(p->super.slot_count, sizeof(*p->extent));
    if (!p->by_offset)
        p->by_offset = calloc(p->super.slot_count, sizeof(*p->by_offset));
    if (!p->extent || !p->by_offset)
        err = PH_ENOMEM;
    if (!err)
        err = ph_io_read(&p->io, slot, p->super.slot_count * sizeof(*slot), p->super.slots);
    if (err == PH_ETRUNC)
        err = PH_ECORRUPT;
    p->extents = 0;
    for (uint32_t i = 0; i < p->super.slot_count && !err; i++)
        err = load_slot(p, i, &slot[i]);
    if (!err)
        err = check_extents(p);
    free(slot);
    return err;
}

uint32_t ph_extent_find(const struct ph_pool *p, uint64_t offset)
{
    uint32_t low = 0, high = p->extents;

    while (low < high) {
        uint32_t mid = (low + high) / 2;
        const struct ph_extent *e = &p->extent[p->by_offset[mid]];
        if (offset < e->offset)
            high = mid;
        else if (offset - e->offset >= extent_bytes(p))
            low = mid + 1;
        else
            return p->by_offset[mid];
    }
    return PH_NO_SLOT;
}

static void mark_segments(struct ph_pool *p, struct ph_extent *e, uint64_t offset,
                          uint64_t size, uint64_t number)
{
    e->role = PH_EXTENT_LOG;
    for (uint64_t at = offset - e->offset, end = at + size; at < end;) {
        uint32_t segment = ph_segment_of(&p->super, (uint32_t)(at / PH_PAGE));
        e->used |= 1u << segment;
        e->last_epoch[segment] = number;
        at = ph_segment_end(&p->super, segment) * PH_PAGE;
    }
}

/* @p last is where the previous call found its place: neighbours lie together. */
static int find_place(const struct ph_pool *p, uint64_t offset, uint64_t size, uint32_t *last)
{
    const struct ph_extent *e = *last == PH_NO_SLOT ? NULL : &p->extent[*last];

    if (!e || offset < e->offset || offset - e->offset >= extent_bytes(p)) {
        *last = ph_extent_find(p, offset);
        if (*last == PH_NO_SLOT)
            return PH_ECORRUPT;
        e = &p->extent[*last];
    }
    return size > extent_bytes(p) - (offset - e->offset) ? PH_ECORRUPT : 0;
}

/* Header or piece. */
static int mark_meta(struct ph_pool *p, uint64_t offset, uint64_t size, uint64_t number,
                     uint32_t *last)
{
    int err = find_place(p, offset, size, last);

    if (err || p->extent[*last].role == PH_EXTENT_HOME)
        return PH_ECORRUPT;
    p->extent[*last].mixed = true;
    mark_segments(p, &p->extent[*last], offset, size, number);
    return 0;
}

static int mark_page(struct ph_pool *p, const struct ph_entry_pm *entry, uint64_t number,
                     uint32_t *last)
{
    int err = find_place(p, entry->offset, PH_PAGE, last);
    struct ph_extent *e;

    if (err)
        return err;
    e = &p->extent[*last];
    if (e->role == PH_EXTENT_HOME) { /* P11 */
        e->last_epoch[0] = number;
        return ph_is_at_home(p, *last, entry) ? 0 : PH_ECORRUPT;
    }
    if (e->role == PH_EXTENT_FREE)
        e->stretch = ph_stretch_of(p, entry->addr);
    e->mixed = e->mixed || !ph_is_at_home(p, *last, entry);
    mark_segments(p, e, entry->offset, PH_PAGE, number);
    return 0;
}

int ph_extent_mark(struct ph_pool *p, const struct ph_header_pm *h, uint64_t header,
                   const struct ph_index *index)
{
    uint32_t last = PH_NO_SLOT;
    int err = mark_meta(p, header, PH_PAGE, h->number, &last);

    for (uint32_t i = 0; i < h->pieces && !err; i++)
        err = mark_meta(p, h->piece[i].offset, h->piece[i].size, h->number, &last);
    for (size_t i = 0; i < index->n && !err; i++)
        if (index->entry[i].offset)
            err = mark_page(p, &index->entry[i], h->number, &last);
    return err;
}

/* Of two extents whose slots say home, the one that the log refers to is the heir. */
static int settle_twins(struct ph_extent *a, struct ph_extent *b)
{
    if (a->last_epoch[0] == b->last_epoch[0])
        return PH_ECORRUPT;
    (a->last_epoch[0] > b->last_epoch[0] ? b : a)->role = PH_EXTENT_OLD;
    return 0;
}

static int by_stretch(const void *x, const void *y)
{
    const struct ph_extent *a = *(struct ph_extent *const *)x;
    const struct ph_extent *b = *(struct ph_extent *const *)y;

    return a->stretch < b->stretch ? -1 : a->stretch > b->stretch;
}

int ph_extent_settle(struct ph_pool *p)
{
    struct ph_extent **home = malloc((p->extents + 1) * sizeof(*home));
    uint32_t n = 0;
    int err = home ? 0 : PH_ENOMEM;

    for (uint32_t i = 0; i < p->extents && !err; i++) {
        struct ph_extent *e = &p->extent[p->by_offset[i]];
        if (e->role == PH_EXTENT_HOME)
            home[n++] = e;
        e->heir = e->role == PH_EXTENT_LOG && !e->mixed;
        if (!e->heir)
            continue;
        e->used = PH_ALL_SEGMENTS;
        for (uint32_t s = 1; s < PH_SEGMENTS; s++)
            if (e->last_epoch[s] > e->last_epoch[0])
                e->last_epoch[0] = e->last_epoch[s];
        for (uint32_t s = 1; s < PH_SEGMENTS; s++)
            e->last_epoch[s] = e->last_epoch[0];
    }
    if (!err)
        qsort(home, n, sizeof(*home), by_stretch);
    for (uint32_t i = 1; i < n && !err; i++)
        if (home[i]->stretch == home[i - 1]->stretch)
            err = home[i]->role == home[i - 1]->role ? settle_twins(home[i], home[i - 1])
                                                     : PH_ECORRUPT; /* three */
    for (uint32_t i = 0; i < n && !err; i++)
        home[i]->last_epoch[0] = 0;
    free(home);
    return err;
}

int ph_extent_mark_file(struct ph_pool *p, uint64_t offset, uint64_t size)
{
    uint32_t slot = ph_extent_find(p, offset);
    struct ph_extent *e = slot == PH_NO_SLOT ? NULL : &p->extent[slot];

    if (!e || (e->role != PH_EXTENT_FREE && e->role != PH_EXTENT_FILES) ||
        size > extent_bytes(p) - (offset - e->offset))
        return PH_ECORRUPT;
    e->role = PH_EXTENT_FILES;
    return 0;
}

struct allocation {
    PMEMobjpool *pop;
    PMEMoid *oid;
    size_t size;
};

static int allocate(void *arg)
{
    const struct allocation *a = arg;

    if (pmemobj_xalloc(a->pop, a->oid, a->size, TYPE_EXTENT, POBJ_XALLOC_NO_FLUSH, NULL,
                       NULL) == 0)
        return 0;
    return errno == ENOMEM ? PH_EPOOLSIZE : PH_EIO;
}

int ph_extent_grow(struct ph_pool *p, uint32_t *slot)
{
    struct allocation a = {.pop = p->pop};
    struct ph_extent *e;
    uint32_t i = 0;
    int err;

    if (p->broken || p->pop_lost)
        return p->broken ? p->broken : PH_EIO;
    while (i < p->super.slot_count && p->extent[i].role != PH_EXTENT_EMPTY)
        i++;
    if (i == p->super.slot_count)
        return PH_EPOOLSIZE;
    err = ph_io_space(&p->io, SPACE_MARGIN);
    if (err)
        return ph_pool_fail(p, err, "asking for free space");
    a.oid = (PMEMoid *)((char *)p->pop + slot_offset(p, i));
    a.size = (p->super.extent_pages + 1) * PH_PAGE - OBJECT_SLACK;
    p->extent[i].role = PH_EXTENT_GROWING;
    pthread_mutex_unlock(&p->lock); /* libpmemobj syncs several times */
    err = ph_guard(&p->io, allocate, &a);
    pthread_mutex_lock(&p->lock);
    if (err)
        p->extent[i].role = PH_EXTENT_EMPTY;
    if (err == PH_EFULL || err == PH_EIO || err == PH_ECORRUPT) {
        p->pop_lost = true;
        return ph_pool_fail(p, err, "allocating an extent");
    }
    if (err)
        return err;
    e = &p->extent[i];
    *e = (struct ph_extent){.offset = first_page(a.oid->off),
                            .role = PH_EXTENT_FREE,
                            .holes = PH_ALL_SEGMENTS,
                            .blank = true};
    insert(p, i);
    *slot = i;
    return 0;
}

int ph_extent_take(struct ph_pool *p, enum ph_extent_role role, bool blocks, uint32_t *slot)
{
    const uint32_t wanted = blocks ? 0 : PH_ALL_SEGMENTS;
    uint32_t found = PH_NO_SLOT;
    int err = 0;

    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        if (e->role != PH_EXTENT_FREE)
            continue;
        if (found == PH_NO_SLOT || e->holes == wanted)
            found = p->by_offset[i];
        if (e->holes == wanted)
            break;
    }
    *slot = found;
    if (found == PH_NO_SLOT)
        err = ph_extent_grow(p, slot);
    if (!err) {
        p->extent[*slot].role = role;
        p->extent[*slot].blank &= role == PH_EXTENT_TAKEN;
        ph_room_note_spare(p);
    }
    return err;
}

void ph_extent_clear(struct ph_pool *p, uint32_t slot)
{
    struct ph_extent *e = &p->extent[slot];

    if (e->holes != PH_ALL_SEGMENTS)
        ph_io_discard(&p->io, e->offset, extent_bytes(p));
    e->holes = 0;
}

int ph_extent_name(struct ph_pool *p, uint32_t slot, uint32_t role, uint64_t stretch)
{
    const size_t ours = offsetof(struct ph_slot_pm, stretch);
    struct ph_slot_pm s;
    int err = ph_io_read(&p->io, &s, sizeof(s), slot_offset(p, slot));

    if (err)
        return err;
    s.stretch = stretch;
    s.role = role;
    s.check = role == PH_SLOT_NONE ? 0 : check_of(&s);
    return ph_io_write(&p->io, (char *)&s + ours, sizeof(s) - ours,
                       slot_offset(p, slot) + ours);
}

uint32_t ph_extent_count(const struct ph_pool *p, enum ph_extent_role role)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->extents; i++)
        n += p->extent[p->by_offset[i]].role == role;
    return n;
}
