/* SPDX-License-Identifier: MIT */
/*
 * files.c - the program's descriptors, as the epoch finds them
 *
 * What can be reopened or re-created is described; files that were written to since the last
 * epoch are made durable (files_durable.c); what cannot come back is named (files_cannot.c).
 *
 * Here is what has a file behind it; files_list.c tells which there are, files_embed.c has
 * files without a name, files_locks.c the locks on them, files_special.c what the kernel makes
 * up (pipes, epoll, timers), files_socket.c sockets, files_inherit.c what was there from the
 * start.
 */
#include "files.h"

#include "children.h"
#include "undo.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PSEUDO_TERMINAL_MASTER makedev(5, 2)

uint64_t ph_files_mtime(const struct stat *st)
{
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

int ph_files_hide(int fd)
{
    struct rlimit limit;
    int lowest = 1000;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1024)
        lowest = limit.rlim_cur > 16 ? (int)limit.rlim_cur - 8 : 8;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, lowest);
    if (high < 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        return fd;
    }
    close(fd);
    return high;
}

struct ph_file_pm *ph_files_all(size_t *n)
{
    *n = ph_agent.areas.files.used / sizeof(struct ph_file_pm);
    return (struct ph_file_pm *)ph_agent.areas.files.base;
}

void *ph_files_data(struct ph_file_pm *f, size_t size)
{
    struct ph_area *a = &ph_agent.areas.data;
    if (f->data_size == 0)
        f->data_offset = a->used;
    void *p = ph_area_push(a, size);
    f->data_size += (size + 7) & ~(size_t)7;
    return p;
}

void *ph_files_chunk(struct ph_file_pm *f, uint64_t offset, size_t size)
{
    struct ph_chunk_pm *c = ph_files_data(f, sizeof *c + size);
    if (ph_agent.areas.data.overflow)
        return NULL;
    c->offset = offset;
    c->size = size;
    return c + 1;
}

const char *ph_files_info(int fd)
{
    char path[48] = "/proc/self/fdinfo/", number[24];
    strcat(path, ph_format_u64(number, (uint64_t)fd));
    ph_agent.areas.text.used = 0;
    return ph_read_file(path, &ph_agent.areas.text) < 0
               ? ""
               : (const char *)ph_agent.areas.text.base;
}

/* ---- one descriptor -----------------------------------------------------------------------
 */

/**
 * The descriptions found so far, as indices in compare_description's order: looking at all of
 * them for each takes minutes when there are ten thousands.
 */
static struct {
    uint32_t *at;
    size_t n, max;
} sorted;

static int compare_inode(const struct ph_file_pm *a, const struct ph_file_pm *b)
{
    if (a->dev != b->dev)
        return a->dev < b->dev ? -1 : 1;
    return a->ino == b->ino ? 0 : a->ino < b->ino ? -1 : 1;
}

/** By file and flags, and then in the kernel's own order of descriptions (kcmp(2)). */
static int compare_description(const struct ph_file_pm *a, const struct ph_file_pm *b)
{
    int of_inode = compare_inode(a, b);
    if (of_inode)
        return of_inode;
    if (a->open_flags != b->open_flags)
        return a->open_flags < b->open_flags ? -1 : 1;
    long pid = syscall(SYS_getpid);
    long order = syscall(SYS_kcmp, pid, pid, KCMP_FILE, a->fd, b->fd);
    if (order >= 0)
        return order == 0 ? 0 : order == 1 ? -1 : 1;
    return a->position == b->position ? 0 : a->position < b->position ? -1 : 1;
}

/** The place of the first description that is not below @p f in the order of @p compare;
 * *equal: whether it is not above either. */
