/* SPDX-License-Identifier: MIT */
/* keeper_files.c - storing what the program maps from files; see keeper_files.h */
#include "keeper_files.h"

#include "cli.h"
#include "staging.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP     (UINT64_C(1) << 20)
#define PAUSE_NS UINT64_C(1000000000) /* a short program ends before it begins */
#define LOOK_NS  UINT64_C(1000000000)
#define RETRY_NS UINT64_C(60000000000) /* after a failure such as a full disk */

struct ph_keeper_file {
    struct ph_file_id id; /* its path belongs to us */
    uint64_t dev, ino;
};

static void clear_queue(struct ph_keeper_files *f)
{
    for (size_t i = 0; i < f->n; i++)
        free((char *)(uintptr_t)f->queue[i].id.path);
    f->n = f->next = 0;
}

static void drop_current(struct ph_keeper_files *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
    ph_pool_file_abort(f->pool);
}

void ph_keeper_files_free(struct ph_keeper_files *f)
{
    drop_current(f);
    clear_queue(f);
    free(f->named);
    free(f->list);
    free(f->queue);
    free(f->buffer);
    *f = (struct ph_keeper_files){.fd = -1};
}

/* ---- names ------------------------------------------------------------------------------ */

void ph_keeper_files_forget(struct ph_keeper_files *f)
{
    f->named_size = 0;
}

void ph_keeper_files_name(struct ph_keeper_files *f, const void *bytes, size_t size)
{
    if (f->named_size + size > f->named_room) {
        size_t room = (f->named_size + size) * 2;
        void *bigger = realloc(f->named, room);
        if (!bigger)
            return; /* these files will not be stored: no reason to harm the epoch */
        f->named = bigger;
        f->named_room = room;
    }
    memcpy(f->named + f->named_size, bytes, size);
    f->named_size += size;
}

/** Its path belongs to @p m. */
static struct ph_keeper_file file_of(const struct ph_mapped_file *m)
{
    return (struct ph_keeper_file){
        {(const char *)(m + 1), m->size, m->mtime_ns}, m->dev, m->ino};
}

static void enqueue(struct ph_keeper_files *f, const struct ph_mapped_file *m)
{
    struct ph_keeper_file file = file_of(m);
    if (ph_pool_file_find(f->pool, &file.id))
        return;
    if (f->n == f->room) {
        size_t room = f->room * 2 + 64;
        struct ph_keeper_file *bigger = realloc(f->queue, room * sizeof *bigger);
        if (!bigger)
            return;
        f->queue = bigger;
        f->room = room;
    }
    file.id.path = strdup(file.id.path);
    if (file.id.path)
        f->queue[f->n++] = file;
}

/** What has been named is complete. */
static void swap_lists(struct ph_keeper_files *f)
{
    unsigned char *list = f->list;
    size_t room = f->list_room;
    f->list = f->named;
    f->list_size = f->named_size;
    f->list_room = f->named_room;
    f->named = list;
    f->named_room = room;
    f->named_size = 0;
}

/** The name at @p at, followed by its path; NULL: there is none, or the program has overwritten
 * it, as it may anything. */
static const struct ph_mapped_file *name_at(const struct ph_keeper_files *f, size_t at)
{
    const struct ph_mapped_file *m = (const void *)(f->list + at);
    if (f->list_size - at <= sizeof *m)
        return NULL;
    const char *path = (const char *)(m + 1);
    bool whole = m->room % 8 == 0 && m->room <= f->list_size - at - sizeof *m &&
                 memchr(path, 0, m->room) && path[0] == '/';
    return whole ? m : NULL;
}

void ph_keeper_files_named(struct ph_keeper_files *f)
{
    const struct ph_mapped_file *m;
    if (!f->named_size)
        return; /* the same files as before */
    if (!ph_keeper_files_pending(f) && f->next == f->n)
        f->ready_ns = ph_now_ns() + PAUSE_NS;
    drop_current(f);
    clear_queue(f);
    swap_lists(f);
    for (size_t at = 0; (m = name_at(f, at)); at += sizeof *m + m->room)
        enqueue(f, m);
    f->looked_ns = 0;
}

/* ---- storing ---------------------------------------------------------------------------- */

bool ph_keeper_files_pending(const struct ph_keeper_files *f)
{
    return (f->next < f->n || f->unpublished) && ph_now_ns() >= f->ready_ns &&
           !ph_pool_is_claim(f->pool); /* the first epoch has failed */
}

static int64_t change_time(const struct stat *st)
{
    return st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
}

