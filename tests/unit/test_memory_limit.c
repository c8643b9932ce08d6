/* SPDX-License-Identifier: MIT */
/* The limits of memory control groups, in both versions, of a made-up /proc and /sys. */
#include "allocator/memory_limit.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/test-memory-limit-XXXXXX";

static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        mkdir(full, 0700);
    }
    FILE *f = fopen(full, "w");
    cr_assert(f, "%s", full);
    fputs(text, f);
    fclose(f);
}

static void make(void)
{
    cr_assert(mkdtemp(root));
}

static void clean(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(memory_limit, .init = make, .fini = clean);

Test(memory_limit, is_none_without_groups)
{
    cr_assert_eq(ph_memory_group_limit(root), UINT64_MAX);
    put("/proc/self/cgroup", "0::/\n");
    cr_assert_eq(ph_memory_group_limit(root), UINT64_MAX);
    put("/proc/self/cgroup", "nonsense\n\n:\n1:\n");
    cr_assert_eq(ph_memory_group_limit(root), UINT64_MAX);
}

Test(memory_limit, is_the_least_of_the_group_and_those_it_is_in)
{
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put("/sys/fs/cgroup/a/b/c/memory.max", "max\n");
    put("/sys/fs/cgroup/a/memory.max", "1000000\n");
    cr_assert_eq(ph_memory_group_limit(root), 1000000);
    put("/sys/fs/cgroup/a/b/memory.max", "2000000\n");
    cr_assert_eq(ph_memory_group_limit(root), 1000000);
    put("/sys/fs/cgroup/a/b/c/memory.max", "5000\n");
    cr_assert_eq(ph_memory_group_limit(root), 5000);
}

/* Beyond memory.high a group is slowed down until it hardly goes on. */
Test(memory_limit, is_also_where_a_group_is_slowed_down)
{
    put("/proc/self/cgroup", "0::/a\n");
    put("/sys/fs/cgroup/a/memory.max", "9000\n");
    put("/sys/fs/cgroup/a/memory.high", "max\n");
    cr_assert_eq(ph_memory_group_limit(root), 9000);
    put("/sys/fs/cgroup/a/memory.high", "8000\n");
    cr_assert_eq(ph_memory_group_limit(root), 8000);
}

Test(memory_limit, kills_are_those_of_the_group_itself)
{
    cr_assert_eq(ph_memory_group_kills(root), UINT64_MAX);
    put("/proc/self/cgroup", "4:memory:/x\n0::/a/b\n");
    put("/sys/fs/cgroup/a/memory.events", "oom 9\noom_kill 9\n");
    put("/sys/fs/cgroup/a/b/memory.events", "high 5\nmax 6\noom 3\noom_kill 12\n");
    cr_assert_eq(ph_memory_group_kills(root), 12);
    put("/sys/fs/cgroup/memory/x/memory.oom_control", "under_oom 0\noom_kill 2\n");
    cr_assert_eq(ph_memory_group_kills(root), 2);
}

/* A container sees its own group as the root, whatever it is called outside. */
Test(memory_limit, is_found_in_a_container)
{
    put("/proc/self/cgroup", "0::/outside/name\n");
    put("/sys/fs/cgroup/memory.max", "7000\n");
    cr_assert_eq(ph_memory_group_limit(root), 7000);
}

Test(memory_limit, is_found_in_version_1_and_beside_version_2)
{
    put("/proc/self/cgroup", "9:cpu,cpuacct:/x\n4:hugetlb,memory:/x/y\n0::/z\n");
    put("/sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "300\n");
    cr_assert_eq(ph_memory_group_limit(root), 300);
    put("/sys/fs/cgroup/unified/z/memory.max", "200\n");
    cr_assert_eq(ph_memory_group_limit(root), 200);
}

Test(memory_limit, is_never_more_than_the_machine_has)
{
    cr_assert_leq(ph_memory_limit(),
                  (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
    cr_assert_gt(ph_memory_limit(), 0);
}
