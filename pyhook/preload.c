/* SPDX-License-Identifier: MIT */
/*
 * preload.c - where libpyheap.so starts
 *
 * pyheap-run executes the interpreter with LD_PRELOAD naming this library, PYTHONMALLOC=pyheap
 * (or pyheap_debug), and PYHEAP_CONTROL. The name given may be a chain of shell scripts that
 * finds the interpreter in the end, so the library is loaded into anything on the way:
 *
 *   P1  Where there is no Python in the process, or PYTHONMALLOC does not name pyheap, nothing
 *       happens and the environment stays, for the process that may yet be executed.
 *   P2  In the Python process that pyheap-run started, everything is installed here, before
 *       the interpreter allocates its first block. It must be here: any other value of
 *       PYTHONMALLOC than its own makes the interpreter end or replace the hooks. Which value
 *       the user gave pyheap-run matters only where it asks for the debug hooks.
 *   P3  In any Python the three variables are removed before it reads them, so children of the
 *       program, and helpers written in Python on the way, are ordinary Python.
 *   P4  There is no destructor and the library is never unloaded: the interpreter still frees
 *       blocks when the process ends.
 *
 * What cannot go on ends the process here, with one line and the status of error.h, because
 * a program that runs on without epochs would look protected and not be.
 */
#include "hook.h"

#include "agent.h"
#include "clock.h"
#include "allocator/heap.h"
#include "python_abi.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY "libpyheap.so"

static bool active;

bool ph_hook_active(void)
{
    return active;
}

static _Noreturn void refuse(int err, const char *detail)
{
    dprintf(STDERR_FILENO, "pyheap: %s%s%s%s\n", ph_error_text(err), *detail ? " (" : "",
            detail, *detail ? ")" : "");
    _exit(ph_error_status(err));
}

static bool names_library(const char *entry, size_t length)
{
    const size_t name = sizeof LIBRARY - 1;
    if (length < name || memcmp(entry + length - name, LIBRARY, name) != 0)
        return false;
    return length == name || entry[length - name - 1] == '/';
}

/* Take this library out of LD_PRELOAD. In place: the list only gets shorter, and nothing is
 * allocated. Entries end at a space or a colon (ld.so(8)). */
static void leave_ld_preload(void)
{
    char *list = getenv("LD_PRELOAD");
    if (!list)
        return;
    char *out = list;
    for (const char *entry = list; *entry;) {
        size_t length = strcspn(entry, " :");
        const char *next = entry + length + (entry[length] != '\0');
        if (length > 0 && !names_library(entry, length)) {
            if (out > list)
                *out++ = ':';
            memmove(out, entry, length);
            out += length;
        }
        entry = next;
    }
    *out = '\0';
    if (out == list)
        unsetenv("LD_PRELOAD");
}

static void leave_environment(void)
{
    unsetenv("PYTHONMALLOC");
    unsetenv("PYHEAP_CONTROL");
    leave_ld_preload();
}

static void fork_prepare(void)
{
    ph_agent_fork_prepare(); /* before any lock is taken: it parks the other threads */
    ph_identity_fork_prepare();
    ph_heap_fork_prepare();
}

static void fork_child(void)
{
    ph_heap_fork_child();
    ph_agent_fork_child();
    ph_identity_fork_child();
    ph_clock_fork_child();
}

static void activate(const char *version, bool debug)
{
    const char *obstacle = ph_python_load(version);
    if (obstacle) {
        char detail[256]; /* the version up to the build's date and compiler */
        const char *build = strstr(version, " (");
        int length = (int)(build ? (size_t)(build - version) : strlen(version));
        snprintf(detail, sizeof detail, "Python %.*s: %s", length, version, obstacle);
        refuse(PH_EPYTHON, detail);
    }
    int err = ph_heap_init();
    if (err != 0)
        refuse(err, err == PH_EMAP ? "the heap's address range"
                                   : "the heap's address range; is there a limit, ulimit -v or "
                                     "-d, or is vm.overcommit_memory 2?");
    err = ph_module_register();
    /* First in the list: so our prepare handler is the last to run, and the others may
     * allocate; and our child handler the first. */
    if (err == 0 && pthread_atfork(fork_prepare, ph_heap_fork_parent, fork_child) != 0)
        err = PH_ENOMEM;
    if (err != 0)
        refuse(err, "");
    ph_domains_install(debug);
    ph_libc_malloc_enable();
    ph_identity_enable();
    active = true;
    ph_asked_start();
}

__attribute__((constructor)) static void start(void)
{
    const char *wanted = getenv("PYTHONMALLOC");
    if (!wanted)
        return;
    bool debug = strcmp(wanted, "pyheap_debug") == 0;
    if (!debug && strcmp(wanted, "pyheap") != 0)
        return;
    const char *version = ph_python_version();
    if (!version)
        return;
    if (!getenv("PYHEAP_CONTROL"))
        refuse(PH_EINACTIVE, "PYTHONMALLOC=pyheap is set by pyheap-run: pyheap-run SCRIPT ...");
    int err = ph_agent_init();
    if (err != 0 && err != PH_EINACTIVE)
        refuse(err, ph_agent_error_detail());
    if (err == 0)
        activate(version, debug);
    leave_environment();
}
