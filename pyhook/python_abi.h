/* SPDX-License-Identifier: MIT */
/*
 * python_abi.h - the part of CPython's binary interface that pyheap uses
 *
 * One libpyheap.so serves every CPython from 3.9 on, static or shared, so nothing of Python is
 * linked: each symbol is looked up in the process and called through the table ph_py. Only
 * what is stable is used: the limited API (PEP 384), the allocator functions (C API since
 * 3.4), and the four structures declared below, whose layout has not changed since 3.4. No
 * Python header is needed to build.
 *
 * Free-threaded builds have a longer head of objects (struct ph_py_module_def); all else is the
 * same there.
 */
#ifndef PH_PYTHON_ABI_H
#define PH_PYTHON_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Include/object.h: the head of every object; opaque apart from the static PyModuleDef. */
typedef struct ph_py_object {
    ssize_t refcount;
    void *type;
} PyObject;

typedef struct ph_py_thread_state PyThreadState;

/* Include/methodobject.h */
typedef PyObject *ph_py_function(PyObject *self, PyObject *args);
typedef PyObject *ph_py_function_keywords(PyObject *self, PyObject *args, PyObject *keywords);

struct ph_py_method {
    const char *name;
    ph_py_function *function;
    int flags;
    const char *doc;
};

#define PH_PY_VARARGS  0x0001
#define PH_PY_KEYWORDS 0x0002
#define PH_PY_NOARGS   0x0004
#define PH_PY_O        0x0008

/* Include/moduleobject.h. The head that free-threaded builds look for begins at `id`: there
 * `local` is a reference count that never changes (immortal), and head.refcount one of others.
 */
struct ph_py_module_def {
    uint64_t id;
    uint32_t bits, local;
    PyObject head; /* what other builds are given */
    PyObject *(*init)(void);
    ssize_t index;
    PyObject *copy;
    const char *name;
    const char *doc;
    ssize_t size;
    struct ph_py_method *methods;
    void *slots;
    void *traverse;
    void *clear;
    void *free;
};

#define PH_PY_ABI_VERSION  3
#define PH_PY_GIL_NOT_USED ((void *)1)

/* Include/cpython/pymem.h */
struct ph_py_allocator {
    void *ctx;
    void *(*malloc)(void *ctx, size_t size);
    void *(*calloc)(void *ctx, size_t n, size_t size);
    void *(*realloc)(void *ctx, void *p, size_t size);
    void (*free)(void *ctx, void *p);
};

enum { PH_PY_RAW, PH_PY_MEM, PH_PY_OBJ, PH_PY_DOMAINS };

/* Include/cpython/objimpl.h */
struct ph_py_arena_allocator {
    void *ctx;
    void *(*alloc)(void *ctx, size_t size);
    void (*free)(void *ctx, void *p, size_t size);
};

