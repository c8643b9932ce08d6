/* SPDX-License-Identifier: MIT */
/*
 * domains.c - Python's allocators are served from the heap
 *
 * CPython has three domains (RAW, called without the GIL; MEM and OBJ) and an arena allocator,
 * which also gives the chunks of the interpreter's frames from 3.11 on.
 *
 *   D1  From ph_domains_install on each domain and the arenas give blocks of the heap only.
 *   D2  A block from before, or given out while the interpreter had put its own allocator
 *       back for a moment (it does so in start-up), is freed and resized by the allocator
 *       that was there before: by address, as the heap's range holds nothing else. Counted.
 *   D3  Whether D1 holds is seen by allocating, not by comparing hooks: tracemalloc and the
 *       debug hooks wrap ours, which is well.
 *   D4  Development mode (-X dev) puts the built-in allocators with their debug hooks in place
 *       of ours, after a few allocations. The interpreter sets its locale right afterwards, by
 *       a call that is ours to see: then ours are put below the debug hooks. After start-up
 *       nothing of the sort is undone.
 *   D5  In a free-threaded build MEM and OBJ stay the interpreter's: its collector finds
 *       objects by walking the heaps of its own allocator. What they give is memory as any
 *       other to an epoch, outside of our heap. RAW and the arenas are ours there, too.
 */
#include "hook.h"

#include "allocator/heap_fast.h"
#include "libc_next.h"
#include "python_abi.h"

#include <stdatomic.h>

static struct ph_py_allocator previous[PH_PY_DOMAINS];
static struct ph_py_arena_allocator previous_arena;
static atomic_uint_fast64_t foreign;

static void *domain_malloc(void *ctx, size_t size)
{
    (void)ctx;
    return ph_fast_malloc(size);
}

static void *domain_calloc(void *ctx, size_t n, size_t size)
{
    (void)ctx;
    return ph_heap_calloc(n, size);
}

static void *domain_realloc(void *ctx, void *p, size_t size)
{
    if (__builtin_expect(p && !ph_heap_owns(p), 0)) {
        const struct ph_py_allocator *before = ctx;
        atomic_fetch_add_explicit(&foreign, 1, memory_order_relaxed);
        return before->realloc(before->ctx, p, size);
    }
    return ph_heap_realloc(p, size);
}

static __attribute__((noinline)) void foreign_free(const struct ph_py_allocator *before,
                                                   void *p)
{
    atomic_fetch_add_explicit(&foreign, 1, memory_order_relaxed);
    before->free(before->ctx, p);
}

static void domain_free(void *ctx, void *p)
{
    if (__builtin_expect(ph_in_slabs(p), 1))
        ph_slot_free(p);
    else if (!p || ph_heap_owns(p))
        ph_heap_free(p);
    else
        foreign_free(ctx, p);
}

static void *arena_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return ph_heap_memalign(PH_PAGE, size);
}

static void arena_free(void *ctx, void *p, size_t size)
{
    const struct ph_py_arena_allocator *before = ctx;
    if (p && !ph_heap_owns(p)) {
        atomic_fetch_add_explicit(&foreign, 1, memory_order_relaxed);
        before->free(before->ctx, p, size);
        return;
    }
    ph_heap_free(p);
}

/** How many domains are ours: RAW is the first (D5). */
static int domains(void)
{
    return ph_py.free_threaded ? PH_PY_RAW + 1 : PH_PY_DOMAINS;
}

static void serve(void)
{
    for (int domain = 0; domain < domains(); domain++) {
        struct ph_py_allocator ours = {
            .ctx = &previous[domain],
            .malloc = domain_malloc,
            .calloc = domain_calloc,
            .realloc = domain_realloc,
            .free = domain_free,
        };
        ph_py.PyMem_SetAllocator(domain, &ours);
    }
}

void ph_domains_install(bool debug)
{
    for (int domain = 0; domain < PH_PY_DOMAINS; domain++)
        ph_py.PyMem_GetAllocator(domain, &previous[domain]);
    serve();
    ph_py.PyObject_GetArenaAllocator(&previous_arena);
    struct ph_py_arena_allocator arena = {&previous_arena, arena_alloc, arena_free};
    ph_py.PyObject_SetArenaAllocator(&arena);
    if (debug)
        ph_py.PyMem_SetupDebugHooks();
}

/**
 * D4: if the interpreter has put its debug hooks where ours were, go below them. What was
 * allocated meanwhile is freed through ours, by the built-in allocator: the debug hooks give
 * that what they would have given it.
 */
static void reclaim(void)
{
    struct ph_py_allocator now;
    ph_py.PyMem_GetAllocator(PH_PY_RAW, &now);
    /* The debug hooks' context starts with the domain's letter (Objects/obmalloc.c). */
    bool debug = now.ctx && now.ctx != &previous[PH_PY_RAW] && *(const char *)now.ctx == 'r';
    if (now.malloc == domain_malloc || !debug)
        return;
    void *block = ph_py.PyMem_RawMalloc(1); /* the others' debug hooks want the GIL */
    bool ours = ph_heap_owns(block);
    ph_py.PyMem_RawFree(block);
    if (ours)
        return;
    serve();
    ph_py.PyMem_SetupDebugHooks();
}

__attribute__((visibility("default"))) char *setlocale(int category, const char *locale)
{
    char *result = ph_libc_next()->setlocale(category, locale);
    if (ph_hook_active() && !ph_py.Py_IsInitialized())
        reclaim();
    return result;
}

bool ph_domains_in_force(void)
{
    struct ph_py_arena_allocator arena;
    ph_py.PyObject_GetArenaAllocator(&arena);
    void *block = ph_py.PyMem_RawMalloc(1);
    bool ours = ph_heap_owns(block) && arena.alloc == arena_alloc;
    ph_py.PyMem_RawFree(block);
    if (ph_py.free_threaded)
        return ours; /* D5 */
    block = ph_py.PyMem_Malloc(1);
    ours = ours && ph_heap_owns(block);
    ph_py.PyMem_Free(block);
    block = ph_py.PyObject_Malloc(1);
    ours = ours && ph_heap_owns(block);
    ph_py.PyObject_Free(block);
    return ours;
}

uint64_t ph_domains_foreign(void)
{
    return atomic_load_explicit(&foreign, memory_order_relaxed);
}
