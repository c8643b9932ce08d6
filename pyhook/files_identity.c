/* SPDX-License-Identifier: MIT */
/*
 * files_identity.c - by what recovery knows a file again
 *
 * A name may lead to another file by then: logs are rotated, editors save by renaming, a
 * directory is copied to another machine. The inode's number and the time when it was made tell
 * the very file, under whatever name. A copy is told by the bytes before the end that the file
 * has at the epoch.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/** Of files that have not changed the sum is known already. */
static struct known {
    uint64_t dev, ino, size, mtime_ns;
    uint32_t sum;
} known[256];

uint64_t ph_files_birth(int fd)
{
    struct statx sx;
    return statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &sx) == 0 ? ph_birth_ns(&sx) : 0;
}

static uint32_t read_sum(const struct ph_file_pm *f)
{
    char path[40] = "/proc/self/fd/", number[24];
    int fd = f->fd;
    if ((f->open_flags & O_ACCMODE) == O_WRONLY) {
        if (ph_files_is_touchy(f))
            return 0;
        fd = open(strcat(path, ph_format_u64(number, (uint64_t)f->fd)),
                  O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    }
    uint32_t sum = fd < 0 || (f->open_flags & O_DIRECT) ? 0 : ph_tail_sum(fd, f->size);
    if (fd >= 0 && fd != f->fd)
        close(fd);
    return sum;
}

void ph_files_identify(void)
{
    size_t n;
    struct ph_file_pm *f = ph_files_all(&n), *end = f + n;
    struct timespec now = {0};
    for (; f < end; f++) {
        bool inherited = f->kind == PH_FILE_INHERIT && S_ISREG(f->mode);
        uint32_t *sum = inherited ? &f->shutdown : &f->detail;
        if ((f->kind != PH_FILE_REGULAR && !inherited) || f->same_as >= 0 ||
            (f->flags & PH_FILE_DELETED) || !f->size)
            continue;
        struct known *k = &known[(f->ino ^ f->dev) % (sizeof known / sizeof known[0])];
        if (k->dev == f->dev && k->ino == f->ino && k->size == f->size &&
            k->mtime_ns == f->mtime_ns) {
            *sum = k->sum;
            continue;
        }
        *sum = read_sum(f);
        /* Time stamps are coarse: a write in the same tick would not show. */
        if (!now.tv_sec)
            clock_gettime(CLOCK_REALTIME, &now);
        uint64_t age = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec - f->mtime_ns;
        *k = (struct known){f->dev, f->ino, f->size, age > 50000000u ? f->mtime_ns : 0, *sum};
    }
}
