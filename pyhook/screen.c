/* SPDX-License-Identifier: MIT */
/*
 * screen.c - a curses program draws its whole screen again
 *
 * curses writes only what has changed since it wrote last, to a terminal that may be another
 * one now, or has shown a shell in between. What it has for coming back from a shell (endwin
 * and doupdate, curs_initscr(3x)) sets the terminal's modes and draws everything. That is done
 * while the main thread waits for a key, in the middle of curses but at rest, and before it
 * hears that the window has another size. The same for a line that readline edits: its prompt
 * is shown again.
 */
#include "hook.h"

#include "python_abi.h"

#include <dlfcn.h>

/** Call a function of curses without arguments. @return its truth, -1: it raised. */
static int call(PyObject *curses, const char *name)
{
    PyObject *result = ph_py.PyObject_CallMethod(curses, name, NULL);
    int truth = result ? ph_py.PyObject_IsTrue(result) : -1;
    if (result)
        ph_py.Py_DecRef(result);
    if (truth < 0)
        ph_py.PyErr_Clear(); /* it has not been started, or its terminal is gone */
    return truth;
}

#define RL_STATE_CALLBACK 0x0080000ul /* readline.h: between two keys of a line */

static void redraw_line(void)
{
    void *library = dlopen("libreadline.so.8", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return;
    const unsigned long *state = dlsym(library, "rl_readline_state");
    int (*redraw)(void) = (int (*)(void))dlsym(library, "rl_forced_update_display");
    if (state && redraw && *state & RL_STATE_CALLBACK) {
        ph_terminal_let_main_wait();
        redraw();
    }
    dlclose(library);
}

void ph_screen_redraw(void)
{
    redraw_line();
    PyObject *modules = ph_py.PySys_GetObject("modules"); /* borrowed */
    if (!modules)
        return;
    PyObject *curses = ph_py.PyObject_CallMethod(modules, "get", "s", "_curses");
    if (curses && curses != PH_PY_NONE && call(curses, "isendwin") == 0) {
        ph_terminal_let_main_wait();
        call(curses, "endwin");
        call(curses, "doupdate");
    }
    if (curses)
        ph_py.Py_DecRef(curses);
    else
        ph_py.PyErr_Clear();
}
