/* SPDX-License-Identifier: MIT */
/*
 * cpu.c - whether this processor has what the program may have come to rely on
 *
 * Libraries choose their code when they are loaded. So every feature that a program could use
 * and that was there must be here; what only the kernel uses, such as virtualisation, or what a
 * microcode update brings and takes, does not matter, nor does MPX, which compilers and kernels
 * have given up. Unknown bits matter. Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
 *
 * The threads' registers are in signal frames as XSAVE has written them, and where in a frame a
 * state lies is the processor's choice; Intel's and AMD's differ from AVX-512 on.
 */
#include "recovery.h"

#include "pyhook/record_cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIT(n) (UINT32_C(1) << (n))

/** What no program's code depends on. */
static const uint32_t of_no_matter[PH_CPU_WORDS] = {
    /* dtes64 monitor ds_cpl vmx smx est tm2 cnxt_id sdbg xtpr pdcm pcid dca x2apic
     * tsc_deadline hypervisor */
    BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(10) | BIT(11) | BIT(14) |
        BIT(15) | BIT(17) | BIT(18) | BIT(21) | BIT(24) | BIT(31),
    /* vme de pse msr pae mce apic mtrr pge mca pat pse36 psn ds acpi ss htt tm pbe */
    BIT(1) | BIT(2) | BIT(3) | BIT(5) | BIT(6) | BIT(7) | BIT(9) | BIT(12) | BIT(13) | BIT(14) |
        BIT(16) | BIT(17) | BIT(18) | BIT(21) | BIT(22) | BIT(27) | BIT(28) | BIT(29) | BIT(31),
    /* tsc_adjust sgx fdp_excptn smep invpcid cqm fcs_fds mpx rdt_a smap pt */
    BIT(1) | BIT(2) | BIT(6) | BIT(7) | BIT(10) | BIT(12) | BIT(13) | BIT(14) | BIT(15) |
        BIT(20) | BIT(25),
    /* umip shstk (a program that has it on is none of ours) tme la57 mawau bus_lock_detect
     * sgx_lc pks */
    BIT(2) | BIT(7) | BIT(13) | BIT(16) | UINT32_C(0x1f) << 17 | BIT(24) | BIT(30) | BIT(31),
    /* srbds_ctrl md_clear rtm_always_abort rtm_force_abort hybrid pconfig arch_lbr ibt
     * spec_ctrl stibp flush_l1d arch_capabilities core_capabilities ssbd */
    BIT(9) | BIT(10) | BIT(11) | BIT(13) | BIT(15) | BIT(18) | BIT(19) | BIT(20) | BIT(26) |
        BIT(27) | BIT(28) | BIT(29) | BIT(30) | BIT(31),
    /* fred lkgs wrmsrns hreset */
    BIT(17) | BIT(18) | BIT(19) | BIT(22),
    /* cmp_legacy svm extapic cr8_legacy osvw ibs skinit wdt topoext perfctr_core perfctr_nb
     * bpext ptsc perfctr_llc */
    BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(9) | BIT(10) | BIT(12) | BIT(13) | BIT(22) |
        BIT(23) | BIT(24) | BIT(26) | BIT(27) | BIT(28),
    /* AMD's: what the second has too, nx, mmxext (a part of SSE), fxsr_opt, pdpe1gb */
    UINT32_C(0x3ffff) | BIT(20) | BIT(22) | BIT(23) | BIT(24) | BIT(25) | BIT(26),
};

