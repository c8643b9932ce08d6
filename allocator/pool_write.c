/* SPDX-License-Identifier: MIT */
/*
 * pool_write.c - the log's writes, in a thread of their own
 *
 * What an epoch appends is put in a queue; a thread takes what lies together in the file, up
 * to ph_tuning.write_max, and writes it in one go, while the caller hashes the pages that
 * follow. So the disk is busy from the first page on and sees large transfers. A small epoch
 * does not wake the thread: whoever flushes writes what is left itself.
 *
 *   add ... add  -->  [ pending ]  --write_some-->  written
 *
 * Invariants
 *  W1  The pending requests are those numbered (written, added]; they are written in order, by
 *      one thread at a time (busy).
 *  W2  The memory of a request is not the caller's until its number is <= written.
 *  W3  After a failure nothing is written until it has been cleared; the request that failed
 *      is still pending, and may have been written in part.
 *  W4  Before the sync of a commit the queue is empty (P1: durable means written first).
 */
#include "allocator/pool_internal.h"

#include <errno.h>

/* Writing begins when so much is pending: less is left to the flush. */
#define WAKE_BYTES (UINT64_C(1) << 20)

static struct ph_write *request(struct ph_queue *q, uint64_t number)
{
    return &q->pending[number % PH_POOL_PENDING_MAX];
}

/* Gather what lies in a row in the file from the oldest request on. */
static uint64_t gather(struct ph_queue *q, struct iovec *iov, int *n, uint64_t *offset)
{
    uint64_t size = 0, number = q->written + 1;

    *offset = request(q, number)->offset;
    for (*n = 0; number <= q->added; number++) {
        const struct ph_write *w = request(q, number);
        if (w->offset != *offset + size || (size && size + w->size > ph_tuning.write_max))
            break;
        iov[(*n)++] = (struct iovec){(void *)(uintptr_t)w->bytes, w->size};
        size += w->size;
    }
    return size;
}

/* Write the oldest requests. @pre the queue's lock is held, released meanwhile; not busy, no
 * failure, something is pending. */
static void write_some(struct ph_pool *p)
{
    struct ph_queue *q = &p->queue;
    struct iovec iov[PH_POOL_PENDING_MAX];
    int n, taken, err;
    uint64_t offset, size = gather(q, iov, &n, &offset);

    taken = n;
    q->busy = true;
    pthread_mutex_unlock(&q->lock);
    err = ph_io_writev(&p->io, iov, n, offset);
    pthread_mutex_lock(&q->lock);
    q->busy = false;
    if (err) {
        q->err = err;
        q->err_number = errno;
    } else {
        q->written += (uint64_t)taken;
        q->bytes -= size;
        q->urgent = q->urgent && q->bytes;
    }
    pthread_cond_broadcast(&q->done);
    if (!err && q->on_written) {
        pthread_mutex_unlock(&q->lock);
        q->on_written(q->arg);
        pthread_mutex_lock(&q->lock);
    }
}

static bool pending(const struct ph_queue *q)
{
    return q->written != q->added;
}

