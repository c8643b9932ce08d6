/* SPDX-License-Identifier: MIT */
/*
 * pool.c - the pool as a whole: create, open, close, finish, rewind
 *
 * Opening looks at the file with read() alone before libpmemobj may see it: owner and mode,
 * what kind of file it is, the superblock, whether it is whole. libpmemobj is then used by a
 * writer only, for its lock and for allocating extents; a reader does without, because
 * libpmemobj locks the file exclusively and writes to it even when it is only opened. So the
 * reader needs the superblock's place: the superblock lies in libpmemobj's root object, which
 * is the first thing allocated, hence near the start; it is looked for page by page among the
 * file's data there, and holds its own offset, so a copy of one inside a page is not taken for
 * it.
 *
 * libpmemobj gets the file by /proc/self/fd: it is the file that was checked, whatever happens
 * to the name meanwhile.
 */
#include "allocator/pool_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* libpmemobj's own on-media layout, as of every 1.x: where its headers and the chunk headers of
 * each zone lie. Only for reserving blocks there; wrong numbers would cost disk space. */
#define PMEM_SIGNATURE    "PMEMOBJ"
#define PMEM_LAYOUT_AT    4096u
#define PMEM_HEAP_AT      UINT64_C(0x302400)
#define PMEM_ZONE_HEADERS (UINT64_C(512) << 10)
#define PMEM_ZONE_SIZE    (PMEM_ZONE_HEADERS + UINT64_C(65528) * (256 << 10))

#define SUPER_SEARCH      (UINT64_C(64) << 20) /* bytes from the start of the file */
#define SIZE_MIN          (UINT64_C(16) << 20)
#define SIZE_UNIT         (UINT64_C(1) << 20)
#define SIZE_DEFAULT      (UINT64_C(64) << 30)

int ph_pool_grow(void *array, size_t *capacity, size_t need, size_t element)
{
    size_t n = *capacity;
    void *bigger;

    if (need <= n)
        return 0;
    while (n < need)
        n += n / 2 + 64;
    bigger = realloc(*(void **)array, n * element);
    if (!bigger)
        return PH_ENOMEM;
    *(void **)array = bigger;
    *capacity = n;
    return 0;
}

int ph_pool_fail(struct ph_pool *p, int err, const char *what)
{
    if (errno)
        snprintf(p->detail, sizeof(p->detail), "%s: %s", what, strerror(errno));
    else
        snprintf(p->detail, sizeof(p->detail), "%s", what);
    return err;
}

int ph_pool_sync(struct ph_pool *p)
{
    int err = ph_io_sync(&p->io);

    if (err) {
        pthread_mutex_lock(&p->lock);
        p->broken = err;
        ph_pool_fail(p, err, "fdatasync");
        pthread_mutex_unlock(&p->lock);
    }
    return err;
}

const char *ph_pool_error_detail(const struct ph_pool *p)
{
    return p ? p->detail : "";
}

int ph_pool_fd(const struct ph_pool *p)
{
    return p->io.fd;
}

