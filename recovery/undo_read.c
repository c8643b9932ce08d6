/* SPDX-License-Identifier: MIT */
/* undo_read.c - what the program has done to its files since the epoch is read (undo.h) */
#include "files.h"

#include "allocator/undo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool has_head(const struct ph_undo_pm *h, uint64_t size, uint64_t epoch)
{
    const char *path = (const char *)(h + 1);
    return size >= sizeof *h && h->magic == PH_UNDO_MAGIC && h->epoch == epoch &&
           h->from <= h->to && h->to <= INT64_MAX && h->path_size &&
           h->path_size <= size - sizeof *h && path[h->path_size - 1] == 0;
}

/** U2 */
static bool is_whole(const struct ph_undo_pm *h, uint64_t size)
{
    const char *end = (const char *)h + size;
    if (size % 8 && !(h->flags & PH_UNDO_CLONED))
        return false;
    for (const struct ph_undo_piece_pm *p = ph_undo_first_piece(h);;
         p = ph_undo_next_piece(p)) {
        uint64_t room = (uint64_t)(end - (const char *)p);
        if ((const char *)p > end || room < sizeof *p)
            return false;
        uint64_t before = (uint64_t)((const char *)p - (const char *)h);
        if (p->offset == PH_UNDO_END)
            return (h->flags & PH_UNDO_CLONED ? size == PH_UNDO_CLONE + h->to - h->from
                                              : room == sizeof *p) &&
                   p->size == ph_undo_hash(PH_UNDO_SEED, (const uint64_t *)h, before / 8);
        if (p->offset < h->from || p->offset > h->to || p->size > h->to - p->offset ||
            p->size > room - sizeof *p)
            return false;
    }
}

static struct ph_undo *new_one(uint64_t epoch, uint64_t number, size_t text)
{
    struct ph_undo *u = calloc(1, sizeof *u + text);
    if (u) {
        u->epoch = epoch;
        u->number = number;
    }
    return u;
}

/** @return 0: *out is one, or NULL if there is none to believe; PH_ENOMEM; PH_EFILES */
static int read_bytes(int dir, const char *name, uint64_t epoch, uint64_t number,
                      struct ph_undo **out)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        return PH_EFILES;
    uint64_t size = (uint64_t)st.st_size;
    void *map = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (map == MAP_FAILED)
        return 0;
    const struct ph_undo_pm *h = map;
    bool forgotten = has_head(h, size, epoch) && (h->flags & PH_UNDO_FORGOTTEN);
    if (!has_head(h, size, epoch) || (!forgotten && !is_whole(h, size))) {
        munmap(map, size);
        return 0;
    }
    struct ph_undo *u = new_one(epoch, number, 0);
    if (!u) {
        munmap(map, size);
        return PH_ENOMEM;
    }
    u->kind = PH_UNDO_BYTES;
    u->dev = h->dev;
    u->ino = h->ino;
    u->path = (const char *)(h + 1);
    u->head = h;
    u->size = size;
    u->forgotten = forgotten;
    u->copied = h->self != st.st_ino;
    *out = u;
    return 0;
}

static bool is_absolute(const char *path, size_t n)
{
    return n > 1 && path[0] == '/';
}

static int read_note(const char *text, uint64_t epoch, uint64_t number, uint64_t written_ns,
                     struct ph_undo **out)
{
    static const char kinds[] = {PH_UNDO_MAKES,
                                 PH_UNDO_OPENED,
                                 PH_UNDO_MADE,
                                 PH_UNDO_MADE_DIRECTORY,
                                 PH_UNDO_RENAMED,
                                 PH_UNDO_REMOVED,
                                 PH_UNDO_REMOVED_DIRECTORY,
                                 PH_UNDO_KEPT,
                                 PH_UNDO_LIFE,
                                 0};
    unsigned long long life, dev, ino, birth, value;
    unsigned long sum, length;
    char kind;
    int n = 0;
    if (sscanf(text, "%c:%llu:%llu:%llu:%llu:%llu:%lu:%lu:%n", &kind, &life, &dev, &ino, &birth,
               &value, &sum, &length, &n) != 8 ||
        !n || !strchr(kinds, kind) || length > strlen(text + n) ||
        !is_absolute(text + n, length) || value > INT64_MAX)
        return 0;
    size_t more = strlen(text + n + length);
    if (kind == PH_UNDO_RENAMED ? !is_absolute(text + n + length, more) : more != 0)
        return 0;
    struct ph_undo *u = new_one(epoch, number, length + more + 2);
    if (!u)
        return PH_ENOMEM;
    u->written_ns = written_ns;
    u->kind = (enum ph_undo_kind)kind;
    u->life = life;
    u->dev = dev;
    u->ino = ino;
    u->birth_ns = birth;
    u->value = value;
    u->sum = (uint32_t)sum;
    memcpy(u->text, text + n, length);
    memcpy(u->text + length + 1, text + n + length, more);
    u->path = u->text;
    u->to = u->text + length + 1;
    *out = u;
    return 0;
}

/** A note that is the name itself. @return its text. */
static const char *text_of(const char *name, uint64_t *written_ns, char text[PH_UNDO_MAX])
{
    char *end;
    const char *colon = strchr(name, ':');
    if (!colon)
        return NULL;
    *written_ns = strtoull(colon + 1, &end, 10);
    snprintf(text, PH_UNDO_MAX, "%s", *end == ':' ? end + 1 : "");
    for (char *p = text; *p; p++)
        *p = *p == '\\' ? '/' : *p;
    return text;
}

