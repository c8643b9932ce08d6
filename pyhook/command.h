/* SPDX-License-Identifier: MIT */
/* command.h - what a Python command line runs, as far as pyheap-run must know */
#ifndef PH_COMMAND_H
#define PH_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

struct ph_command {
    const char *script;  /* file of the program; NULL with -c, -m, or from stdin */
    const char *module;  /* of -m */
    bool runs_something; /* a script, -c, -m, or -i: what is typed */
};

/** Read Python's own options from @p argv (@p argc words, without the interpreter). */
void ph_command_parse(struct ph_command *out, int argc, char *const *argv);

/**
 * The default name of the pool: the script's name without directory and .py, the module's last
 * part, or "python", with .pm. @return false when it does not fit.
 */
bool ph_command_pool_name(const struct ph_command *command, char *buf, size_t size);

#endif
