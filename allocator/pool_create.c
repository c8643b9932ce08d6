/* SPDX-License-Identifier: MIT */
/*
 * pool_create.c - making a pool
 *
 * In two steps, which may lie hours apart: the plan, which decides every number, and the making
 * itself, out of a claim (pool_claim.c). The pool is made in a new file without a name, and
 * takes the claim's name over when all of it is durable.
 */
#include "allocator/pool_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SIZE_UNIT    (UINT64_C(1) << 20)
#define SIZE_DEFAULT (UINT64_C(64) << 30)
#define LEAST_SPACE  8 /* extents: a home and a log, and room to migrate */

/* ---- the plan ------------------------------------------------------------------------- */

int ph_pool_new_id(struct ph_pool *p)
{
    const ssize_t size = sizeof(p->super.id);

    return getrandom(p->super.id, (size_t)size, 0) == size ? 0 : PH_EKERNEL;
}

/* The keeper maps all of the pool, and needs some more for itself. */
static uint64_t addresses_for_pool(void)
{
    struct rlimit addresses;

    return getrlimit(RLIMIT_AS, &addresses) == 0 ? addresses.rlim_cur / 2 : UINT64_MAX;
}

static uint64_t default_size(void)
{
    uint64_t physical = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t size = 4 * physical > SIZE_DEFAULT ? 4 * physical : SIZE_DEFAULT;
    uint64_t most = addresses_for_pool();

    return size < most ? size : most;
}

static int set_size(struct ph_pool *p, uint64_t wanted)
{
    uint64_t size = wanted ? wanted / SIZE_UNIT * SIZE_UNIT : default_size();
    int err;

    if (wanted && size < PH_POOL_SIZE_MIN)
        return PH_EPOOLSIZE;
    size = size / SIZE_UNIT * SIZE_UNIT;
    /* A default that the file system cannot hold is halved; a size that was asked for is not.
     */
    while ((err = ph_io_truncate(&p->io, size)) == PH_EPOOLSIZE && !wanted &&
           size > SIZE_DEFAULT)
        size /= 2;
    p->super.file_size = size;
    return err ? ph_pool_fail(p, err, "setting the pool's size") : 0;
}

/* Whether there is room for a home, a log and a migration behind @p used bytes. */
static int check_room(const struct ph_super_pm *s, uint64_t used)
{
    return s->file_size < used + LEAST_SPACE * s->extent_pages * PH_PAGE ? PH_EPOOLSIZE : 0;
}

int ph_pool_plan(struct ph_pool *p, const struct ph_pool_options *opt)
{
    const uint32_t chunk_pages = (256 << 10) / PH_PAGE;
    struct ph_super_pm *s = &p->super;
    struct timespec now;
    uint32_t need;
    int err = set_size(p, opt->size);

    if (err)
        return err;
    s->magic = PH_SUPER_MAGIC;
    s->version = PH_POOL_VERSION;
    s->stretch_pages = ph_tuning.stretch_pages;
    need = ph_table_pages(s) + s->stretch_pages + 1; /* one page for the object's header */
    need = (need + chunk_pages - 1) / chunk_pages * chunk_pages;
    s->extent_pages = need - 1;
    s->slot_count = (uint32_t)(s->file_size / (need * PH_PAGE)) + 1;
    s->root_size = 4 * PH_PAGE + s->slot_count * sizeof(struct ph_slot_pm);
    s->keep = opt->keep > 2 ? opt->keep : 2;
    clock_gettime(CLOCK_REALTIME, &now);
    s->created = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (opt->command)
        strncpy(s->command, opt->command, sizeof(s->command) - 1);
    err = check_room(s, ph_pmem_headers(0));
    return err && !opt->size && s->file_size >= addresses_for_pool() / SIZE_UNIT * SIZE_UNIT
               ? PH_ENOMEM
               : err;
}

/* ---- the making ----------------------------------------------------------------------- */

/* Write superblock and both root records. libpmemobj gave the root object as durable zeros. */
static int write_first(struct ph_pool *p)
{
    struct ph_super_pm *s = &p->super;
    int err;

    s->self = (s->root_object + PH_PAGE - 1) & ~(PH_PAGE - 1);
    s->slots = s->self + 3 * PH_PAGE;
    s->sum = ph_sum(s, offsetof(struct ph_super_pm, sum));
    err = ph_io_write(&p->io, s, sizeof(*s), s->self);
    if (!err) {
        p->root = (struct ph_root_pm){.magic = PH_ROOT_MAGIC, .id = {s->id[0], s->id[1]}};
        err = ph_root_write_both(p);
    }
    return err;
}

/* In the new file. */
static int fill(struct ph_pool *p)
{
    int err = ph_io_truncate(&p->io, p->super.file_size);

    if (err)
        return ph_pool_fail(p, err, "setting the pool's size");
    err = ph_pmem_reserve(&p->io, p->super.file_size);
    if (err)
        return ph_pool_fail(p, err, "reserving space for the pool's headers");
    ph_io_open_direct(&p->io);
    err = ph_pmem_create(p);
    if (!err)
        err = write_first(p);
    if (!err)
        err = ph_root_load(p);
    if (!err)
        err = check_room(&p->super, p->super.self);
    if (!err && fsync(p->io.fd))
        err = ph_pool_fail(p, PH_EIO, "fsync");
    if (!err)
        err = ph_home_start(p);
    return err;
}

/* C4: as if it had never been tried. If libpmemobj was cut short, it cannot be again. */
static void unmake(struct ph_pool *p, int err)
{
    ph_home_stop(p);
    p->stop = false;
    if (p->pop && !p->pop_lost)
        pmemobj_close(p->pop);
    p->pop = NULL;
    ph_io_close(&p->io);
    free(p->extent);
    free(p->by_offset);
    p->extent = NULL;
    p->by_offset = NULL;
    p->extents = 0;
    p->root = (struct ph_root_pm){0};
    p->broken = p->pop_lost ? err : 0;
    ph_name_discard(p->path, p->super.id);
}

int ph_pool_make(struct ph_pool *p)
{
    struct ph_io claim = p->io;
    int err;

    p->io = (struct ph_io){-1, -1};
    p->detail[0] = 0;
    errno = 0;
    err = ph_name_new_file(p->path, p->super.id, &p->io.fd);
    if (err)
        ph_pool_fail(p, err, p->path);
    if (!err)
        err = fill(p);
    if (!err) {
        err = ph_name_pass_on(claim.fd, p->io.fd, p->path, p->super.id);
        if (err == PH_EBUSY)
            errno = 0;
        if (err)
            ph_pool_fail(p, err, err == PH_EBUSY ? "another file has this name now" : p->path);
    }
    if (err) {
        if (!p->detail[0])
            ph_pool_fail(p, err, "making the pool");
        unmake(p, err);
        p->io = claim;
        return err;
    }
    p->claimed = false;
    ph_io_close(&claim);
    if ((err = ph_name_sync(p->path)) != 0) {
        p->broken = err; /* as any sync that fails */
        ph_pool_fail(p, err, "fsync of the pool's directory");
    }
    return err;
}

int ph_pool_create(struct ph_pool **out, const char *path, const struct ph_pool_options *opt)
{
    int err = ph_pool_claim(out, path, opt);

    if (!err && (err = ph_pool_make(*out)) != 0) {
        ph_pool_remove(*out);
        *out = NULL;
    }
    return err;
}
