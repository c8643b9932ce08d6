/* SPDX-License-Identifier: MIT */
/* python_abi.c - find the interpreter in this process and fill the table of its symbols */
#include "python_abi.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define OLDEST_MINOR 9

struct ph_python ph_py;

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
#define X(result, name, parameters) {#name, offsetof(struct ph_python, name)},
    PH_PYTHON_FUNCTIONS(X)
#undef X
#define X(type, name) {#name, offsetof(struct ph_python, name)},
        PH_PYTHON_DATA(X)
#undef X
};

const char *ph_python_version(void)
{
    const char *(*get)(void) = (const char *(*)(void))dlsym(RTLD_DEFAULT, "Py_GetVersion");
    return get ? get() : NULL;
}

const char *ph_python_refusal(const char *version)
{
    char *end;
    long major = strtol(version, &end, 10);
    long minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
    if (major < 3 || (major == 3 && minor < OLDEST_MINOR))
        return "it is older than 3.9";
    return NULL;
}

const char *ph_python_load(const char *version)
{
    const char *refusal = ph_python_refusal(version);
    if (refusal)
        return refusal;
    /* A function that free-threaded builds alone have. */
    void *set_gil = dlsym(RTLD_DEFAULT, "PyUnstable_Module_SetGIL");
    if (!set_gil && strstr(version, "free-threading"))
        return "PyUnstable_Module_SetGIL"; /* before 3.13.0 */
    ph_py.free_threaded = set_gil != NULL;
    memcpy(&ph_py.PyUnstable_Module_SetGIL, &set_gil, sizeof set_gil);
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *address = dlsym(RTLD_DEFAULT, symbols[i].name);
        if (!address)
            return symbols[i].name;
        memcpy((char *)&ph_py + symbols[i].offset, &address, sizeof address);
    }
    return NULL;
}
