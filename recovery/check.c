/* SPDX-License-Identifier: MIT */
/* check.c - whether this machine can continue the program; nothing is changed here */
#include "files.h"
#include "recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct ph_recovery *r, int code, const char *subject, const char *what)
{
    snprintf(r->detail, sizeof r->detail, "%s: %s", subject, what);
    return code;
}

static bool is_meant(const char *what, const char *path)
{
    char *real = realpath(what, NULL);
    bool is = fnmatch(what, path, 0) == 0 || (real && strcmp(real, path) == 0);
    free(real);
    return is;
}

bool ph_recovery_keeps_path(const struct ph_recovery *r, const char *path)
{
    bool keeps = false;
    for (size_t i = 0; i < r->nkeep && !keeps; i++)
        keeps = is_meant(r->keep[i], path);
    return keeps;
}

bool ph_recovery_keeps(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    return r->keep_files || (f->flags & PH_FILE_KEPT) ||
           ph_recovery_keeps_path(r, ph_record_text(r->record, f->path)) ||
           ph_recovery_undo_kept(r, f->dev, f->ino, ph_record_text(r->record, f->path));
}

/** With a name that is mistyped, a file would be cut back that was to be kept. */
static int check_kept(struct ph_recovery *r)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    for (size_t i = 0; i < r->nkeep; i++) {
        bool found = false;
        for (uint64_t j = 0; j < n && !found; j++)
            found = f[j].kind == PH_FILE_REGULAR &&
                    is_meant(r->keep[i], ph_record_text(r->record, f[j].path));
        for (size_t j = 0; j < r->nundo && !found; j++)
            found = is_meant(r->keep[i], r->undo[j]->path);
        if (!found)
            return fail(r, PH_EUSAGE, r->keep[i],
                        "--keep-file names no file that the program has open at the epoch, or "
                        "has changed since");
    }
    return 0;
}

static int check_open_file(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const char *path = ph_recovery_path(r, f);
    struct stat st;
    if (ph_recovery_copy_of(r, f) || ph_recovery_undo_is_late(r, f))
        return 0;
    int given = ph_reopen_given(f);
    int how = S_ISLNK(f->mode) ? AT_SYMLINK_NOFOLLOW : 0;
    if (given >= 0 ? fstat(given, &st) != 0 : fstatat(AT_FDCWD, path, &st, how) != 0)
        return fail(r, PH_EFILES, path,
                    errno == ENOENT ? "the program had it open, and it has been removed since; "
                                      "bring it back, or go on from another epoch (--list, "
                                      "--epoch N)"
                                    : strerror(errno));
    if ((st.st_mode & S_IFMT) != (f->mode & S_IFMT))
        return fail(r, PH_EFILES, path, "is of another type than at the epoch");
    if (f->kind != PH_FILE_REGULAR)
        return 0;
    int want = (f->open_flags & O_ACCMODE) == O_RDONLY ? R_OK
               : (f->open_flags & O_ACCMODE) == O_RDWR ? R_OK | W_OK
                                                       : W_OK;
    if (given < 0 && access(path, want) != 0)
        return fail(r, PH_EFILES, path, strerror(errno));
    if (ph_recovery_keeps(r, f) || ph_recovery_of_database(r, f))
        return 0;
    if (ph_recovery_is_stranger(r, f))
        return fail(
            r, PH_EFILES, path,
            "is another file than the program had open at the epoch, which has been "
            "removed or replaced since; bring that back, or go on with this one as it is, "
            "nothing cut off (--keep-file PATH)");
    if (ph_recovery_undo_forgotten(r, f))
        return fail(r, PH_EFILES, path,
                    "the program has made it shorter since, and what was cut off is kept for "
                    "the newest epochs only; go on from one of these, or with the file as it "
                    "is (--keep-file PATH)");
    if ((f->flags & PH_FILE_WRITABLE) &&
        ph_recovery_undone_size(r, f, (uint64_t)st.st_size) < f->size)
        return fail(r, PH_EFILES, path,
                    "is shorter than at the epoch: output is missing; bring it back, or go on "
                    "with it as it is (--keep-file PATH)");
    return 0;
}

/**
 * A file that the program was in the middle of, and not at its end, and that has been written
 * to since, unseen: what was overwritten there is nowhere, so the program should be able to do
 * without.
 */
