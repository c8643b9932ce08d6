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

/** "oom_kill 3" in a file. @return UINT64_MAX: there is no such line. */
static uint64_t read_kills(const char *path)
{
    static const char word[] = "oom_kill ";
    char line[128];
    uint64_t kills = UINT64_MAX;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, word, sizeof word - 1) == 0)
            kills = strtoull(line + sizeof word - 1, NULL, 10);
    if (f)
        fclose(f);
    return kills;
}

/** What is asked of a group: the files that tell it in each version, and how to read them. */
struct question {
    const char *v1, *v2[2];
    uint64_t (*read)(const char *path);
    bool upwards; /* of the groups that it is in, too; else of the first that tells it */
};

/** The least answer for @p group and those it is in. */
static uint64_t ask(const char *root, const char *mount, const char *group, const char *file,
                    const struct question *q)
{
    char rest[PATH_MAX];
    uint64_t least = UINT64_MAX;
    snprintf(rest, sizeof rest, "%s", group);
    for (bool top = !file; !top;) {
        char path[2 * PATH_MAX];
        snprintf(path, sizeof path, "%s/sys/fs/cgroup%s%s/%s", root, mount, rest, file);
        uint64_t answer = q->read(path);
        least = answer < least ? answer : least;
        char *slash = strrchr(rest, '/');
        top = !slash || (!q->upwards && least != UINT64_MAX);
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
static uint64_t ask_line(const char *root, char *line, const struct question *q)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    uint64_t least = UINT64_MAX;
    if (!group)
        return least;
    *controllers++ = *group++ = 0;
    group[strcspn(group, "\n")] = 0;
    if (lists(controllers, "memory"))
        return ask(root, "/memory", group, q->v1, q);
    for (int i = 0; i < 4 && !*controllers; i++) { /* beside version 1: unified */
        uint64_t answer = ask(root, i & 1 ? "/unified" : "", group, q->v2[i / 2], q);
        least = answer < least ? answer : least;
    }
    return least;
}

static uint64_t ask_groups(const char *root, const struct question *q)
{
    char line[PATH_MAX + 64];
    uint64_t least = UINT64_MAX;
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *f = fopen(line, "re");
    while (f && fgets(line, sizeof line, f)) {
        uint64_t answer = ask_line(root, line, q);
        least = answer < least ? answer : least;
    }
    if (f)
        fclose(f);
    return least;
}

uint64_t ph_memory_group_limit(const char *root)
{
    static const struct question limit = {
        "memory.limit_in_bytes", {"memory.max", "memory.high"}, read_limit, true};
    return ask_groups(root, &limit);
}

uint64_t ph_memory_group_kills(const char *root)
{
    static const struct question kills = {
        "memory.oom_control", {"memory.events", NULL}, read_kills, false};
    return ask_groups(root, &kills);
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
