/* SPDX-License-Identifier: MIT */
/*
 * libc_malloc.c - large blocks of libc's allocator come from the heap
 *
 * NumPy and other extensions take their arrays from malloc, not from Python. Blocks of
 * LARGE bytes and more are therefore extents of the heap: kept mapped when freed, backed by
 * huge pages, and known to the epoch as live or not. All smaller blocks are libc's.
 *
 *   M1  The address alone says whose a block is: the heap's range holds nothing of libc's.
 *   M2  Until ph_libc_malloc_enable every call goes to libc unchanged; a block that libc gave
 *       out then goes back to libc.
 *   M3  errno is as with libc: ENOMEM or EINVAL on failure, untouched by free.
 *   M4  A block stays where it was born unless it grows: one of the heap's that shrinks below
 *       LARGE stays in the heap (libc does the same with a block it has mapped), and one of
 *       libc's that grows to LARGE moves to the heap.
 *
 * libc exports its own entry points as __libc_malloc and so on, so there is no time at which
 * an allocation could not be served. Three functions have none; they are looked up when first
 * needed, which is safe because looking up calls none of the three.
 */
#include "hook.h"

#include "allocator/heap.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LARGE  ((size_t)256 << 10) /* bytes */
#define EXPORT __attribute__((visibility("default")))

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void *__libc_valloc(size_t size);
void *__libc_pvalloc(size_t size);
void __libc_free(void *p);

typedef void *aligned_alloc_fn(size_t, size_t);
typedef int posix_memalign_fn(void **, size_t, size_t);
typedef size_t usable_size_fn(void *);

static aligned_alloc_fn *libc_aligned_alloc;
static posix_memalign_fn *libc_posix_memalign;
static usable_size_fn *libc_usable_size;
static bool enabled;

/* libc's own definition of @p name, remembered in @p slot. Idempotent, so threads may race. */
#define LIBC(slot, name)                                                                       \
    ({                                                                                         \
        __typeof__(slot) found_ = __atomic_load_n(&slot, __ATOMIC_RELAXED);                    \
        if (!found_) {                                                                         \
            found_ = (__typeof__(slot))dlsym(RTLD_NEXT, name);                                 \
            __atomic_store_n(&slot, found_, __ATOMIC_RELAXED);                                 \
        }                                                                                      \
        found_;                                                                                \
    })

void ph_libc_malloc_enable(void)
{
    (void)LIBC(libc_usable_size, "malloc_usable_size");
    (void)LIBC(libc_aligned_alloc, "aligned_alloc");
    (void)LIBC(libc_posix_memalign, "posix_memalign");
    enabled = true;
}

static inline bool is_large(size_t size)
{
    return __builtin_expect(size >= LARGE, 0) && enabled;
}

static inline bool is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

EXPORT void *malloc(size_t size)
{
    return is_large(size) ? ph_heap_malloc(size) : __libc_malloc(size);
}

EXPORT void free(void *p)
{
    if (__builtin_expect(!ph_heap_owns(p), 1)) {
        __libc_free(p);
        return;
    }
    int saved = errno;
    ph_heap_free(p);
    errno = saved;
}

EXPORT void *calloc(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || !is_large(bytes))
        return __libc_calloc(n, size);
    return ph_heap_calloc(n, size);
}

EXPORT void *realloc(void *p, size_t size)
{
    if (!p)
        return malloc(size);
    if (ph_heap_owns(p)) {
        if (size == 0) {
            free(p);
            return NULL;
        }
        return ph_heap_realloc(p, size);
    }
    if (!is_large(size))
        return __libc_realloc(p, size);
    void *moved = ph_heap_malloc(size);
    if (!moved)
        return NULL;
    size_t old = LIBC(libc_usable_size, "malloc_usable_size")(p);
    memcpy(moved, p, old < size ? old : size);
    __libc_free(p);
    return moved;
}

EXPORT void *reallocarray(void *p, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(p, bytes);
}

EXPORT void *memalign(size_t alignment, size_t size)
{
    if (is_large(size) && is_power_of_two(alignment))
        return ph_heap_memalign(alignment, size);
    return __libc_memalign(alignment, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    if (is_large(size) && is_power_of_two(alignment))
        return ph_heap_memalign(alignment, size);
    return LIBC(libc_aligned_alloc, "aligned_alloc")(alignment, size);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
    if (!is_large(size) || !is_power_of_two(alignment) || alignment % sizeof(void *) != 0)
        return LIBC(libc_posix_memalign, "posix_memalign")(out, alignment, size);
    void *p = ph_heap_memalign(alignment, size);
    if (!p)
        return ENOMEM;
    *out = p;
    return 0;
}

EXPORT void *valloc(size_t size)
{
    return is_large(size) ? ph_heap_memalign(PH_PAGE, size) : __libc_valloc(size);
}

EXPORT void *pvalloc(size_t size)
{
    if (!is_large(size) || size > SIZE_MAX - PH_PAGE)
        return __libc_pvalloc(size);
    return ph_heap_memalign(PH_PAGE, (size + PH_PAGE - 1) & ~(size_t)(PH_PAGE - 1));
}

EXPORT size_t malloc_usable_size(void *p)
{
    if (ph_heap_owns(p))
        return ph_heap_usable_size(p);
    return LIBC(libc_usable_size, "malloc_usable_size")(p);
}
