/* SPDX-License-Identifier: MIT */
/* Whether a processor will do: what is missing is named, what no program uses is ignored. */
#include "recovery/recovery.h"

#include "pyhook/record_cpu.h"

#include <criterion/criterion.h>
#include <string.h>

static struct ph_record_pm record;
static struct ph_recovery recovery;

static int check(void)
{
    recovery = (struct ph_recovery){.record = &record};
    return ph_recovery_check_cpu(&recovery);
}

/** A bit of @p word that this machine does not have, of those in @p among; 0: it has all. */
static uint32_t not_here(int word, uint32_t among)
{
    struct ph_cpu_pm here;
    ph_cpu_read(&here);
    uint32_t missing = among & ~here.word[word];
    return missing & (~missing + 1);
}

Test(cpu, this_one_will_do)
{
    ph_cpu_read(&record.cpu);
    cr_assert_eq(check(), 0, "%s", recovery.detail);
}

Test(cpu, a_missing_feature_is_named)
{
    uint32_t xop_or_fma4 = not_here(6, 1u << 11 | 1u << 16);
    if (!xop_or_fma4)
        cr_skip_test("this processor has both of what was to be missing");
    ph_cpu_read(&record.cpu);
    record.cpu.word[6] |= xop_or_fma4;
    cr_assert_eq(check(), PH_ECPU);
    cr_assert(strstr(recovery.detail, "xop") || strstr(recovery.detail, "fma4"), "%s",
              recovery.detail);
}

Test(cpu, one_without_a_name_is_named_by_its_place)
{
    uint32_t bit = not_here(5, 0x0000f000u);
    if (!bit)
        cr_skip_test("this processor has all that was to be missing");
    ph_cpu_read(&record.cpu);
    record.cpu.word[5] |= bit;
    cr_assert_eq(check(), PH_ECPU);
    cr_assert(strstr(recovery.detail, "cpuid 7.1 eax bit 1"), "%s", recovery.detail);
}

Test(cpu, what_the_kernel_alone_uses_does_not_matter)
{
    ph_cpu_read(&record.cpu);
    record.cpu.word[0] |= 1u << 5 | 1u << 31;             /* vmx, hypervisor */
    record.cpu.word[3] |= 1u << 7;                        /* shstk */
    record.cpu.word[7] |= 0x02c3f3ffu;                    /* AMD's copies of word 1 */
    record.cpu.word[2] |= 1u << 7 | 1u << 20;             /* smep, smap */
    record.cpu.word[4] |= 1u << 10 | 1u << 26 | 1u << 31; /* md_clear, spec_ctrl, ssbd */
    record.cpu.word[6] |= 1u << 2;                        /* svm */
    cr_assert_eq(check(), 0, "%s", recovery.detail);
}

Test(cpu, of_the_words_that_came_later_too)
{
    ph_cpu_read(&record.cpu);
    record.xsave_size = 0;
    record.cpu_more = ph_cpu_more();
    cr_assert_eq(check(), 0, "%s", recovery.detail);
    unsigned missing = 0x1ffu & ~record.cpu_more; /* all but AMD's */
    if (!missing)
        cr_skip_test("this processor has all that was to be missing");
    record.cpu_more = UINT16_MAX;
    cr_assert_eq(check(), PH_ECPU);
    cr_assert(!strstr(recovery.detail, "xsavec") == !(missing & 2), "%s", recovery.detail);
    cr_assert(!strstr(recovery.detail, "avx10") == !(missing & 1u << 7), "%s", recovery.detail);
    record.cpu_more = 0;
}

Test(cpu, mpx_does_not_matter)
{
    ph_cpu_read(&record.cpu);
    record.xsave_size = (uint16_t)ph_cpu_states_end(record.cpu.xcr0);
    record.cpu.word[2] |= 1u << 14;
    record.cpu.xcr0 |= PH_STATES_MPX;
    cr_assert_eq(check(), 0, "%s", recovery.detail);
}

Test(cpu, the_same_states_at_other_places_will_not_do)
{
    ph_cpu_read(&record.cpu);
    record.xsave_size = (uint16_t)(ph_cpu_states_end(record.cpu.xcr0) + 256); /* as Intel's */
    cr_assert_eq(check(), PH_ECPU);
    cr_assert(strstr(recovery.detail, "layout of registers"), "%s", recovery.detail);
    record.xsave_size = 0; /* an older pool */
    cr_assert_eq(check(), 0, "%s", recovery.detail);
}

Test(cpu, missing_register_states_are_named)
{
    ph_cpu_read(&record.cpu);
    record.cpu.xcr0 |= UINT64_C(1) << 62;
    cr_assert_eq(check(), PH_ECPU);
    cr_assert(strstr(recovery.detail, "register states 0x4000000000000000"), "%s",
              recovery.detail);
}
