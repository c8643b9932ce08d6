/* SPDX-License-Identifier: MIT */
/*
 * restorer_xsave.c - register states that are more, or fewer, than where the program was
 *
 * Two places have sizes of another processor in them:
 *
 *   V1  glibc's resolver of functions that are called for the first time. It saves all states
 *       that this processor has on the stack, in as much room as the first one's took, by a
 *       number that ld.so computed when the program started (_rtld_global_ro, xsave_state_size;
 *       sysdeps/x86_64/dl-trampoline.h). With too little room it overwrites its own arguments
 *       and what its caller had on the stack. The number has no name, but each of the
 *       resolvers has it in the same two instructions.
 *   V2  A thread's signal frame. If it is larger than frames here, the kernel takes the x87 and
 *       SSE states from it and no other, without a word (arch/x86/kernel/fpu/signal.c,
 *       check_xstate_in_sigframe). Recovery has made sure that all states are there but MPX,
 *       which is cut off.
 */
#include "allocator/syscall.h"
#include "restorer.h"

#include "pyhook/record_cpu.h"

#include <elf.h>
#include <sys/mman.h>

#define LD_SO_MAX   (UINT64_C(1) << 22) /* bytes; it has about 220 KiB */
#define ROOM_MAX    (UINT64_C(1) << 16) /* a number above is no such size */
#define BESIDE      (UINT64_C(128))     /* what the resolver saves beside the states, at most */
#define FRAME_MAGIC 0x46505853u         /* FP_XSTATE_MAGIC1 */
#define FRAME_END   0x46505845u         /* FP_XSTATE_MAGIC2 */

static const struct ph_vma_pm *mapping_of(const struct ph_record_pm *record, uint64_t at)
{
    const struct ph_vma_pm *v = ph_r_table(&record->vmas);
    for (uint64_t i = 0; i < record->vmas.count; i++)
        if (at >= v[i].start && at < v[i].end)
            return &v[i];
    return 0;
}

static uint64_t ld_so(const struct ph_record_pm *record)
{
    const uint64_t *aux = ph_r_table(&record->auxv);
    uint64_t base = 0, headers = 0;
    for (uint64_t i = 0; i + 1 < record->auxv.count / 8; i += 2) {
        if (aux[i] == AT_BASE)
            base = aux[i + 1];
        if (aux[i] == AT_PHDR)
            headers = aux[i + 1];
    }
    return base ? base : headers & ~UINT64_C(4095); /* it may have been called by name */
}

/** The number that `and $-64, %rsp; sub number(%rip), %rsp` at @p code names, if it is one. */
static uint64_t number_in(const struct ph_record_pm *record, const uint8_t *code)
{
    static const uint8_t pattern[7] = {0x48, 0x83, 0xe4, 0xc0, 0x48, 0x2b, 0x25};
    for (unsigned i = 0; i < sizeof pattern; i++)
        if (code[i] != pattern[i])
            return 0;
    int32_t distance;
    memcpy(&distance, code + 7, sizeof distance);
    uint64_t at = (uint64_t)code + 11 + (uint64_t)(int64_t)distance;
    const struct ph_vma_pm *v = mapping_of(record, at);
    if (at % 8 || !v || !(v->prot & PROT_READ) || (v->prot & PROT_EXEC))
        return 0;
    uint64_t number = *(const uint64_t *)at;
    return number % 64 == 0 && number >= 576 && number < ROOM_MAX ? at : 0;
}

static void enlarge(const struct ph_record_pm *record, uint64_t at, uint64_t room)
{
    const struct ph_vma_pm *v = mapping_of(record, at);
    uint64_t page = at & ~UINT64_C(4095);
    long r = 0;
    if (*(const uint64_t *)at >= room)
        return;
    if (!(v->prot & PROT_WRITE))
        r = ph_syscall(SYS_mprotect, page, 4096, PROT_READ | PROT_WRITE);
    if (r == 0)
        *(uint64_t *)at = room;
    if (r == 0 && !(v->prot & PROT_WRITE))
        r = ph_syscall(SYS_mprotect, page, 4096, v->prot);
    if (r < 0)
        ph_r_fail(PH_EMAP, "ld.so's room for registers", at, r);
}

void ph_r_xsave_room(const struct ph_record_pm *record)
{
    uint64_t here = ph_cpu_states() & ~PH_STATES_AMX; /* the resolvers leave tiles alone */
    uint64_t base = ld_so(record);
    if (!base || here == (record->cpu.xcr0 & ~PH_STATES_AMX) || !(here & ~PH_STATES_BASE))
        return;
    uint64_t room = (ph_cpu_states_end(here) + BESIDE + 63) & ~UINT64_C(63);
    const struct ph_vma_pm *v = ph_r_table(&record->vmas);
    for (uint64_t i = 0; i < record->vmas.count; i++) {
        if (v[i].start < base || v[i].end > base + LD_SO_MAX || !(v[i].prot & PROT_EXEC) ||
            !(v[i].prot & PROT_READ))
            continue;
        for (uint64_t p = v[i].start; p + 11 <= v[i].end; p++) {
            uint64_t at = *(const uint8_t *)p == 0x48 ? number_in(record, (void *)p) : 0;
            if (at)
                enlarge(record, at, room);
        }
    }
}

void ph_r_xsave_frame(uint64_t fpstate)
{
    /* struct _fpx_sw_bytes at 464, the header of XSAVE at 512: asm/sigcontext.h */
    struct {
        uint32_t magic, extended_size;
        uint64_t states;
        uint32_t size, padding[7];
    } frame;
    uint64_t here = ph_cpu_states(), *present = (uint64_t *)(fpstate + 512);
    if (!fpstate)
        return;
    memcpy(&frame, (const void *)(fpstate + 464), sizeof frame);
    if (frame.magic != FRAME_MAGIC || !(frame.states & ~here))
        return;
    frame.states &= here;
    *present &= here;
    uint32_t size = ph_cpu_states_end(frame.states), end = FRAME_END;
    if (size < frame.size) {
        frame.size = size;
        frame.extended_size = size + 4;
        memcpy((void *)(fpstate + size), &end, sizeof end);
    }
    memcpy((void *)(fpstate + 464), &frame, sizeof frame);
}
