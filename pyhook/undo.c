/* SPDX-License-Identifier: MIT */
/*
 * undo.c - what the program is about to do to a file's bytes is kept while an epoch needs it
 *
 * A recovered program does again what it did after the epoch: files must be as they were then
 * (allocator/undo.h). Of each file that it changes since the newest epoch is kept, before the
 * first change: its length, if it was not open at the epoch (else the epoch has it), and bytes
 * that get lost. Nobody needs what was written since, or is lost for the second time.
 *
 *   N1  While a file is changed (`busy`) no epoch is taken, and while one is taken no file is
 *       changed, but by writing at its end: what is kept belongs to the epoch that is the
 *       newest when the change happens.
 *   N2  What is known of a file is of one epoch. A recovered program, whose memory is older
 *       than its epoch, knows nothing and keeps all that may be needed; so does one whose table
 *       is full. That is more than is needed, and never wrong.
 *   N3  Closing a descriptor of a file loses the process's locks on it (fcntl(2)). A file with
 *       such a lock is read by the program's own descriptor or not at all; one that is about to
 *       be opened by its path loses them anyway, when the program closes it.
 *   N4  A file that is opened to be written from its start is kept whole up to a size
 *       (WHOLE_MAX), and whatever its size if its blocks can be shared, or if it was open at an
 * epoch that can be gone back to: the newest may never become durable, and the program may be
 * told to go back.
 *
 * If it cannot be kept, a full disk for instance, the program is told by a line on stderr,
 * once, and changes its file all the same.
 */
#include "undo.h"

#include "allocator/syscall.h"
#include "allocator/undo.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WHOLE_MAX (UINT64_C(64) << 20)
#define BLOCK     (UINT64_C(1) << 20) /* what is kept of a file that is overwritten */
#define STREAM_MAX                                                                             \
    (UINT64_C(16) << 20) /* a file that a stream may overwrite, which is not seen */

struct file {
    uint64_t dev, ino;
    uint64_t epoch;     /* since this one ... */
    uint64_t kept_from; /* ... bytes from here on are kept, or were not there */
    uint64_t open_at;   /* the newest epoch that had it open */
    bool made;          /* since `epoch`, by the program */
};

struct block {
    uint64_t dev, ino, index, epoch; /* kept since then */
};

static struct {
    atomic_flag busy;
    struct file file[4096];
    struct block block[1024];
} table = {.busy = ATOMIC_FLAG_INIT};

static uint64_t newest_taken; /* epoch */
static uint64_t lost_at;      /* the newest epoch some of whose open files left the table */
static atomic_int busy;
static __thread int inside_calls; /* of this thread; an epoch counts as one */
static __thread bool has_table; /* this thread: a signal's handler that writes must not wait */

/* ---- no change during an epoch, no epoch during a change (N1) --------------------------- */

uint64_t ph_undo_newest(void)
{
    uint64_t first = PH_CONTROL->first_epoch; /* N2: memory is of before that epoch's end */
    return first > newest_taken ? first : newest_taken;
}

bool ph_undo_enter(void)
{
    if (!ph_agent_active() || !ph_undo_newest())
        return false;
    while (inside_calls == 0) {
        atomic_fetch_add(&busy, 1);
        if (!atomic_load(&ph_agent.in_epoch))
            break;
        atomic_fetch_sub(&busy, 1);
        ph_settle_pause();
    }
    if (inside_calls++ == 0)
        ph_undo_making[0] = 0;
    return true;
}

void ph_undo_after(bool inside)
{
    if (inside && --inside_calls == 0)
        atomic_fetch_sub(&busy, 1);
}

void ph_undo_epoch_begin(void)
{
    while (inside_calls == 0 && atomic_load(&busy))
        ph_settle_pause();
    inside_calls++;
}

void ph_undo_epoch_end(void)
{
    inside_calls--;
}

/* ---- what is known of files ------------------------------------------------------------- */

#define PLACES 16 /* where one may be */

static size_t hash(uint64_t dev, uint64_t ino, uint64_t index)
{
    return (size_t)(((ino * 31 + index) ^ dev) * UINT64_C(0x9e3779b97f4a7c15) >> 40);
}

static void lock_table(void)
{
    while (atomic_flag_test_and_set(&table.busy))
        ph_settle_pause();
    has_table = true;
}

static void unlock_table(void)
{
    has_table = false;
    atomic_flag_clear(&table.busy);
}

/** Whether @p epoch can be gone back to still (N4). */
static bool matters(uint64_t epoch)
{
    return epoch && epoch + PH_CONTROL->keep > atomic_load(&PH_CONTROL->durable);
}

