/* SPDX-License-Identifier: MIT */
/*
 * screen.c - a curses program draws its whole screen again
 *
 * curses writes only what has changed since it wrote last, to a terminal that may be another
 * one now, or has shown a shell in between. What it has for coming back from a shell (endwin
 * and doupdate, curs_initscr(3x)) sets the terminal's modes and draws everything. That is done
 * while the main thread waits for a key, in the middle of curses but at rest, and before it
 * hears that the window has another size. The same for a line that readline edits, or Python's
 * own editor (_pyrepl, since 3.13): the prompt is shown again.
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

static void redraw_curses(PyObject *curses)
{
    if (call(curses, "isendwin") != 0)
        return;
    ph_terminal_let_main_wait();
    call(curses, "endwin");
    call(curses, "doupdate");
}

/** An attribute of @p object, which may be NULL. @return NULL: there is none. */
static PyObject *part_of(PyObject *object, const char *name)
{
    PyObject *part = object ? ph_py.PyObject_GetAttrString(object, name) : NULL;
    if (object && !part)
        ph_py.PyErr_Clear();
    return part;
}

static void give_back(PyObject *object)
{
    if (object)
        ph_py.Py_DecRef(object);
}

/**
 * The editor that has a line under way looks ten times a second whether there is an event. It
 * is told that nothing of what it has written is there, and that it should look at its window.
 */
static void redraw_editor(PyObject *module)
{
    PyObject *wrapper = part_of(module, "_wrapper"), *reader = part_of(wrapper, "reader"),
             *finished = part_of(reader, "finished"), *console = part_of(reader, "console"),
             *queue = part_of(console, "event_queue");
    PyObject *events = ph_py.PyImport_ImportModule("_pyrepl.console");
    PyObject *event =
        events ? ph_py.PyObject_CallMethod(events, "Event", "sO", "resize", PH_PY_NONE) : NULL;
    if (finished && queue && event && ph_py.PyObject_IsTrue(finished) == 0) {
        ph_terminal_let_main_wait();
        call(console, "_UnixConsole__enable_bracketed_paste");
        call(console, "repaint");
        give_back(ph_py.PyObject_CallMethod(queue, "insert", "O", event));
    }
    ph_py.PyErr_Clear();
    give_back(event);
    give_back(events);
    give_back(queue);
    give_back(console);
    give_back(finished);
    give_back(reader);
    give_back(wrapper);
}

/** If it has been imported. */
static void with_module(const char *name, void (*use)(PyObject *module))
{
    PyObject *modules = ph_py.PySys_GetObject("modules"); /* borrowed */
    PyObject *module = modules ? ph_py.PyObject_CallMethod(modules, "get", "s", name) : NULL;
    if (module && module != PH_PY_NONE)
        use(module);
    if (!module)
        ph_py.PyErr_Clear();
    give_back(module);
}

void ph_screen_redraw(void)
{
    redraw_line();
    with_module("_curses", redraw_curses);
    with_module("_pyrepl.readline", redraw_editor);
}
