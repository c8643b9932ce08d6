/* SPDX-License-Identifier: MIT */
/* memory_limit.c - how much memory this process may use; see memory_limit.h */
#include "memory_limit.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/** The number in a file. @return UINT64_MAX: "max", or there is no such file. */
static uint64_t read_limit(const char *path)
{
    char text[32] = "";
    FILE *f = fopen(path, "re");
    if (!f)
        return UINT64_MAX;
    char *got = fgets(text, sizeof text, f), *end = text;
    fclose(f);
    unsigned long long n = got ? strtoull(text, &end, 10) : 0;
    return end == text ? UINT64_MAX : n;
}

/** The least limit of @p group and the groups that it is in. Changes @p group. */
static uint64_t least_upwards(const char *root, const char *mount, char *group,
                              const char *file)
{
    uint64_t least = UINT64_MAX;
    for (bool top = false; !top;) {
        char path[2 * PATH_MAX];
        snprintf(path, sizeof path, "%s/sys/fs/cgroup%s%s/%s", root, mount, group, file);
        uint64_t limit = read_limit(path);
        least = limit < least ? limit : least;
        char *slash = strrchr(group, '/');
        top = !slash;
        if (slash)
            *slash = 0;
    }
    return least;
}

/** Whether a list of words with commas between them has @p word. */
static bool lists(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ',') && (p[n] == 0 || p[n] == ','))
            return true;
    return false;
}

/** A line of /proc/self/cgroup: number, controllers (none: version 2), group. */
static uint64_t limit_of_line(const char *root, char *line)
{
    char *controllers = strchr(line, ':'), copy[PATH_MAX];
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return UINT64_MAX;
    *controllers++ = *group++ = 0;
    group[strcspn(group, "\n")] = 0;
    if (lists(controllers, "memory"))
        return least_upwards(root, "/memory", group, "memory.limit_in_bytes");
    if (*controllers)
        return UINT64_MAX;
    snprintf(copy, sizeof copy, "%s", group);
    uint64_t limit = least_upwards(root, "", copy, "memory.max");
    uint64_t beside = least_upwards(root, "/unified", group, "memory.max");
    return limit < beside ? limit : beside;
}

uint64_t ph_memory_group_limit(const char *root)
{
    char line[PATH_MAX + 64];
    uint64_t least = UINT64_MAX;
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *f = fopen(line, "re");
    if (!f)
        return least;
    while (fgets(line, sizeof line, f)) {
        uint64_t limit = limit_of_line(root, line);
        least = limit < least ? limit : least;
    }
    fclose(f);
    return least;
}

/** A value of /proc/meminfo, bytes; 0: it is not there. */
static uint64_t meminfo(const char *root, const char *name)
{
    char line[256];
    uint64_t found = 0;
    snprintf(line, sizeof line, "%s/proc/meminfo", root);
    FILE *f = fopen(line, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            found = strtoull(line + strlen(name) + 1, NULL, 10) * 1024;
    if (f)
        fclose(f);
    return found;
}

uint64_t ph_memory_commit_limit(const char *root)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/proc/sys/vm/overcommit_memory", root);
    if (read_limit(path) != 2)
        return UINT64_MAX;
    uint64_t limit = meminfo(root, "CommitLimit"), used = meminfo(root, "Committed_AS");
    return limit > used ? limit - used : 0;
}

uint64_t ph_memory_limit(void)
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t group = ph_memory_group_limit("");
    uint64_t commit = ph_memory_commit_limit("");
    struct rlimit addresses;
    uint64_t least = group < machine ? group : machine;
    least = commit < least ? commit : least;
    if (getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur < least)
        least = addresses.rlim_cur;
    return least;
}