/** Names as /proc/cpuinfo has them. */
static const struct {
    uint8_t word, bit;
    char name[20];
} feature[] = {
    {0, 0, "pni"},
    {0, 1, "pclmulqdq"},
    {0, 9, "ssse3"},
    {0, 12, "fma"},
    {0, 13, "cx16"},
    {0, 19, "sse4_1"},
    {0, 20, "sse4_2"},
    {0, 22, "movbe"},
    {0, 23, "popcnt"},
    {0, 25, "aes"},
    {0, 26, "xsave"},
    {0, 27, "osxsave"},
    {0, 28, "avx"},
    {0, 29, "f16c"},
    {0, 30, "rdrand"},
    {1, 15, "cmov"},
    {1, 25, "sse"},
    {1, 26, "sse2"},
    {2, 0, "fsgsbase"},
    {2, 3, "bmi1"},
    {2, 4, "hle"},
    {2, 5, "avx2"},
    {2, 8, "bmi2"},
    {2, 9, "erms"},
    {2, 11, "rtm"},
    {2, 16, "avx512f"},
    {2, 17, "avx512dq"},
    {2, 18, "rdseed"},
    {2, 19, "adx"},
    {2, 21, "avx512ifma"},
    {2, 23, "clflushopt"},
    {2, 24, "clwb"},
    {2, 26, "avx512pf"},
    {2, 27, "avx512er"},
    {2, 28, "avx512cd"},
    {2, 29, "sha_ni"},
    {2, 30, "avx512bw"},
    {2, 31, "avx512vl"},
    {3, 1, "avx512vbmi"},
    {3, 3, "pku"},
    {3, 5, "waitpkg"},
    {3, 6, "avx512_vbmi2"},
    {3, 8, "gfni"},
    {3, 9, "vaes"},
    {3, 10, "vpclmulqdq"},
    {3, 11, "avx512_vnni"},
    {3, 12, "avx512_bitalg"},
    {3, 14, "avx512_vpopcntdq"},
    {3, 22, "rdpid"},
    {3, 25, "cldemote"},
    {3, 27, "movdiri"},
    {3, 28, "movdir64b"},
    {3, 29, "enqcmd"},
    {4, 4, "fsrm"},
    {4, 14, "serialize"},
    {4, 16, "tsxldtrk"},
    {4, 22, "amx_bf16"},
    {4, 23, "avx512_fp16"},
    {4, 24, "amx_tile"},
    {4, 25, "amx_int8"},
    {5, 4, "avx_vnni"},
    {5, 5, "avx512_bf16"},
    {5, 21, "amx_fp16"},
    {5, 23, "avx_ifma"},
    {6, 0, "lahf_lm"},
    {6, 5, "abm"},
    {6, 6, "sse4a"},
    {6, 8, "3dnowprefetch"},
    {6, 11, "xop"},
    {6, 16, "fma4"},
    {6, 21, "tbm"},
    {6, 7, "misalignsse"},
    {7, 27, "rdtscp"},
    {7, 29, "lm"},
    {7, 30, "3dnowext"},
    {7, 31, "3dnow"},
};
#define FEATURES (sizeof feature / sizeof feature[0])

/** For tests: a feature that this machine is to do without. */
static void forget(struct ph_cpu_pm *cpu, const char *name)
{
    for (size_t i = 0; i < FEATURES; i++)
        if (strcmp(feature[i].name, name) == 0)
            cpu->word[feature[i].word] &= ~BIT(feature[i].bit);
}

static void append(char *buf, size_t size, const char *name)
{
    size_t n = strlen(buf);
    snprintf(buf + n, size - n, "%s%s", n ? ", " : "", name);
}

/** The names of bits @p missing of a word; those that have none by their place. */
static void append_missing(char *buf, size_t size, int word, uint32_t missing)
{
    static const char *const words[] = {PH_CPU_WORD_NAMES};
    for (size_t i = 0; i < FEATURES; i++)
        if (feature[i].word == word && (missing & BIT(feature[i].bit))) {
            append(buf, size, feature[i].name);
            missing &= ~BIT(feature[i].bit);
        }
    for (int bit = 0; bit < 32; bit++) {
        char place[48];
        snprintf(place, sizeof place, "%s bit %d", words[word], bit);
        if (missing & BIT(bit))
            append(buf, size, place);
    }
}

int ph_recovery_check_cpu(struct ph_recovery *r)
{
    struct ph_cpu_pm here;
    const struct ph_cpu_pm *then = &r->record->cpu;
    const char *without = getenv("PYHEAP_FORCE_CPU_WITHOUT");
    ph_cpu_read(&here);
    if (without)
        forget(&here, without);
    r->detail[0] = 0;
    for (int i = 0; i < PH_CPU_WORDS; i++)
        append_missing(r->detail, sizeof r->detail, i,
                       then->word[i] & ~here.word[i] & ~of_no_matter[i]);
    static const char *const more[] = {
#define X(leaf, subleaf, reg, bit, name) name,
        PH_CPU_MORE(X)
#undef X
    };
    unsigned missing = r->record->cpu_more & ~(unsigned)ph_cpu_more();
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        if (missing & BIT(i))
            append(r->detail, sizeof r->detail, more[i]);
    uint64_t states = then->xcr0 & ~here.xcr0 & ~PH_STATES_MPX;
    uint32_t end = r->record->xsave_size;
    if (!states && end && end != ph_cpu_states_end(then->xcr0))
        append(r->detail, sizeof r->detail, "the same layout of registers in a signal frame");
    if (states) {
        char text[48];
        snprintf(text, sizeof text, "register states 0x%llx", (unsigned long long)states);
        append(r->detail, sizeof r->detail, text);
    }
    return r->detail[0] ? PH_ECPU : 0;
}
