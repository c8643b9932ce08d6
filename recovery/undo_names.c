/* SPDX-License-Identifier: MIT */
/*
 * undo_names.c - what the program has renamed, removed or made since the epoch is undone
 *
 * It will do the same again. Each is done by the thing's inode: what is where it was already
 * stays, so doing it twice is doing it once. What has the old name by then gives way if it was
 * made after the name was free: that is the program's own, and will be made again (the next log
 * of a rotation). Anything older is somebody else's and stays.
 */
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** What @p path is, itself if it is a link. @return whether there is something. */
static bool look(const char *path, struct statx *sx)
{
    return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, sx) == 0;
}

/** Where the file of @p u was left. */
static const char *left_at(const struct ph_recovery *r, const struct ph_undo *u,
                           char buf[PATH_MAX])
{
    if (u->kind == PH_UNDO_RENAMED)
        return u->to;
    ph_undo_entry(r, u, PH_UNDO_LINK, buf);
    return buf;
}

/** What follows @p directory in @p path; NULL: it is not below that, nor that. */
static const char *below(const char *path, const char *directory)
{
    size_t n = strlen(directory);
    return strncmp(path, directory, n) == 0 && (path[n] == '/' || !path[n]) ? path + n : NULL;
}

bool ph_recovery_undo_gave_back(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    for (size_t i = 0; i < r->nundo; i++) {
        const struct ph_undo *u = r->undo[i];
        if (u->undone && u->kind == PH_UNDO_REMOVED && u->ino == f->ino && u->dev == f->dev &&
            u->birth_ns == f->birth_ns)
            return true;
    }
    return false;
}

/** Whether what @p u has removed is @p f, perhaps a copy that an earlier recovery has taken. */
static bool removed(const struct ph_recovery *r, const struct ph_undo *u,
                    const struct ph_file_pm *f)
{
    char at[PATH_MAX];
    return !f || (u->ino == f->ino && u->dev == f->dev) || f->kind == PH_FILE_PIPE ||
           f->kind == PH_FILE_PATH ||
           (f->kind == PH_FILE_REGULAR && ph_recovery_is_copy_at(r, f, left_at(r, u, at)));
}

enum followed { STAYED, MOVED, REMADE };

/**
 * Where what was called @p path was left, as the notes that have not been undone have it,
 * oldest first. @param f the file, which may have more names; NULL: whatever it is. @param last
 * the note that has moved it last.
 * @return REMADE: a removed directory, which will be another one of that name.
 */
static enum followed follow(const struct ph_recovery *r, const char *path,
                            const struct ph_file_pm *f, char buf[PATH_MAX],
                            const struct ph_undo **last)
{
    char at[PATH_MAX], moved_to[PATH_MAX];
    enum followed how = STAYED;
    snprintf(buf, PATH_MAX, "%s", path);
    for (size_t i = r->nundo; i--;) {
        const struct ph_undo *u = r->undo[i];
        if (u->undone)
            continue;
        if (u->kind == PH_UNDO_REMOVED_DIRECTORY && strcmp(buf, u->path) == 0 &&
            !ph_undo_is_left(r, u))
            return REMADE;
        const char *rest = u->kind == PH_UNDO_RENAMED ? below(buf, u->path) : NULL;
        if (u->kind == PH_UNDO_REMOVED && removed(r, u, f))
            rest = below(buf, u->path);
        if (!rest || (size_t)snprintf(moved_to, sizeof moved_to, "%s%s", left_at(r, u, at),
                                      rest) >= sizeof moved_to)
            continue;
        memcpy(buf, moved_to, sizeof moved_to);
        how = MOVED;
        *last = u;
    }
    return how;
}

bool ph_recovery_undo_place(const struct ph_recovery *r, const struct ph_file_pm *f,
                            char buf[PATH_MAX])
{
    char at[PATH_MAX];
    struct stat st;
    const struct ph_undo *last;
    if (follow(r, ph_record_text(r->record, f->path), f, buf, &last) != MOVED)
        return false;
    bool kept = below(buf, r->undo_directory) != NULL; /* perhaps in a copy */
    if (f->kind == PH_FILE_REGULAR && !kept)
        return ph_recovery_is_very_file(f, AT_FDCWD, buf) ||
               (ph_undo_is_very_thing(last, AT_FDCWD, left_at(r, last, at)) &&
                ph_recovery_is_copy_at(r, f, buf));
    return lstat(buf, &st) == 0 && (kept || st.st_ino == f->ino) &&
           (st.st_mode & S_IFMT) == (f->mode & S_IFMT);
}

bool ph_recovery_undo_renames(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    char buf[PATH_MAX];
    const struct ph_undo *last;
    return follow(r, ph_record_text(r->record, f->path), f, buf, &last) == MOVED;
}

