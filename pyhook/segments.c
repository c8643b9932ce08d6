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
#include "files.h"
#include "hook.h"
#include "libc_next.h"
#include "python_abi.h"
#include "undo.h"

#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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

static void forget(PyObject *object)
{
    if (object)
        ph_py.Py_DecRef(object);
    else
        ph_py.PyErr_Clear();
}

/** It is what removes segments if the program does not; the one from before is lost. */
static void start(PyObject *tracker)
{
    forget(ph_py.PyObject_CallMethod(tracker, "_stop", NULL));
    forget(ph_py.PyObject_CallMethod(tracker, "ensure_running", NULL));
    for (const struct segment *s = atomic_load(&newest); s; s = s->next) {
        char name[256], path[300];
        ph_join(path, sizeof path, SEGMENTS, s->name, NULL);
        if (!atomic_load(&s->there) || access(path, F_OK) != 0)
            continue;
        bool semaphore = strncmp(s->name, SEM, strlen(SEM)) == 0;
        ph_join(name, sizeof name, "/", s->name + (semaphore ? strlen(SEM) : 0), NULL);
        forget(ph_py.PyObject_CallMethod(tracker, "register", "ss", name,
                                         semaphore ? "semaphore" : "shared_memory"));
    }
}

void ph_segments_track_again(void)
{
    PyObject *modules = ph_py.PySys_GetObject("modules"); /* borrowed */
    if (!modules)
        return;
    PyObject *module =
        ph_py.PyObject_CallMethod(modules, "get", "s", "multiprocessing.resource_tracker");
    PyObject *tracker = module && module != PH_PY_NONE
                            ? ph_py.PyObject_GetAttrString(module, "_resource_tracker")
                            : NULL;
    PyObject *fd = tracker ? ph_py.PyObject_GetAttrString(tracker, "_fd") : NULL;
    if (fd && fd != PH_PY_NONE)
        start(tracker);
    forget(fd);
    forget(tracker);
    forget(module);
}