static int add(struct ph_recovery *r, int dir, const char *name)
{
    uint64_t epoch, number;
    struct ph_undo *u = NULL;
    char text[PH_UNDO_MAX];
    struct stat st;
    if (!ph_undo_name(name, &epoch, &number))
        return 0;
    if (number > r->undo_number)
        r->undo_number = number;
    if (epoch < r->record->epoch)
        return 0;
    uint64_t written_ns;
    int rc = PH_EFILES;
    ssize_t n = -1;
    bool named = text_of(name, &written_ns, text) != NULL;
    if (!named)
        n = readlinkat(dir, name, text, sizeof text - 1);
    if (named) {
        rc = read_note(text, epoch, number, written_ns, &u);
    } else if (n > 0 && number == 0) {
        r->undo_forgotten = true;
        return 0;
    } else if (n > 0 && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        text[n] = 0;
        written_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
        rc = read_note(text, epoch, number, written_ns, &u);
    } else if (n <= 0) {
        rc = read_bytes(dir, name, epoch, number, &u);
    }
    if (rc == PH_EFILES)
        snprintf(r->detail, sizeof r->detail, "%.3800s/%.64s: %s", r->undo_directory, name,
                 strerror(errno));
    if (rc || !u)
        return rc;
    struct ph_undo **more = realloc(r->undo, (r->nundo + 1) * sizeof(struct ph_undo *));
    if (!more) {
        free(u);
        return PH_ENOMEM;
    }
    r->undo = more;
    r->undo[r->nundo++] = u;
    r->undo_kept |= u->kind == PH_UNDO_KEPT;
    return 0;
}

/** Newest first. */
static int compare(const void *a, const void *b)
{
    const struct ph_undo *x = *(struct ph_undo *const *)a, *y = *(struct ph_undo *const *)b;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? 1 : -1;
    return (x->number < y->number) - (x->number > y->number);
}

/**
 * A life before the last one ended with a recovery that has undone what was noted since its
 * epoch. Which that was the life that it began tells, by the epochs of its own notes, or the
 * recovery's (note_life).
 */
static void mark_undone(struct ph_recovery *r)
{
    uint64_t life = 0; /* the last one that began at this epoch or before */
    for (size_t i = r->nundo, first; i; i = first) {
        for (first = i; first && r->undo[first - 1]->epoch == r->undo[i - 1]->epoch; first--)
            if (r->undo[first - 1]->life > life)
                life = r->undo[first - 1]->life;
        for (size_t at = first; at < i; at++)
            r->undo[at]->undone =
                r->undo[at]->kind != PH_UNDO_BYTES && r->undo[at]->number <= life;
    }
}

/** A pool may have been renamed when nobody was there to rename this with it. */
static int look_for_old_name(struct ph_recovery *r)
{
    char beside[PATH_MAX], path[PATH_MAX];
    struct stat st;
    snprintf(beside, sizeof beside, "%s", r->undo_directory);
    *strrchr(beside, '/') = 0;
    DIR *d = opendir(beside[0] ? beside : "/");
    int rc = 0;
    for (const struct dirent *e; d && rc == 0 && (e = readdir(d));) {
        size_t n = strlen(e->d_name), more = strlen(".undo");
        if (n <= more || strcmp(e->d_name + n - more, ".undo") != 0 ||
            snprintf(path, sizeof path, "%s/%s", beside, e->d_name) >= (int)sizeof path ||
            ph_undo_owner(path) != r->pool_id)
            continue;
        path[strlen(path) - more] = 0;
        if (lstat(path, &st) == 0)
            continue; /* this one is a copy */
        snprintf(r->detail, sizeof r->detail,
                 "%.2000s.undo belongs to this pool: call it %.2000s", path, r->undo_directory);
        rc = PH_EUSAGE;
    }
    if (d)
        closedir(d);
    return rc;
}

int ph_recovery_undo_read(struct ph_recovery *r)
{
    struct stat st;
    ph_undo_directory(r->pool_path, r->undo_directory);
    DIR *d = r->undo_directory[0] ? opendir(r->undo_directory) : NULL;
    int rc = 0, err = errno;
    if (!d && (err == ENOENT || !r->undo_directory[0]))
        return r->undo_directory[0] ? look_for_old_name(r) : 0;
    if (!d) { /* what is missing may be in it */
        snprintf(r->detail, sizeof r->detail, "%s", r->undo_directory);
        return ph_error_of(err);
    }
    if (fstat(dirfd(d), &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 022)) {
        snprintf(r->detail, sizeof r->detail, "%s", r->undo_directory);
        rc = PH_EOWNER;
    }
    uint64_t owner = rc ? 0 : ph_undo_owner(r->undo_directory);
    if (owner && owner != r->pool_id) {
        snprintf(r->detail, sizeof r->detail,
                 "%.3800s belongs to another pool: call it as that is called; if this one has "
                 "been renamed, its own has the old name still",
                 r->undo_directory);
        rc = PH_EUSAGE;
    }
    for (const struct dirent *e; rc == 0 && (e = readdir(d));)
        rc = add(r, dirfd(d), e->d_name);
    closedir(d);
    if (r->nundo)
        qsort(r->undo, r->nundo, sizeof(struct ph_undo *), compare);
    mark_undone(r);
    if (r->nundo)
        r->undo_number++; /* that of note_life */
    return rc;
}

void ph_recovery_undo_free(struct ph_recovery *r)
{
    for (size_t i = 0; i < r->nundo; i++) {
        if (r->undo[i]->head)
            munmap((void *)(uintptr_t)r->undo[i]->head, r->undo[i]->size);
        free(r->undo[i]);
    }
    free(r->undo);
    r->undo = NULL;
    r->nundo = 0;
}
