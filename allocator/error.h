/* SPDX-License-Identifier: MIT */
/*
 * error.h - every way in which pyheap can fail
 *
 * Functions return 0 or one of these negative codes. Each has one line that says what
 * happened and what to do next, and the status with which pyheap-run and pyheap-recover exit
 * when it ends them. Statuses 70 to 99 are pyheap's own; any other status of pyheap-run or
 * pyheap-recover is that of the program. docs/errors.md is the table for users.
 */
#ifndef PH_ERROR_H
#define PH_ERROR_H

#include <stdbool.h>

/* X(name, code, exit status, text) */
#define PH_ERRORS(X)                                                                           \
    X(PH_EUSAGE, -1000, 70, "wrong use of the command; see --help")                            \
    X(PH_ENOENT, -1001, 71, "no such file")                                                    \
    X(PH_EACCES, -1002, 72, "no right to use this file; check its owner and mode")             \
    X(PH_EOWNER, -1003, 72,                                                                    \
      "the pool belongs to another user or others can write to it; a pool is executed on "     \
      "recovery, so give it to yourself and set mode 0600")                                    \
    X(PH_ENOTPOOL, -1004, 73, "not a pyheap pool; name the .pm file that pyheap-run made")     \
    X(PH_ETRUNC, -1005, 74, "the pool is truncated; copy it again, whole")                     \
    X(PH_ENEWER, -1006, 75,                                                                    \
      "the pool was written by a newer or an older pyheap, in another format; use that "       \
      "version")                                                                               \
    X(PH_ECORRUPT, -1007, 76,                                                                  \
      "the pool is damaged; try an older epoch (pyheap-recover --list, --epoch N)")            \
    X(PH_EBUSY, -1008, 77, "the pool is in use by another pyheap; wait for it or end it")      \
    X(PH_EUNFINISHED, -1009, 78,                                                               \
      "the pool holds a run that has not finished; continue it with pyheap-recover, or "       \
      "discard it with pyheap-run --fresh")                                                    \
    X(PH_EFINISHED, -1010, 79, "the run in this pool has finished; nothing to recover")        \
    X(PH_ENOEPOCH, -1011, 80, "the pool holds no such epoch; see pyheap-recover --list")       \
    X(PH_EFULL, -1012, 81,                                                                     \
      "no space left for the epoch; the last durable epoch is safe: free disk space, and "     \
      "the next epoch() tries again")                                                          \
    X(PH_EPOOLSIZE, -1013, 82,                                                                 \
      "the pool has reached its size; the last durable epoch is safe: start with a larger "    \
      "--pool-size")                                                                           \
    X(PH_EIO, -1014, 83,                                                                       \
      "reading or writing the pool failed; the last durable epoch is safe: check the disk")    \
    X(PH_ENOMEM, -1015, 84,                                                                    \
      "out of memory; raise a limit that there is on it (ulimit -v or -d, "                    \
      "vm.overcommit_memory=2, a control group), use a smaller --staging or a larger machine") \
    X(PH_EKERNEL, -1016, 85,                                                                   \
      "this kernel lacks or denies something that pyheap cannot do without; use Linux 6.7 "    \
      "or newer with /proc")                                                                   \
    X(PH_ECPU, -1017, 86,                                                                      \
      "this processor lacks features that the program was using; recover on one that has "     \
      "them")                                                                                  \
    X(PH_EFILES, -1018, 87,                                                                    \
      "a file that the program uses is missing or has changed; put it back")                   \
    X(PH_EMAP, -1019, 88,                                                                      \
      "an address range that the program needs is taken; recover again, and report this if "   \
      "it stays")                                                                              \
    X(PH_EPYTHON, -1020, 89,                                                                   \
      "no usable Python interpreter; name a CPython 3.9 to 3.14 with --python")                \
    X(PH_EKEEPER, -1021, 90,                                                                   \
      "the keeper is gone, so no epochs can be taken; the program goes on, and the last "      \
      "durable epoch is safe")                                                                 \
    X(PH_EFORKED, -1022, 91,                                                                   \
      "this is a forked child; only the program that pyheap-run started can take epochs")      \
    X(PH_ETHREAD, -1023, 92,                                                                   \
      "a thread could not be stopped for the epoch; nothing was saved, try again")             \
    X(PH_ENOGIL, -1024, 93,                                                                    \
      "epoch called from a thread that does not hold the interpreter lock; call it from "      \
      "Python")                                                                                \
    X(PH_EINACTIVE, -1025, 94, "not running under pyheap-run; start the program with it")      \
    X(PH_ERUNNING, -1026, 95,                                                                  \
      "the program of this pool is still running; end it before recovering")                   \
    X(PH_EINTERNAL, -1027, 96, "internal error in pyheap; please report it")                   \
    X(PH_EUNSUPPORTED, -1028, 97, "the program holds something that pyheap cannot save")       \
    X(PH_EINTR, -1029, 98, "interrupted")                                                      \
    X(PH_EROFS, -1030, 72,                                                                     \
      "the file system is mounted read-only; mount it to be written to, or use a pool on "     \
      "another one (pyheap-run --pool FILE; a copy, by cp --sparse=always)")                   \
    X(PH_EMFILE, -1031, 99,                                                                    \
      "not enough descriptors are left; every durable epoch is safe: raise ulimit -n")

enum ph_error {
#define X(name, code, status, text) name = code,
    PH_ERRORS(X)
#undef X
};

/** The code for a failed system call's errno, PH_EIO if there is no better one. */
int ph_error_of(int error_number);

/** The line of text for @p err (0 or a PH_E* code); never NULL. */
const char *ph_error_text(int err);

/** The name of @p err, such as "PH_EFULL"; never NULL. */
const char *ph_error_name(int err);

/** Whether @p status is one of those statuses, but 0. */
bool ph_error_is_status(int status);

/** The exit status of pyheap's commands for @p err; 0 for 0. */
int ph_error_status(int err);

#endif
