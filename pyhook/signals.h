/* SPDX-License-Identifier: MIT */
/*
 * signals.h - system calls go on as if no epoch had interrupted them
 */
#ifndef PH_SIGNALS_H
#define PH_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

/** Find out whether this processor lets marks be kept in a frame. When the program starts. */
void ph_signals_init(void);

/** In the parking signal's handler, first of all: set an interrupted call back. What @p info
 *  points to is used for that; it must be where the kernel has put it. */
void ph_signals_set_back(ucontext_t *frame, siginfo_t *info);

/**
 * Leave the handler of the parking signal. Does not return.
 * The frame's mask is set first, so that signals that waited are delivered; then @p left
 * becomes 1: from then on this thread gets what is sent to the process.
 */
_Noreturn void ph_signals_leave(ucontext_t *frame, _Atomic uint32_t *left)
    __attribute__((visibility("hidden")));

/** The signals that the keeper of now takes are not the program's (S6). Again in each life. */
void ph_signals_withhold(void);
/** Those, bit N-1 for signal N. */
uint64_t ph_signals_withheld(void);

/** Before and after the program sends a signal to a thread, which may be parked by then. */
void ph_signals_directed(void);
/** While all are parked: whether it has, since the last time. */
bool ph_signals_were_directed(void);

#endif
