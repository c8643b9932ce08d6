/* SPDX-License-Identifier: MIT */
/*
 * keeper_drain.c - the keeper's second thread: from the staging ring into the pool
 *
 * Invariants
 *  K1  `durable` in the control page grows only after ph_pool_commit returned 0.
 *  K2  A commit comes after fdatasync of every file that the program sent with the epoch.
 *  K4  A program that waits for room in the ring gets it or learns that the epoch has failed,
 *      also if all that it has sent is consumed and cannot be written. (K3: keeper.c)
 */
#include "keeper_drain.h"

#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void ph_keeper_release(void *arg)
{
    struct ph_keeper *k = arg;
    ph_drain_release(&k->drain, ph_pool_written(k->pool));
}

static void publish_outcome(struct ph_keeper *k)
{
    atomic_fetch_add(&k->control->outcome_seq, 1);
    ph_futex_wake(&k->control->outcome_seq);
}

static void fail_epoch(struct ph_keeper *k, uint64_t epoch)
{
    struct ph_control *c = k->control;
    snprintf(c->failed_detail, sizeof c->failed_detail, "%s", k->detail);
    atomic_store(&c->failed_code, k->failure);
    atomic_store(&c->failed, epoch);
    publish_outcome(k);
}

static void fail(struct ph_keeper *k, int code, const char *detail)
{
    ph_pool_abort(k->pool);
    ph_keeper_release(k); /* the program may be waiting for room, and then sends nothing */
    k->failure = code;
    snprintf(k->detail, sizeof k->detail, "%s", detail);
    k->dropping = true;
    fail_epoch(k, k->epoch);
    k->epoch = 0;
}

static void fail_pool(struct ph_keeper *k, int code)
{
    char detail[256];
    snprintf(detail, sizeof detail, "%s", ph_pool_error_detail(k->pool));
    fail(k, code, detail);
}

static void begin(struct ph_keeper *k, const struct ph_batch *b)
{
    if (k->epoch)
        ph_pool_abort(k->pool); /* the program gave up in the middle */
    k->epoch = 0;
    if (k->dropping && !(b->flags & PH_EPOCH_FULL)) {
        fail_epoch(k, b->epoch);
        return;
    }
    k->dropping = false;
    k->epoch = b->epoch;
    k->begun_ns = b->time;
    k->pages = k->bytes = 0;
    int rc = ph_pool_begin(k->pool, b->epoch);
    if (rc == 0 && (b->flags & PH_EPOCH_AHEAD))
        rc = ph_pool_allow_again(k->pool);
    if (rc)
        fail_pool(k, rc);
}

static void add_pages(struct ph_keeper *k, const struct ph_batch *b)
{
    const void *page[PH_BATCH_MAX];
    for (uint32_t i = 0; i < b->count; i++)
        page[i] = ph_batch_page(b, i);
    size_t written = 0;
    int rc = ph_pool_append(k->pool, b->addr, page, b->count, &written);
    if (rc) {
        fail_pool(k, rc);
        return;
    }
    k->pages += written;
    k->bytes += written * PH_PAGE;
}

/** The present spans come in pieces; the pool wants them whole. */
static struct {
    struct ph_page_span *span;
    size_t n, room;
} present;

static void add_present(struct ph_keeper *k, const struct ph_batch *b)
{
    _Static_assert(sizeof(struct ph_page_span) == 16, "as staged by the program");
    size_t n = b->bytes / sizeof(struct ph_page_span);
    if (present.n + n > present.room) {
        size_t room = (present.n + n) * 2;
        struct ph_page_span *p = realloc(present.span, room * sizeof *p);
        if (!p) {
            fail(k, PH_ENOMEM, "list of present pages");
            return;
        }
        present.span = p;
        present.room = room;
    }
    memcpy(present.span + present.n, ph_batch_page(b, 0), n * sizeof *present.span);
    present.n += n;
}

static void add_record(struct ph_keeper *k, const struct ph_batch *b)
{
    int rc = ph_pool_append_record(k->pool, ph_batch_page(b, 0), b->bytes);
    if (rc)
        fail_pool(k, rc);
    else
        k->bytes += b->bytes;
}

/** One message with descriptors. @return whether it was there; *err what syncing them said. */
static bool sync_message(struct ph_keeper *k, uint64_t *epoch, int *err)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * 253)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {epoch, sizeof *epoch};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof control.buf};
    ssize_t n;
    do
        n = recvmsg(k->socket, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof *epoch)
        return false;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        int fd[253];
        memcpy(fd, CMSG_DATA(c), count * sizeof *fd);
        /* All begin to be written before the first is waited for: its commit of the file
         * system's journal is then that of the others, too. */
        for (size_t i = 0; i < count && count > 1; i++)
            sync_file_range(fd[i], 0, 0, SYNC_FILE_RANGE_WRITE);
        for (size_t i = 0; i < count; i++) {
            /* EINVAL, EROFS: this file knows no sync, so there is nothing to lose. */
            if (fdatasync(fd[i]) != 0 && errno != EINVAL && errno != EROFS)
                *err = errno;
            close(fd[i]);
        }
    }
    return true;
}

/** Messages are sent before the batch that counts them, so they are there already. */
static int sync_files(struct ph_keeper *k, const struct ph_batch *b)
{
    int err = 0;
    uint64_t epoch = 0;
    for (uint32_t got = 0; got < b->messages;) {
        if (!sync_message(k, &epoch, &err))
            return EPIPE;
        got += epoch == b->epoch;
    }
    return err;
}

