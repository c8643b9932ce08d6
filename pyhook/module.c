/* SPDX-License-Identifier: MIT */
/*
 * module.c - the built-in module `pyheap`
 *
 * What a program sees of pyheap. The same names are in python/pyheap/, which stands in where
 * the program runs in plain Python; a test compares the two.
 *
 *   N1  An epoch is taken with the GIL held, after the hook was seen in force and Python's
 *       standard streams were flushed: what was printed before epoch() is printed once.
 *   N2  In a recovered program the callbacks run before epoch() returns, in the order in which
 *       they were registered, in the thread that called epoch().
 *   N3  Waiting never holds the GIL, and signals are handled while waiting.
 *   N4  A worker that multiprocessing spawns imports the program's main module in ordinary
 *       Python and with the program's sys.path. So the package stands last in sys.path, or
 *       `import pyheap` would fail there.
 *   N5  Callbacks before an epoch run before the flush, so they may print, and before anything
 *       is captured, so what they close is not there. They cannot take an epoch.
 *
 * Functions here return 0, a PH_E* code, or RAISED with a Python exception set.
 */
#include "hook.h"

#include "agent.h"
#include "pyheap.h"
#include "python_abi.h"

#include <dlfcn.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RAISED   (-1)
#define SLICE_MS 50 /* between two looks at the signals while waiting */

static PyObject *callbacks;       /* list: of on_restore() */
static PyObject *epoch_callbacks; /* list: of on_epoch() */
static __thread bool in_epoch_callback;

/* --- errors ------------------------------------------------------------------------------ */

enum { ERROR, KEEPER, POOL_FULL, FORK, THREAD, UNSUPPORTED, ERROR_CLASSES };

static const struct {
    const char *name, *doc;
} error_texts[ERROR_CLASSES] = {
    [ERROR] = {"pyheap.Error", "An epoch could not be taken. The base of pyheap's errors."},
    [KEEPER] = {"pyheap.KeeperError",
                "The keeper, the process that owns the pool, is gone: no epoch can be taken "
                "any more. The program goes on and the last durable epoch is safe."},
    [POOL_FULL] = {"pyheap.PoolFullError",
                   "The disk or the pool has no room for the epoch. The last durable epoch is "
                   "safe, and the next epoch() tries again."},
    [FORK] = {"pyheap.ForkError",
              "Called in a forked child; only the program that pyheap-run started can take "
              "epochs."},
    [THREAD] = {"pyheap.ThreadError",
                "A thread could not be stopped, or the caller does not hold the GIL. Nothing "
                "was saved."},
    [UNSUPPORTED] = {"pyheap.UnsupportedError",
                     "The kernel, or something that the program holds, does not allow saving "
                     "the program."},
};

static PyObject *error_classes[ERROR_CLASSES];

static int class_of(int err)
{
    switch (err) {
    case PH_EKEEPER:
        return KEEPER;
    case PH_EFULL:
    case PH_EPOOLSIZE:
        return POOL_FULL;
    case PH_EFORKED:
        return FORK;
    case PH_ETHREAD:
    case PH_ENOGIL:
        return THREAD;
    case PH_EKERNEL:
    case PH_EUNSUPPORTED:
        return UNSUPPORTED;
    default:
        return ERROR;
    }
}

/* Turn @p err into an exception, unless it is one already. Always NULL. */
static PyObject *raise_error(int err)
{
    if (err == RAISED)
        return NULL;
    const char *detail = err == PH_EFORKED ? "" : ph_agent_error_detail();
    return ph_py.PyErr_Format(error_classes[class_of(err)], *detail ? "%s (%s)" : "%s",
                              ph_error_text(err), detail);
}

static int make_errors(PyObject *module)
{
    for (int i = 0; i < ERROR_CLASSES; i++) {
        PyObject *base = i == ERROR ? *ph_py.PyExc_RuntimeError : error_classes[ERROR];
        PyObject *class = error_classes[i];
        if (!class)
            class = ph_py.PyErr_NewExceptionWithDoc(error_texts[i].name, error_texts[i].doc,
                                                    base, NULL);
        if (!class)
            return RAISED;
        error_classes[i] = class;
        ph_py.Py_IncRef(class);
        if (ph_py.PyModule_AddObject(module, error_texts[i].name + sizeof "pyheap", class) <
            0) {
            ph_py.Py_DecRef(class);
            return RAISED;
        }
    }
    return 0;
}

/* --- taking an epoch --------------------------------------------------------------------- */

