/* SPDX-License-Identifier: MIT */
/*
 * reseed.c - two recoveries of one epoch must not share secrets
 *
 * What the kernel gives is new in each recovery: os.urandom, secrets, uuid4. OpenSSL keeps
 * generators of its own in memory, and would give the same keys and nonces every time.
 *
 *   S1  Where its functions can be found, it is given new bytes: RAND_seed of each libcrypto,
 *       whatever name a wheel has given to it.
 *   S2  A generator draws from the kernel again when getpid answers otherwise than at its last
 *       use, which is how it notices a fork. So code of OpenSSL's gets a number of this life
 *       for an answer, which is no process's: all generators of all threads and contexts, and
 *       those of an extension module that has OpenSSL inside, as `cryptography` does. Libraries
 *       that may want getpid for other things as well are told the pid.
 *
 * Such a module is known by the names of OpenSSL's source files, which its error messages have.
 * It is looked at when it first calls getpid in a recovered program.
 *
 * random and numpy.random are left as they are: their results are the program's.
 */
#include "hook.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define NO_PROCESS (1 << 30) /* above the largest pid that Linux gives */

enum kind { UNKNOWN, OTHER, OPENSSL };

struct object {
    struct range {
        uintptr_t start, end;
    } all,
        constant[3]; /* its memory; what of that is not written to, with an end of 0 for none */
    _Atomic int kind;
};

/* Two, since somebody may look into the one of the life before while this life's is made. */
static struct table {
    size_t n;
    struct object objects[1024]; /* ascending */
} tables[2];
static struct table *_Atomic current;
static pid_t this_life;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Wheels bring copies under names of their own, so every loaded object that looks like it. */
static void seed_one(const char *name, const void *bytes)
{
    void *library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return;
    void (*seed)(const void *, int) = (void (*)(const void *, int))dlsym(library, "RAND_seed");
    if (seed)
        seed(bytes, 32);
    dlclose(library);
}

static void add(struct table *t, const struct dl_phdr_info *info, enum kind kind)
{
    if (t->n == sizeof t->objects / sizeof t->objects[0])
        return;
    struct object *o = &t->objects[t->n++];
    size_t constants = 0;
    *o = (struct object){.all = {UINTPTR_MAX, 0}, .kind = kind};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD)
            continue;
        uintptr_t start = info->dlpi_addr + p->p_vaddr, end = start + p->p_memsz;
        o->all.start = start < o->all.start ? start : o->all.start;
        o->all.end = end > o->all.end ? end : o->all.end;
        if ((p->p_flags & (PF_R | PF_W)) == PF_R &&
            constants < sizeof o->constant / sizeof o->constant[0])
            o->constant[constants++] = (struct range){start, end};
    }
}

struct life {
    struct table *table;
    unsigned char seed[32];
    uint32_t number;
};

static int look_at(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct life *life = argument;
    const char *name = base_name(info->dlpi_name);
    if (strstr(name, "libcrypto")) {
        seed_one(info->dlpi_name, life->seed);
        add(life->table, info, OPENSSL);
    } else if (*name && strncmp(name, "lib", 3) != 0)
        add(life->table, info, UNKNOWN);
    return 0;
}

static int by_address(const void *a, const void *b)
{
    const struct object *x = a, *y = b;
    return (x->all.start > y->all.start) - (x->all.start < y->all.start);
}

void ph_reseed(void)
{
    struct life life;
    if (getrandom(&life, sizeof life, 0) != (ssize_t)sizeof life)
        return;
    struct table *table = life.table = &tables[current == &tables[0]];
    table->n = 0;
    dl_iterate_phdr(look_at, &life);
    qsort(table->objects, table->n, sizeof table->objects[0], by_address);
    this_life = (pid_t)(NO_PROCESS | (life.number & (NO_PROCESS - 1)));
    current = table;
    explicit_bzero(&life, sizeof life);
}

static enum kind find_out(const struct object *o)
{
    static const char *const files[] = {"providers/implementations/rands/drbg",
                                        "crypto/rand/drbg"};
    for (size_t i = 0; i < sizeof o->constant / sizeof o->constant[0]; i++)
        for (size_t f = 0; f < sizeof files / sizeof files[0] && o->constant[i].end; f++)
            if (memmem((const void *)o->constant[i].start,
                       o->constant[i].end - o->constant[i].start, files[f], strlen(files[f])))
                return OPENSSL;
    return OTHER;
}

pid_t ph_reseed_pid(const void *caller, pid_t pid)
{
    struct table *table = current;
    uintptr_t at = (uintptr_t)caller;
    for (size_t low = 0, high = table ? table->n : 0; low < high;) {
        size_t middle = (low + high) / 2;
        struct object *o = &table->objects[middle];
        if (at < o->all.start)
            high = middle;
        else if (at >= o->all.end)
            low = middle + 1;
        else {
            if (o->kind == UNKNOWN)
                o->kind = find_out(o);
            return o->kind == OPENSSL ? this_life : pid;
        }
    }
    return pid;
}