/** Cuts of files that are older than all epochs that can be recovered. */
static void forget_cuts(struct ph_keeper *k)
{
    struct ph_pool_info info;
    if (access(k->undo_directory, F_OK) != 0)
        return;
    ph_pool_get_info(k->pool, &info);
    if (info.oldest)
        ph_undo_remove(k->undo_directory, k->pool_id, 0, info.oldest - 1);
    if (info.newest < info.keep || info.newest - info.keep < k->cuts_forgotten)
        return;
    ph_undo_forget(k->undo_directory, k->pool_id, k->cuts_forgotten, info.newest - info.keep);
    k->cuts_forgotten = info.newest - info.keep + 1;
}

static void commit(struct ph_keeper *k, const struct ph_batch *b)
{
    struct ph_control *c = k->control;
    int err = sync_files(k, b);
    if (!k->epoch)
        return;
    if (err) {
        fail(k, err == ENOSPC ? PH_EFULL : PH_EIO, "making the program's output files durable");
        return;
    }
    char label[PH_LABEL_MAX];
    snprintf(label, sizeof label, "%s", b->label);
    int rc = ph_pool_set_present(k->pool, present.span, present.n);
    if (rc == 0)
        rc = ph_pool_commit(k->pool, label[0] ? label : NULL, b->time);
    if (rc) {
        fail_pool(k, rc);
        return;
    }
    atomic_store(&c->pages_written, k->pages);
    atomic_store(&c->bytes_written, k->bytes);
    atomic_fetch_add(&c->total_pages_written, k->pages);
    atomic_fetch_add(&c->total_bytes_written, k->bytes);
    atomic_store(&c->commit_ns, ph_now_ns() - k->begun_ns);
    atomic_store(&c->durable, k->epoch);
    k->epoch = 0;
    publish_outcome(k);
    forget_cuts(k);
}

/** The batch's room goes back to the program when what was appended so far has been written. */
static void keep(struct ph_keeper *k, const struct ph_batch *b)
{
    _Static_assert(PH_KEPT_MAX > PH_POOL_PENDING_MAX, "a ticket for each pending write");
    ph_drain_keep(&k->drain, b, ph_pool_appended(k->pool));
    ph_keeper_release(k);
}

static void consume(struct ph_keeper *k, const struct ph_batch *b)
{
    struct ph_batch end;
    switch (b->kind) {
    case PH_BATCH_BEGIN:
        present.n = 0;
        ph_keeper_files_forget(&k->files);
        begin(k, b);
        break;
    case PH_BATCH_PAGES:
        if (k->epoch == b->epoch)
            add_pages(k, b);
        break;
    case PH_BATCH_PRESENT:
        if (k->epoch == b->epoch)
            add_present(k, b);
        break;
    case PH_BATCH_RECORD:
        if (k->epoch == b->epoch)
            add_record(k, b);
        break;
    case PH_BATCH_FILES: /* right even if the epoch fails */
        ph_keeper_files_name(&k->files, ph_batch_page(b, 0), b->bytes);
        break;
    case PH_BATCH_COMMIT:
        /* The ring is empty once all is written: the next epoch begins at its start. */
        end = *b;
        keep(k, b);
        commit(k, &end);
        ph_keeper_files_named(&k->files);
        return;
    default:
        break;
    }
    keep(k, b);
}

#define IDLE_MS 10
#define PUSH_MS 1 /* the program pauses in the middle of an epoch: write what there is */
#define FILES_AT_LEAST                                                                         \
    UINT64_C(500000000) /* ns: a step as often, however busy the epochs are */
#define FILES_AFTERLIFE UINT64_C(5000000000)

/** Store a bit of the program's files, if there is nothing else to do. */
static void store_files(struct ph_keeper *k)
{
    if (!k->epoch && ph_keeper_files_pending(&k->files) &&
        (k->idle || ph_now_ns() - k->files.step_ns > FILES_AT_LEAST))
        ph_keeper_files_step(&k->files);
}

/** Between epochs, as they are not to wait for it. */
static void look_at_files(struct ph_keeper *k)
{
    if (!k->epoch)
        ph_keeper_files_look(&k->files, &k->control->files_hold);
}

static int patience(const struct ph_keeper *k)
{
    if (k->epoch && !k->idle && ph_pool_appended(k->pool) != ph_pool_written(k->pool))
        return PUSH_MS;
    if (k->epoch || !ph_keeper_files_pending(&k->files))
        return 100;
    return k->idle ? 0 : IDLE_MS;
}

void *ph_keeper_drain(void *arg)
{
    struct ph_keeper *k = arg;
    for (;;) {
        uint32_t seq = atomic_load(&k->control->produced_seq);
        bool stop = atomic_load(&k->stop), broken;
        const struct ph_batch *b =
            ph_drain_next(&k->drain, seq, stop ? 0 : patience(k), &broken);
        k->idle = !b;
        if (b) {
            if (b->kind == PH_BATCH_BEGIN && ph_check_end(&k->check)) /* V1 */
                return NULL;
            consume(k, b);
        } else if (broken) {
            if (!k->epoch)
                k->epoch = atomic_load(&k->control->durable) + 1;
            fail(k, PH_EINTERNAL, "the program has overwritten the staging memory");
            return NULL;
        } else if (stop) {
            break; /* nothing was left when we already knew that no more would come */
        } else if (k->epoch) {
            int rc = ph_pool_push(k->pool); /* K4 */
            if (rc)
                fail_pool(k, rc);
        }
        if (!stop) {
            store_files(k);
            look_at_files(k);
        }
    }
    if (k->epoch)
        ph_pool_abort(k->pool);
    if (atomic_load(&k->unfinished))
        ph_keeper_files_finish(&k->files, FILES_AFTERLIFE);
    return NULL;
}
