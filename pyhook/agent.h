/* SPDX-License-Identifier: MIT */
/*
 * agent.h - pyheap inside the program
 *
 * The agent takes the epochs: it parks the threads, finds the changed pages, copies them and
 * the process record to the staging ring, and lets the threads go on. It knows nothing of
 * Python; the module (module.c) is its only caller. It needs libc alone.
 */
#ifndef PH_AGENT_H
#define PH_AGENT_H

#include "allocator/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Connect to the keeper with what pyheap-run left in the environment variable PYHEAP_CONTROL,
 * which is removed. Called once, from the preload's constructor, before the program has
 * threads. Moves pyheap's own descriptors high and makes them close-on-exec.
 * @return 0; PH_EINACTIVE when this process is not the one that pyheap-run started; another
 *         code when pyheap-run and the library do not fit together or memory is refused.
 */
int ph_agent_init(void);

/** Whether epochs can be taken: connected, and not in a forked child. */
bool ph_agent_active(void);

/** Whether this process is a forked child of the program. */
bool ph_agent_forked(void);

/**
 * Take an epoch. Returns twice: now, and again in every recovered program.
 * The caller is a thread that may call Python, with the GIL where there is one. Epochs of
 * several threads are taken one after the other.
 * @param label text for people, or NULL; cut to PH_LABEL_MAX.
 * @param number receives the epoch's number.
 * @param recovered if not NULL, receives whether this is the return in a recovered program.
 * @return 0; PH_EINACTIVE, PH_EFORKED, PH_EKEEPER, PH_ETHREAD, PH_EKERNEL, PH_ENOMEM; or the
 *         failure of an earlier epoch that became known only now (PH_EFULL, PH_EPOOLSIZE,
 * PH_EIO): reported once, no epoch is taken by that call, and the next call tries again.
 */
int ph_agent_epoch(const char *label, uint64_t *number, bool *recovered);

/**
 * Wait until epoch @p number is durable, at most @p timeout_ms milliseconds.
 * Does not need the GIL. @return 0 when durable; PH_EINTR when the time is over or a signal
 * came: call again; the epoch's failure; PH_EKEEPER, PH_EFORKED, PH_EINACTIVE.
 */
int ph_agent_wait(uint64_t number, int timeout_ms);

struct ph_agent_status {
    uint64_t epoch;         /* number of the newest epoch taken; 0: none */
    uint64_t durable;       /* number of the newest durable epoch; 0: none */
    uint64_t recoveries;    /* how often this program has been recovered */
    uint64_t pages_staged;  /* by the newest epoch */
    uint64_t pages_ahead;   /* part of it staged while the program still ran */
    uint64_t bytes_staged;  /* by the newest epoch: pages and record */
    uint64_t pages_written; /* by the newest durable epoch, after the hash filter */
    uint64_t bytes_written; /* by the newest durable epoch, to the log */
    uint64_t total_pages_staged, total_pages_written; /* since start or recovery */
    uint64_t total_bytes_staged, total_bytes_written;
    uint64_t pause_ns;     /* the program stood still for the newest epoch */
    uint64_t wait_ns;      /* part of it spent waiting for room in the staging ring */
    uint64_t commit_ns;    /* from the first page staged to durable, newest durable epoch */
    uint64_t staging_size; /* bytes */
    const char *tracker;   /* how changed pages are found, e.g. "userfaultfd" */
};
void ph_agent_get_status(struct ph_agent_status *out);

/**
 * Have recovery leave the file of descriptor @p fd as it is; or what has the absolute name
 * @p path, and all that is in it.
 * @return 0, PH_EFILES: no such descriptor, no such name; PH_ENOMEM: more than 256 files, or
 * 64 KiB of names.
 */
int ph_files_keep(int fd);
int ph_files_keep_path(const char *path);

/** Text with the details of the last failure of this thread's call, or "". */
const char *ph_agent_error_detail(void);

/** The pid that the program knows: its first one, in every recovered program; in its forked
 *  children too. 0: inactive. */
int ph_agent_first_pid(void);

/** The kernel's numbers of what is around the program: its keeper's pid, and the process group
 *  and session that the keeper, and so the program at first, is in. @pre not in a child. */
struct ph_agent_outside {
    int parent, group, session;
};
void ph_agent_get_outside(struct ph_agent_outside *out);

/** fork handlers; the child becomes plain memory to pyheap. */
void ph_agent_fork_prepare(void);
void ph_agent_fork_child(void);

#endif
