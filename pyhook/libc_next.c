/* SPDX-License-Identifier: MIT */
/* libc_next.c - find libc's functions behind this library's */
#include "libc_next.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
#define X(name) {#name, offsetof(struct ph_libc, name)},
    PH_LIBC_FUNCTIONS(X)
#undef X
};

const struct ph_libc *ph_libc_next(void)
{
    static struct ph_libc next;
    static atomic_bool found;
    if (__builtin_expect(atomic_load_explicit(&found, memory_order_acquire), 1))
        return &next;
    /* Several threads may do this at once: they write the same. */
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *address = dlsym(RTLD_NEXT, functions[i].name);
        memcpy((char *)&next + functions[i].offset, &address, sizeof address);
    }
    atomic_store_explicit(&found, true, memory_order_release);
    return &next;
}
