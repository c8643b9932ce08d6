/* SPDX-License-Identifier: MIT */
/*
 * pyheap.h - epochs from extension modules in C
 *
 * The symbol comes from the preloaded library, so it is weak: an extension need not be linked
 * with anything, and in plain Python the function's address is NULL.
 *
 *     if (pyheap_epoch && (rc = pyheap_epoch("step")) != 0) ...
 */
#ifndef PYHEAP_H
#define PYHEAP_H

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Take an epoch, as pyheap.epoch(label) does in Python: sys.stdout and sys.stderr are flushed
 * first, and the callbacks of pyheap.on_restore run when it returns in a recovered program.
 * @param label UTF-8 text for people, or NULL.
 * @pre the calling thread holds the GIL (in a free-threaded build: has a thread state, as for
 * any call of Python's) and has no Python exception set.
 * @return 0; -1 when flushing or a callback raised, the Python exception is then set; or a
 *         negative code of docs/errors.md, without a Python exception: PH_ENOGIL (-1024) when
 *         the thread does not hold the GIL, PH_EINACTIVE (-1025) when the program was not
 *         started by pyheap-run, PH_EFORKED (-1022) in a forked child, and those of an epoch.
 */
int pyheap_epoch(const char *label) __attribute__((weak));

#ifdef __cplusplus
}
#endif

#endif