static int check_hook(void)
{
    if (ph_domains_in_force())
        return 0;
    ph_py.PyErr_SetString(error_classes[ERROR],
                          "the interpreter does not use pyheap's allocator any more, because "
                          "something has replaced it (PyMem_SetAllocator); start the program "
                          "without that");
    return RAISED;
}

/* Flush sys.<name>, unless it is missing, None, closed, or knows no flushing. */
static int flush_stream(const char *name)
{
    PyObject *stream = ph_py.PySys_GetObject(name); /* borrowed */
    if (!stream || stream == PH_PY_NONE || !ph_py.PyObject_HasAttrString(stream, "flush"))
        return 0;
    ph_py.Py_IncRef(stream);
    int closed = 0;
    if (ph_py.PyObject_HasAttrString(stream, "closed")) {
        PyObject *flag = ph_py.PyObject_GetAttrString(stream, "closed");
        closed = flag ? ph_py.PyObject_IsTrue(flag) : -1;
        if (flag)
            ph_py.Py_DecRef(flag);
    }
    PyObject *done = NULL;
    if (closed == 0)
        done = ph_py.PyObject_CallMethod(stream, "flush", NULL);
    if (done)
        ph_py.Py_DecRef(done);
    ph_py.Py_DecRef(stream);
    return closed == 1 || done ? 0 : RAISED;
}

static int run_callbacks(PyObject *list)
{
    /* A copy: a callback may register another, which is then for the next time. */
    PyObject *all = ph_py.PyList_AsTuple(list);
    if (!all)
        return RAISED;
    int err = 0;
    for (ssize_t i = 0; err == 0 && i < ph_py.PyTuple_Size(all); i++) {
        PyObject *done = ph_py.PyObject_CallObject(ph_py.PyTuple_GetItem(all, i), NULL);
        if (done)
            ph_py.Py_DecRef(done);
        else
            err = RAISED;
    }
    ph_py.Py_DecRef(all);
    return err;
}

/* What the program wants to do before an epoch (N5). */
static int run_epoch_callbacks(void)
{
    if (in_epoch_callback) {
        ph_py.PyErr_SetString(error_classes[ERROR],
                              "epoch() was called by a callback of on_epoch()");
        return RAISED;
    }
    in_epoch_callback = true;
    int err = run_callbacks(epoch_callbacks);
    in_epoch_callback = false;
    return err;
}

static int take_epoch(const char *label, uint64_t *number, bool *recovered)
{
    if (ph_agent_forked())
        return PH_EFORKED;
    int err = check_hook();
    if (err == 0)
        err = run_epoch_callbacks();
    if (err == 0)
        err = flush_stream("stdout");
    if (err == 0)
        err = flush_stream("stderr");
    if (err == 0) {
        ph_segments_note_tracker();
        err = ph_agent_epoch(label, number, recovered);
    }
    if (err == 0 && *recovered) {
        ph_reseed();
        ph_segments_track_again();
        ph_screen_redraw();
        ph_terminal_tell_size();
        ph_asked_start();
        err = run_callbacks(callbacks);
    }
    return err;
}

static int wait_durable(uint64_t number)
{
    for (;;) {
        PyThreadState *state = ph_py.PyEval_SaveThread();
        int err = ph_agent_wait(number, SLICE_MS);
        ph_py.PyEval_RestoreThread(state);
        if (err != PH_EINTR)
            return err;
        if (ph_py.PyErr_CheckSignals() < 0)
            return RAISED;
    }
}

/* Import the module if the program has not. The GIL is held. */
static int have_module(void)
{
    if (callbacks)
        return 0;
    PyObject *module = ph_py.PyImport_ImportModule("pyheap");
    if (!module)
        return RAISED;
    ph_py.Py_DecRef(module);
    return 0;
}

uint64_t ph_module_take(const char *label)
{
    uint64_t number = 0;
    bool recovered = false;
    if (!ph_py.Py_IsInitialized())
        return 0;
    /* One thread state for good: making one allocates before the GIL is held, which races with
     * a program that stops tracemalloc just then. */
    static PyThreadState *state;
    if (state)
        ph_py.PyEval_RestoreThread(state);
    else
        ph_py.PyGILState_Ensure();
    int err = have_module();
    if (err == 0)
        err = take_epoch(label, &number, &recovered);
    if (err != 0) {
        raise_error(err);
        ph_py.PyErr_WriteUnraisable(NULL);
        number = 0;
    }
    state = ph_py.PyEval_SaveThread();
    return number;
}

