/* SPDX-License-Identifier: MIT */
/*
 * reseed.c - two recoveries of one epoch must not share secrets
 *
 * What the kernel gives is new in each recovery: os.urandom, secrets, uuid4. OpenSSL keeps a
 * generator of its own in memory, and would give the same keys and nonces every time. It tells
 * forks apart by getpid, which a recovered program sees unchanged, so it is told here: seeding
 * makes its generators draw from the kernel again before they give anything.
 *
 * random and numpy.random are left as they are: their results are the program's.
 */
#include "hook.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include <sys/random.h>

/* Wheels bring copies under names of their own, so every loaded object that looks like it. */
static int seed_one(struct dl_phdr_info *info, size_t size, void *bytes)
{
    (void)size;
    const char *slash = strrchr(info->dlpi_name, '/');
    if (!strstr(slash ? slash : info->dlpi_name, "libcrypto"))
        return 0;
    void *library = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return 0;
    void (*seed)(const void *, int) = (void (*)(const void *, int))dlsym(library, "RAND_seed");
    if (seed)
        seed(bytes, 32);
    dlclose(library);
    return 0;
}

void ph_reseed(void)
{
    unsigned char bytes[32];
    if (getrandom(bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes)
        dl_iterate_phdr(seed_one, bytes);
    explicit_bzero(bytes, sizeof bytes);
}