/* X(result, name, parameters) */
#define PH_PYTHON_FUNCTIONS(X)                                                                 \
    X(void, PyMem_GetAllocator, (int domain, struct ph_py_allocator *))                        \
    X(void, PyMem_SetAllocator, (int domain, struct ph_py_allocator *))                        \
    X(void, PyMem_SetupDebugHooks, (void))                                                     \
    X(void, PyObject_GetArenaAllocator, (struct ph_py_arena_allocator *))                      \
    X(void, PyObject_SetArenaAllocator, (struct ph_py_arena_allocator *))                      \
    X(void *, PyMem_RawMalloc, (size_t))                                                       \
    X(void, PyMem_RawFree, (void *))                                                           \
    X(void *, PyMem_Malloc, (size_t))                                                          \
    X(void, PyMem_Free, (void *))                                                              \
    X(void *, PyObject_Malloc, (size_t))                                                       \
    X(void, PyObject_Free, (void *))                                                           \
    X(int, PyImport_AppendInittab, (const char *, PyObject *(*)(void)))                        \
    X(PyObject *, PyImport_ImportModule, (const char *))                                       \
    X(PyObject *, PyModule_Create2, (void *, int))                                             \
    X(int, PyModule_AddStringConstant, (PyObject *, const char *, const char *))               \
    X(int, PyModule_AddObject, (PyObject *, const char *, PyObject *))                         \
    X(void, Py_IncRef, (PyObject *))                                                           \
    X(void, Py_DecRef, (PyObject *))                                                           \
    X(int, Py_IsInitialized, (void))                                                           \
    X(int, PyGILState_Check, (void))                                                           \
    X(PyThreadState *, PyGILState_GetThisThreadState, (void))                                  \
    X(int, PyGILState_Ensure, (void))                                                          \
    X(void, PyErr_WriteUnraisable, (PyObject *))                                               \
    X(PyThreadState *, PyEval_SaveThread, (void))                                              \
    X(void, PyEval_RestoreThread, (PyThreadState *))                                           \
    X(void, PyErr_Clear, (void))                                                               \
    X(int, PyErr_CheckSignals, (void))                                                         \
    X(void, PyErr_SetString, (PyObject *, const char *))                                       \
    X(PyObject *, PyErr_Format, (PyObject *, const char *, ...))                               \
    X(PyObject *, PyErr_NewExceptionWithDoc,                                                   \
      (const char *, const char *, PyObject *, PyObject *))                                    \
    X(int, PyArg_ParseTupleAndKeywords, (PyObject *, PyObject *, const char *, char **, ...))  \
    X(int, PyCallable_Check, (PyObject *))                                                     \
    X(PyObject *, PyObject_CallObject, (PyObject *, PyObject *))                               \
    X(PyObject *, PyObject_CallMethod, (PyObject *, const char *, const char *, ...))          \
    X(PyObject *, PyObject_GetAttrString, (PyObject *, const char *))                          \
    X(int, PyObject_HasAttrString, (PyObject *, const char *))                                 \
    X(int, PyObject_AsFileDescriptor, (PyObject *))                                            \
    X(int, PyObject_IsTrue, (PyObject *))                                                      \
    X(PyObject *, PySys_GetObject, (const char *))                                             \
    X(PyObject *, PyBool_FromLong, (long))                                                     \
    X(PyObject *, PyLong_FromUnsignedLongLong, (unsigned long long))                           \
    X(PyObject *, PyFloat_FromDouble, (double))                                                \
    X(PyObject *, PyUnicode_FromString, (const char *))                                        \
    X(char *, PyBytes_AsString, (PyObject *))                                                  \
    X(PyObject *, PyUnicode_DecodeFSDefault, (const char *))                                   \
    X(PyObject *, PyDict_New, (void))                                                          \
    X(int, PyDict_SetItemString, (PyObject *, const char *, PyObject *))                       \
    X(PyObject *, PyList_New, (ssize_t))                                                       \
    X(int, PyList_Append, (PyObject *, PyObject *))                                            \
    X(PyObject *, PyList_AsTuple, (PyObject *))                                                \
    X(ssize_t, PyTuple_Size, (PyObject *))                                                     \
    X(PyObject *, PyTuple_GetItem, (PyObject *, ssize_t))

/* X(type, name) */
#define PH_PYTHON_DATA(X)                                                                      \
    X(PyObject, _Py_NoneStruct)                                                                \
    X(PyObject *, PyExc_RuntimeError)                                                          \
    X(PyObject *, PyExc_TypeError)

struct ph_python {
    bool free_threaded; /* a build that can do without the interpreter lock, with or without it
                         */
#define X(result, name, parameters) result(*name) parameters;
    PH_PYTHON_FUNCTIONS(X)
#undef X
#define X(type, name) type *name;
    PH_PYTHON_DATA(X)
#undef X
    int (*PyUnstable_Module_SetGIL)(PyObject *module, void *gil); /* free-threaded builds */
};

/** The interpreter of this process; usable after ph_python_load has returned NULL. */
extern struct ph_python ph_py;

#define PH_PY_NONE (ph_py._Py_NoneStruct)

/** The interpreter's version as Py_GetVersion gives it, or NULL: no Python in this process. */
const char *ph_python_version(void);

/** Why pyheap cannot serve an interpreter that calls itself @p version, or NULL if it can. */
const char *ph_python_refusal(const char *version);

/** Fill ph_py. @return NULL, or what stands in the way: a refusal or a missing symbol. */
const char *ph_python_load(const char *version);

#endif
