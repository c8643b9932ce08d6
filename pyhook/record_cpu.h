/* SPDX-License-Identifier: MIT */
/*
 * record_cpu.h - the processor features that a program may have come to rely on
 *
 * Libraries choose their code at start-up by CPUID; after recovery that choice stands. Intel
 * SDM volume 2A, CPUID; volume 1, chapter 13 (XSAVE).
 */
#ifndef PH_RECORD_CPU_H
#define PH_RECORD_CPU_H

#include "record.h"

#include <cpuid.h>

/* Register states, as bits of XCR0. */
#define PH_STATES_BASE UINT64_C(0x3) /* x87 and SSE */
#define PH_STATES_MPX  UINT64_C(0x18)
#define PH_STATES_AMX  (UINT64_C(3) << 17)

/** The names of cpu->word[], for messages. */
#define PH_CPU_WORD_NAMES                                                                      \
    "cpuid 1 ecx", "cpuid 1 edx", "cpuid 7 ebx", "cpuid 7 ecx", "cpuid 7 edx",                 \
        "cpuid 7.1 eax", "cpuid 80000001 ecx", "cpuid 80000001 edx"

/** XCR0: the register states that programs have; 0: without XSAVE. */
static inline uint64_t ph_cpu_states(void)
{
    uint32_t a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static inline void ph_cpu_read(struct ph_cpu_pm *cpu)
{
    uint32_t a, b, c, d;
    *cpu = (struct ph_cpu_pm){0};
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        cpu->word[0] = c;
        cpu->word[1] = d;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        cpu->word[2] = b;
        cpu->word[3] = c;
        cpu->word[4] = d;
    }
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d))
        cpu->word[5] = a;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) {
        cpu->word[6] = c;
        cpu->word[7] = d;
    }
    cpu->xcr0 = ph_cpu_states();
}

/* Features of other words: leaf, subleaf, register (0 is eax), bit, name. The order is that of
 * the bits of ph_cpu_more. */
#define PH_CPU_MORE(X)                                                                         \
    X(0xd, 1, 0, 0, "xsaveopt")                                                                \
    X(0xd, 1, 0, 1, "xsavec")                                                                  \
    X(0xd, 1, 0, 2, "xgetbv1")                                                                 \
    X(7, 1, 3, 4, "avx_vnni_int8")                                                             \
    X(7, 1, 3, 5, "avx_ne_convert")                                                            \
    X(7, 1, 3, 8, "amx_complex")                                                               \
    X(7, 1, 3, 10, "avx_vnni_int16")                                                           \
    X(7, 1, 3, 19, "avx10")                                                                    \
    X(7, 1, 3, 21, "apx")                                                                      \
    X(0x80000008, 0, 1, 0, "clzero")                                                           \
    X(0x80000008, 0, 1, 4, "rdpru")

static inline uint16_t ph_cpu_more(void)
{
    uint32_t r[4], more = 0, next = 1;
#define X(leaf, subleaf, reg, bit, name)                                                       \
    if (__get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]) && (r[reg] >> (bit)&1))   \
        more |= next;                                                                          \
    next <<= 1;
    PH_CPU_MORE(X)
#undef X
    return (uint16_t)more;
}

/**
 * Where the last of @p states ends in the memory that XSAVE writes, in its standard form: 512
 * and 64 bytes, then each at a place that the maker of the processor has chosen. So it also
 * tells two makers' apart. Without MPX, which nobody uses (PH_STATES_MPX).
 */
static inline uint32_t ph_cpu_states_end(uint64_t states)
{
    uint32_t end = 512 + 64, size, offset, c, d;
    for (uint32_t i = 2; i < 63; i++)
        if ((states & ~PH_STATES_MPX) >> i & 1 &&
            __get_cpuid_count(0xd, i, &size, &offset, &c, &d) && offset + size > end)
            end = offset + size;
    return end;
}

#endif