__attribute__((visibility("default"))) int pyheap_epoch(const char *label)
{
    if (!ph_hook_active() || !ph_py.Py_IsInitialized())
        return PH_EINACTIVE;
    /* Once there are subinterpreters the first of the two always says yes. */
    if (!ph_py.PyGILState_Check() || !ph_py.PyGILState_GetThisThreadState())
        return PH_ENOGIL;
    uint64_t number;
    bool recovered = false;
    int err = have_module();
    return err ? err : take_epoch(label, &number, &recovered);
}

/* --- the module's functions -------------------------------------------------------------- */

static PyObject *epoch(PyObject *self, PyObject *args, PyObject *keywords)
{
    (void)self;
    static char *names[] = {"label", "wait", NULL};
    const char *label = NULL;
    int wait = 0;
    if (!ph_py.PyArg_ParseTupleAndKeywords(args, keywords, "|zp:epoch", names, &label, &wait))
        return NULL;
    uint64_t number = 0;
    bool recovered = false;
    int err = take_epoch(label, &number, &recovered);
    if (err == 0 && wait && !recovered) /* what was recovered is durable */
        err = wait_durable(number);
    return err == 0 ? ph_py.PyLong_FromUnsignedLongLong(number) : raise_error(err);
}

static PyObject *sync_epochs(PyObject *self, PyObject *args)
{
    (void)self, (void)args;
    if (ph_agent_forked())
        return raise_error(PH_EFORKED);
    struct ph_agent_status status;
    ph_agent_get_status(&status);
    if (status.epoch > 0) {
        int err = wait_durable(status.epoch);
        if (err != 0)
            return raise_error(err);
        ph_agent_get_status(&status);
    }
    return ph_py.PyLong_FromUnsignedLongLong(status.durable);
}

/* Put @p value under @p key into @p dict, taking over the reference. */
static int put(PyObject *dict, const char *key, PyObject *value)
{
    int err = value ? ph_py.PyDict_SetItemString(dict, key, value) : RAISED;
    if (value)
        ph_py.Py_DecRef(value);
    return err;
}

#define STATUS_COUNTS(X)                                                                       \
    X(epoch)                                                                                   \
    X(durable)                                                                                 \
    X(recoveries)                                                                              \
    X(pages_staged)                                                                            \
    X(pages_ahead)                                                                             \
    X(bytes_staged)                                                                            \
    X(pages_written)                                                                           \
    X(bytes_written)                                                                           \
    X(total_pages_staged)                                                                      \
    X(total_bytes_staged)                                                                      \
    X(total_pages_written)                                                                     \
    X(total_bytes_written)                                                                     \
    X(staging_size)

#define STATUS_TIMES(X)                                                                        \
    X(pause)                                                                                   \
    X(wait)                                                                                    \
    X(commit)

