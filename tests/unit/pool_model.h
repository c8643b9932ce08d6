/* SPDX-License-Identifier: MIT */
/*
 * pool_model.h - a shadow of a pool, for tests
 *
 * The model is a program's memory of MODEL_PAGES pages, scattered over a few places of the
 * address space, whose whole history is a function of a seed: epoch e of seed s always changes
 * the same pages to the same contents. So a process that has lost everything, or another one,
 * can tell what any epoch must hold. A page's content is a function of a 64-bit value; value 0
 * is an absent page.
 */
#ifndef POOL_MODEL_H
#define POOL_MODEL_H

#include "allocator/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL_PAGES 384

struct model {
    uint64_t seed;
    uint64_t epoch; /* that value[] is of */
    uint64_t value[MODEL_PAGES];
    bool changed[MODEL_PAGES]; /* by that epoch */
};

static inline uint64_t model_mix(uint64_t x)
{
    x ^= x >> 31;
    x *= UINT64_C(0x7fb5d329728ea185);
    x ^= x >> 27;
    x *= UINT64_C(0x81dadef4bc2dd44d);
    return x ^ x >> 33;
}

/* Four places: low program text, heap, heap extents far up, a stack; some pages apart. */
static inline uint64_t model_addr(unsigned i)
{
    static const uint64_t place[4] = {UINT64_C(0x400000), UINT64_C(0x200000000000),
                                      UINT64_C(0x240000fc0000), UINT64_C(0x7ffff0000000)};
    uint64_t k = i / 4;

    return place[i % 4] + (k + (i % 4 == 2 ? k / 8 * 3 : 0)) * PH_PAGE;
}

static inline int model_index(uint64_t addr)
{
    for (unsigned i = 0; i < MODEL_PAGES; i++)
        if (model_addr(i) == addr)
            return (int)i;
    return -1;
}

static inline void model_fill(uint64_t value, uint64_t *page)
{
    for (unsigned i = 0; i < PH_PAGE / 8; i++)
        page[i] = value ? model_mix(value + i) : 0;
}

/* Go on by one epoch. Now and then much changes, or nothing; and for some epochs in a row one
 * of the places may be empty, or change nearly whole. */
static inline void model_step(struct model *m)
{
    uint64_t r = model_mix(m->seed * 1000003 + ++m->epoch);
    uint64_t empty = model_mix(m->seed + m->epoch / 5 * 65537) % 8;
    uint64_t dense = model_mix(m->seed * 3 + m->epoch / 6 * 257) % 10;
    unsigned percent = r % 16 == 0 ? 0 : r % 16 == 1 ? 70 : (unsigned)(4 + r % 9);

    for (unsigned i = 0; i < MODEL_PAGES; i++) {
        uint64_t q = model_mix(r + i * 7919 + 1), old = m->value[i];
        if (q % 100 < (i % 4 == dense ? 94 : percent))
            m->value[i] = q / 100 % (i % 4 == dense ? 40 : 6) == 0 ? 0 : q | 1;
        if (i % 4 == empty)
            m->value[i] = 0;
        m->changed[i] = m->value[i] != old;
    }
}

static inline void model_at(struct model *m, uint64_t seed, uint64_t epoch)
{
    *m = (struct model){.seed = seed};
    while (m->epoch < epoch)
        model_step(m);
}

static inline int model_by_addr(const void *x, const void *y)
{
    const struct ph_page_span *a = x, *b = y;

    return a->start < b->start ? -1 : a->start > b->start;
}

/* The record of an epoch: its length and bytes follow from seed and number. */
static inline size_t model_record(const struct model *m, unsigned char *out, size_t max)
{
    uint64_t r = model_mix(m->seed ^ m->epoch * 31);
    size_t n = r % 7 == 0 ? 0 : r % 5 == 0 ? r / 64 % max : r / 64 % 300;

    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)model_mix(r + i);
    return n;
}

#define MODEL_RECORD_MAX 20000

/* Append the epoch that the model is at. Appends some unchanged pages too. */
static inline int model_append(struct model *m, struct ph_pool *pool)
{
    static uint64_t page[MODEL_PAGES][PH_PAGE / 8] __attribute__((aligned(4096)));
    static unsigned char record[MODEL_RECORD_MAX];
    uint64_t addr[MODEL_PAGES];
    const void *from[MODEL_PAGES];
    struct ph_page_span span[MODEL_PAGES];
    size_t n = 0, spans = 0, size = model_record(m, record, MODEL_RECORD_MAX);
    int err = ph_pool_begin(pool, m->epoch);

    for (unsigned i = 0; i < MODEL_PAGES; i++) {
        uint64_t a = model_addr(i);
        if (m->value[i])
            span[spans++] = (struct ph_page_span){a, a + PH_PAGE};
        if (m->value[i] && (m->changed[i] || model_mix(m->epoch + i) % 8 == 0)) {
            model_fill(m->value[i], page[n]);
            addr[n] = a;
            from[n] = page[n];
            n++;
        }
    }
    qsort(span, spans, sizeof(*span), model_by_addr);
    if (!err)
        err = ph_pool_append(pool, addr, from, n / 2, NULL);
    if (!err)
        err = ph_pool_append_record(pool, record, size / 3);
    if (!err)
        err = ph_pool_set_present(pool, span, spans);
    if (!err)
        err = ph_pool_append(pool, addr + n / 2, from + n / 2, n - n / 2, NULL);
    if (!err)
        err = ph_pool_append_record(pool, record + size / 3, size - size / 3);
    return err;
}