/** The entry of a file; @p make: if there is none, make one. The table is locked. */
static struct file *find(uint64_t dev, uint64_t ino, bool make)
{
    size_t n = sizeof table.file / sizeof table.file[0], at = hash(dev, ino, 0);
    struct file *free = NULL;
    for (size_t i = 0; i < PLACES; i++) {
        struct file *f = &table.file[(at + i) % n];
        if (f->ino == ino && f->dev == dev)
            return f;
        bool idle = f->epoch != ph_undo_newest() && !matters(f->open_at);
        if (!free || (idle && (free->epoch == ph_undo_newest() || matters(free->open_at))))
            free = f;
    }
    if (!make)
        return NULL;
    if (free->open_at > lost_at)
        lost_at = free->open_at;
    *free = (struct file){.dev = dev, .ino = ino};
    return free;
}

/** @return whether anything is kept of it since the newest epoch. */
static bool look(const struct stat *st, struct file *out)
{
    lock_table();
    const struct file *f = find(st->st_dev, st->st_ino, false);
    *out = f ? *f : (struct file){.dev = st->st_dev, .ino = st->st_ino};
    unlock_table();
    bool known = out->epoch == ph_undo_newest();
    if (!known) {
        out->kept_from = (uint64_t)st->st_size;
        out->made = false;
    }
    return known;
}

static void know(uint64_t dev, uint64_t ino, uint64_t kept_from, bool made)
{
    lock_table();
    struct file *f = find(dev, ino, true);
    f->epoch = ph_undo_newest();
    f->kept_from = kept_from;
    f->made = made;
    unlock_table();
}

bool ph_undo_is_made(const struct stat *st)
{
    struct file f;
    return look(st, &f) && f.made;
}

int ph_undo_capture_end(void)
{
    size_t n;
    const struct ph_file_pm *f = ph_files_all(&n);
    newest_taken = ph_capture.epoch;
    for (size_t i = 0; i < n; i++)
        if (f[i].kind == PH_FILE_REGULAR && f[i].same_as < 0 &&
            !(f[i].flags & (PH_FILE_DELETED | PH_FILE_KEPT))) {
            if (f[i].flags & PH_FILE_WRITABLE) /* others are not cut back by the record */
                know(f[i].dev, f[i].ino, f[i].size, false);
            find(f[i].dev, f[i].ino, true)->open_at = newest_taken;
        }
    ph_undo_later_begin();
    ph_undo_keep_mapped();
    return ph_undo_later_end();
}

/** Whether @p path is none of a disk. */
static bool is_kernels(const char *path)
{
    static const char *const roots[] = {"/dev/shm/", "/proc/", "/sys/", "/dev/"};
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++)
        if (strncmp(path, roots[i], strlen(roots[i])) == 0)
            return i > 0 || ph_segments_made(path); /* else a file like any other */
    return false;
}

bool ph_undo_concerns(const struct stat *st, const char *path)
{
    return !is_kernels(path) && !ph_files_is_kept(st->st_dev, st->st_ino, path) &&
           !ph_undo_database_suffix(path);
}

/* ---- keeping ---------------------------------------------------------------------------- */

/** Whether the process has a lock, or a lease, on the file by this descriptor. */
static bool is_locked(const char *number)
{
    char path[48], text[2048];
    ph_join(path, sizeof path, "/proc/self/fdinfo/", number, NULL);
    long fd = ph_syscall(SYS_open, path, O_RDONLY | O_CLOEXEC);
    long n = fd < 0 ? -1 : ph_syscall(SYS_read, fd, text, sizeof text - 1);
    if (fd >= 0)
        ph_syscall(SYS_close, fd);
    text[n > 0 ? n : 0] = 0;
    return n < 0 || strstr(text, "POSIX") || strstr(text, "LEASE");
}

/**
 * A descriptor to read the file of @p fd by, our own or the program's, or negative errno.
 * @param places whether it is read at given places: then the program's serves.
 */