static void note_overwritten(struct ph_recovery *r)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    for (uint64_t i = 0; i < n && !r->note[0]; i++) {
        const char *path = ph_recovery_path(r, &f[i]);
        struct stat st;
        if (f[i].kind != PH_FILE_REGULAR || !(f[i].flags & PH_FILE_WRITABLE) ||
            (f[i].flags & PH_FILE_DELETED) || (f[i].open_flags & O_APPEND) ||
            f[i].position >= f[i].size || ph_recovery_keeps(r, &f[i]) ||
            ph_recovery_of_database(r, &f[i]) || ph_recovery_undo_overwritten(r, &f[i]) ||
            stat(path, &st) != 0)
            continue;
        if ((uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec !=
            f[i].mtime_ns)
            snprintf(
                r->note, sizeof r->note,
                "%.3800s: has been written to after the epoch, perhaps not at its end: what "
                "was overwritten stays so",
                path);
    }
}

static int check_open_files(struct ph_recovery *r)
{
    const struct ph_record_pm *rec = r->record;
    const struct ph_file_pm *f = (const void *)((const char *)rec + rec->files.offset);
    int rc = ph_recovery_check_directory(r);
    for (uint64_t i = 0; i < rec->files.count && rc == 0; i++) {
        bool by_path = f[i].kind == PH_FILE_REGULAR || f[i].kind == PH_FILE_DIRECTORY ||
                       f[i].kind == PH_FILE_PATH ||
                       (f[i].kind == PH_FILE_PIPE && ph_record_text(rec, f[i].path)[0]) ||
                       (f[i].kind == PH_FILE_CHAR && !(f[i].flags & PH_FILE_TTY));
        if (!by_path || f[i].same_as >= 0 || (f[i].flags & PH_FILE_DELETED))
            continue;
        rc = check_open_file(r, &f[i]);
    }
    return rc;
}

static int check_watched_paths(struct ph_recovery *r)
{
    const struct ph_record_pm *rec = r->record;
    const struct ph_file_pm *f = (const void *)((const char *)rec + rec->files.offset);
    char place[PATH_MAX];
    for (uint64_t i = 0; i < rec->files.count; i++) {
        const struct ph_watch_pm *w =
            (const void *)((const char *)rec + rec->data.offset + f[i].data_offset);
        uint64_t n = f[i].kind == PH_FILE_INOTIFY ? f[i].data_size / sizeof *w : 0;
        for (uint64_t j = 0; j < n; j++) {
            const char *path = ph_record_text(rec, w[j].path);
            if (access(path, R_OK) != 0 && !ph_recovery_undo_remakes(r, path) &&
                !ph_recovery_undo_left_at(r, path, place))
                return fail(r, PH_EFILES, path,
                            "the program watches it (inotify), and it cannot be watched now");
        }
    }
    return 0;
}

/** A keeper can die while its program lives on: that program has the staging memory mapped. */
static int check_not_running(struct ph_recovery *r)
{
    char path[64], line[512], control[32];
    bool running = false;
    snprintf(path, sizeof path, "/proc/%d/maps", r->record->pid_actual);
    snprintf(control, sizeof control, "%llx-", (unsigned long long)PH_CONTROL_BASE);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    while (!running && fgets(line, sizeof line, f))
        running = strncmp(line, control, strlen(control)) == 0 &&
                  strstr(line, "pyheap-staging") != NULL;
    fclose(f);
    if (!running)
        return 0;
    snprintf(r->detail, sizeof r->detail, "process %d", r->record->pid_actual);
    return PH_ERUNNING;
}

int ph_recovery_check(struct ph_recovery *r)
{
    r->detail[0] = r->note[0] = 0;
    int rc = check_not_running(r);
    if (rc == 0)
        rc = ph_recovery_check_cpu(r);
    if (rc == 0)
        rc = ph_recovery_undo_read(r);
    if (rc == 0)
        rc = check_kept(r);
    if (rc == 0)
        rc = ph_recovery_locate(r);
    if (rc == 0)
        rc = ph_recovery_check_mapped(r);
    if (rc == 0)
        rc = check_watched_paths(r);
    if (rc == 0)
        rc = ph_recovery_check_databases(r);
    if (rc == 0)
        rc = check_open_files(r);
    if (rc == 0)
        note_overwritten(r);
    return rc ? rc : ph_recovery_check_locks(r);
}
