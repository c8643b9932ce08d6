/* SPDX-License-Identifier: MIT */
/*
 * heap.c - the public functions: slab or extent, start, fork
 */
#include "heap_fast.h"

#include "error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct ph_heap ph_heap;
uint32_t ph_heap_epoch;

/* ---- start --------------------------------------------------------------------------- */

int ph_heap_init(void)
{
    static struct ph_lock once;
    int saved = errno, err = 0;
    ph_lock_acquire(&once);
    if (ph_heap.ready)
        goto out;
    err = ph_space_open();
    if (err)
        goto out;
    ph_class_init();
    err = PH_ENOMEM;
    if (ph_extent_init())
        err = ph_local_init();
    if (err) {
        ph_space_close();
        goto out;
    }
    __atomic_store_n(&ph_heap.ready, 1, __ATOMIC_RELEASE);

out:
    ph_lock_release(&once);
    errno = saved;
    return err;
}

_Noreturn void ph_heap_fatal(const char *what, const void *p)
{
    char line[128] = "pyheap: ", digits[] = "0123456789abcdef";
    size_t n = strlen(line);
    for (; *what && n < sizeof line - 32; n++)
        line[n] = *what++;
    memcpy(line + n, " 0x", 3);
    n += 3;
    for (int shift = 60; shift >= 0; shift -= 4)
        line[n++] = digits[(uintptr_t)p >> shift & 15];
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0) {
        /* nobody to tell */
    }
    abort();
}

/* ---- slots --------------------------------------------------------------------------- */

void ph_heap_bad_free(void *p)
{
    ph_heap_fatal("free of what is no live block:", p);
}

__attribute__((noinline)) void ph_heap_free_remote(struct ph_slab *s, uint32_t slot, void *p)
{
    if (slot == UINT32_MAX || __atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == PH_SLAB_FREE ||
        !ph_local_free_remote(s, slot))
        ph_heap_bad_free(p);
}

/* Bytes of the live block at @p p, of either kind; 0 if there is none. */
static size_t block_size(const void *p)
{
    if (!ph_in_slabs(p))
        return ph_heap_owns(p) && (uintptr_t)p >= PH_HEAP_EXTENTS ? ph_extent_size(p) : 0;
    const struct ph_slab *s = ph_slab_of(p);
    uint32_t slot = ph_slot_at(s, p);
    if (slot == UINT32_MAX || __atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == PH_SLAB_FREE)
        return 0;
    uint64_t dead = __atomic_load_n(&s->free[slot / 64], __ATOMIC_RELAXED) |
                    __atomic_load_n(&s->remote[slot / 64], __ATOMIC_RELAXED);
    return dead >> slot % 64 & 1 ? 0 : s->size;
}

/* ---- public -------------------------------------------------------------------------- */

static __attribute__((noinline)) void *extent_alloc(size_t size, size_t alignment,
                                                    size_t *stale)
{
    if (!__atomic_load_n(&ph_heap.ready, __ATOMIC_ACQUIRE)) {
        errno = ENOMEM;
        return NULL;
    }
    void *p = ph_extent_alloc(size, alignment, stale);
    PH_BARRIER();
    return p;
}

void *ph_heap_malloc(size_t size)
{
    if (PH_LIKELY(size <= PH_SMALL_MAX))
        return ph_slot_alloc(ph_class_of(size));
    size_t stale;
    return extent_alloc(size, PH_PAGE, &stale);
}

void *ph_heap_calloc(size_t n, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(n, size, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    if (PH_LIKELY(total <= PH_SMALL_MAX)) {
        void *p = ph_slot_alloc(ph_class_of(total));
        return p ? memset(p, 0, total) : NULL;
    }
    size_t stale;
    void *p = extent_alloc(total, PH_PAGE, &stale);
    return p ? memset(p, 0, stale < total ? stale : total) : NULL;
}

static __attribute__((noinline)) void extent_free(void *p)
{
    PH_BARRIER();
    if (p && (!ph_heap_owns(p) || (uintptr_t)p < PH_HEAP_EXTENTS || !ph_extent_free(p)))
        ph_heap_bad_free(p);
}

void ph_heap_free(void *p)
{
    if (PH_LIKELY(ph_in_slabs(p)))
        ph_slot_free(p);
    else
        extent_free(p);
}

/* Whether a block of @p have bytes may serve @p size: no smaller class would, or it would save
 * less than a quarter. */
static bool fits(size_t have, size_t size)
{
    return size <= have && (size >= have - have / 4 || have <= 64);
}

void *ph_heap_realloc(void *p, size_t size)
{
    if (!p)
        return ph_heap_malloc(size);
    size_t have = block_size(p);
    if (!have)
        ph_heap_fatal("realloc of what is no live block:", p);
    if (ph_in_slabs(p)) {
        if (fits(have, size))
            return p;
    } else if (size > PH_SMALL_MAX && ph_extent_resize(p, size)) {
        return p;
    }
    /* Both blocks are live while the bytes move. */
    void *q = ph_heap_malloc(size);
    if (!q)
        return size <= have ? p : NULL;
    memcpy(q, p, size < have ? size : have);
    PH_BARRIER();
    ph_heap_free(p);
    return q;
}

void *ph_heap_memalign(size_t alignment, size_t size)
{
    if (alignment == 0 || alignment & (alignment - 1)) {
        errno = EINVAL;
        return NULL;
    }
    if (alignment <= PH_SLOT_MIN)
        return ph_heap_malloc(size);
    if (size <= PH_SMALL_MAX && alignment <= PH_SMALL_MAX) {
        unsigned c = ph_class_of(size > alignment ? size : alignment);
        while (ph_class_size[c] % alignment) /* ends: the last class is a power of two */
            c++;
        return ph_slot_alloc(c);
    }
    size_t stale;
    return extent_alloc(size, alignment, &stale);
}

size_t ph_heap_usable_size(const void *p)
{
    size_t size = p ? block_size(p) : 0;
    if (p && !size)
        ph_heap_fatal("size of what is no live block:", p);
    return size;
}

void ph_heap_epoch_mark(void)
{
    __atomic_fetch_add(&ph_heap_epoch, 1, __ATOMIC_RELAXED);
}

/* ---- fork ---------------------------------------------------------------------------- */

void ph_heap_fork_prepare(void)
{
    ph_lock_acquire(&ph_heap.slab_lock);
    ph_lock_acquire(&ph_heap.extent_lock);
}

void ph_heap_fork_parent(void)
{
    ph_lock_release(&ph_heap.extent_lock);
    ph_lock_release(&ph_heap.slab_lock);
}

void ph_heap_fork_child(void)
{
    if (ph_heap.ready)
        ph_local_after_fork();
    ph_lock_release(&ph_heap.extent_lock);
    ph_lock_release(&ph_heap.slab_lock);
}
