/* SPDX-License-Identifier: MIT */
/*
 * moved.c - calls that change memory in ways that the tracker does not see
 *
 * Each sets a word before the call and after it, so that no epoch comes between the call and
 * the word. Those that may end or change a mapping are counted as well (calls.h).
 */
#include "calls.h"
#include "pages.h"

#include "allocator/syscall.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define EXPORT __attribute__((visibility("default")))

static _Atomic bool moved, advised, writable;

static long result(long r)
{
    if (r > -4096 && r < 0) {
        errno = (int)-r;
        return -1;
    }
    return r;
}

/**
 * mremap(2) marks what it has moved as changed, but not page tables that it moves whole
 * (move_normal_pmd in the kernel's mm/mremap.c): these keep the bits that we have cleared.
 */
EXPORT void *mremap(void *old, size_t old_size, size_t size, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(rest, void *) : NULL;
    va_end(rest);
    bool may = flags & MREMAP_MAYMOVE;
    if (may)
        moved = true;
    ph_calls_begin(PH_CALLS_MAPPINGS);
    long at = result(ph_syscall(SYS_mremap, old, old_size, size, flags, to));
    ph_calls_end(PH_CALLS_MAPPINGS);
    if (may)
        moved = true;
    return (void *)at;
}

bool ph_memory_moved(void)
{
    bool was = atomic_exchange(&moved, false);
    return was && ph_agent.track.soft_dirty;
}

/** madvise(2) can make the file's page of one with content of its own. */
EXPORT int madvise(void *start, size_t size, int advice)
{
    advised = true;
    long r = result(ph_syscall(SYS_madvise, start, size, advice));
    advised = true;
    return (int)r;
}

EXPORT int munmap(void *start, size_t size)
{
    ph_calls_begin(PH_CALLS_MAPPINGS);
    long r = result(ph_syscall(SYS_munmap, start, size));
    ph_calls_end(PH_CALLS_MAPPINGS);
    return (int)r;
}

static void note_prot(int prot)
{
    if (prot & PROT_WRITE)
        writable = true;
}

/** Who may write to a file's mapping for a while leaves no trace in its protection. */
EXPORT int pkey_mprotect(void *start, size_t size, int prot, int key)
{
    note_prot(prot);
    ph_calls_begin(PH_CALLS_MAPPINGS);
    long r = result(key == -1 ? ph_syscall(SYS_mprotect, start, size, prot)
                              : ph_syscall(SYS_pkey_mprotect, start, size, prot, key));
    ph_calls_end(PH_CALLS_MAPPINGS);
    note_prot(prot);
    return (int)r;
}

EXPORT int mprotect(void *start, size_t size, int prot)
{
    return pkey_mprotect(start, size, prot, -1);
}

bool ph_memory_made_writable(void)
{
    return atomic_exchange(&writable, false);
}

bool ph_memory_advised(void)
{
    return atomic_exchange(&advised, false);
}
