/* SPDX-License-Identifier: MIT */
/* restorer.h - what the parts of the restorer share; no libc behind any of it */
#ifndef PH_RESTORER_H
#define PH_RESTORER_H

#include "plan.h"

size_t ph_r_length(const char *s);
bool ph_r_equal(const char *a, const char *b);

/** Whether [s, end) has @p what in it. */
bool ph_r_contains(const char *s, const char *end, const char *what);

/** A number in hexadecimal; @p p goes on behind it. */
uint64_t ph_r_hex(const char **p);

void ph_r_say(const char *s);

/** End this process with one line on stderr; with the exit status that belongs to @p code. */
_Noreturn void ph_r_die(int status, const char *what, uint64_t address, long err);
_Noreturn void ph_r_fail(int code, const char *what, uint64_t address, long err);

/** End this process without a word: pyheap-recover says it. */
_Noreturn void ph_r_leave(int code);

/** A table of the record. */
const void *ph_r_table(const struct ph_table_pm *t);

/** mmap at exactly @p start, never over anything; @p what names it if that fails. */
void ph_r_map_at(uint64_t start, uint64_t size, int prot, int flags, int fd, uint64_t offset,
                 const char *what);

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memset(void *to, int c, size_t n);

/** Map all of the program's memory and pyheap's own ranges, and fill and verify them. */
void ph_r_memory(struct ph_plan *plan, const struct ph_record_pm *record);

/** Tell pyheap-recover how far this is. */
void ph_r_report(enum ph_plan_state state);

/** When all memory is right: files are as they were at the epoch. */
void ph_r_files(struct ph_plan *plan, const struct ph_record_pm *record);

/** Whether @p page has this checksum, but for its mark. */
bool ph_r_page_right(const void *page, const struct ph_sum_pm *sum);

/**
 * Make the saved vdso image at @p at (@p size bytes, writable) jump to this kernel's at
 * @p now: the entry of every function in it is overwritten. Functions that this kernel's lacks
 * become system calls. @p now_size 0: there is none.
 */
void ph_r_vdso_jumps(uint64_t at, uint64_t size, uint64_t now, uint64_t now_size);

/** Make the program's threads; they wait. @return the leader's, which this one is to become. */
const struct ph_thread_pm *ph_r_threads(const struct ph_record_pm *record);

/** Signals that were under way at the epoch. */
void ph_r_send_pending(void);

/** The others may get ready; then, with all of them, the leader goes. */
void ph_r_owners_fixed(void);
_Noreturn void ph_r_resume(const struct ph_thread_pm *t);

/** Write the threads' new ids into locks that name their owner by its old id. */
void ph_r_fix_owners(const struct ph_plan *plan, const struct ph_record_pm *record);

/** Let the program's clocks go on from the epoch, in the calls that wait for a moment too. */
void ph_r_clocks(const struct ph_plan *plan, const struct ph_record_pm *record);

/** Make room for this processor's registers where glibc saves them (V1). */
void ph_r_xsave_room(const struct ph_record_pm *record);

/** Make a thread's frame one that this kernel takes as a whole (V2). @param fpstate its address
 */
void ph_r_xsave_frame(uint64_t fpstate);

/** Timers of timer_create: make them, when all threads are there; start them. */
void ph_r_timers(const struct ph_record_pm *record);
void ph_r_timers_start(const struct ph_record_pm *record);

/** Whether @p sig, which was pending, comes by itself when they start. */
bool ph_r_timers_signal(const struct ph_record_pm *record, int sig);

#endif
