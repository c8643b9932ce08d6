/* SPDX-License-Identifier: MIT */
/*
 * hot.c - memory that changes in every epoch is not protected
 *
 * A write to a protected page costs a fault, about as much as copying three pages, and the
 * first one splits a huge page for good. Where nearly everything changes from epoch to epoch,
 * as in the grid of a stencil, not protecting and always copying is cheaper; the keeper's
 * hashes drop what has not changed after all. So this is a guess about cost, never about
 * content.
 *
 * The heap's extents are looked at in blocks of 2 MiB:
 *
 *   HOT (new) --samples unchanged--> RESTING --this epoch's scan protects it--> COLD
 *    ^                                                                          |    ^
 *    |                                                            half changed  v    | less
 *    +------------------------- half changed again: unprotected ------------- WARM --+
 *
 *   HOT --unchanged for a while, and copied ahead (ahead.c)--> COPIED --the epoch--> HOT
 *
 * A block that is new is hot: protecting it would split the huge pages of everything that is
 * rewritten after its first epoch. Of a hot block, and of one that may become hot, a few pages
 * are hashed as they are staged, and hashed again before the next scan. If they are the same in
 * `patience` epochs running the block rests: it is copied once more, protected before that, and
 * costs nothing from then on. Patience is 1 at first, so what never changes is copied twice; it
 * doubles when a block turns hot soon after it was protected. So does the number of epochs in
 * which a block is not copied ahead, when that was in vain. Where one sample changes and the
 * others do not, as when an eighth of a block is in use, resting takes four times the patience.
 *
 * A write to a protected huge page splits it, and every scan goes through the pieces from then
 * on. A block that has turned hot is not protected, so it can be made whole again, after the
 * epoch and for at most half as long as that took. (*Measured*: 0.4 to 0.5 ms for a block, up
 * to 5 ms where the kernel must first make room; the writes that turned it hot cost 1.1 ms, and
 * it saves 0.35 us in every scan. By itself the kernel does eight blocks in ten seconds.)
 *
 * Invariant: a page is protected only by a scan that reports it, and everything that a scan
 * reports is staged afterwards. So in any state every page that may have changed lacks the
 * protection bit, and is found (T1). The samples decide what is protected, not what is staged.
 */
#include "agent_internal.h"

#include "allocator/syscall.h"

#include <string.h>
#include <sys/mman.h>

#define BLOCK   PH_HOT_BLOCK
#define PAGES   (BLOCK / PH_PAGE)
#define SAMPLES 4 /* pages, one in each part of a block */
#define PART    (PAGES / SAMPLES)
#define SOON                                                                                   \
    4 /* epochs: hot again earlier after being protected is a mistake; it has                  \
         saved as many copies of a page as a fault costs, or more, after that */
#define MISTAKES_MOST 6

/* What an epoch adds in which the samples did not change, or one of them did. */
enum { PARTLY = 1, UNCHANGED = 4 };

#define VAIN_MOST 6

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
/* To make a block whole: a page may be in use by a device, or never have been present. */
#define TRIES 4

enum state { HOT, RESTING, COLD, WARM, COPIED };

struct block {
    uint16_t sum[SAMPLES]; /* of the samples that were staged, or are to be compared */
    uint16_t changed;      /* but HOT: pages found changed by this epoch */
    uint16_t rested;       /* HOT: for epochs running, UNCHANGED or PARTLY each */
    uint8_t state;
    uint8_t sampled; /* which samples are in `sum`, a bit each */
    uint8_t salt;    /* which pages are samples */
    uint8_t age;     /* COLD: epochs since it was protected, at most SOON */
    uint8_t mistakes;
    uint8_t vain;  /* epochs running in which it was copied ahead in vain */
    uint8_t skip;  /* epochs in which it is not copied ahead */
    uint8_t split; /* 0: not since it was whole; else how often to try to make it so */
};
_Static_assert((PH_HEAP_END - PH_HEAP_EXTENTS) / BLOCK * sizeof(struct block) <= 160u << 20,
               "the table fits in its area");

static bool any_split; /* a hot block may be */

static bool tracked(uint64_t addr)
{
    return addr >= PH_HEAP_EXTENTS && addr < PH_HEAP_END && ph_track_protects(&ph_agent.track);
}

static struct block *block_of(uint64_t addr)
{
    return (struct block *)ph_agent.areas.hot.base + (addr - PH_HEAP_EXTENTS) / BLOCK;
}

static uint64_t block_end(uint64_t addr)
{
    return (addr / BLOCK + 1) * BLOCK;
}

static bool unprotected(const struct block *b)
{
    return b->state == HOT;
}

bool ph_hot_reach(void)
{
    struct ph_span used[PH_HEAP_PARTS];
    size_t n = ph_heap_used_spans(used, PH_HEAP_PARTS);
    uint64_t end = n ? used[n - 1].end : 0;
    return !tracked(end) || end == PH_HEAP_EXTENTS ||
           ph_area_reach(&ph_agent.areas.hot,
                         (uintptr_t)(block_of(end) + 1) - (uintptr_t)ph_agent.areas.hot.base);
}

