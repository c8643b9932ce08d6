/* SPDX-License-Identifier: MIT */
/* command.c - reading a Python command line; see command.h */
#include "command.h"

#include <stdio.h>
#include <string.h>

void ph_command_parse(struct ph_command *out, int argc, char *const *argv)
{
    *out = (struct ph_command){0};
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (a[0] != '-' || a[1] == 0) {
            out->script = a[0] == '-' ? NULL : a;
            out->runs_something = true;
            return;
        }
        if (strcmp(a, "--check-hash-based-pycs") == 0) {
            i++;
            continue;
        }
        if (a[1] == '-')
            continue;
        /* Letters may be joined; c, m, X and W take the rest of the word or the next one. */
        for (const char *p = a + 1; *p; p++) {
            out->runs_something |= *p == 'i';
            if (!strchr("cmXW", *p))
                continue;
            const char *value = p[1] ? p + 1 : i + 1 < argc ? argv[++i] : "";
            if (*p == 'm')
                out->module = value;
            if (*p == 'c' || *p == 'm') {
                out->runs_something = true;
                return;
            }
            break;
        }
    }
}

bool ph_command_pool_name(const struct ph_command *command, char *buf, size_t size)
{
    const char *name = "python";
    size_t length;
    if (command->script) {
        const char *slash = strrchr(command->script, '/');
        name = slash ? slash + 1 : command->script;
        length = strlen(name);
        if (length > 3 && strcmp(name + length - 3, ".py") == 0)
            length -= 3;
    } else {
        if (command->module) {
            const char *dot = strrchr(command->module, '.');
            name = dot ? dot + 1 : command->module;
        }
        length = strlen(name);
    }
    int n = snprintf(buf, size, "%.*s.pm", (int)length, name);
    return n > 0 && (size_t)n < size;
}
