/* SPDX-License-Identifier: MIT */
/*
 * test_heap_model.h - a shadow of the heap: what a program believes to own
 *
 * A model owns up to MODEL_ITEMS blocks and fills each with a pattern of its own, checked
 * before the block is given up: so overlapping blocks, lost pages and wrong copies show. It
 * runs random operations from a seed. PYHEAP_TEST_SCALE multiplies their number.
 */
#ifndef TEST_HEAP_MODEL_H
#define TEST_HEAP_MODEL_H

#include "allocator/heap.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/*
 * Criterion's runner maps an arena at a random address between 32 and 80 TiB, and at the same
 * one in each test's process: one time in three in the middle of the heap's range. It tries
 * another address when that is taken, so take the range, in the runner only. (BXFI_MAP is set
 * for the tests' processes.)
 */
__attribute__((constructor)) static void keep_the_runner_out_of_the_heap(void)
{
    if (!getenv("BXFI_MAP"))
        mmap((void *)PH_HEAP_BASE, PH_HEAP_END - PH_HEAP_BASE, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

#define MODEL_ITEMS 2000

struct model_item {
    unsigned char *volatile p; /* NULL: none, or in the hands of a call that may free it */
    volatile size_t size;
    uint32_t seed;
};

struct model {
    uint32_t state;   /* of the random numbers */
    unsigned max_log; /* sizes are below 2^max_log */
    size_t items;     /* used of item[] */
    struct model_item item[MODEL_ITEMS];
};

static inline uint32_t model_random(struct model *m)
{
    m->state ^= m->state << 13;
    m->state ^= m->state >> 17;
    m->state ^= m->state << 5;
    return m->state;
}

static inline long model_scale(void)
{
    const char *text = getenv("PYHEAP_TEST_SCALE");
    long scale = text ? atol(text) : 1;
    return scale > 0 ? scale : 1;
}

/* Evenly over the logarithm, so that every class and both kinds occur. */
static inline size_t model_size(struct model *m)
{
    uint32_t bound = UINT32_C(1) << model_random(m) % (m->max_log + 1);
    return model_random(m) % (bound + 1);
}

/* Offsets that are written and checked: all of small blocks, several in each page of others. */
static inline size_t model_step(size_t size)
{
    return size <= 512 ? 1 : 509;
}

static inline unsigned char model_byte(uint32_t seed, size_t offset)
{
    return (unsigned char)((seed ^ (uint32_t)offset) * 2654435769u >> 24);
}

static inline void model_fill(struct model_item *item)
{
    for (size_t i = 0; i < item->size; i += model_step(item->size))
        item->p[i] = model_byte(item->seed, i);
    if (item->size)
        item->p[item->size - 1] = model_byte(item->seed, item->size - 1);
}

static inline bool model_intact(const struct model_item *item)
{
    for (size_t i = 0; i < item->size; i += model_step(item->size))
        if (item->p[i] != model_byte(item->seed, i))
            return false;
    return !item->size || item->p[item->size - 1] == model_byte(item->seed, item->size - 1);
}

static inline bool all_zero(const unsigned char *p, size_t size)
{
    return !size || (p[0] == 0 && !memcmp(p, p + 1, size - 1));
}

/* Set while a call into the heap is under way, for tests that look at each instruction of it.
 */
static __thread volatile int model_in_heap;

#define IN_HEAP(call) (model_in_heap = 1, call, (void)(model_in_heap = 0))

/* Fail the test unless @p condition; usable in any thread and in a forked child. */
#define MODEL_CHECK(condition)                                                                 \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

static inline void model_allocate(struct model *m, struct model_item *item)
{
    size_t size = model_size(m), align = 16;
    unsigned char *p;
    switch (model_random(m) % 8) {
    case 0:
        IN_HEAP(p = ph_heap_calloc(1, size));
        MODEL_CHECK(p && all_zero(p, size));
        break;
    case 1:
        align = (size_t)1 << model_random(m) % 15;
        IN_HEAP(p = ph_heap_memalign(align, size));
        align = align < 16 ? 16 : align;
        break;
    default:
        IN_HEAP(p = ph_heap_malloc(size));
    }
    MODEL_CHECK(p && (uintptr_t)p % align == 0 && ph_heap_usable_size(p) >= size);
    item->size = size;
    item->seed = model_random(m);
    item->p = p;
    model_fill(item);
}

static inline void model_free(struct model_item *item)
{
    MODEL_CHECK(model_intact(item));
    void *p = item->p;
    item->p = NULL;
    IN_HEAP(ph_heap_free(p));
}

static inline void model_resize(struct model *m, struct model_item *item)
{
    MODEL_CHECK(model_intact(item));
    size_t old = item->size, size = model_size(m), common = size < old ? size : old;
    unsigned char *p = item->p;
    item->p = NULL;
    IN_HEAP(p = ph_heap_realloc(p, size));
    MODEL_CHECK(p && ph_heap_usable_size(p) >= size);
    for (size_t i = 0; i < common; i += model_step(old))
        MODEL_CHECK(p[i] == model_byte(item->seed, i));
    item->size = size;
    item->p = p;
    model_fill(item);
}

/* One random operation on one random block. */
static inline void model_operate(struct model *m)
{
    struct model_item *item = &m->item[model_random(m) % m->items];
    if (!item->p)
        model_allocate(m, item);
    else if (model_random(m) % 3)
        model_free(item);
    else
        model_resize(m, item);
}

static inline void model_free_all(struct model *m)
{
    for (size_t i = 0; i < m->items; i++)
        if (m->item[i].p)
            model_free(&m->item[i]);
}

static inline void model_validate(void)
{
    char why[256];
    if (!ph_heap_validate(why, sizeof why)) {
        fprintf(stderr, "%s\n", why);
        abort();
    }
}

/* Whether all bytes of the block lie in live runs. */
static inline bool model_covered(const struct model_item *item)
{
    uint64_t start = (uintptr_t)item->p, end = start + (item->size ? item->size : 1);
    struct ph_span run;
    return ph_heap_live_run(start, end, &run) && run.start <= start && run.end >= end;
}

/* Do to every dead page of the used range what @p action does. */
static inline void model_each_dead(void (*action)(uint64_t start, uint64_t end))
{
    struct ph_span span[16], run;
    size_t n = ph_heap_used_spans(span, 16);
    for (size_t i = 0; i < n; i++) {
        uint64_t at = span[i].start;
        while (at < span[i].end) {
            bool found = ph_heap_live_run(at, span[i].end, &run);
            uint64_t dead_end = found ? run.start : span[i].end;
            if (dead_end > at)
                action(at, dead_end);
            at = found ? run.end : span[i].end;
        }
    }
}

#endif
