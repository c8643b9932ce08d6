/* SPDX-License-Identifier: MIT */
/* test_hook_python_abi.c - which interpreters are refused, and why */
#include "pyhook/python_abi.h"

#include <criterion/criterion.h>
#include <string.h>

static void refused_for(const char *version, const char *reason)
{
    const char *why = ph_python_refusal(version);
    cr_assert_not_null(why, "%s is not refused", version);
    cr_expect_not_null(strstr(why, reason), "%s: %s", version, why);
}

Test(python_abi, served_versions_are_not_refused)
{
    static const char *const versions[] = {
        "3.9.0 (default, Oct  5 2020, 10:00:00) \n[GCC 10.2.1]",
        "3.10.13 (main, Aug 24 2023, 22:48:59) [GCC 12.2.0]",
        "3.11.2 (main, Apr 28 2025, 14:11:48) [GCC 12.2.0]",
        "3.13.0+ (heads/3.13:abc, Oct 10 2024) [Clang 18]",
        "3.13.0rc2 (main) [GCC 12.2.0]",
        "3.13.0 experimental free-threading build (main) [GCC]",
    };
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++)
        cr_expect_null(ph_python_refusal(versions[i]), "%s", versions[i]);
}

Test(python_abi, old_versions_are_refused)
{
    refused_for("3.8.20 (default) [GCC]", "older than 3.9");
    refused_for("3.1 (r31:73572)", "older than 3.9");
    refused_for("2.7.18 (default)", "older than 3.9");
    refused_for("", "older than 3.9");
    refused_for("unknown", "older than 3.9");
}

Test(python_abi, no_python_in_this_process)
{
    cr_expect_null(ph_python_version());
}

Test(python_abi, first_missing_symbol_is_named)
{
    cr_expect_str_eq(ph_python_load("3.12.0 (main)"), "PyMem_GetAllocator");
    cr_expect_str_eq(ph_python_load("3.13.0a6 experimental free-threading build (main)"),
                     "PyUnstable_Module_SetGIL");
}
