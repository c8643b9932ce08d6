/* SPDX-License-Identifier: MIT */
/* cli.h - what pyheap's commands have in common */
#ifndef PH_CLI_H
#define PH_CLI_H

#include <stdbool.h>
#include <stddef.h>

/** "command: text (detail)" as one line on stderr; @p detail may be NULL or empty. */
void ph_cli_complain(const char *command, const char *text, const char *detail);

/** Complain about @p err (a PH_E* code) and exit with its status. */
_Noreturn void ph_cli_die(const char *command, int err, const char *detail);

/** Without /proc nothing works: end with one line that says so. */
void ph_cli_need_proc(const char *command);

/** From now on, if a page of the pool at @p path that is mapped cannot be had (SIGBUS: its disk
 * fails, or it has been cut short), end with one line and PH_EIO's status. */
void ph_cli_expect_no_pool(const char *command, const char *path);

/** Bytes from text such as 512M, 64GiB, 1T or a plain number. @return false: no such size. */
bool ph_cli_size(const char *text, unsigned long long *bytes);

/** A --staging option's value. @return false: not a size, or out of bounds. */
bool ph_cli_staging(const char *text, unsigned long long *bytes);

/** Nanoseconds from text such as 30s, 1.5m, 2h or a plain number of seconds. */
bool ph_cli_duration(const char *text, unsigned long long *ns);

/** The number of a signal, by name (USR1, SIGUSR1) or number; 0: there is none. */
int ph_cli_signal(const char *text);

/**
 * The path of an installed file, @p relative to the directory above this program's own.
 * @return 0, PH_ENOENT, PH_EINTERNAL; @p buf holds what was looked for.
 */
int ph_cli_installed(const char *relative, char *buf, size_t size);

#endif
