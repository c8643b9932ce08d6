/* SPDX-License-Identifier: MIT */
/*
 * pool_pmem.c - libpmemobj: making and opening the container
 *
 * libpmemobj gets the file by /proc/self/fd: it is the file that was checked, whatever happens
 * to the name meanwhile, and it may have no name yet.
 */
#include "allocator/pool_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* libpmemobj's own on-media layout, as of every 1.x: where its headers and the chunk headers of
 * each zone lie. Only for reserving blocks there; wrong numbers would cost disk space. */
#define PMEM_HEAP_AT      UINT64_C(0x302400)
#define PMEM_ZONE_HEADERS (UINT64_C(512) << 10)
#define PMEM_ZONE_SIZE    (PMEM_ZONE_HEADERS + UINT64_C(65528) * (256 << 10))

static int pmem_path(const struct ph_pool *p, char *path, size_t size)
{
    return snprintf(path, size, "/proc/self/fd/%d", p->io.fd);
}

/* PMDK would allocate every block, and record the state of a DIMM that does not exist. */
static void pmem_settings(void)
{
    int no = 0;

    pmemobj_ctl_set(NULL, "fallocate.at_create", &no);
    pmemobj_ctl_set(NULL, "sds.at_create", &no);
}

/* The mapping is touched here and there, and mostly holes: reading ahead fills the page cache
 * with zeros. */
static void no_read_ahead(const struct ph_pool *p)
{
    struct stat st;

    if (fstat(p->io.fd, &st) == 0)
        madvise(p->pop, (size_t)st.st_size, MADV_RANDOM);
}

static int pmem_create(void *arg)
{
    struct ph_pool *p = arg;
    char path[32];
    PMEMoid root;

    pmem_path(p, path, sizeof(path));
    p->pop_lost = true; /* until it has returned */
    p->pop = pmemobj_create(path, PH_POOL_LAYOUT, 0, 0600);
    if (!p->pop) {
        int err = errno == ENOSPC ? PH_EFULL : errno == ENOMEM ? PH_ENOMEM : PH_EIO;
        snprintf(p->detail, sizeof(p->detail), "%s", pmemobj_errormsg());
        p->pop_lost = false;
        return err;
    }
    no_read_ahead(p);
    root = pmemobj_root(p->pop, p->super.root_size);
    p->pop_lost = false;
    if (OID_IS_NULL(root))
        return errno == ENOMEM ? PH_EPOOLSIZE : PH_EIO;
    p->super.root_object = root.off;
    return 0;
}

static int pmem_open(void *arg)
{
    struct ph_pool *p = arg;
    char path[32];

    pmem_path(p, path, sizeof(path));
    p->pop = pmemobj_open(path, PH_POOL_LAYOUT);
    if (!p->pop) {
        int err = errno;
        snprintf(p->detail, sizeof(p->detail), "%s", pmemobj_errormsg());
        if (err == ENOMEM)
            return PH_ENOMEM;
        return err == EAGAIN || err == EWOULDBLOCK ? PH_EBUSY : PH_ECORRUPT;
    }
    no_read_ahead(p);
    if (pmemobj_root_size(p->pop) != p->super.root_size ||
        pmemobj_root(p->pop, p->super.root_size).off != p->super.root_object)
        return PH_ECORRUPT;
    return 0;
}

int ph_pmem_create(struct ph_pool *p)
{
    pmem_settings();
    return ph_guard(&p->io, pmem_create, p);
}

int ph_pmem_open(struct ph_pool *p)
{
    pmem_settings();
    return ph_guard(&p->io, pmem_open, p);
}

uint64_t ph_pmem_headers(uint64_t size)
{
    uint64_t zones = size / PMEM_ZONE_SIZE + 1;

    return PMEM_HEAP_AT + zones * (PMEM_ZONE_HEADERS + PH_PAGE);
}

int ph_pmem_reserve(struct ph_io *io, uint64_t size)
{
    int err = ph_io_reserve(io, 0, PMEM_HEAP_AT + PMEM_ZONE_HEADERS + PH_PAGE);

    for (uint64_t at = PMEM_HEAP_AT + PMEM_ZONE_SIZE;
         at + PMEM_ZONE_HEADERS + PH_PAGE < size && !err; at += PMEM_ZONE_SIZE)
        err = ph_io_reserve(io, at & ~(PH_PAGE - 1), PMEM_ZONE_HEADERS + PH_PAGE);
    return err;
}
