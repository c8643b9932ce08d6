/* SPDX-License-Identifier: MIT */
/*
 * pool_claim.c - a pool's name, taken before there is a pool
 *
 * Making a pool takes longer than a short program, and most short programs take no epoch. So a
 * run begins with a claim: a file of one page under the pool's name that says what the pool is
 * going to be, locked while its keeper lives. To everybody else it is a pool without epochs.
 * The pool itself is made with the first epoch, beside, and takes the name over when it is
 * whole:
 *
 *   (no file) --ph_pool_claim--> claim --ph_pool_make, with the first epoch--> pool
 *                  claim, pool without epochs --ph_pool_remove--> (no file)
 *
 * Invariants
 *  C1  Under the name is always a whole file, a claim or a pool: both get it when they are
 *      ready (pool_name.c). What is being made is nobody's to find.
 *  C2  That file is locked (flock) from before it has the name until its keeper closes it or
 *      dies: a claim by its maker's descriptor, a pool by libpmemobj's.
 *  C3  The name is removed only by who holds that lock, and only while it is the locked file's.
 *  C4  A making that fails or is killed leaves the claim as it was.
 *
 * A claim is not synced: that would take as long as the disk is busy. So a power cut before the
 * first epoch may leave it empty, and an empty file may be taken like a claim.
 */
#include "allocator/pool_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 100 /* others come and go under the same name */

/* ---- taking the name ---------------------------------------------------------------- */

/* libpmemobj is going to map the whole file: a limit (ulimit -v) is to be noticed now. */
static int check_addresses(uint64_t size)
{
    void *map = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (map == MAP_FAILED)
        return PH_ENOMEM;
    munmap(map, size);
    return 0;
}

int ph_claim_lock(int fd)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    return errno == EWOULDBLOCK ? PH_EBUSY : PH_EIO;
}

static int write_claim(struct ph_pool *p)
{
    static char page[PH_PAGE];
    const struct ph_super_pm *s = &p->super;
    struct ph_claim_pm c = {.magic = PH_CLAIM_MAGIC,
                            .version = PH_POOL_VERSION,
                            .keep = s->keep,
                            .file_size = s->file_size,
                            .created = s->created,
                            .id = {s->id[0], s->id[1]}};

    memcpy(c.command, s->command, sizeof(c.command));
    c.sum = ph_sum(&c, offsetof(struct ph_claim_pm, sum));
    memcpy(page, &c, sizeof(c));
    return ph_io_write(&p->io, page, sizeof(page), 0);
}

/* What is to go first leaves room. */
static bool leaves_room(const char *path, uint64_t size)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_blocks * 512 >= size;
}

static int prepare(struct ph_pool *p, const struct ph_pool_options *opt)
{
    int err = ph_pool_plan(p, opt); /* sets the file's size, to see whether it may have that */
    uint64_t headers = ph_pmem_headers(p->super.file_size);

    if (!err)
        err = check_addresses(p->super.file_size);
    if (!err && !leaves_room(p->path, headers) && (err = ph_io_space(&p->io, headers)) != 0)
        ph_pool_fail(p, err, "asking for free space");
    if (!err)
        err = ph_io_truncate(&p->io, 0);
    if (!err)
        err = write_claim(p);
    if (!err)
        err = ph_claim_lock(p->io.fd);
    if (!err)
        err = ph_queue_start(p);
    return err;
}

int ph_pool_prepare(struct ph_pool **out, const char *path, const struct ph_pool_options *opt)
{
    static const struct ph_pool_options defaults;
    struct ph_pool *p = ph_pool_new(path);
    int err;

    *out = NULL;
    if (!p)
        return PH_ENOMEM;
    p->writable = p->claimed = true;
    err = ph_pool_new_id(p);
    if (!err)
        err = ph_name_new_file(path, p->super.id, &p->io.fd);
    if (!err && (err = prepare(p, opt ? opt : &defaults)) != 0)
        ph_name_discard(path, p->super.id);
    if (err) {
        ph_pool_close(p);
        return err;
    }
    *out = p;
    return 0;
}

int ph_pool_take(struct ph_pool *p)
{
    return ph_name_give(p->io.fd, p->path, p->super.id);
}

int ph_pool_claim(struct ph_pool **out, const char *path, const struct ph_pool_options *opt)
{
    int err = ph_pool_prepare(out, path, opt);

    if (!err && (err = ph_pool_take(*out)) != 0) {
        ph_pool_remove(*out);
        *out = NULL;
    }
    return err;
}

/* ---- finding one -------------------------------------------------------------------- */

int ph_claim_load(struct ph_pool *p)
{
    struct ph_claim_pm c;
    int err = ph_io_read(&p->io, &c, sizeof(c), 0);

    if (err)
        return err;
    if (c.version != PH_POOL_VERSION)
        return PH_ENEWER;
    if (!ph_sum_equal(c.sum, ph_sum(&c, offsetof(struct ph_claim_pm, sum))) ||
        c.command[sizeof(c.command) - 1] != 0)
        return PH_ECORRUPT;
    p->claimed = true;
    p->super.keep = c.keep;
    p->super.file_size = c.file_size;
    p->super.created = c.created;
    memcpy(p->super.id, c.id, sizeof(c.id));
    memcpy(p->super.command, c.command, sizeof(c.command));
    return 0;
}

bool ph_pool_is_claim(const struct ph_pool *p)
{
    return p->claimed;
}

/* ---- giving it up, and away --------------------------------------------------------- */

void ph_pool_remove(struct ph_pool *p)
{
    if (ph_name_is_of(p->io.fd, p->path)) /* C3 */
        unlink(p->path);
    else
        ph_name_discard(p->path, p->super.id);
    ph_pool_close(p);
}

static bool is_empty(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0 &&
           st.st_uid == geteuid();
}

/* Whether what is open as @p fd may go. @param id of a claim, else zero. */
static int may_go(int fd, const char *path, bool unfinished, uint64_t id[2])
{
    int locked = ph_claim_lock(fd); /* first, so that what is read then does not change */
    struct ph_pool *p;
    struct ph_pool_info info;
    int err = is_empty(fd)
                  ? 0
                  : ph_pool_open_file(&p, path, fcntl(fd, F_DUPFD_CLOEXEC, 0), PH_POOL_READ);

    if (is_empty(fd)) {
        return locked;
    } else if (err == 0) {
        ph_pool_get_info(p, &info);
        if (p->claimed)
            memcpy(id, p->super.id, sizeof(p->super.id));
        ph_pool_close(p);
        if (!locked && info.newest && info.state != PH_POOL_FINISHED && !unfinished)
            err = PH_EUNFINISHED;
    } else if (unfinished && (err == PH_ECORRUPT || err == PH_ETRUNC || err == PH_ENEWER)) {
        err = 0; /* damaged ones too, but never a file that is no pool */
    }
    return err ? err : locked;
}

int ph_pool_clear(const char *path, bool unfinished)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t id[2] = {0, 0};
        int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), err;
        if (fd < 0)
            return errno == ENOENT ? 0 : ph_pool_open_error(errno);
        err = may_go(fd, path, unfinished, id);
        if (!err && !ph_name_is_of(fd, path)) { /* C3: it has been taken meanwhile */
            close(fd);
            continue;
        }
        if (!err && unlink(path) != 0)
            err = PH_EACCES;
        if (!err && id[0])
            ph_name_discard(path, id);
        close(fd);
        return err;
    }
    return PH_EBUSY;
}