bool ph_hot_run(uint64_t at, uint64_t end, uint64_t *run_end)
{
    *run_end = end;
    if (!tracked(at))
        return false;
    bool hot = unprotected(block_of(at));
    uint64_t next = block_end(at);
    while (next < end && unprotected(block_of(next)) == hot)
        next += BLOCK;
    *run_end = next < end ? next : end;
    return hot;
}

/* ---- samples ------------------------------------------------------------------------- */

/** The page, counted from its block's start, that is sample @p i of @p b. */
static uint64_t sample_page(const struct block *b, unsigned i)
{
    return i * PART + ((uint64_t)b->salt * 37 + i * 29 + 11) % PART;
}

/** Four lanes, so that it runs at the speed of memory. */
static uint16_t hash_page(const void *page)
{
    const uint64_t *word = page;
    uint64_t lane[4] = {0, 1, 2, 3};
    for (unsigned i = 0; i < PH_PAGE / 8; i += 4)
        for (unsigned k = 0; k < 4; k++)
            lane[k] = (lane[k] ^ word[i + k]) * UINT64_C(0x9e3779b97f4a7c15) + (lane[k] >> 29);
    uint64_t sum = 0;
    for (unsigned k = 0; k < 4; k++)
        sum = (sum ^ lane[k]) * UINT64_C(0xd6e8feb86659fd93) + (lane[k] >> 32);
    return (uint16_t)(sum >> 48 ^ sum >> 32 ^ sum >> 16 ^ sum);
}

void ph_hot_staged(uint64_t start, uint64_t n, const void *copy)
{
    if (!tracked(start))
        return;
    const unsigned char *from = copy;
    for (uint64_t at = start, end = start + n * PH_PAGE, stop; at < end; at = stop) {
        struct block *b = block_of(at);
        stop = block_end(at) < end ? block_end(at) : end;
        if (b->state != HOT && b->state != COPIED && b->state != WARM)
            continue;
        uint64_t base = at & ~(BLOCK - 1);
        for (unsigned i = 0; i < SAMPLES; i++) {
            uint64_t page = base + sample_page(b, i) * PH_PAGE;
            if (page < at || page >= stop)
                continue;
            b->sum[i] = hash_page(from + (page - start));
            b->sampled |= (uint8_t)(1u << i);
        }
    }
}

/** How the samples compare with what they were: 0: not at all, PARTLY, UNCHANGED. */
static unsigned compare(const struct block *b, uint64_t base, ph_hot_page *page_at)
{
    unsigned same = 0, other = 0;
    for (unsigned i = 0; i < SAMPLES; i++) {
        if (!(b->sampled & (1u << i)))
            continue;
        const void *page = page_at(base + sample_page(b, i) * PH_PAGE);
        if (page && hash_page(page) == b->sum[i])
            same++;
        else
            other++;
    }
    return !other ? UNCHANGED : other == 1 && same == SAMPLES - 1 ? PARTLY : 0;
}

/* ---- from state to state --------------------------------------------------------------- */

void ph_hot_look(uint64_t start, uint64_t end, ph_hot_page *page_at)
{
    if (!tracked(start))
        return;
    for (; start < end; start = block_end(start)) {
        struct block *b = block_of(start);
        b->changed = 0;
        if (b->state != HOT && b->state != WARM)
            continue;
        if (b->state == WARM || !b->sampled) {
            b->salt++; /* none of the samples was live: look elsewhere */
        } else {
            unsigned more = compare(b, start & ~(BLOCK - 1), page_at);
            b->rested = more ? (uint16_t)(b->rested + more) : 0;
            if (b->rested >= (unsigned)UNCHANGED << b->mistakes)
                b->state = RESTING;
        }
        b->sampled = 0;
        if (b->skip)
            b->skip--;
    }
}

void ph_hot_sample(uint64_t start, uint64_t end, ph_hot_page *page_at)
{
    for (uint64_t at = start, stop; at < end; at = stop) {
        struct block *b = block_of(at);
        stop = block_end(at) < end ? block_end(at) : end;
        for (unsigned i = 0; i < SAMPLES && !b->skip; i++) {
            uint64_t addr = (at & ~(BLOCK - 1)) + sample_page(b, i) * PH_PAGE;
            const void *page = addr >= at && addr < stop ? page_at(addr) : NULL;
            if (!page)
                continue;
            b->sum[i] = hash_page(page);
            b->sampled |= (uint8_t)(1u << i);
        }
    }
}

void ph_hot_decide(uint64_t start, uint64_t end, ph_hot_page *page_at)
{
    if (!tracked(start))
        return;
    for (; start < end; start = block_end(start)) {
        struct block *b = block_of(start);
        if (b->state != HOT)
            continue;
        if (page_at && b->sampled && compare(b, start & ~(BLOCK - 1), page_at) == UNCHANGED)
            b->state = COPIED;
        b->sampled = 0;
    }
}