static struct ph_pool *new_pool(void)
{
    struct ph_pool *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->io = (struct ph_io){-1, -1};
    p->log_slot = p->files.slot = PH_NO_SLOT;
    p->bounce = aligned_alloc(PH_PAGE, PH_IO_CHUNK);
    if (!p->bounce) {
        free(p);
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    ph_queue_init(&p->queue);
    return p;
}

void ph_pool_close(struct ph_pool *p)
{
    if (!p)
        return;
    ph_home_stop(p);
    ph_pool_abort(p);
    ph_queue_free(p);
    if (p->pop && !p->pop_lost)
        pmemobj_close(p->pop);
    ph_io_close(&p->io);
    ph_filter_free(&p->filter);
    ph_root_forget_indexes(p);
    free(p->present);
    free(p->epoch);
    free(p->extent);
    free(p->by_offset);
    ph_files_free(p);
    free(p->bounce);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* ---- libpmemobj ------------------------------------------------------------------ */

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
    p->pop = pmemobj_create(path, PH_POOL_LAYOUT, 0, 0600);
    if (!p->pop) {
        int err = errno == ENOSPC ? PH_EFULL : errno == ENOMEM ? PH_ENOMEM : PH_EIO;
        snprintf(p->detail, sizeof(p->detail), "%s", pmemobj_errormsg());
        return err;
    }
    no_read_ahead(p);
    root = pmemobj_root(p->pop, p->super.root_size);
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

/* ---- create ----------------------------------------------------------------------- */

static uint64_t default_size(void)
{
    uint64_t physical = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    return 4 * physical > SIZE_DEFAULT ? 4 * physical : SIZE_DEFAULT;
}

static int set_size(struct ph_pool *p, uint64_t wanted)
{
    uint64_t size = wanted ? wanted / SIZE_UNIT * SIZE_UNIT : default_size();
    int err;

    if (wanted && size < SIZE_MIN)
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

/* Reserve the blocks that libpmemobj will store to through its mapping. */
int ph_pool_reserve(struct ph_io *io, uint64_t size)
{
    int err = ph_io_reserve(io, 0, PMEM_HEAP_AT + PMEM_ZONE_HEADERS + PH_PAGE);

    for (uint64_t at = PMEM_HEAP_AT + PMEM_ZONE_SIZE;
         at + PMEM_ZONE_HEADERS + PH_PAGE < size && !err; at += PMEM_ZONE_SIZE)
        err = ph_io_reserve(io, at & ~(PH_PAGE - 1), PMEM_ZONE_HEADERS + PH_PAGE);
    return err;
}

/* Sizes that follow from the file's and the stretch's. */
static int plan_super(struct ph_super_pm *s, uint32_t keep, const char *command)
{
    const uint32_t chunk_pages = (256 << 10) / PH_PAGE;
    struct timespec now;
    uint32_t need;

    s->magic = PH_SUPER_MAGIC;
    s->version = PH_POOL_VERSION;
    s->stretch_pages = ph_tuning.stretch_pages;
    need = ph_table_pages(s) + s->stretch_pages + 1; /* one page for the object's header */
    need = (need + chunk_pages - 1) / chunk_pages * chunk_pages;
    s->extent_pages = need - 1;
    s->slot_count = (uint32_t)(s->file_size / (need * PH_PAGE)) + 1;
    s->root_size = 4 * PH_PAGE + s->slot_count * sizeof(struct ph_slot_pm);
    s->keep = keep > 2 ? keep : 2;
    clock_gettime(CLOCK_REALTIME, &now);
    s->created = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (command)
        strncpy(s->command, command, sizeof(s->command) - 1);
    if (getrandom(s->id, sizeof(s->id), 0) != sizeof(s->id))
        return PH_EKERNEL;
    return 0;
}

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

/* The name of a new file is durable only once its directory is. */
int ph_pool_sync_name(struct ph_pool *p, int file, const char *path)
{
    char *copy = strdup(path);
    int fd, err = 0;

    if (!copy)
        return PH_ENOMEM;
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fsync(file) || (fd >= 0 && fsync(fd) && errno != EINVAL))
        err = ph_pool_fail(p, PH_EIO, "fsync");
    if (fd >= 0)
        close(fd);
    return err;
}

int ph_pool_open_error(int err)
{
    switch (err) {
    case ENOENT:
    case ENOTDIR:
        return PH_ENOENT;
    case EACCES:
    case EPERM:
    case EROFS:
        return PH_EACCES;
    case EEXIST:
        return PH_EUNFINISHED;
    case ELOOP: /* O_NOFOLLOW */
        return PH_EOWNER;
    case ENOSPC:
    case EDQUOT:
        return PH_EFULL;
    case ENOMEM:
        return PH_ENOMEM;
    case ENXIO:
    case ENODEV:
    case EISDIR:
        return PH_ENOTPOOL;
    default:
        return PH_EIO;
    }
}

static int fill_new(struct ph_pool *p, const char *path, const struct ph_pool_options *opt)
{
    int err;

    if (fchmod(p->io.fd, 0600))
        return ph_pool_fail(p, PH_EIO, "fchmod");
    err = set_size(p, opt->size);
    if (!err && (err = ph_pool_reserve(&p->io, p->super.file_size)) != 0)
        ph_pool_fail(p, err, "reserving space for the pool's headers");
    if (!err)
        err = plan_super(&p->super, opt->keep, opt->command);
    if (!err) {
        pmem_settings();
        err = ph_guard(&p->io, pmem_create, p);
    }
    if (!err)
        err = write_first(p);
    if (!err)
        err = ph_root_load(p);
    if (!err && p->super.file_size < p->super.self + 8 * p->super.extent_pages * PH_PAGE)
        err = PH_EPOOLSIZE; /* a home and a log, and room to migrate */
    if (!err)
        err = ph_pool_sync_name(p, p->io.fd, path);
    if (!err)
        err = ph_queue_start(p);
    if (!err)
        err = ph_home_start(p);
    return err;
}

int ph_pool_create(struct ph_pool **out, const char *path, const struct ph_pool_options *opt)
{
    static const struct ph_pool_options defaults;
    struct ph_pool *p = new_pool();
    int err;

    *out = NULL;
    if (!p)
        return PH_ENOMEM;
    p->writable = true;
    p->io.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (p->io.fd < 0) {
        err = ph_pool_open_error(errno);
        ph_pool_close(p);
        return err;
    }
    ph_io_open_direct(&p->io);
    err = fill_new(p, path, opt ? opt : &defaults);
    if (err) {
        unlink(path);
        ph_pool_close(p);
        return err;
    }
    *out = p;
    return 0;
}

/* ---- open ------------------------------------------------------------------------- */

/* Owner, mode, kind. */
static int check_file(struct ph_pool *p, uint64_t *size)
{
    struct stat st;

    if (fstat(p->io.fd, &st))
        return PH_EIO;
    if (!S_ISREG(st.st_mode))
        return PH_ENOTPOOL;
    if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
        return PH_EOWNER;
    *size = (uint64_t)st.st_size;
    return 0;
}

static int check_kind(struct ph_pool *p, uint64_t size)
{
    char signature[8], layout[16] = "";
    int err = ph_io_read(&p->io, signature, sizeof(signature), 0);

    if (err)
        return err == PH_ETRUNC ? PH_ENOTPOOL : err;
    if (memcmp(signature, PMEM_SIGNATURE, sizeof(signature)) != 0)
        return PH_ENOTPOOL;
    if (size < PMEM_LAYOUT_AT + sizeof(layout))
        return PH_ETRUNC;
    err = ph_io_read(&p->io, layout, sizeof(layout), PMEM_LAYOUT_AT);
    if (err)
        return err;
    return strncmp(layout, PH_POOL_LAYOUT, sizeof(layout)) == 0 ? 0 : PH_ENOTPOOL;
}

/* Numbers of a superblock that later code computes with. */
static bool super_sane(const struct ph_super_pm *s)
{
    uint64_t slots_end;

    if (s->stretch_pages < 16 || s->stretch_pages > (1u << 24) ||
        s->extent_pages < ph_table_pages(s) + s->stretch_pages ||
        s->extent_pages > 2 * (ph_table_pages(s) + s->stretch_pages) + 256 || s->keep < 2 ||
        s->command[sizeof(s->command) - 1] != 0)
        return false;
    if (s->file_size > INT64_MAX || s->file_size < SIZE_MIN || s->slot_count == 0 ||
        s->slot_count > s->file_size / PH_PAGE || s->slots != s->self + 3 * PH_PAGE)
        return false;
    slots_end = s->slots + s->slot_count * sizeof(struct ph_slot_pm);
    return s->root_object <= s->self && s->root_size <= s->file_size &&
           slots_end <= s->root_object + s->root_size && slots_end <= s->file_size;
}

/* @return 0 if @p page, read from @p offset, is the superblock, PH_ENOENT if it is none. */
static int check_super(struct ph_pool *p, const char *page, uint64_t offset)
{
    struct ph_super_pm s;

    memcpy(&s, page, sizeof(s));
    if (s.magic != PH_SUPER_MAGIC)
        return PH_ENOENT;
    if (s.version != PH_POOL_VERSION)
        return PH_ENEWER;
    if (s.self != offset)
        return PH_ENOENT;
    if (!ph_sum_equal(s.sum, ph_sum(&s, offsetof(struct ph_super_pm, sum))) || !super_sane(&s))
        return PH_ECORRUPT;
    p->super = s;
    return 0;
}

static int find_super(struct ph_pool *p, uint64_t size)
{
    uint64_t end = size < SUPER_SEARCH ? size : SUPER_SEARCH, at = 0;

    while (at < end) {
        off_t data = lseek(p->io.fd, (off_t)at, SEEK_DATA);
        uint64_t n;
        if (data < 0 || (uint64_t)data >= end)
            break;
        at = (uint64_t)data / PH_PAGE * PH_PAGE;
        n = end - at < PH_IO_CHUNK ? end - at : PH_IO_CHUNK;
        n = n / PH_PAGE * PH_PAGE;
        if (n == 0)
            break;
        int err = ph_io_read(&p->io, p->bounce, n, at);
        if (err)
            return err;
        for (uint64_t i = 0; i < n; i += PH_PAGE) {
            err = check_super(p, (char *)p->bounce + i, at + i);
            if (err != PH_ENOENT)
                return err;
        }
        at += n;
    }
    /* Cut off before the superblock, or the superblock is damaged. */
    return size < SIZE_MIN ? PH_ETRUNC : PH_ECORRUPT;
}

static int examine(struct ph_pool *p)
{
    uint64_t size = 0;
    int err = check_file(p, &size);

    if (!err)
        err = check_kind(p, size);
    if (!err)
        err = find_super(p, size);
    if (!err && size < p->super.file_size)
        err = PH_ETRUNC;
    return err;
}

/* Load, again if a writer in another process moved on meanwhile. */
static int load(struct ph_pool *p)
{
    int err = PH_EIO;

    for (int i = 0; i < 100; i++) {
        err = ph_root_load(p);
        if (p->writable || err == PH_EIO || !ph_pool_is_stale(p))
            break;
    }
    return err;
}

int ph_pool_refresh(struct ph_pool *p)
{
    struct ph_root_pm now;
    bool settled;
    int err;

    if (p->writable)
        return 0;
    err = ph_root_read(p, &now, &settled);
    if (!err && now.seq != p->root.seq)
        err = load(p);
    return err;
}

bool ph_pool_is_stale(struct ph_pool *p)
{
    struct ph_root_pm now;
    bool settled;

    /* Two writes of the root may be under way while we look; then neither counts, and the
     * caller looks again. */
    return !p->writable &&
           (ph_root_read(p, &now, &settled) || now.home_epoch != p->root.home_epoch);
}

int ph_pool_open(struct ph_pool **out, const char *path, enum ph_pool_mode mode)
{
    struct ph_pool *p = new_pool();
    int err;

    *out = NULL;
    if (!p)
        return PH_ENOMEM;
    p->writable = mode == PH_POOL_WRITE;
    /* O_NONBLOCK: opening a FIFO shall not hang. */
    p->io.fd =
        open(path, (p->writable ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (p->io.fd < 0)
        err = ph_pool_open_error(errno);
    else
        err = examine(p);
    if (!err && p->writable) {
        pmem_settings();
        err = ph_guard(&p->io, pmem_open, p);
        ph_io_open_direct(&p->io);
    }
    if (!err)
        err = load(p);
    if (!err && p->writable)
        err = ph_queue_start(p);
    if (!err && p->writable)
        err = ph_home_start(p);
    if (err) {
        ph_pool_close(p);
        return err;
    }
    *out = p;
    return 0;
}

/* ---- state ------------------------------------------------------------------------ */

void ph_pool_get_info(struct ph_pool *p, struct ph_pool_info *out)
{
    struct stat st;

    pthread_mutex_lock(&p->lock);
    ph_pool_refresh(p);
    *out = (struct ph_pool_info){
        .state = p->root.state == PH_POOL_FINISHED ? PH_POOL_FINISHED : PH_POOL_RUNNING,
        .exit_status = p->root.exit_status,
        .created = p->super.created,
        .newest = p->epochs ? p->epoch[p->epochs - 1].info.number : 0,
        .oldest = p->epochs ? p->root.oldest : 0,
        .home_epoch = p->root.home_epoch,
        .keep = p->super.keep,
        .size = p->super.file_size,
        .home_pages = p->root.home_pages,
        .pages_appended = p->pages_appended,
        .pages_migrated = p->pages_migrated,
        .pages_filtered = p->pages_filtered,
    };
    for (size_t i = 0; i < p->epochs; i++)
        out->log_bytes += p->epoch[i].info.bytes;
    pthread_mutex_unlock(&p->lock);
    memcpy(out->command, p->super.command, sizeof(out->command));
    if (fstat(p->io.fd, &st) == 0)
        out->allocated = (uint64_t)st.st_blocks * 512;
}

size_t ph_pool_epochs(struct ph_pool *p, struct ph_epoch_info *out, size_t max)
{
    size_t n = 0;

    pthread_mutex_lock(&p->lock);
    ph_pool_refresh(p);
    for (size_t i = p->epochs; i-- > 0 && p->epoch[i].info.number >= p->root.oldest;) {
        if (n < max)
            out[n] = p->epoch[i].info;
        n++;
    }
    pthread_mutex_unlock(&p->lock);
    return n;
}

int ph_pool_finish(struct ph_pool *p, int exit_status)
{
    int err;

    if (!p->writable || p->writing.number)
        return PH_EUSAGE;
    pthread_mutex_lock(&p->lock);
    err = ph_root_settle(p);
    if (!err) {
        p->root.state = PH_POOL_FINISHED;
        p->root.exit_status = exit_status;
        err = ph_root_write(p);
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

static int drop_after(struct ph_pool *p, uint64_t number)
{
    size_t at = p->epochs;
    int err;

    while (at && p->epoch[at - 1].info.number > number)
        at--;
    if (at == 0 || p->epoch[at - 1].info.number != number || number < p->root.oldest)
        return PH_ENOEPOCH;
    p->epochs = at;
    p->root.state = PH_POOL_RUNNING;
    p->root.exit_status = 0;
    ph_root_set_recent(p);
    err = ph_root_write_both(p); /* P5 */
    return err ? err : ph_root_load(p);
}

int ph_pool_rewind(struct ph_pool *p, uint64_t number)
{
    int err, start_err;

    if (!p->writable || p->writing.number)
        return PH_EUSAGE;
    ph_pool_file_abort(p);
    ph_home_stop(p); /* so that nothing else holds on to the state that is rebuilt */
    p->stop = false;
    pthread_mutex_lock(&p->lock);
    err = drop_after(p, number);
    pthread_mutex_unlock(&p->lock);
    start_err = ph_home_start(p);
    return err ? err : start_err;
}