static PyObject *status(PyObject *self, PyObject *args)
{
    (void)self, (void)args;
    struct ph_agent_status now;
    ph_agent_get_status(&now);
    PyObject *dict = ph_py.PyDict_New();
    if (!dict)
        return NULL;
    int err = 0;
#define X(name) err = err ? err : put(dict, #name, ph_py.PyLong_FromUnsignedLongLong(now.name));
    STATUS_COUNTS(X)
#undef X
#define X(name)                                                                                \
    err = err ? err : put(dict, #name, ph_py.PyFloat_FromDouble((double)now.name##_ns / 1e9));
    STATUS_TIMES(X)
#undef X
    const char *tracker = now.tracker ? now.tracker : "";
    err = err ? err : put(dict, "tracker", ph_py.PyUnicode_FromString(tracker));
    if (err == 0)
        return dict;
    ph_py.Py_DecRef(dict);
    return NULL;
}

static PyObject *register_callback(PyObject *list, PyObject *callback, const char *complaint)
{
    if (!ph_py.PyCallable_Check(callback)) {
        ph_py.PyErr_SetString(*ph_py.PyExc_TypeError, complaint);
        return NULL;
    }
    if (ph_py.PyList_Append(list, callback) < 0)
        return NULL;
    ph_py.Py_IncRef(callback);
    return callback;
}

static PyObject *on_restore(PyObject *self, PyObject *callback)
{
    (void)self;
    return register_callback(callbacks, callback, "on_restore() needs a callable");
}

static PyObject *on_epoch(PyObject *self, PyObject *callback)
{
    (void)self;
    return register_callback(epoch_callbacks, callback, "on_epoch() needs a callable");
}

/** What os.@p function makes of @p of; NULL: raised. */
static PyObject *call_os(const char *module, const char *function, PyObject *of)
{
    PyObject *os = ph_py.PyImport_ImportModule(module);
    PyObject *made = os ? ph_py.PyObject_CallMethod(os, function, "(O)", of) : NULL;
    if (os)
        ph_py.Py_DecRef(os);
    return made;
}

/** The path that @p file is; NULL: it is none. */
static PyObject *name_of(PyObject *file)
{
    PyObject *name = call_os("os", "fspath", file);
    if (!name)
        ph_py.PyErr_Clear();
    return name;
}

static int keep_name(PyObject *name)
{
    PyObject *real = NULL, *bytes = NULL;
    int err = ph_py.PyObject_IsTrue(name) == 1 ? 0 : PH_EFILES;
    if (err == 0 && (!(real = call_os("os.path", "realpath", name)) ||
                     !(bytes = call_os("os", "fsencode", real))))
        err = RAISED;
    if (err == 0)
        err = ph_files_keep_path(ph_py.PyBytes_AsString(bytes));
    if (bytes)
        ph_py.Py_DecRef(bytes);
    if (real)
        ph_py.Py_DecRef(real);
    return err;
}

static int keep_descriptor(PyObject *file)
{
    int fd = ph_py.PyObject_AsFileDescriptor(file);
    return fd < 0 ? RAISED : ph_files_keep(fd);
}

static PyObject *keep_file(PyObject *self, PyObject *file)
{
    (void)self;
    PyObject *name = name_of(file);
    bool named = name != NULL;
    int err = named ? keep_name(name) : keep_descriptor(file);
    if (named)
        ph_py.Py_DecRef(name);
    if (err == RAISED)
        return NULL;
    if (err) {
        ph_py.PyErr_SetString(error_classes[ERROR],
                              err == PH_ENOMEM
                                  ? "keep_file() takes at most 256 open files, 64 KiB of paths"
                              : named ? "keep_file() needs the path of a file or a directory"
                                      : "keep_file() needs an open file, or a path");
        return NULL;
    }
    ph_py.Py_IncRef(file);
    return file;
}

static PyObject *hook(PyObject *self, PyObject *args)
{
    (void)self, (void)args;
    PyObject *dict = ph_py.PyDict_New();
    if (!dict)
        return NULL;
    int err = put(dict, "in_force", ph_py.PyBool_FromLong(ph_domains_in_force()));
    err = err ? err
              : put(dict, "foreign", ph_py.PyLong_FromUnsignedLongLong(ph_domains_foreign()));
    if (err == 0)
        return dict;
    ph_py.Py_DecRef(dict);
    return NULL;
}

static struct ph_py_method methods[] = {
    {"epoch", (ph_py_function *)(void *)epoch, PH_PY_VARARGS | PH_PY_KEYWORDS,
     "epoch($module, /, label=None, wait=False)\n--\n\n"
     "Save the whole program and return the number of this epoch.\n\n"
     "sys.stdout and sys.stderr are flushed first. All threads stand still while the pages\n"
     "that changed since the last epoch are copied; the epoch becomes durable a little later.\n"
     "With wait=True return only when it is. label is a short text for people, shown by\n"
     "pyheap-recover --list.\n\n"
     "In a program that pyheap-recover has brought back, epoch() returns once more, with the\n"
     "same number, after the callbacks of on_restore().\n\n"
     "Raises an Error: KeeperError, PoolFullError, ForkError, ThreadError or\n"
     "UnsupportedError. An epoch that failed after epoch() had returned is reported by the\n"
     "next call, which takes none; the call after it tries again."},
    {"sync", sync_epochs, PH_PY_NOARGS,
     "sync($module, /)\n--\n\n"
     "Wait until the newest epoch taken is durable; return the number of the newest durable\n"
     "epoch, 0 if there is none. Raises an Error as epoch() does."},
    {"status", status, PH_PY_NOARGS,
     "status($module, /)\n--\n\n"
     "Return a dict about the epochs so far:\n\n"
     "epoch, durable          number of the newest epoch taken, and durable; 0: none\n"
     "recoveries              how often the program has been recovered\n"
     "pages_staged, bytes_staged    copied by the newest epoch (pages of 4096 bytes)\n"
     "pages_ahead             part of these, copied while the program still ran\n"
     "pages_written, bytes_written  written by the newest durable epoch, after dropping\n"
     "                        pages with unchanged content\n"
     "total_pages_staged, total_bytes_staged, total_pages_written, total_bytes_written\n"
     "                        the same, since the start or the last recovery\n"
     "pause                   seconds for which the newest epoch stopped the program\n"
     "wait                    seconds of it spent waiting for room to copy to\n"
     "commit                  seconds from the first copy to durable, newest durable epoch\n"
     "staging_size            bytes of that room\n"
     "tracker                 how changed pages are found"},
    {"on_restore", on_restore, PH_PY_O,
     "on_restore($module, callback, /)\n--\n\n"
     "Have callback() called in every recovered program before epoch() returns there, for\n"
     "what cannot be brought back: network connections, child processes, devices. Callbacks\n"
     "run in the order of registration; an exception propagates out of epoch(). Returns\n"
     "callback, so it serves as a decorator. Raises TypeError if callback is not callable."},
    {"on_epoch", on_epoch, PH_PY_O,
     "on_epoch($module, callback, /)\n--\n\n"
     "Have callback() called before each epoch, by the thread that takes it, for what an\n"
     "epoch cannot hold: it may close things, to be opened again when they are needed.\n"
     "Callbacks run in the order of registration; an exception propagates out of epoch(), and\n"
     "no epoch is taken. Returns callback, so it serves as a decorator. Raises TypeError if\n"
     "callback is not callable."},
    {"keep_file", keep_file, PH_PY_O,
     "keep_file($module, file, /)\n--\n\n"
     "Have a file left as it is on recovery. What the program has done to a file since the\n"
     "epoch is otherwise undone, since it will be done again; that takes what other programs\n"
     "have appended, too. file is a path, of a file that may be there later only, or of a\n"
     "directory, for all that is in it; or an open file or a descriptor, which may be closed\n"
     "afterwards: then the file is meant whatever its name. This holds for what is done from\n"
     "the call on, so call it early. Returns file. Raises pyheap.Error if a descriptor is not\n"
     "open, or after 256 of them or 64 KiB of paths."},
    {"_hook", hook, PH_PY_NOARGS,
     "_hook($module, /)\n--\n\n"
     "Return a dict about the allocator hook, for tests and reports of problems."},
    {NULL, NULL, 0, NULL},
};

static struct ph_py_module_def definition = {
    .local = UINT32_MAX,
    .head = {.refcount = 1},
    .name = "pyheap",
    .doc =
        "Save the running program so that it can go on after a crash.\n\n"
        "Call pyheap.epoch() where the program may go on from, in a program that was started\n"
        "with pyheap-run. After a crash or a kill, pyheap-recover continues it there.",
    .size = -1, /* one for the process: what it stands for is the process's too */
    .methods = methods,
};

/* Append the directory of the package, which lies beside this library, to sys.path (N4). */
static int extend_path(void)
{
    Dl_info self;
    char directory[PATH_MAX], package[PATH_MAX];
    PyObject *path = ph_py.PySys_GetObject("path"); /* borrowed */
    if (!path || dladdr(&definition, &self) == 0)
        return 0;
    const char *slash = strrchr(self.dli_fname, '/');
    int length = slash ? (int)(slash - self.dli_fname) : 0;
    int n = snprintf(directory, sizeof directory, "%.*s/python", length, self.dli_fname);
    int m = snprintf(package, sizeof package, "%.*s/python/pyheap", length, self.dli_fname);
    if (n >= (int)sizeof directory || m >= (int)sizeof package || access(package, R_OK) != 0)
        return 0;
    PyObject *entry = ph_py.PyUnicode_DecodeFSDefault(directory);
    int err = entry ? ph_py.PyList_Append(path, entry) : RAISED;
    if (entry)
        ph_py.Py_DecRef(entry);
    return err;
}

/** What this interpreter takes for the definition. */
static void *definition_here(void)
{
    if (!ph_py.free_threaded)
        return &definition.head;
    definition.head.refcount = 0;
    return &definition;
}

static PyObject *init_module(void)
{
    PyObject *module = ph_py.PyModule_Create2(definition_here(), PH_PY_ABI_VERSION);
    if (!module)
        return NULL;
    if (ph_py.free_threaded) /* or importing it would bring the lock back for all */
        ph_py.PyUnstable_Module_SetGIL(module, PH_PY_GIL_NOT_USED);
    if (!callbacks) /* else this is a subinterpreter */
        callbacks = ph_py.PyList_New(0);
    if (!epoch_callbacks)
        epoch_callbacks = ph_py.PyList_New(0);
    if (callbacks && epoch_callbacks && make_errors(module) == 0 && check_hook() == 0 &&
        extend_path() == 0 &&
        ph_py.PyModule_AddStringConstant(module, "__version__", PYHEAP_VERSION) == 0 &&
        ph_py.PyModule_AddObject(module, "active", ph_py.PyBool_FromLong(1)) == 0)
        return module;
    ph_py.Py_DecRef(module);
    return NULL;
}

int ph_module_register(void)
{
    return ph_py.PyImport_AppendInittab("pyheap", init_module) == 0 ? 0 : PH_ENOMEM;
}