static size_t place_of(const struct ph_file_pm *f,
                       int (*compare)(const struct ph_file_pm *, const struct ph_file_pm *),
                       bool *equal)
{
    size_t count, low = 0, high = sorted.n;
    const struct ph_file_pm *all = ph_files_all(&count);
    *equal = false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = compare(&all[sorted.at[middle]], f);
        *equal |= order == 0;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct ph_file_pm *ph_files_next_of(uint64_t dev, uint64_t ino, size_t *place)
{
    bool equal;
    size_t count;
    struct ph_file_pm *all = ph_files_all(&count);
    if (*place == PH_FILES_FIRST)
        *place = place_of(&(struct ph_file_pm){.dev = dev, .ino = ino}, compare_inode, &equal);
    if (*place == sorted.n)
        return NULL;
    struct ph_file_pm *f = &all[sorted.at[(*place)++]];
    return f->dev == dev && f->ino == ino ? f : NULL;
}

/** @return the lower descriptor of the description of @p f, the last one; NULL: it is new. */
static const struct ph_file_pm *known_description(const struct ph_file_pm *f)
{
    bool known;
    size_t count, place = place_of(f, compare_description, &known);
    const struct ph_file_pm *all = ph_files_all(&count);
    if (known)
        return &all[sorted.at[place]];
    if (sorted.n < sorted.max) {
        memmove(sorted.at + place + 1, sorted.at + place,
                (sorted.n++ - place) * sizeof *sorted.at);
        sorted.at[place] = (uint32_t)(count - 1);
    }
    return NULL;
}

bool ph_files_has_name(const struct ph_file_pm *f, const char *name)
{
    struct stat st;
    int how = S_ISLNK(f->mode) ? AT_SYMLINK_NOFOLLOW : 0;
    return fstatat(AT_FDCWD, name, &st, how) == 0 && st.st_ino == f->ino && st.st_dev == f->dev;
}

static bool is_nameless(const struct ph_file_pm *f, const char *name, const struct stat *st)
{
    return st->st_nlink == 0 || (st->st_nlink == 1 && ph_undo_is_removed(f->dev, f->ino) &&
                                 !ph_files_has_name(f, name));
}

static void capture_regular(struct ph_file_pm *f, const char *name, const struct stat *st)
{
    f->kind = PH_FILE_REGULAR;
    if (is_nameless(f, name, st) || ph_segments_made(name) ? !ph_files_embed(f, name)
                                                           : !ph_files_has_name(f, name))
        ph_files_dead(f, name);
    else
        ph_files_capture_locks(f);
}

/** Whether a file of /proc/PID shows the address space that was there when it was opened. */
static bool shows_memory(const char *rest, const char *const *names, size_t n)
{
    const char *last = strrchr(rest, '/');
    for (size_t i = 0; last && i < n; i++)
        if (strcmp(last + 1, names[i]) == 0)
            return true;
    return false;
}

/** As text, or as the memory itself. */
static const char *const as_text[] = {"maps",      "smaps",   "smaps_rollup",
                                      "numa_maps", "environ", "auxv"},
                         *const as_memory[] = {"mem", "pagemap", "map_files"};
#define AS_TEXT   as_text, sizeof as_text / sizeof as_text[0]
#define AS_MEMORY as_memory, sizeof as_memory / sizeof as_memory[0]

/** Half of it has been read: what is left of it, as it is now, goes into the epoch. */
static bool embed_text(struct ph_file_pm *f, const char *path)
{
    struct ph_area *text = &ph_agent.areas.text;
    text->used = 0;
    long n = ph_read_file(path, text);
    if (n < 0)
        return false;
    void *chunk = ph_files_chunk(f, 0, (size_t)n);
    if (chunk)
        memcpy(chunk, text->base, (size_t)n);
    f->size = (uint64_t)n;
    f->flags |= PH_FILE_DELETED;
    f->detail = F_SEAL_SEAL;
    return true;
}

/**
 * A file of /proc/PID goes with its process, and has that number in its name. The program's own
 * are found again as those of the process that recovers it. @return whether it is one of these.
 */
static bool of_process(struct ph_file_pm *f, const char *name, const struct stat *st)
{
    static const char proc[] = "/proc/", task[] = "/task/";
    if (strncmp(name, proc, sizeof proc - 1) != 0 || name[6] < '0' || name[6] > '9')
        return false;
    long pid = syscall(SYS_getpid);
    char *rest, *after, buf[4096];
    bool own = strtol(name + 6, &rest, 10) == pid && !shows_memory(rest, AS_MEMORY);
    const char *as = "/proc/self";
    if (own && strncmp(rest, task, sizeof task - 1) == 0) {
        own = strtol(rest + 6, &after, 10) == pid; /* other threads have other numbers then */
        as = "/proc/thread-self";
        rest = after;
    }
    if (!own) {
        ph_files_dead(f, name);
        return true;
    }
    ph_join(buf, sizeof buf, as, rest, NULL);
    f->path = ph_record_string(buf, strlen(buf));
    f->kind = S_ISDIR(st->st_mode) ? PH_FILE_DIRECTORY : PH_FILE_REGULAR;
    if (f->position && shows_memory(rest, AS_TEXT) && !embed_text(f, buf))
        ph_files_dead(f, name);
    return true;
}

/** A removed directory is empty for good, so any other is as good. */
static bool is_removed_directory(struct ph_file_pm *f, const struct stat *st)
{
    if (!S_ISDIR(st->st_mode) || st->st_nlink != 0)
        return false;
    f->kind = PH_FILE_DIRECTORY;
    f->flags |= PH_FILE_DELETED;
    return true;
}

/** Whether it is the terminal that the program runs in: the kernel tells its session of no
 * other one but of a pseudo-terminal's master. */
static bool is_own_terminal(const struct ph_file_pm *f, const char *name)
{
    pid_t session;
    return strcmp(name, "/dev/tty") == 0 ||
           ((f->flags & PH_FILE_TTY) && f->rdev != PSEUDO_TERMINAL_MASTER &&
            ioctl(f->fd, TIOCGSID, &session) == 0);
}

/** What is opened again is as it was: memory devices (null, zero, random), and the program's
 * own terminal, which is replaced. Others have a state that only their drivers know, or another
 * end. */
static void classify_device(struct ph_file_pm *f, const char *name)
{
    char line[64], number[24];
    int pair;
    f->kind = PH_FILE_CHAR;
    if (major(f->rdev) == PH_MEMORY_DEVICES || is_own_terminal(f, name))
        return;
    if (f->rdev == PSEUDO_TERMINAL_MASTER && ioctl(f->fd, TIOCGPTN, &pair) == 0)
        name = ph_join(line, sizeof line, "the master of /dev/pts/",
                       ph_format_u64(number, (uint64_t)pair), NULL);
    ph_files_dead(f, name);
}

static void classify(struct ph_file_pm *f, const char *name, const struct stat *st)
{
    if (ph_files_inherited(f, false))
        f->kind = PH_FILE_INHERIT;
    else if ((S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) && !(f->open_flags & O_PATH) &&
             of_process(f, name, st))
        return;
    else if (is_removed_directory(f, st))
        return;
    else if ((f->open_flags & O_PATH) && !(S_ISREG(st->st_mode) && is_nameless(f, name, st))) {
        f->kind = PH_FILE_PATH;
        if (!ph_files_has_name(f, name))
            ph_files_dead(f, name);
    } else if (S_ISREG(st->st_mode))
        capture_regular(f, name, st);
    else if (S_ISDIR(st->st_mode)) {
        f->kind = PH_FILE_DIRECTORY;
        if (!ph_files_has_name(f, name))
            ph_files_dead(f, name);
        else
            ph_files_capture_locks(f);
    } else if (S_ISCHR(st->st_mode))
        classify_device(f, name);
    else if (S_ISSOCK(st->st_mode))
        ph_files_capture_socket(f);
    else
        ph_files_capture_special(f, name);
}

static void capture_one(int fd)
{
    struct stat st;
    char name[4096];
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) != 0)
        return;
    size_t n = ph_files_name(fd, &st, name, sizeof name);
    struct ph_file_pm *f = ph_area_push(&ph_agent.areas.files, sizeof *f);
    if (ph_agent.areas.files.overflow)
        return;
    f->fd = fd;
    f->open_flags = (uint32_t)flags;
    f->fd_flags = ph_files_flags(fd);
    f->same_as = f->peer = -1;
    f->mode = st.st_mode;
    f->size = (uint64_t)st.st_size;
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    if (S_ISREG(st.st_mode))
        f->birth_ns = ph_files_birth(fd);
    else
        f->rdev = st.st_rdev;
    f->mtime_ns = ph_files_mtime(&st);
    off_t position = lseek(fd, 0, SEEK_CUR);
    f->position = position > 0 ? (uint64_t)position : 0;
    f->path = ph_record_string(name, n);

    if (S_ISREG(st.st_mode) && (flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH))
        f->flags |= ph_files_is_kept(f->dev, f->ino, name) ? PH_FILE_WRITABLE | PH_FILE_KEPT
                                                           : PH_FILE_WRITABLE;

    if (ph_files_may_be_terminal(&st) && isatty(fd))
        f->flags |= PH_FILE_TTY;
    const struct ph_file_pm *same = known_description(f);
    /* stdout and stderr are often one description, and need not be the next time. */
    if (ph_files_inherited(f, true)) {
        f->kind = PH_FILE_INHERIT;
        return;
    }
    if (same) {
        f->same_as = same->fd;
        f->kind = same->kind;
        f->flags |= same->flags;
        f->detail = same->detail;
        return;
    }
    classify(f, name, &st);
}

int ph_files_capture(uint64_t epoch)
{
    /* All numbers first: capturing opens descriptors of its own. */
    size_t max;
    int *list = (int *)ph_memory_regions(false, &max);
    max = max * sizeof(struct ph_track_region) / sizeof *list;
    sorted.n = 0;
    sorted.at = (uint32_t *)ph_memory_regions(true, &sorted.max);
    sorted.max = sorted.max * sizeof(struct ph_track_region) / sizeof *sorted.at;
    long count = ph_files_numbers(list, max);
    if (count < 0) {
        ph_agent_detail("/proc/self/fd", NULL, errno);
        return PH_EKERNEL;
    }
    ph_files_cannot_start();
    for (long i = 0; i < count; i++)
        capture_one(list[i]);
    ph_files_named();
    ph_files_match_ends();
    ph_files_identify();
    ph_children_name();
    ph_undo_mapped_too_large();
    if (ph_files_cannot_end())
        return PH_EUNSUPPORTED;
    ph_agent.fd_messages = 0;
    return ph_files_make_durable(epoch);
}
