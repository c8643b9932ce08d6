/* SPDX-License-Identifier: MIT */
/*
 * segments.c - shared memory that the program has made under a name: shm_open, sem_open
 *
 * Python's multiprocessing has its segments removed by a child as soon as the program is gone.
 * So what the program has made is saved with its memory, like a file without a name, and
 * recovery makes it anew under its name: the one that is there may still be used by children of
 * the killed program. A segment that another process made is the other's: it must be there. The
 * child (multiprocessing.resource_tracker) is started again. A list that only grows, as in
 * watches.c.
 */
#include "allocator/syscall.h"
#include "children.h"
#include "files.h"
#include "hook.h"
#include "libc_next.h"
#include "python_abi.h"
#include "undo.h"

#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT   __attribute__((visibility("default")))
#define SEGMENTS "/dev/shm/" /* shm_overview(7) */
#define SEM      "sem."      /* sem_overview(7) */

struct segment {
    struct segment *next;
    atomic_bool there;
    _Atomic(const void *) mapped; /* a semaphore, by sem_open */
    char name[];
};

static _Atomic(struct segment *) newest;

static struct segment *find(const char *name)
{
    struct segment *s = atomic_load(&newest);
    while (s && strcmp(s->name, name) != 0)
        s = s->next;
    return s;
}

static void remember(const char *name, const void *mapped)
{
    if (!ph_agent_active())
        return;
    size_t n = strlen(name) + 1;
    struct segment *s = find(name);
    if (s) {
        atomic_store(&s->mapped, mapped);
        atomic_store(&s->there, true);
        return;
    }
    s = malloc(sizeof *s + n);
    if (!s)
        return;
    atomic_init(&s->there, true);
    atomic_init(&s->mapped, mapped);
    memcpy(s->name, name, n);
    s->next = atomic_load(&newest);
    while (!atomic_compare_exchange_weak(&newest, &s->next, s)) {
    }
}

static const char *without_slash(const char *name)
{
    return name + strspn(name, "/");
}

bool ph_segments_made(const char *path)
{
    const size_t n = sizeof SEGMENTS - 1;
    const struct segment *s = strncmp(path, SEGMENTS, n) == 0 ? find(path + n) : NULL;
    return s && atomic_load(&s->there);
}

const char *ph_segments_semaphore(uint64_t start, char *path, size_t size)
{
    for (const struct segment *s = atomic_load(&newest); s; s = s->next)
        if ((uint64_t)atomic_load(&s->mapped) == start && atomic_load(&s->there))
            return ph_join(path, size, SEGMENTS, s->name, NULL);
    return NULL;
}

