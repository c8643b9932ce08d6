/* SPDX-License-Identifier: MIT */
/* proc_stat.h - finding a field of /proc/PID/stat (proc_pid_stat(5)) */
#ifndef PH_PROC_STAT_H
#define PH_PROC_STAT_H

#include <stddef.h>
#include <string.h>

#define PH_STAT_STATE 3
#define PH_STAT_START 22 /* when the process was started, in ticks since the boot */

/** Where field @p number, 3 or more as counted from 1, begins in @p text; NULL: nowhere. Before
 * it stands the command's name, which may hold anything. */
static inline const char *ph_stat_field(const char *text, int number)
{
    const char *end = strrchr(text, ')');
    const char *at = end && end[1] == ' ' ? end + 2 : NULL;
    for (int field = PH_STAT_STATE; field < number && at; field++)
        at = (at = strchr(at, ' ')) ? at + 1 : NULL;
    return at;
}

#endif
