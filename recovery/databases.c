/* SPDX-License-Identifier: MIT */
/*
 * databases.c - SQLite databases that the program has open
 *
 * SQLite writes to the middle of its files and coordinates with other processes through them,
 * so a database lives on its own, as it would if the program had crashed and been started
 * again. Cutting its files back would break it: they are never cut. What SQLite has in memory
 * is checked against the file at the start of each transaction, so a database that was changed
 * after the epoch is no danger, except when
 *
 *   D1  a transaction was open at the epoch, and the database has been changed or the
 *       transaction has been ended since. Memory then belongs to a state of the file that is
 *       gone, and going on could destroy the database. Recovery refuses.
 *
 * That a transaction was open is seen from the locks (sqlite.org/lockingv3.html,
 * walformat.html).
 */
#include "files.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_BYTES     0x40000000u /* in the database, where it is locked */
#define WAL_LOCK_FIRST 120u        /* in the -shm file: write, checkpoint, recover, readers */
#define WAL_LOCK_LAST  127u

static bool has_header(const char *path)
{
    static const char magic[16] = "SQLite format 3";
    char head[sizeof magic];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool is = pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head &&
              memcmp(head, magic, sizeof magic) == 0;
    close(fd);
    return is;
}

static bool by_name(const struct ph_file_pm *f)
{
    return f->kind == PH_FILE_REGULAR && !(f->flags & PH_FILE_DELETED);
}

void ph_recovery_database_of(const char *path, char base[PATH_MAX])
{
    size_t n = ph_undo_database_suffix(path);
    snprintf(base, PATH_MAX, "%.*s", (int)(strlen(path) - n), path);
    if (n && !has_header(base))
        snprintf(base, PATH_MAX, "%s", path);
}

bool ph_recovery_path_of_database(const char *path)
{
    char base[PATH_MAX];
    ph_recovery_database_of(path, base);
    return has_header(base);
}

bool ph_recovery_of_database(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    return by_name(f) && ph_recovery_path_of_database(ph_record_text(r->record, f->path));
}

/** The file that belongs to database @p f and is called @p suffix; NULL: not open. */
static const struct ph_file_pm *companion(const struct ph_recovery *r,
                                          const struct ph_file_pm *f, const char *suffix)
{
    char path[PATH_MAX];
    uint64_t n;
    const struct ph_file_pm *all = ph_reopen_all(r, &n);
    snprintf(path, sizeof path, "%s%s", ph_record_text(r->record, f->path), suffix);
    for (uint64_t i = 0; i < n; i++)
        if (by_name(&all[i]) && strcmp(ph_record_text(r->record, all[i].path), path) == 0)
            return &all[i];
    return NULL;
}

static bool changed(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    struct stat st;
    if (stat(ph_record_text(r->record, f->path), &st) != 0)
        return true;
    uint64_t mtime = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
    return mtime != f->mtime_ns || (uint64_t)st.st_size != f->size;
}

static bool locked(const struct ph_recovery *r, const struct ph_file_pm *f, uint64_t first,
                   uint64_t last)
{
    const struct ph_lock_pm *l =
        (const void *)((const char *)r->record + r->record->locks.offset);
    for (uint64_t i = 0; i < r->record->locks.count; i++) {
        const struct ph_file_pm *g = ph_reopen_by_number(r, l[i].fd);
        if (g->dev == f->dev && g->ino == f->ino && l[i].start <= last &&
            (l[i].length == 0 || l[i].start + l[i].length > first))
            return true;
    }
    return false;
}

int ph_recovery_check_databases(struct ph_recovery *r)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    for (uint64_t i = 0; i < n; i++) {
        const char *path = ph_record_text(r->record, f[i].path);
        if (!by_name(&f[i]) || f[i].same_as >= 0 || !(f[i].flags & PH_FILE_WRITABLE) ||
            !has_header(path))
            continue;
        const struct ph_file_pm *wal = companion(r, &f[i], "-wal"),
                                *shm = companion(r, &f[i], "-shm"),
                                *journal = companion(r, &f[i], "-journal");
        bool transaction = shm ? locked(r, shm, WAL_LOCK_FIRST, WAL_LOCK_LAST)
                               : locked(r, &f[i], LOCK_BYTES, LOCK_BYTES + 511);
        bool gone = journal && access(ph_record_text(r->record, journal->path), F_OK) != 0;
        bool moved = gone || changed(r, &f[i]) || (wal && changed(r, wal));
        if (!moved)
            continue;
        if (transaction && !ph_recovery_keeps(r, &f[i])) {
            snprintf(r->detail, sizeof r->detail,
                     "%s: the program had a transaction open in this SQLite database, and the "
                     "database has been changed since; go on from another epoch (--list, "
                     "--epoch N)",
                     path);
            return PH_EFILES;
        }
        if (!r->note[0])
            snprintf(r->note, sizeof r->note,
                     "%s: this SQLite database has transactions from after the epoch; the "
                     "program will make them again",
                     path);
    }
    return 0;
}