EXPORT int shm_open(const char *name, int flags, mode_t mode)
{
    int fd = ph_libc_next()->shm_open(name, flags, mode);
    ph_undo_new_turn();
    if (fd >= 0 && (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
        remember(without_slash(name), NULL);
    return fd;
}

EXPORT int shm_unlink(const char *name)
{
    struct segment *s = find(without_slash(name));
    if (s)
        atomic_store(&s->there, false);
    return ph_libc_next()->shm_unlink(name);
}

EXPORT sem_t *sem_open(const char *name, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    unsigned value = flags & O_CREAT ? va_arg(more, unsigned) : 0;
    va_end(more);
    sem_t *sem = ph_libc_next()->sem_open(name, flags, mode, value);
    char file[256];
    if (sem != SEM_FAILED && (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
        remember(ph_join(file, sizeof file, SEM, without_slash(name), NULL), sem);
    return sem;
}

EXPORT int sem_unlink(const char *name)
{
    char file[256];
    struct segment *s = find(ph_join(file, sizeof file, SEM, without_slash(name), NULL));
    if (s)
        atomic_store(&s->there, false);
    return ph_libc_next()->sem_unlink(name);
}

/* ---- Python's tracker -------------------------------------------------------------------- */

/*
 * The child reads from a pipe whose other end the program has, at a number that a thread may be
 * about to write to at an epoch. So recovery makes that number a pipe that takes what is
 * written (files_special.c, PH_FILE_TRACKER), and here a new child is given it, after the names
 * of what is there. Python's own code would start one, too, but says that the old one has died,
 * and knows no names.
 */
static struct {
    int fd; /* -1: there is none */
    pid_t pid;
} tracker = {.fd = -1};

static void forget(PyObject *object)
{
    if (object)
        ph_py.Py_DecRef(object);
    else
        ph_py.PyErr_Clear();
}

/** An attribute that is a number or None. @return -1: it is none. */
static int number_of(PyObject *object, const char *name)
{
    PyObject *value = ph_py.PyObject_GetAttrString(object, name);
    int number = value && value != PH_PY_NONE ? ph_py.PyObject_AsFileDescriptor(value) : -1;
    if (number < 0)
        ph_py.PyErr_Clear();
    forget(value);
    return number;
}

/** An imported module. @return a new reference; NULL: it is not. */
static PyObject *imported(const char *name)
{
    PyObject *modules = ph_py.PySys_GetObject("modules"); /* borrowed */
    PyObject *module = modules ? ph_py.PyObject_CallMethod(modules, "get", "s", name) : NULL;
    if (module && module != PH_PY_NONE)
        return module;
    forget(module);
    return NULL;
}

static PyObject *find_tracker(void)
{
    PyObject *module = imported("multiprocessing.resource_tracker");
    PyObject *found = module ? ph_py.PyObject_GetAttrString(module, "_resource_tracker") : NULL;
    forget(module);
    return found;
}

void ph_segments_note_tracker(void)
{
    PyObject *found = find_tracker();
    tracker.fd = found ? number_of(found, "_fd") : -1;
    tracker.pid = found ? number_of(found, "_pid") : -1;
    forget(found);
}

int ph_segments_tracker(pid_t *pid)
{
    *pid = tracker.pid;
    return tracker.pid > 0 ? tracker.fd : -1;
}

/** What it is told of all that is there. */
static void tell_names(int fd)
{
    for (const struct segment *s = atomic_load(&newest); s; s = s->next) {
        char text[600], path[300];
        ph_join(path, sizeof path, SEGMENTS, s->name, NULL);
        if (!atomic_load(&s->there) || access(path, F_OK) != 0)
            continue;
        bool semaphore = strncmp(s->name, SEM, strlen(SEM)) == 0;
        ph_join(text, sizeof text, "REGISTER:/", s->name + (semaphore ? strlen(SEM) : 0),
                semaphore ? ":semaphore\n" : ":shared_memory\n", NULL);
        if (ph_syscall(SYS_write, fd, text, strlen(text)) < 0)
            return;
    }
}

/** What threads have written meanwhile comes after the names. @return the end to read from. */
static int renew_pipe(void)
{
    char path[40] = "/proc/self/fd/", number[24], buf[4096];
    int ends[2];
    long n,
        old = ph_syscall(SYS_open, strcat(path, ph_format_u64(number, (uint64_t)tracker.fd)),
                         O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (old < 0 || pipe2(ends, O_CLOEXEC) != 0) {
        if (old >= 0)
            ph_syscall(SYS_close, old);
        return -1;
    }
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    tell_names(ends[1]);
    bool renewed = ph_libc_next()->dup3(ends[1], tracker.fd, O_CLOEXEC) >= 0;
    ph_undo_new_turn();
    while ((n = ph_syscall(SYS_read, old, buf, sizeof buf)) > 0)
        ph_syscall(SYS_write, ends[1], buf, n);
    fcntl(ends[1], F_SETFL, 0);
    ph_syscall(SYS_close, old);
    ph_syscall(SYS_close, ends[1]);
    if (renewed)
        return ends[0];
    ph_syscall(SYS_close, ends[0]);
    return -1;
}

/** As multiprocessing does; but a name that it is to forget and was never told is no error. */
static const char start[] =
    "def start(fd):\n"
    "    import signal\n"
    "    from multiprocessing import spawn, util\n"
    "    exe = spawn.get_executable()\n"
    "    code = ('import sys\\nhook = sys.excepthook\\n'\n"
    "            'sys.excepthook = lambda t, v, b: t is KeyError or hook(t, v, b)\\n'\n"
    "            f'from multiprocessing.resource_tracker import main\\nmain({fd})')\n"
    "    both = [signal.SIGINT, signal.SIGTERM]\n"
    "    old = signal.pthread_sigmask(signal.SIG_BLOCK, both)\n"
    "    try:\n"
    "        return util.spawnv_passfds(exe, [exe, *util._args_from_interpreter_flags(),\n"
    "                                         '-c', code], [2, fd])\n"
    "    finally:\n"
    "        signal.pthread_sigmask(signal.SIG_SETMASK, old)\n";

static PyObject *start_another(int fd)
{
    PyObject *builtins = ph_py.PyImport_ImportModule("builtins");
    PyObject *space = ph_py.PyDict_New();
    PyObject *done = builtins && space
                         ? ph_py.PyObject_CallMethod(builtins, "exec", "sO", start, space)
                         : NULL;
    PyObject *function = done ? ph_py.PyObject_CallMethod(space, "get", "s", "start") : NULL;
    PyObject *pid = function ? ph_py.PyObject_CallMethod(function, "__call__", "i", fd) : NULL;
    if (!pid)
        ph_py.PyErr_Clear();
    forget(function);
    forget(done);
    forget(space);
    forget(builtins);
    return pid;
}

void ph_segments_track_again(void)
{
    int status, fd;
    if (tracker.fd < 0 || tracker.pid <= 0 || (fd = renew_pipe()) < 0)
        return;
    ph_children_lost(tracker.pid, &status, false); /* nobody else knows of it */
    PyObject *pid = start_another(fd), *found = find_tracker();
    if (pid && found)
        forget(ph_py.PyObject_CallMethod(found, "__setattr__", "sO", "_pid", pid));
    ph_syscall(SYS_close, fd);
    forget(found);
    forget(pid);
}
