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

/** The names of cpu->word[], for messages. */
#define PH_CPU_WORD_NAMES                                                                      \
    "cpuid 1 ecx", "cpuid 1 edx", "cpuid 7 ebx", "cpuid 7 ecx", "cpuid 7 edx",                 \
        "cpuid 7.1 eax", "cpuid 80000001 ecx", "cpuid 80000001 edx"

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
    if (cpu->word[0] & bit_OSXSAVE) {
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        cpu->xcr0 = (uint64_t)high << 32 | low;
    }
}

#endif