static void *writer(void *arg)
{
    struct ph_pool *p = arg;
    struct ph_queue *q = &p->queue;

    pthread_mutex_lock(&q->lock);
    while (!q->stop) {
        if (pending(q) && !q->busy && !q->err && (q->urgent || q->bytes >= WAKE_BYTES))
            write_some(p);
        else
            pthread_cond_wait(&q->work, &q->lock);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

/* The caller's half of a failure: when the disk is full, files may have what the epoch needs
 * (P10). @pre the queue's lock is held, released meanwhile. @return 0 to go on, or the error.
 */
static int clear_failure(struct ph_pool *p)
{
    struct ph_queue *q = &p->queue;
    int err = q->err;

    if (!err)
        return 0;
    errno = q->err_number;
    ph_pool_fail(p, err, "writing the epoch");
    if (err != PH_EFULL)
        return err;
    pthread_mutex_unlock(&q->lock);
    pthread_mutex_lock(&p->lock);
    if (ph_files_give_up(p) == 0)
        err = 0;
    p->disk_full = err != 0;
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_lock(&q->lock);
    q->err = err;
    return err;
}

/* Have the oldest requests written. @pre as write_some, but may be busy or have failed. */
static int advance(struct ph_pool *p)
{
    struct ph_queue *q = &p->queue;
    int err = 0;

    if (q->busy)
        pthread_cond_wait(&q->done, &q->lock);
    else if (!(err = clear_failure(p)) && pending(q))
        write_some(p);
    return err;
}

int ph_queue_add(struct ph_pool *p, const void *bytes, uint64_t size, uint64_t offset)
{
    struct ph_queue *q = &p->queue;
    int err = 0;

    pthread_mutex_lock(&q->lock);
    while (!err && (q->added - q->written == PH_POOL_PENDING_MAX || (q->err && !q->busy)))
        err = advance(p);
    if (!err) {
        *request(q, ++q->added) = (struct ph_write){bytes, size, offset};
        q->bytes += size;
        if (q->runs && q->bytes >= WAKE_BYTES)
            pthread_cond_signal(&q->work);
        while (!q->runs && !err && q->bytes >= ph_tuning.write_max)
            err = advance(p);
    }
    pthread_mutex_unlock(&q->lock);
    return err;
}

int ph_queue_flush(struct ph_pool *p)
{
    struct ph_queue *q = &p->queue;
    int err = 0;

    pthread_mutex_lock(&q->lock);
    while (!err && (pending(q) || q->busy))
        err = advance(p);
    pthread_mutex_unlock(&q->lock);
    return err;
}

void ph_queue_drop(struct ph_pool *p)
{
    struct ph_queue *q = &p->queue;

    pthread_mutex_lock(&q->lock);
    q->err = q->err ? q->err : PH_EUSAGE; /* so that no further request is taken */
    while (q->busy)
        pthread_cond_wait(&q->done, &q->lock);
    q->written = q->added;
    q->bytes = 0;
    q->err = 0;
    pthread_mutex_unlock(&q->lock);
}

void ph_pool_on_written(struct ph_pool *p, void (*fn)(void *arg), void *arg)
{
    pthread_mutex_lock(&p->queue.lock);
    p->queue.on_written = fn;
    p->queue.arg = arg;
    pthread_mutex_unlock(&p->queue.lock);
}

uint64_t ph_pool_written(struct ph_pool *p)
{
    pthread_mutex_lock(&p->queue.lock);
    uint64_t written = p->queue.written;
    pthread_mutex_unlock(&p->queue.lock);
    return written;
}

uint64_t ph_pool_appended(struct ph_pool *p)
{
    return p->queue.added; /* only the caller's thread adds */
}

int ph_pool_push(struct ph_pool *p)
{
    struct ph_queue *q = &p->queue;
    int err;

    pthread_mutex_lock(&q->lock);
    err = q->busy ? 0 : clear_failure(p);
    if (!err && pending(q) && q->runs) {
        q->urgent = true;
        pthread_cond_signal(&q->work);
    }
    pthread_mutex_unlock(&q->lock);
    return err;
}

void ph_queue_init(struct ph_queue *q)
{
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->work, NULL);
    pthread_cond_init(&q->done, NULL);
}

int ph_queue_start(struct ph_pool *p)
{
    if (ph_tuning.single_threaded)
        return 0;
    if (pthread_create(&p->queue.thread, NULL, writer, p))
        return PH_ENOMEM;
    p->queue.runs = true;
    return 0;
}

void ph_queue_free(struct ph_pool *p)
{
    struct ph_queue *q = &p->queue;

    if (q->runs) {
        pthread_mutex_lock(&q->lock);
        q->stop = true;
        pthread_cond_signal(&q->work);
        pthread_mutex_unlock(&q->lock);
        pthread_join(q->thread, NULL);
    }
    pthread_cond_destroy(&q->work);
    pthread_cond_destroy(&q->done);
    pthread_mutex_destroy(&q->lock);
}
