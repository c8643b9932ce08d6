/* SPDX-License-Identifier: MIT */
/* A moment of the program's clock is the same moment by the kernel's: C2 of pyhook/clock.c. */
#include "pyhook/record_clock.h"

#include <criterion/criterion.h>
#include <limits.h>

static void check(struct timespec shown, int64_t offset_ns, int64_t seconds, long ns)
{
    struct timespec real = ph_clock_real_moment(shown, offset_ns);
    cr_assert(real.tv_sec == seconds && real.tv_nsec == ns,
              "%ld.%09ld by a clock that is %lld ns behind is %ld.%09ld", (long)shown.tv_sec,
              shown.tv_nsec, (long long)offset_ns, (long)real.tv_sec, real.tv_nsec);
}

Test(clock, without_an_offset_nothing_changes)
{
    check((struct timespec){100, 999999999}, 0, 100, 999999999);
    check((struct timespec){0, 0}, 0, 0, 0);
}

Test(clock, nanoseconds_carry)
{
    check((struct timespec){100, 200}, 5000000300, 94, 999999900);
    check((struct timespec){100, 999999900}, -5000000300, 106, 200);
}

Test(clock, what_has_passed_long_since_is_still_a_moment)
{
    check((struct timespec){100, 0}, INT64_C(1000000000) * 5000, 0, 1);
}

Test(clock, for_ever_stays_for_ever)
{
    check((struct timespec){LONG_MAX, 5}, INT64_C(-1000000000) * 5000, LONG_MAX, 5);
}