bool ph_recovery_undo_left_at(const struct ph_recovery *r, const char *path, char buf[PATH_MAX])
{
    char at[PATH_MAX];
    const struct ph_undo *last;
    return follow(r, path, NULL, buf, &last) == MOVED &&
           ph_undo_is_very_thing(last, AT_FDCWD, left_at(r, last, at)) &&
           access(buf, F_OK) == 0;
}

bool ph_recovery_undo_keeps(const struct ph_recovery *r, const char *path, uint64_t dev,
                            uint64_t ino, char buf[PATH_MAX])
{
    const struct ph_undo *last;
    return follow(r, path, NULL, buf, &last) == MOVED && last->kind == PH_UNDO_REMOVED &&
           last->ino == ino && last->dev == dev && below(buf, r->undo_directory) &&
           access(buf, F_OK) == 0;
}

bool ph_recovery_undo_remakes(const struct ph_recovery *r, const char *path)
{
    char buf[PATH_MAX];
    const struct ph_undo *last;
    return follow(r, path, NULL, buf, &last) == REMADE;
}

bool ph_recovery_undo_is_late(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    return S_ISDIR(f->mode) && (f->kind == PH_FILE_DIRECTORY || f->kind == PH_FILE_PATH) &&
           !(f->flags & PH_FILE_DELETED) &&
           ph_recovery_undo_remakes(r, ph_record_text(r->record, f->path));
}

void ph_recovery_undo_postpone(const struct ph_recovery *r, struct ph_record_pm *record)
{
    struct ph_file_pm *f = (void *)((char *)record + record->files.offset);
    for (uint64_t i = 0; i < record->files.count; i++)
        if (ph_recovery_undo_is_late(r, &f[i])) {
            f[i].flags |= PH_FILE_LATE;
            f[i].open_flags = (uint32_t)ph_reopen_flags(&f[i]);
        }
}

