/* SPDX-License-Identifier: MIT */
/*
 * mapped.c - telling the keeper which files the program has mapped
 *
 * An epoch holds what the program changed of its private mappings, not what they have from
 * their files: text and constants of the interpreter and its libraries. The keeper stores
 * copies of these files in the pool, so that recovery does not depend on them. It is told their
 * names, and which version of them is meant, whenever these are others than at the epoch
 * before; after a recovery again, since the keeper is a new one.
 *
 * Not everything that is mapped is such a file: of those without text, large ones are data that
 * the program reads, and of the shared ones only those count that nobody seems to write to.
 */
#include "agent_internal.h"

#include <string.h>
#include <sys/mman.h>

#define DATA_MAX   (UINT64_C(256) << 20) /* bytes; a locale archive has 220 MiB */
#define SHARED_MAX (UINT64_C(16) << 20)
#define LOOK_NS    UINT64_C(1000000000)    /* between looks while the mappings are the same */
#define SETTLED_NS UINT64_C(3600000000000) /* since the last change of a shared file */

static bool same_file(const struct ph_vma_pm *a, const struct ph_vma_pm *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->kind == b->kind;
}

static bool any(const struct ph_vma_pm *v, const struct ph_vma_pm *end, uint32_t prot)
{
    while (v < end && !(v->prot & prot))
        v++;
    return v < end;
}

/** Whether the file of the mappings [v, end), which are neighbours, is to be stored. */
static bool wanted(const struct ph_vma_pm *v, const struct ph_vma_pm *end, uint64_t now_ns)
{
    bool text = any(v, end, PROT_EXEC), writable = any(v, end, PROT_WRITE);
    if (v->kind == PH_VMA_FILE)
        return text || v->size <= DATA_MAX;
    return v->kind == PH_VMA_SHARED_FILE && !writable && v->size <= SHARED_MAX &&
           v->mtime_ns + SETTLED_NS < now_ns;
}

static void add(struct ph_area *to, const struct ph_vma_pm *v, const struct ph_vma_pm *end)
{
    const char *path = (const char *)ph_agent.areas.strings.base + v->path;
    size_t length = strlen(path), room = (length + 8) / 8 * 8;
    struct ph_mapped_file *m = ph_area_push(to, sizeof *m + room);
    if (to->overflow)
        return;
    *m = (struct ph_mapped_file){v->size, v->mtime_ns,    v->dev,
                                 v->ino,  (uint32_t)room, any(v, end, PROT_EXEC)};
    memcpy(m + 1, path, length);
}

static uint64_t told_generation = UINT64_MAX, told; /* hash of the names */

bool ph_mapped_hold(void)
{
    return told_generation == ph_agent.generation &&
           atomic_load(&PH_CONTROL->files_hold) == told;
}

int ph_mapped_stage(uint64_t epoch, uint64_t now_ns)
{
    static uint64_t looked_ns;
    if (ph_agent.same_mappings && told_generation == ph_agent.generation &&
        now_ns - looked_ns < LOOK_NS)
        return 0;
    looked_ns = now_ns;
    struct ph_area *to = &ph_agent.areas.text; /* nobody needs the text any more */
    const struct ph_vma_pm *v = (const struct ph_vma_pm *)ph_agent.areas.vmas.base;
    const struct ph_vma_pm *end = v + ph_agent.areas.vmas.used / sizeof *v, *next;
    to->used = 0;
    for (; v < end; v = next) {
        for (next = v + 1; next < end && same_file(v, next);)
            next++;
        if (wanted(v, next, now_ns))
            add(to, v, next);
    }
    uint64_t hash = ph_mapped_hash(to->base, to->used);
    if (to->overflow || (told_generation == ph_agent.generation && told == hash))
        return 0; /* what does not fit there is no set of libraries */
    if (!ph_stage_bytes(&ph_agent.stage, PH_BATCH_FILES, epoch, to->base, to->used))
        return PH_EKEEPER;
    told_generation = ph_agent.generation;
    told = hash;
    return 0;
}
