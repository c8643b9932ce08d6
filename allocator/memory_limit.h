/* SPDX-License-Identifier: MIT */
/*
 * memory_limit.h - how much memory this process may use
 *
 * What the machine has, or the smallest limit of the memory control groups that the process is
 * in, of both versions (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst). A
 * container sees the whole machine in sysconf, and is killed for using it.
 */
#ifndef PH_MEMORY_LIMIT_H
#define PH_MEMORY_LIMIT_H

#include <stdint.h>

/**
 * @param root "" but in tests: what /proc and /sys are looked for under.
 * @return bytes; UINT64_MAX: no group limits it, or none can be read.
 */
uint64_t ph_memory_group_limit(const char *root);

/** The least of the machine's memory and the group's limit, in bytes. */
uint64_t ph_memory_limit(void);

#endif
