/* SPDX-License-Identifier: MIT */
/*
 * keeper.h - the parent process: owns the pool, drains the staging ring into it, watches over
 * the program
 *
 * Used by pyheap-run and pyheap-recover alike. It knows a child process, a ring and a pool, and
 * nothing of what the child is. Order of use: ph_keeper_open, fork and exec with the two
 * descriptors, ph_keeper_watch.
 */
#ifndef PH_KEEPER_H
#define PH_KEEPER_H

#include "keeper_check.h"
#include "keeper_files.h"
#include "pool.h"
#include "staging.h"

#include <pthread.h>
#include <signal.h>
#include <sys/types.h>

/** Epochs without the program's doing, and other wishes of the user. Zeros: none. */
struct ph_keeper_options {
    unsigned long long ring_bytes; /* 0: ph_keeper_default_ring() */
    unsigned long long every_ns;   /* ask for an epoch as often */
    int on_signal;                 /* ask for one when this signal comes, and keep the signal */
    bool final_epoch;              /* SIGTERM: a last epoch, durable, then end the program */
    bool strict;                   /* an epoch fails if something could not come back */
};

struct ph_keeper {
    const char *command; /* "pyheap-run", for messages */
    struct ph_keeper_options options;
    const char *pool_path;            /* as the user named it */
    char new_path[PATH_MAX];          /* where somebody has moved it */
    char undo_directory[PH_UNDO_MAX]; /* as in the control page, which the program can change */
    uint64_t pool_id;                 /* likewise */
    uint64_t group_kills;             /* at the start: ph_memory_group_kills */
    uint64_t cuts_forgotten;          /* those of epochs before this one (undo.h, U3) */
    struct ph_pool *pool;
    int memfd;          /* staging; the program maps it */
    int program_socket; /* the program's end; closed here once it has started */
    int socket;         /* our end */
    struct ph_control *control;
    struct ph_drain drain;
    sigset_t old_mask; /* to be set in the child before it executes */

    pthread_t drainer;
    _Atomic bool stop; /* the program has ended: drain what is there and return */
    uint64_t epoch;    /* in progress; 0: none */
    uint64_t begun_ns;
    uint64_t pages, bytes;   /* of the epoch in progress, after the filter */
    bool dropping;           /* S4 of staging.h */
    bool idle;               /* nothing has come for a while */
    _Atomic bool unfinished; /* the program has died: store its files for another machine */
    struct ph_keeper_files files;
    struct ph_check check; /* of a recovered program */
    int failure;           /* why */
    char detail[256];
};

/**
 * Block the signals that will be forwarded. First of all in main, before any thread is made:
 * a thread that does not block them would take them. @param old the mask for the program.
 */
void ph_keeper_block_signals(sigset_t *old);

/** In the child that becomes a program: signals and limits as this command was given them.
 *  @param old what ph_keeper_block_signals gave. */
void ph_keeper_unblock_signals(const sigset_t *old);

/** The options that both commands have, for getopt_long's table; getopt.h must be included. */
#define PH_KEEPER_LONG_OPTIONS                                                                 \
    {"staging", required_argument, 0, 256}, {"every", required_argument, 0, 257},              \
        {"on-signal", required_argument, 0, 258}, {"final-epoch", no_argument, 0, 259},        \
    {                                                                                          \
        "strict", no_argument, 0, 260                                                          \
    }

/**
 * Note one of these. A value that makes no sense ends @p command with a message.
 * @return false: @p option is none of them.
 */
bool ph_keeper_option(const char *command, int option, const char *value,
                      struct ph_keeper_options *out);

/**
 * Make the staging memory and the socket pair. @p pool is open for
 * writing and from now on the keeper's.
 * @param first_epoch, generation see struct ph_control.
 * @return 0; PH_ENOMEM, PH_EKERNEL: keeper->detail says what was refused.
 */
int ph_keeper_open(struct ph_keeper *keeper, const char *command, const char *pool_path,
                   struct ph_pool *pool, const struct ph_keeper_options *options,
                   uint64_t generation, uint64_t first_epoch);

/** Take that back: there is no program. The pool stays open. */
void ph_keeper_close(struct ph_keeper *keeper);

/** The default ring: an eighth of physical memory, at most 1 GiB. Touched only as used. */
uint64_t ph_keeper_default_ring(void);

/**
 * Forward signals to @p child and drain its epochs until it ends; finish the epoch in flight;
 * if it has not finished, store the files that it has mapped, for a few seconds at most; mark
 * the pool finished when the program exited with 0; say one line on stderr otherwise. Removes a
 * pool without any epoch. Closes the pool.
 * @return the wait status of the program, as of waitpid(2).
 */
int ph_keeper_watch(struct ph_keeper *keeper, pid_t child);

/** End this process as the program ended: with its exit status, or by the same signal. */
_Noreturn void ph_keeper_exit_like(int wait_status);

#endif