static inline int model_commit(struct model *m, struct ph_pool *pool)
{
    char label[PH_LABEL_MAX];
    int err = model_append(m, pool);

    snprintf(label, sizeof(label), "epoch %llu", (unsigned long long)m->epoch);
    if (!err)
        err = ph_pool_commit(pool, m->epoch % 3 ? label : NULL, m->epoch * 1000);
    return err;
}

/* Compare a view with the model. @return NULL, or what is wrong. */
static inline const char *model_compare(const struct model *m, struct ph_pool *pool,
                                        const struct ph_view *view)
{
    static char text[200];
    static unsigned char record[MODEL_RECORD_MAX];
    uint64_t want[PH_PAGE / 8], got[PH_PAGE / 8], last = 0;
    bool seen[MODEL_PAGES] = {0};
    size_t n, size, expect;
    const struct ph_run *run = ph_view_runs(view, &n);
    const void *bytes = ph_view_record(view, &size);

    for (size_t i = 0; i < n; i++) {
        if (run[i].npages == 0 || run[i].addr < last || run[i].offset % PH_PAGE)
            return "runs are not ascending";
        last = run[i].addr + run[i].npages * PH_PAGE;
        for (uint64_t k = 0; k < run[i].npages; k++) {
            int at = model_index(run[i].addr + k * PH_PAGE);
            if (at < 0 || !m->value[at] || seen[at]) {
                snprintf(text, sizeof(text), "page %llx is there and should not be",
                         (unsigned long long)(run[i].addr + k * PH_PAGE));
                return text;
            }
            seen[at] = true;
            model_fill(m->value[at], want);
            if (pread(ph_pool_fd(pool), got, PH_PAGE, (off_t)(run[i].offset + k * PH_PAGE)) !=
                    (ssize_t)PH_PAGE ||
                memcmp(want, got, PH_PAGE) != 0) {
                snprintf(text, sizeof(text), "page %llx has wrong content",
                         (unsigned long long)(run[i].addr + k * PH_PAGE));
                return text;
            }
        }
    }
    for (unsigned i = 0; i < MODEL_PAGES; i++)
        if (m->value[i] && !seen[i]) {
            snprintf(text, sizeof(text), "page %llx is missing",
                     (unsigned long long)model_addr(i));
            return text;
        }
    expect = model_record(m, record, MODEL_RECORD_MAX);
    if (size != expect || (size && memcmp(record, bytes, size) != 0))
        return "the record differs";
    return NULL;
}

/* Check every recoverable epoch of @p pool, and their labels. @return NULL, or what is wrong.
 */
static inline const char *model_check(uint64_t seed, struct ph_pool *pool)
{
    static char text[300];
    struct ph_epoch_info info[512];
    size_t n = ph_pool_epochs(pool, info, 512);
    struct model m = {.seed = seed};
    struct ph_pool_info before, now;

    if (n > 512)
        return "more epochs than expected";
    for (size_t i = n; i-- > 0;) {
        struct ph_view *view;
        char label[PH_LABEL_MAX] = "";
        const char *wrong = NULL;
        int err;
        ph_pool_get_info(pool, &before);
        err = ph_pool_view(pool, info[i].number, &view);
        while (m.epoch < info[i].number)
            model_step(&m);
        if (m.epoch % 3)
            snprintf(label, sizeof(label), "epoch %llu", (unsigned long long)m.epoch);
        if (err)
            wrong = ph_error_name(err);
        else if (info[i].time != m.epoch * 1000 || strcmp(info[i].label, label) != 0)
            wrong = "label or time differ";
        else
            wrong = model_compare(&m, pool, view);
        if (!wrong && ph_view_verify(view, NULL, NULL, NULL))
            wrong = "verification fails";
        if (wrong)
            snprintf(text, sizeof(text), "epoch %llu: %s", (unsigned long long)m.epoch, wrong);
        ph_view_free(view);
        ph_pool_get_info(pool, &now);
        if (!wrong || info[i].number < now.oldest) /* migration has just retired it */
            continue;
        if (now.home_epoch == before.home_epoch)
            return text;
        i++; /* a writer went on meanwhile: take the view again */
    }
    return NULL;
}

#endif
