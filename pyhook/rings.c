/* SPDX-License-Identifier: MIT */
/*
 * rings.c - libuv gets no io_uring
 *
 * A ring cannot come back: what is under way in it only the kernel knows. libuv (uvloop) makes
 * one in every loop where the kernel lets it, only to register descriptors in batches,
 * and ends the process when that fails in a recovered program. Without one it registers them
 * one by one, as it does in most containers, whose kernels deny rings. So it is told that there
 * are none. Others, who may have no other way, get theirs; those are named at the epoch.
 */
#include "hook.h"

#include <link.h>
#include <string.h>

/* The environment variable by which libuv can be told so; it has the name in its constants. */
static const char mark[] = "UV_USE_IO_URING";

static int of_caller(struct dl_phdr_info *info, size_t size, void *caller)
{
    (void)size;
    bool inside = false, marked = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + p->p_vaddr;
        if (p->p_type != PT_LOAD)
            continue;
        inside |= (uintptr_t)caller - start < p->p_memsz;
    }
    for (int i = 0; inside && !marked && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && (p->p_flags & (PF_R | PF_W)) == PF_R)
            marked = memmem((const void *)(info->dlpi_addr + p->p_vaddr), p->p_memsz, mark,
                            sizeof mark - 1);
    }
    return marked ? 2 : inside;
}

bool ph_ring_refused(const void *caller)
{
    return dl_iterate_phdr(of_caller, (void *)(uintptr_t)caller) == 2;
}
