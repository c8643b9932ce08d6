/* SPDX-License-Identifier: MIT */
/*
 * memory_limit.h - how much memory this process may use
 *
 * What the machine has, or the smallest limit (beyond which a group is killed or slowed down)
 * of the memory control groups that the process is in, of both versions
 * (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst). A container sees the whole
 * machine in sysconf, and is killed for using it.
 */
#ifndef PH_MEMORY_LIMIT_H
#define PH_MEMORY_LIMIT_H

#include <stdint.h>

/**
 * @param root "" but in tests: what /proc and /sys are looked for under.
 * @return bytes; UINT64_MAX: no group limits it, or none can be read.
 */
uint64_t ph_memory_group_limit(const char *root);

/** How many processes of the group the kernel has killed for lack of memory, of the group's or
 *  of the machine's. @return UINT64_MAX: nobody tells. @param root as above. */
uint64_t ph_memory_group_kills(const char *root);

/** @return bytes that may still be promised with vm.overcommit_memory=2; UINT64_MAX: any. */
uint64_t ph_memory_commit_limit(const char *root);

/** The least of the machine's memory, the group's limit, what may still be promised, and the
 *  limit of this process's addresses (ulimit -v), in bytes. */
uint64_t ph_memory_limit(void);

#endif
