/* SPDX-License-Identifier: MIT */
/*
 * undo_mapped.c - files that the program writes to through shared mappings
 *
 * Nobody sees these writes. So what is mapped to be written to is kept before there can be any:
 * when it is mapped, and anew at each epoch, while all threads are parked. That is a copy each
 * time, so it is done up to a size; what is larger is named (ph_undo_mapped_too_large). Shared
 * memory under a name may be another process's: what is in /dev/shm is left alone.
 */
#include "undo.h"

#include "agent_internal.h"
#include "allocator/syscall.h"
#include "allocator/undo.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT     __attribute__((visibility("default")))
#define MAPPED_MAX (UINT64_C(16) << 20) /* bytes of one mapping */

static bool is_on_disk(const char *path)
{
    return strncmp(path, "/dev/", 5) != 0;
}

/** Whether a mapping is one of a file that recovery has to bring back. */
static bool is_written(const struct ph_vma_pm *v, const char **path, struct stat *st)
{
    *path = (const char *)ph_agent.areas.strings.base + v->path;
    return v->kind == PH_VMA_SHARED_FILE && (v->prot & PROT_WRITE) && is_on_disk(*path) &&
           ph_syscall(SYS_newfstatat, AT_FDCWD, *path, st, 0) == 0 && st->st_dev == v->dev &&
           st->st_ino == v->ino && S_ISREG(st->st_mode) && ph_undo_concerns(st, *path);
}

static const struct ph_vma_pm *all_mappings(size_t *n)
{
    *n = ph_agent.areas.vmas.used / sizeof(struct ph_vma_pm);
    return (const struct ph_vma_pm *)ph_agent.areas.vmas.base;
}

static uint64_t bytes_of(const struct ph_vma_pm *v, const struct stat *st)
{
    uint64_t size = (uint64_t)st->st_size, n = v->end - v->start;
    return v->offset >= size ? 0 : size - v->offset < n ? size - v->offset : n;
}

void ph_undo_mapped_too_large(void)
{
    size_t n;
    const struct ph_vma_pm *v = all_mappings(&n);
    for (size_t i = 0; i < n; i++) {
        char what[PH_UNDO_PATH + 80];
        const char *path;
        struct stat st;
        if (is_written(&v[i], &path, &st) && bytes_of(&v[i], &st) > MAPPED_MAX)
            ph_files_cannot(
                ph_join(what, sizeof what, path, " as it is mapped at an epoch", NULL),
                ": it is larger than 16 MiB, so what is written to the mapping "
                "after the epoch stays over a recovery; where that does no harm, "
                "say pyheap.keep_file");
    }
}

/** The program's descriptor of a file (N3 in undo.c), or one of our own; negative errno. */
static int open_mapped(const struct stat *st, const char *path, bool *own)
{
    size_t n;
    const struct ph_file_pm *f = ph_files_all(&n);
    *own = false;
    for (size_t i = 0; i < n; i++)
        if (f[i].kind == PH_FILE_REGULAR && f[i].dev == st->st_dev && f[i].ino == st->st_ino)
            return f[i].fd;
    *own = true;
    return (int)ph_syscall(SYS_open, path, O_RDONLY | O_NOCTTY | O_CLOEXEC);
}

void ph_undo_keep_mapped(void)
{
    size_t n;
    const struct ph_vma_pm *v = all_mappings(&n);
    for (size_t i = 0; i < n; i++) {
        const char *path;
        struct stat st;
        bool own;
        uint64_t bytes;
        if (!is_written(&v[i], &path, &st) || !(bytes = bytes_of(&v[i], &st)) ||
            bytes > MAPPED_MAX)
            continue;
        int fd = open_mapped(&st, path, &own);
        if (fd < 0)
            ph_undo_complain("what the program maps of ", path, fd);
        else
            ph_undo_keep_middle(fd, &st, v[i].offset, v[i].offset + bytes);
        if (own && fd >= 0)
            ph_syscall(SYS_close, fd);
    }
}

static bool before_mapping(int fd, off_t at, size_t n)
{
    char path[PH_UNDO_PATH];
    struct stat st;
    if (ph_syscall(SYS_fstat, fd, &st) != 0 || !S_ISREG(st.st_mode) || !st.st_nlink || at < 0 ||
        at >= st.st_size || n > MAPPED_MAX || !ph_undo_path_of(fd, path, sizeof path) ||
        !is_on_disk(path))
        return false;
    return ph_undo_before_overwriting(fd, &st, (uint64_t)at, (uint64_t)at + n);
}

EXPORT void *mmap(void *start, size_t n, int prot, int flags, int fd, off_t at)
{
    int type = flags & MAP_TYPE;
    bool inside = (type == MAP_SHARED || type == MAP_SHARED_VALIDATE) && fd >= 0 &&
                  (prot & PROT_WRITE) && !(flags & MAP_ANONYMOUS) && before_mapping(fd, at, n);
    long r = ph_syscall(SYS_mmap, start, n, prot, flags, fd, at);
    ph_undo_after(inside);
    if (r > -4096 && r < 0) {
        errno = (int)-r;
        return MAP_FAILED;
    }
    return (void *)r;
}

EXPORT void *mmap64(void *start, size_t n, int prot, int flags, int fd, off_t at)
    __attribute__((alias("mmap")));