void ph_undo_sync_directory(struct ph_recovery *r, const char *path)
{
    char directory[PATH_MAX] = "";
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (slash)
        snprintf(directory, sizeof directory, "%.*s", (int)(slash - path) + 1, path);
    if (strcmp(directory, r->undo_synced) == 0)
        return;
    int fd = r->undo_synced[0] ? open(r->undo_synced, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    memcpy(r->undo_synced, directory, sizeof directory);
}

/** From note @p i on what is about this inode is about that of @p sx or, by another name that
 * it had, about the first one still. */
static void is_now(struct ph_recovery *r, size_t i, uint64_t ino, uint64_t birth_ns,
                   const struct statx *sx)
{
    for (uint64_t dev = r->undo[i]->dev; i < r->nundo; i++) {
        struct ph_undo *u = r->undo[i];
        if (u->ino != ino || u->dev != dev || u->birth_ns != birth_ns)
            continue;
        if (!u->first_ino) {
            u->first_ino = ino;
            u->first_birth_ns = birth_ns;
        }
        u->ino = sx->stx_ino;
        u->birth_ns = ph_birth_ns(sx);
    }
}

static bool join(char buf[PATH_MAX], const char *directory, const char *name)
{
    return (size_t)snprintf(buf, PATH_MAX, "%s/%s", directory, name) < PATH_MAX;
}

/** Whether in the directory @p path there is nothing but directories like it. */
static bool is_bare(const char *path)
{
    char in_it[PATH_MAX];
    DIR *d = opendir(path);
    bool bare = d != NULL;
    for (const struct dirent *e; bare && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            bare = e->d_type == DT_DIR && join(in_it, path, e->d_name) && is_bare(in_it);
    if (d)
        closedir(d);
    return bare;
}

/**
 * Bare directories, made anew at @p at, had been so before, and put at @p path, by a recovery
 * that did not come to its end: these go, and the notes from @p i on are about those.
 */
static void give_way(struct ph_recovery *r, size_t i, const char *at, const char *path)
{
    char in_it[PATH_MAX], there[PATH_MAX];
    struct statx was, now;
    DIR *d = opendir(at);
    for (const struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            join(in_it, at, e->d_name) && join(there, path, e->d_name))
            give_way(r, i, in_it, there);
    if (d)
        closedir(d);
    if (look(at, &was) && look(path, &now) && S_ISDIR(now.stx_mode))
        is_now(r, i, was.stx_ino, ph_birth_ns(&was), &now);
    rmdir(at);
}

static int undo_rename(struct ph_recovery *r, size_t i)
{
    const struct ph_undo *u = r->undo[i];
    char buf[PATH_MAX];
    struct statx here;
    const char *at = left_at(r, u, buf);
    if (!ph_undo_is_very_thing(u, AT_FDCWD, at)) {
        /* What is kept here is what was removed, though the directory may be a copy. */
        if (u->kind != PH_UNDO_REMOVED || !look(at, &here))
            return 0;
        is_now(r, i, u->ino, u->birth_ns, &here);
    }
    bool taken = look(u->path, &here);
    if (taken && here.stx_ino == u->ino)
        return 0;
    if (taken && S_ISDIR(here.stx_mode) && is_bare(at))
        give_way(r, i, at, u->path);
    if (taken && (!S_ISREG(here.stx_mode) || ph_birth_ns(&here) < u->written_ns))
        return 0;
    if (rename(at, u->path) != 0 && errno != ENOENT) {
        snprintf(r->detail, sizeof r->detail,
                 "%.3800s: its name, which the program had taken from it, cannot be given back "
                 "(%s); nothing is lost, try again",
                 u->path, strerror(errno));
        return PH_EFILES;
    }
    ph_undo_sync_directory(r, u->path);
    return 0;
}

/** The files of a database belong together (databases.c): its journal stays if it does. */
static bool base_stays(const struct ph_recovery *r, const struct ph_undo *u)
{
    char base[PATH_MAX];
    if (!ph_recovery_path_of_database(u->path))
        return false;
    ph_recovery_database_of(u->path, base);
    for (size_t i = 0; i < r->nundo; i++)
        if (r->undo[i]->kind == PH_UNDO_MADE && strcmp(r->undo[i]->path, base) == 0 &&
            ph_undo_is_very_thing(r->undo[i], AT_FDCWD, base))
            return false;
    return true;
}

/** Killed before what was made could be noted: it is empty, and younger than the note. */
static int undo_begun_making(struct ph_recovery *r, const struct ph_undo *u)
{
    struct statx sx;
    if (!look(u->path, &sx) || (sx.stx_mode & S_IFMT) != u->value ||
        ph_birth_ns(&sx) < u->written_ns || (S_ISREG(sx.stx_mode) && sx.stx_size))
        return 0;
    int rc = S_ISDIR(sx.stx_mode) ? rmdir(u->path) : unlink(u->path);
    if (rc != 0 && errno != ENOTEMPTY && errno != EEXIST && errno != ENOENT)
        return ph_undo_fail(r, u->path, "removing");
    ph_undo_sync_directory(r, u->path);
    return 0;
}

static int undo_making(struct ph_recovery *r, const struct ph_undo *u)
{
    char aside[PATH_MAX];
    struct stat st;
    if (lstat(u->path, &st) != 0 || !ph_undo_is_very_thing(u, AT_FDCWD, u->path) ||
        S_ISDIR(st.st_mode) != (u->kind == PH_UNDO_MADE_DIRECTORY) || base_stays(r, u))
        return 0;
    ph_undo_entry(r, u, PH_UNDO_ASIDE, aside);
    int rc;
    if (S_ISDIR(st.st_mode)) {
        rc = rmdir(u->path); /* what others have put there stays */
    } else if (S_ISREG(st.st_mode) && st.st_nlink == 1 && st.st_size &&
               st.st_size <= PH_UNDO_ASIDE_MAX && rename(u->path, aside) == 0) {
        rc = 0;
        r->put_aside++;
    } else {
        rc = unlink(u->path);
    }
    if (rc != 0 && errno != ENOTEMPTY && errno != EEXIST && errno != ENOENT)
        return ph_undo_fail(r, u->path, "removing");
    ph_undo_sync_directory(r, u->path);
    return 0;
}

static int undo_rmdir(struct ph_recovery *r, size_t i)
{
    const struct ph_undo *u = r->undo[i];
    struct statx sx;
    bool made = mkdir(u->path, 0700) == 0;
    if (!made && errno != EEXIST)
        return errno == ENOENT ? 0 : ph_undo_fail(r, u->path, "making");
    if (!look(u->path, &sx) || !S_ISDIR(sx.stx_mode))
        return 0;
    if (made || ph_birth_ns(&sx) >= u->written_ns) {
        if (chmod(u->path, (mode_t)u->value) != 0)
            return ph_undo_fail(r, u->path, "making");
        is_now(r, i, u->ino, u->birth_ns, &sx);
    }
    ph_undo_sync_directory(r, u->path);
    return 0;
}

int ph_recovery_undo_name(struct ph_recovery *r, size_t i)
{
    const struct ph_undo *u = r->undo[i];
    switch (u->kind) {
    case PH_UNDO_MAKES:
        return undo_begun_making(r, u);
    case PH_UNDO_MADE:
    case PH_UNDO_MADE_DIRECTORY:
        return undo_making(r, u);
    case PH_UNDO_REMOVED_DIRECTORY:
        return undo_rmdir(r, i);
    default:
        return undo_rename(r, i);
    }
}