void ph_hot_changed(uint64_t start, uint64_t end, bool ahead)
{
    if (!tracked(start))
        return;
    while (start < end) {
        uint64_t stop = block_end(start) < end ? block_end(start) : end;
        struct block *b = block_of(start);
        b->split = TRIES;
        if (!ahead || b->state != COPIED) /* that one was not protected */
            b->changed = (uint16_t)(b->changed + (stop - start) / PH_PAGE);
        start = stop;
    }
}

/** A block that has been unprotected: what is remembered of it. */
static struct block hot_again(const struct block *b)
{
    struct block new = *b;
    new.state = HOT;
    if (b->state == COPIED) {
        bool vain = b->changed >= PH_HOT_HALF;
        new.vain = !vain ? 0 : b->vain < VAIN_MOST ? (uint8_t)(b->vain + 1) : VAIN_MOST;
        new.skip = vain ? (uint8_t)(1u << new.vain) : 0;
    } else {
        bool mistake = b->age < SOON;
        new.mistakes = !mistake                      ? 0
                       : b->mistakes < MISTAKES_MOST ? (uint8_t)(b->mistakes + 1)
                                                     : MISTAKES_MOST;
        new.rested = 0; /* the samples are those of this epoch */
    }
    return new;
}

/** Let [start, end), blocks that were protected, be hot. A failure leaves them protected. */
static void heat(uint64_t start, uint64_t end)
{
    if (start >= end || ph_track_unprotect(&ph_agent.track, start, end) != 0)
        return;
    for (; start < end; start += BLOCK)
        *block_of(start) = hot_again(block_of(start));
    any_split = true;
}

/** @return whether @p b is to be hot from now on. */
static bool settle(struct block *b)
{
    bool half = b->changed >= PH_HOT_HALF;
    switch (b->state) {
    case RESTING:
        b->state = COLD;
        b->age = 0;
        return false;
    case COLD:
        b->state = half ? WARM : COLD;
        if (b->age < SOON)
            b->age++;
        return false;
    case WARM:
        if (!half)
            b->state = COLD;
        return half;
    case COPIED:
        return true;
    default:
        return false;
    }
}

void ph_hot_settle(uint64_t start, uint64_t end)
{
    if (!tracked(start))
        return;
    uint64_t from = start, to = start; /* blocks that become hot, not unprotected yet */
    for (uint64_t at = start; at < end; at = block_end(at)) {
        if (!settle(block_of(at)))
            continue;
        if (to != at) {
            heat(from, to);
            from = at;
        }
        to = block_end(at);
    }
    heat(from, to);
}

/** Whether the machine's owner wants no huge pages: the call does not ask. */
static bool unwanted(void)
{
    static bool known, never;
    struct ph_area *text = &ph_agent.areas.text;
    if (!known) {
        text->used = 0;
        never = ph_read_file("/sys/kernel/mm/transparent_hugepage/enabled", text) <= 0 ||
                strstr((const char *)text->base, "[never]");
        known = true;
    }
    return never;
}

static void mend(uint64_t start, uint64_t end, uint64_t until_ns)
{
    for (uint64_t at = start; at < end; at += BLOCK) {
        struct block *b = block_of(at);
        if (b->state != HOT || !b->split)
            continue;
        if (ph_now_ns() >= until_ns) {
            any_split = true;
            return;
        }
        b->split = ph_syscall(SYS_madvise, at, BLOCK, MADV_COLLAPSE) == 0
                       ? 0
                       : (uint8_t)(b->split - 1);
        any_split |= b->split;
    }
}

void ph_hot_mend(uint64_t most_ns)
{
    struct ph_span used[PH_HEAP_PARTS];
    if (!any_split || unwanted())
        return;
    uint64_t until_ns = ph_now_ns() + most_ns;
    size_t n = ph_heap_used_spans(used, PH_HEAP_PARTS);
    any_split = false;
    for (size_t i = 0; i < n; i++)
        if (tracked(used[i].start))
            mend((used[i].start + BLOCK - 1) & ~(BLOCK - 1), used[i].end & ~(BLOCK - 1),
                 until_ns);
}

void ph_hot_dead(uint64_t start, uint64_t end)
{
    if (!tracked(start))
        return;
    start = (start + BLOCK - 1) & ~(BLOCK - 1);
    end &= ~(BLOCK - 1);
    for (uint64_t from = start, to; from < end; from = to + BLOCK) {
        for (to = from; to < end && block_of(to)->state != HOT; to += BLOCK)
            ;
        if (to > from && ph_track_unprotect(&ph_agent.track, from, to) == 0)
            memset(block_of(from), 0, (to - from) / BLOCK * sizeof(struct block));
    }
}
