/* SPDX-License-Identifier: MIT */
/*
 * files_cannot.c - what cannot come back
 *
 * Named on stderr, once; in strict mode it fails the epoch instead, which names all of it.
 */
#include "files.h"

#include <string.h>

/** What has been complained about already, by a hash of its description: a program that opens a
 *  connection to the same place again and again hears of it once. In .bss: a recovered program
 *  does not hear it again. */
static uint64_t warned[64];
static unsigned nwarned;

/** What this epoch found that cannot come back, for strict mode; text in the agent's detail. */
static unsigned ndead;

/** In strict mode the epoch fails, and its detail names them all. */
static void note_dead(const char *what)
{
    char line[sizeof ph_agent.detail];
    ph_join(line, sizeof line,
            ndead ? ph_agent.detail : "cannot come back:", ndead ? ", " : " ", what, NULL);
    ph_agent_detail(line, NULL, 0);
    ndead++;
}

static void note_dead_descriptor(const struct ph_file_pm *f, const char *what)
{
    char line[sizeof ph_agent.detail], number[24];
    note_dead(ph_join(line, sizeof line, "descriptor ", ph_format_u64(number, (uint64_t)f->fd),
                      " (", what, ")", NULL));
}

/** Whether to complain about what has this description. The last complaint is about that. */
static bool warn_first_time(const char *what)
{
    const unsigned most = sizeof warned / sizeof warned[0];
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (const char *p = what; *p; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    for (unsigned i = 0; i < nwarned; i++)
        if (warned[i] == hash)
            return false;
    if (nwarned == most)
        return false;
    warned[nwarned++] = hash;
    if (nwarned == most)
        ph_agent_say("many descriptors cannot come back; no more of them are named", NULL);
    return nwarned < most;
}

void ph_files_cannot(const char *what, const char *advice)
{
    if (PH_CONTROL->strict)
        note_dead(what);
    else if (warn_first_time(what))
        ph_agent_say(what, " cannot come back", advice, NULL);
}

void ph_files_dead(struct ph_file_pm *f, const char *what)
{
    f->kind = PH_FILE_DEAD;
    if (PH_CONTROL->strict) {
        note_dead_descriptor(f, what);
        return;
    }
    if (!warn_first_time(what))
        return;
    char number[24];
    ph_agent_say("descriptor ", ph_format_u64(number, (uint64_t)f->fd), " (", what,
                 ") cannot come back: after a recovery ",
                 ph_file_fails(f) ? "calls with it fail" : "it will be closed at the other end",
                 "; reopen it in a pyheap.on_restore callback", NULL);
}

void ph_files_lost(const struct ph_file_pm *f, const char *what, const char *advice)
{
    char number[24];
    if (PH_CONTROL->strict)
        note_dead_descriptor(f, what);
    else if (warn_first_time(what))
        ph_agent_say("descriptor ", ph_format_u64(number, (uint64_t)f->fd), ": ", what,
                     " cannot come back", advice, NULL);
}

void ph_files_cannot_start(void)
{
    ndead = 0;
}

bool ph_files_cannot_end(void)
{
    return ndead != 0;
}
