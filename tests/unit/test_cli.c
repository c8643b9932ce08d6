/* SPDX-License-Identifier: MIT */
/* What the commands have in common. */
#include "allocator/cli.h"

#include "allocator/error.h"

#include <criterion/criterion.h>
#include <string.h>

Test(cli, sizes)
{
    static const struct {
        const char *text;
        unsigned long long bytes;
    } good[] = {{"4096", 4096},         {"1K", 1024},        {"64G", 64ull << 30},
                {"64GiB", 64ull << 30}, {"2TB", 2ull << 40}, {"512m", 512ull << 20}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        unsigned long long bytes = 1;
        cr_assert(ph_cli_size(good[i].text, &bytes), "%s", good[i].text);
        cr_assert_eq(bytes, good[i].bytes, "%s", good[i].text);
    }
    static const char *const bad[] = {
        "", "G", "-1", "1X", "1GG", "1.5G", "99999999999999999999", "99999999999P"};
    unsigned long long bytes;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert(!ph_cli_size(bad[i], &bytes), "%s", bad[i]);
}

Test(cli, staging_has_bounds)
{
    unsigned long long bytes;
    cr_assert(ph_cli_staging("4M", &bytes));
    cr_assert(!ph_cli_staging("3M", &bytes));
    cr_assert(!ph_cli_staging("9T", &bytes));
}

Test(cli, what_is_not_installed_is_named)
{
    char path[4096];
    cr_assert_eq(ph_cli_installed("lib/no such file", path, sizeof path), PH_ENOENT);
    cr_assert_not_null(strstr(path, "lib/no such file"));
}
