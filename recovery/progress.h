/* SPDX-License-Identifier: MIT */
/* progress.h - how far reading has come, on a terminal, when it takes longer than a second */
#ifndef PH_PROGRESS_H
#define PH_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct ph_progress {
    const char *command;
    uint64_t epoch;
    uint64_t began_ns, last_ns;
    bool shown; /* the line is there */
};

void ph_progress_begin(struct ph_progress *progress, const char *command, uint64_t epoch);

/** Whether a second is over, stderr is a terminal, and the line is not a moment old. */
bool ph_progress_due(const struct ph_progress *progress);

/** Show the line, if it is due. @p done and @p total in bytes. */
void ph_progress_show(void *progress, uint64_t done, uint64_t total);

/** Take the line away. */
void ph_progress_end(struct ph_progress *progress);

#endif
