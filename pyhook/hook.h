/* SPDX-License-Identifier: MIT */
/*
 * hook.h - the parts of libpyheap.so that touch the interpreter
 *
 * Order of reading: preload.c starts everything; python_abi.h is how Python is spoken to;
 * domains.c, libc_malloc.c and identity.c each divert one thing; module.c is what the
 * program sees. Until ph_hook_active, each of them behaves as if libpyheap.so were not there.
 */
#ifndef PH_HOOK_H
#define PH_HOOK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* preload.c */

/** Whether the hook has been installed in this process; stays true in forked children. */
bool ph_hook_active(void);

/* domains.c: Python's allocators */

/** Serve every domain and the arenas from the heap. @pre Python has not allocated yet.
 *  @param debug put the interpreter's debug hooks on top. */
void ph_domains_install(bool debug);

/** Whether every domain and the arenas are still served from the heap, seen by allocating. */
bool ph_domains_in_force(void);

/** Blocks that came from an earlier allocator and were freed or resized through the domains. */
uint64_t ph_domains_foreign(void);

/* libc_malloc.c: large blocks of libc's allocator */

/** From here on large blocks of malloc and its family come from the heap. */
void ph_libc_malloc_enable(void);

/* identity.c: pids and their like, see identity.h */

/** From here on the program keeps its numbers through recoveries. @pre called by the leader. */
void ph_identity_enable(void);

/** fork handlers; the child knows the program by its first numbers, and itself by its own. */
void ph_identity_fork_prepare(void);
void ph_identity_fork_child(void);

/* asked.c: epochs that the keeper asks for */

/** Make the thread that takes them, if the keeper may ask and there is none yet. */
void ph_asked_start(void);

/* reseed.c: secrets */

/** In a recovered program: generators of secrets in memory start anew. */
void ph_reseed(void);

/** What getpid tells the code at @p caller in the program, whose number is @p pid. */
pid_t ph_reseed_pid(const void *caller, pid_t pid);

/* rings.c: io_uring */

/** Whether the code at @p caller, which asks for a ring, is told that there are none. */
bool ph_ring_refused(const void *caller);

/* segments.c: shared memory with a name */

/** Before an epoch: which child is Python's resource tracker. The GIL is held. */
void ph_segments_note_tracker(void);

/** In a recovered program that had it: start it. The GIL is held. */
void ph_segments_track_again(void);

/* screen.c: programs with a whole screen, or a prompt */

/** In a recovered program: what curses or readline shows is drawn again. The GIL is held. */
void ph_screen_redraw(void);

/* terminal.c, of the agent */

/** Unless this is the main thread: let it come back to the call that it waits in, if it waits;
 *  0.1 s at most. A signal that comes before does not end the call. */
void ph_terminal_let_main_wait(void);

/** In a recovered program: SIGWINCH, if the window has another size than at the epoch. */
void ph_terminal_tell_size(void);

/* module.c: the built-in module */

/** Take an epoch from the thread of asked.c, which is none of Python's. Says what fails on
 * stderr.
 *  @return the epoch's number; 0: none was taken. */
uint64_t ph_module_take(const char *label);

/** Make `import pyheap` find the built-in module. @return 0 or PH_ENOMEM. */
int ph_module_register(void);

#endif