static bool is_file(const struct stat *st, const struct ph_keeper_file *file)
{
    return S_ISREG(st->st_mode) && st->st_dev == file->dev && st->st_ino == file->ino &&
           (uint64_t)st->st_size == file->id.size &&
           (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec ==
               file->id.mtime_ns;
}

/** Whether what is open is still the file that the program has mapped. */
static bool same_file(const struct ph_keeper_files *f, struct stat *st)
{
    return fstat(f->fd, st) == 0 && is_file(st, &f->queue[f->next]);
}

static void next_file(struct ph_keeper_files *f)
{
    drop_current(f);
    f->next++;
}

/** It failed, but not by the file's fault: say so once, and try again later. */
static void postpone(struct ph_keeper_files *f, int err)
{
    drop_current(f);
    f->ready_ns = ph_now_ns() + RETRY_NS;
    if (f->complained)
        return;
    f->complained = true;
    ph_cli_complain(f->command,
                    "the program's libraries are not being stored in the pool, so recovery "
                    "needs them on disk; the epochs are not affected",
                    err == PH_EFULL       ? "too little space is left"
                    : err == PH_EPOOLSIZE ? "the pool has reached its size"
                                          : ph_error_text(err));
}

static void begin(struct ph_keeper_files *f)
{
    const struct ph_keeper_file *file = &f->queue[f->next];
    struct stat st;
    if (ph_pool_file_find(f->pool, &file->id)) { /* named twice */
        f->next++;
        return;
    }
    f->fd = open(file->id.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (f->fd < 0 || !same_file(f, &st)) {
        next_file(f);
        return;
    }
    f->at = 0;
    f->changed_ns = change_time(&st);
    int err = ph_pool_file_begin(f->pool, &file->id);
    if (err == PH_EUNSUPPORTED || err == PH_EUSAGE)
        next_file(f);
    else if (err)
        postpone(f, err);
}

static void end(struct ph_keeper_files *f)
{
    struct stat st;
    int err = 0;
    if (same_file(f, &st) && change_time(&st) == f->changed_ns)
        err = ph_pool_file_end(f->pool);
    else
        ph_pool_file_abort(f->pool);
    if (err) {
        postpone(f, err);
    } else {
        f->unpublished = true;
        next_file(f);
    }
}

static void go_on(struct ph_keeper_files *f)
{
    uint64_t left = f->queue[f->next].id.size - f->at;
    size_t want = left < STEP ? left : STEP;
    if (!f->buffer)
        f->buffer = aligned_alloc(PH_PAGE, STEP);
    for (size_t got = 0; f->buffer && got < want;) {
        ssize_t n = pread(f->fd, (char *)f->buffer + got, want - got, (off_t)(f->at + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            next_file(f); /* it has become shorter, or cannot be read */
            return;
        }
        got += (size_t)n;
    }
    int err = f->buffer ? ph_pool_file_append(f->pool, f->buffer, want) : PH_ENOMEM;
    f->at += want;
    if (err == PH_EUNSUPPORTED)
        next_file(f);
    else if (err)
        postpone(f, err);
}

void ph_keeper_files_step(struct ph_keeper_files *f)
{
    f->step_ns = ph_now_ns();
    if (f->next == f->n) {
        int err = f->unpublished ? ph_pool_file_publish(f->pool) : 0;
        f->unpublished = false;
        if (err)
            postpone(f, err);
        clear_queue(f);
    } else if (f->fd < 0) {
        begin(f);
    } else if (f->at < f->queue[f->next].id.size) {
        go_on(f);
    } else {
        end(f);
    }
}

static bool all_hold(const struct ph_keeper_files *f)
{
    const struct ph_mapped_file *m;
    struct stat st;
    size_t at = 0;
    for (; (m = name_at(f, at)); at += sizeof *m + m->room) {
        struct ph_keeper_file file = file_of(m);
        if (m->text && (stat(file.id.path, &st) != 0 || !is_file(&st, &file) ||
                        !ph_pool_file_find(f->pool, &file.id)))
            return false;
    }
    return at > 0 && at == f->list_size;
}

void ph_keeper_files_look(struct ph_keeper_files *f, _Atomic uint64_t *hold)
{
    uint64_t now = ph_now_ns();
    if (now - f->looked_ns < LOOK_NS)
        return;
    f->looked_ns = now;
    bool stored = f->next == f->n && !f->unpublished;
    *hold = stored && all_hold(f) ? ph_mapped_hash(f->list, f->list_size) : 0;
}

void ph_keeper_files_finish(struct ph_keeper_files *f, uint64_t most_ns)
{
    uint64_t began = ph_now_ns();
    if (f->ready_ns < began + RETRY_NS / 2) /* not after a failure */
        f->ready_ns = 0;
    while (ph_keeper_files_pending(f) && ph_now_ns() - began < most_ns)
        ph_keeper_files_step(f);
    drop_current(f);
    if (f->unpublished)
        ph_pool_file_publish(f->pool); /* what there is; the rest when it is recovered */
}
