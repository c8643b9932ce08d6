/* SPDX-License-Identifier: MIT */
/* What pyheap-run reads from a Python command line. */
#include "pyhook/command.h"

#include <criterion/criterion.h>
#include <string.h>

static struct ph_command command;

static const char *pool_name(char *const *argv)
{
    static char name[64];
    int argc = 0;
    while (argv[argc])
        argc++;
    ph_command_parse(&command, argc, argv);
    return ph_command_pool_name(&command, name, sizeof name) ? name : NULL;
}
#define POOL(...) pool_name((char *[]){__VA_ARGS__, NULL})

Test(command, the_pool_is_named_after_what_runs)
{
    cr_assert_str_eq(POOL("heat.py", "10*10"), "heat.pm");
    cr_assert_str_eq(POOL("a/b.c/heat.py"), "heat.pm");
    cr_assert_str_eq(POOL("tool"), "tool.pm");
    cr_assert_str_eq(POOL(".py"), ".py.pm");
    cr_assert_str_eq(POOL("-m", "pkg.sub.mod", "x.py"), "mod.pm");
    cr_assert_str_eq(POOL("-mtimeit"), "timeit.pm");
    cr_assert_str_eq(POOL("-c", "pass", "x.py"), "python.pm");
    cr_assert_str_eq(POOL("-X", "utf8", "-W", "error", "-uB", "s.py"), "s.pm");
    cr_assert_str_eq(POOL("-uXutf8", "s.py"), "s.pm");
    cr_assert_str_eq(POOL("--check-hash-based-pycs", "always", "s.py"), "s.pm");
}

Test(command, a_name_that_does_not_fit_is_refused)
{
    char small[8];
    POOL("averylongname.py");
    cr_assert(!ph_command_pool_name(&command, small, sizeof small));
}

Test(command, knows_whether_anything_runs_at_all)
{
    POOL("-V");
    cr_assert(!command.runs_something);
    cr_assert_str_eq(POOL("-qi"), "python.pm");
    cr_assert(command.runs_something);
    POOL("-X", "i");
    cr_assert(!command.runs_something);
    POOL("-");
    cr_assert(command.runs_something);
    cr_assert_null(command.script);
    POOL("x.py");
    cr_assert_str_eq(command.script, "x.py");
}