static long open_to_read(int fd, bool places, bool *own)
{
    char link[48], number[24];
    int flags = fcntl(fd, F_GETFL);
    bool can_read = !(flags & (O_PATH | O_DIRECT)) && (flags & O_ACCMODE) != O_WRONLY;
    ph_format_u64(number, (uint64_t)fd);
    *own = !(can_read && places) && ((flags & O_PATH) || !is_locked(number));
    if (!*own)
        return can_read ? fd : -EBUSY;
    ph_join(link, sizeof link, "/proc/self/fd/", number, NULL);
    return ph_syscall(SYS_open, link, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static long keep_bytes(int fd, const struct stat *st, const char *path, uint64_t from,
                       uint64_t to, bool middle, bool large)
{
    bool own;
    long reader = open_to_read(fd, middle, &own);
    if (reader < 0)
        return reader;
    long err = ph_undo_write(
        &(struct ph_undo_bytes){st, (int)reader, own, middle, large, from, to}, path);
    if (own)
        ph_syscall(SYS_close, reader);
    return err;
}

/** The length of a file that was not open at the epoch. */
static long keep_length(int fd, const struct stat *st, const char *path)
{
    bool own = false;
    long reader = st->st_size ? open_to_read(fd, true, &own) : -1;
    uint32_t sum = reader < 0 ? 0 : ph_tail_sum((int)reader, (uint64_t)st->st_size);
    if (own && reader >= 0)
        ph_syscall(SYS_close, reader);
    return ph_undo_note(&(struct ph_undo_note){.kind = PH_UNDO_OPENED,
                                               .dev = st->st_dev,
                                               .ino = st->st_ino,
                                               .birth_ns = ph_files_birth(fd),
                                               .value = (uint64_t)st->st_size,
                                               .sum = sum,
                                               .path = path});
}

/** The file of @p fd is about to have @p length bytes, or as many as before and more. */
static void keep_from(int fd, const struct stat *st, uint64_t length)
{
    char path[PH_UNDO_PATH];
    struct file f;
    bool known = look(st, &f);
    if ((known && length >= f.kept_from) || st->st_nlink == 0)
        return;
    if (!ph_undo_path_of(fd, path, sizeof path) || !ph_undo_concerns(st, path))
        return;
    uint64_t size = (uint64_t)st->st_size, to = f.kept_from < size ? f.kept_from : size;
    long err = 0;
    if (length >= to && !known)
        err = keep_length(fd, st, path);
    else if (length < to)
        err = keep_bytes(fd, st, path, length, to, false,
                         to - length > WHOLE_MAX && !matters(f.open_at) && !matters(lost_at) &&
                             newest_taken == ph_undo_newest());
    if (err)
        ph_undo_complain("what the program takes from ", path, err);
    else
        know(st->st_dev, st->st_ino, length < to ? length : to, f.made);
}

/** Whether block @p index is kept since the newest epoch; @p keep: it is now. */
static bool is_kept(const struct file *f, uint64_t index, bool keep)
{
    size_t n = sizeof table.block / sizeof table.block[0], at = hash(f->dev, f->ino, index);
    const struct block wanted = {f->dev, f->ino, index, ph_undo_newest()};
    struct block *free = &table.block[at % n];
    bool kept = false;
    lock_table();
    for (size_t i = 0; i < PLACES && !kept; i++) {
        struct block *b = &table.block[(at + i) % n];
        kept = memcmp(b, &wanted, sizeof wanted) == 0;
        if (b->epoch != wanted.epoch)
            free = b;
    }
    if (keep && !kept)
        *free = wanted;
    unlock_table();
    return kept;
}

void ph_undo_keep_middle(int fd, const struct stat *st, uint64_t from, uint64_t to)
{
    char path[PH_UNDO_PATH];
    struct file f;
    look(st, &f);
    uint64_t size = (uint64_t)st->st_size, end = f.kept_from < size ? f.kept_from : size;
    uint64_t last = ((to < end ? to : end) + BLOCK - 1) / BLOCK, first;
    for (uint64_t i = from / BLOCK; i < last; i++) {
        if (is_kept(&f, i, false))
            continue;
        for (first = i; i + 1 < last && !is_kept(&f, i + 1, false); i++)
            ;
        if (!ph_undo_path_of(fd, path, sizeof path) || !ph_undo_concerns(st, path))
            return;
        uint64_t until = (i + 1) * BLOCK < end ? (i + 1) * BLOCK : end;
        long err = keep_bytes(fd, st, path, first * BLOCK, until, true, false);
        if (err) {
            ph_undo_complain("what the program overwrites in ", path, err);
            return;
        }
        for (; first <= i; first++)
            is_kept(&f, first, true);
    }
}

/* ---- before the calls ------------------------------------------------------------------- */

#define ITS_LENGTH (-1)
#define OF_STREAM  (-2)

/** @return whether there is a regular file. */
static bool before_path(int dir, const char *path, int64_t length, bool *missing)
{
    struct stat st;
    struct file f;
    long rc = ph_syscall(SYS_newfstatat, dir, path, &st, 0);
    *missing = rc == -ENOENT;
    if (rc || !S_ISREG(st.st_mode))
        return false;
    if (length == OF_STREAM && (uint64_t)st.st_size <= STREAM_MAX)
        length = 0;
    uint64_t least = length < 0 ? (uint64_t)st.st_size : (uint64_t)length;
    if (look(&st, &f) && least >= f.kept_from) /* as a rule: so it need not be opened */
        return true;
    int file = (int)ph_syscall(SYS_openat, dir, path, O_PATH | O_CLOEXEC);
    if (file < 0)
        return true;
    if (fstat(file, &st) == 0 && S_ISREG(st.st_mode))
        keep_from(file, &st, length < 0 ? (uint64_t)st.st_size : (uint64_t)length);
    ph_syscall(SYS_close, file);
    return true;
}

static struct ph_undo_open before_open(int dir, const char *path, int flags, bool stream)
{
    struct ph_undo_open o = {0};
    int state, saved = errno;
    bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    if (!path || !(writes || (flags & O_CREAT)) || (flags & O_PATH) ||
        (flags & O_TMPFILE) == O_TMPFILE || !ph_undo_enter())
        return o;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    bool missing, makes_or_fails = (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL);
    bool overwrites = stream && !(flags & O_APPEND);
    int length = makes_or_fails    ? ITS_LENGTH
                 : flags & O_TRUNC ? 0
                 : overwrites      ? OF_STREAM
                                   : ITS_LENGTH;
    bool regular = before_path(dir, path, length, &missing);
    o.makes = missing && (flags & O_CREAT);
    o.at_end = flags & (O_APPEND | O_TRUNC);
    if (o.makes)
        ph_undo_makes(dir, path, S_IFREG);
    o.inside = regular || o.makes;
    if (!o.inside) /* opening a FIFO may wait for long */
        ph_undo_after(true);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    return o;
}

struct ph_undo_open ph_undo_before_open(int dir, const char *path, int flags)
{
    return before_open(dir, path, flags, false);
}

struct ph_undo_open ph_undo_before_stream(const char *path, int flags)
{
    return before_open(AT_FDCWD, path, flags, true);
}

void ph_undo_after_open(struct ph_undo_open o, int fd)
{
    ph_undo_new_turn();
    if (o.at_end)
        ph_undo_make_sure(fd, ph_undo_turn());
    char path[PH_UNDO_PATH];
    struct stat st;
    int saved = errno;
    if (o.makes && fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        ph_undo_path_of(fd, path, sizeof path))
        ph_undo_made(&st, ph_files_birth(fd), path);
    ph_undo_after(o.inside);
    errno = saved;
}

void ph_undo_makes(int dir, const char *path, mode_t type)
{
    char name[PH_UNDO_PATH];
    struct ph_undo_note n = {.kind = PH_UNDO_MAKES, .value = type, .path = name};
    if (!ph_undo_absolute(name, sizeof name, dir, path, &n.dev) || is_kernels(name) ||
        ph_files_is_kept_name(name))
        return;
    long err = ph_undo_note(&n);
    if (err)
        ph_undo_complain("that the program makes ", name, err);
}

void ph_undo_made(const struct stat *st, uint64_t birth_ns, const char *path)
{
    if (is_kernels(path) || ph_files_is_kept(st->st_dev, st->st_ino, path))
        return;
    long err = ph_undo_note(&(struct ph_undo_note){
        .kind = S_ISDIR(st->st_mode) ? PH_UNDO_MADE_DIRECTORY : PH_UNDO_MADE,
        .dev = st->st_dev,
        .ino = st->st_ino,
        .birth_ns = birth_ns,
        .path = path});
    if (err)
        ph_undo_complain("that the program has made ", path, err);
    else if (st->st_nlink <= 1 || S_ISDIR(st->st_mode))
        know(st->st_dev, st->st_ino, 0, true);
}

bool ph_undo_before_truncate(const char *path, off_t length)
{
    int state, saved = errno;
    bool missing;
    if (!path || length < 0 || !ph_undo_enter())
        return false;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    bool regular = before_path(AT_FDCWD, path, length, &missing);
    ph_undo_after(!regular);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    return regular;
}

bool ph_undo_before_ftruncate(int fd, off_t length)
{
    struct stat st;
    int state, saved = errno;
    if (length < 0 || !ph_undo_enter())
        return false;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        keep_from(fd, &st, (uint64_t)length);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    return true;
}

bool ph_undo_before_overwriting(int fd, const struct stat *st, uint64_t from, uint64_t to)
{
    int state, saved = errno;
    if (!ph_undo_enter())
        return false;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    ph_undo_keep_middle(fd, st, from, to);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    return true;
}

bool ph_undo_before_write(int fd, off_t at, size_t n)
{
    struct stat st;
    int saved = errno;
    if (!n || has_table || !ph_agent_active() || !ph_undo_newest())
        return false;
    bool here = at < 0;
    if (here && ph_undo_is_sure(fd))
        return false;
    uint64_t turn = ph_undo_turn();
    bool known = ph_syscall(SYS_fstat, fd, &st) == 0;
    bool overwrites = known && S_ISREG(st.st_mode) && st.st_nlink &&
                      (!here || (at = ph_syscall(SYS_lseek, fd, 0, SEEK_CUR)) >= 0) &&
                      at < st.st_size && !(fcntl(fd, F_GETFL) & O_APPEND);
    if (here && known && !overwrites)
        ph_undo_make_sure(fd, turn);
    errno = saved;
    return overwrites && ph_undo_before_overwriting(fd, &st, (uint64_t)at, (uint64_t)at + n);
}
