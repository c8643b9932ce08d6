/* SPDX-License-Identifier: MIT */
/*
 * identity.h - the numbers by which the kernel knows the program, and by which it knows itself
 *
 * A recovered program is another process with other threads, under another keeper, perhaps in
 * another process group and session. What it remembers are the numbers from before. So it is
 * shown its first numbers for good, and what it passes to the kernel is translated:
 *
 *   process   its own pid; its parent's, which is the keeper
 *   thread    ids that gettid has told; the leader's is the pid
 *   group, session   those that it was started in; its own, where it leads one
 *
 * `real` numbers are the kernel's, `shown` ones the program's. Files: identity.c knows both,
 * identity_threads.c those of threads; identity_calls.c, identity_paths.c and
 * identity_syscall.c are the calls of libc that take or give one, identity_files.c the files
 * that tell one; libc_next.c finds libc's.
 */
#ifndef PH_IDENTITY_H
#define PH_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** Whether the caller is the program itself: not a child, however it was made. One system call.
 */
bool ph_identity_is_program(void);

/** The real number for what the program knows as @p shown; itself where that is no number of
 *  ours. Threads are found among the processes, as the kernel's calls find them. */
pid_t ph_identity_real(pid_t shown);
pid_t ph_identity_real_group(pid_t shown);

/** The same for what names a process or, below -1, a group: as kill takes it; as waitpid does,
 * whose processes are children, with real numbers; as getpriority does, with PRIO_*. */
pid_t ph_identity_real_target(pid_t shown);
pid_t ph_identity_real_child(pid_t shown);
id_t ph_identity_real_who(int which, id_t who);

/** The number that the program knows for @p real. */
pid_t ph_identity_shown(pid_t real);
pid_t ph_identity_shown_group(pid_t real);
pid_t ph_identity_shown_session(pid_t real);

/** @p path, or in @p buf the same with real numbers behind /proc. */
const char *ph_identity_path(const char *path, char *buf, size_t size);

/* identity_files.c */

/** At the program's first start. */
void ph_identity_files_enable(void);

/**
 * If @p path is a file that tells a recovered program its own numbers: a descriptor of a copy
 * that tells those it knows. -1 otherwise, and if there can be none; errno stays.
 */
int ph_identity_file(const char *path, int flags);

/* identity_threads.c */

/** At the program's first start, before any other of these. */
void ph_thread_enable(void);

/**
 * Where libc keeps the id of the calling thread, which is @p real. Async-signal-safe.
 * @param cleared where the kernel writes 0 when the thread ends, which wakes those who join it:
 *                the same place up to glibc 2.42, the thread's state of life since; 0: nowhere.
 * @return NULL if it is not known
 */
const volatile pid_t *ph_thread_id(pid_t real, uint64_t *cleared);

/** What gettid shows to the calling thread of the program, whose real id is @p real. */
pid_t ph_thread_shown(pid_t real);

/** The real id of a thread that knows itself as @p shown, or 0. */
pid_t ph_thread_real(pid_t shown);

/** In a forked child: the other threads are not there. */
void ph_thread_fork_child(void);

#endif
