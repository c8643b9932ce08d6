/* SPDX-License-Identifier: MIT */
/*
 * record.h - the process record: all of an epoch that is not memory
 *
 * Written by the agent in the program, read by recovery: the only thing that these two rooms
 * share. One flat blob: a header, then tables at the offsets that the header names, then the
 * strings. Everything is host byte order and fixed width; the pool's checksum covers it.
 *
 * Invariants
 *  R1  Every table lies inside the record: offset + count * size <= header.size.
 *  R2  Every string reference is below strings.count, and the strings end with a 0 byte.
 *  R3  vmas ascend and do not overlap; none touches pyheap's own ranges (layout.h) but the
 *      heap; of that they are what is in use (allocator/heap_space.h).
 *  R4  Exactly one thread has PH_THREAD_LEADER and exactly one PH_THREAD_CALLER.
 *  R5  A descriptor's data is what its kind says, whole entries, inside the data table.
 *  R6  Every lock names a descriptor of the files table.
 *  R7  Every timer has a number of its own, a signal, and no thread or one of the table.
 *  R8  What the restorer writes into the program (ids of threads, clocks) and reads of it
 *      (frames) lies in mappings that allow it.
 * ph_record_check holds a record against all of them.
 */
#ifndef PH_RECORD_H
#define PH_RECORD_H

#include "allocator/layout.h"
#include "record_clock.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#define PH_RECORD_MAGIC   UINT64_C(0x3144524350594850) /* "PHYPCRD1" */
#define PH_RECORD_VERSION 8

struct ph_table_pm {
    uint64_t offset; /* from the start of the record */
    uint64_t count;  /* entries */
};

enum ph_vma_kind {
    PH_VMA_ANON = 1,    /* private; content in the pool, zero where the pool has nothing */
    PH_VMA_FILE,        /* private over a file; changed pages are in the pool */
    PH_VMA_SHARED_FILE, /* shared over a file that still has its name; content in the file */
    PH_VMA_SHARED_ANON, /* shared, no name; content in the pool */
};

#define PH_VMA_GROWSDOWN  1u
#define PH_VMA_HUGEPAGE   2u
#define PH_VMA_WHOLE      4u /* its file has lost its name: all pages are in the pool */
#define PH_VMA_EMBEDDED   8u /* the content is with the descriptor that has its dev and ino */

#define PH_VMA_DONTFORK   16u /* and what else madvise and mlock have been told */
#define PH_VMA_WIPEONFORK 32u
#define PH_VMA_DONTDUMP   64u
#define PH_VMA_NOHUGEPAGE 128u
#define PH_VMA_LOCKED     256u
#define PH_VMA_DROPPABLE                                                                       \
    512u /* the kernel may empty it: it comes back empty (getrandom's state) */
#define PH_VMA_SEGMENT 1024u /* its file is made anew under its name: size, and mode */

struct ph_vma_pm {
    uint64_t start, end;
    uint64_t offset;   /* in the file, bytes */
    uint64_t dev, ino; /* of the file */
    uint64_t size;     /* of the file, bytes */
    uint64_t mtime_ns; /* of the file; of a segment: its mode */
    uint32_t path;     /* string */
    uint32_t kind;     /* enum ph_vma_kind */
    uint32_t prot;     /* PROT_* */
    uint32_t flags;    /* PH_VMA_* */
};
_Static_assert(sizeof(struct ph_vma_pm) == 72, "ph_vma_pm is part of the format");

#define PH_THREAD_LEADER 1u
#define PH_THREAD_CALLER 2u

struct ph_thread_pm {
    uint64_t context; /* address of the ucontext in the signal frame: rsp for rt_sigreturn */
    uint64_t fs, gs;  /* segment bases */
    uint64_t tid_address;     /* where libc keeps the thread's id */
    uint64_t cleared_address; /* what the kernel clears when it ends: see ph_thread_id */
    uint64_t robust_list, robust_length;
    uint64_t rseq;        /* 0: not registered */
    uint64_t timer_slack; /* ns */
    uint64_t cpu_ns;      /* CLOCK_THREAD_CPUTIME_ID as it knows it */
    uint64_t pending;     /* signals that came while it was parked; bit n - 1 for signal n */
    uint32_t rseq_length, rseq_signature;
    uint32_t tid;   /* when the epoch was taken */
    uint32_t flags; /* PH_THREAD_* */
    char name[16];
};
_Static_assert(sizeof(struct ph_thread_pm) == 120, "ph_thread_pm is part of the format");

enum ph_file_kind {
    PH_FILE_INHERIT = 1, /* given by whoever started the program, as number `detail` */
    PH_FILE_REGULAR,     /* with PH_FILE_DELETED: content in the data, chunks */
    PH_FILE_DIRECTORY,
    PH_FILE_CHAR, /* character device, by path; a terminal by what replaces it */
    PH_FILE_PATH, /* O_PATH, by path */
    PH_FILE_PIPE, /* its other descriptions have the same dev and ino; waiting: chunks. With a
                     path: a FIFO */
    PH_FILE_SOCKPAIR, /* AF_UNIX with `peer`, or hung up; waiting: chunks */
    PH_FILE_EPOLL,    /* data: struct ph_epoll_pm */
    PH_FILE_EVENTFD,  /* position: the counter */
    PH_FILE_TIMERFD,  /* data: one struct ph_timerfd_pm */
    PH_FILE_SIGNALFD, /* position: the mask */
    PH_FILE_INOTIFY,  /* data: struct ph_watch_pm */
    PH_FILE_DEAD,     /* cannot come back */
};

#define PH_FILE_DELETED   1u /* a directory: it is empty */
#define PH_FILE_WRITABLE  2u
#define PH_FILE_TTY       4u
#define PH_FILE_HUNGUP    8u   /* pipe, socket: the other end was closed already */
#define PH_FILE_SEMAPHORE 16u  /* eventfd */
#define PH_FILE_KEPT      32u  /* the program has said not to cut it back */
#define PH_FILE_SEGMENT   128u /* deleted file: it is to be made anew under its name */
#define PH_FILE_LATE      256u /* in a plan: a directory that is there when files are undone */
#define PH_FILE_TRACKER                                                                        \
    512u /* pipe to the child that removes segments, `position`, started at `birth_ns` ticks   \
            after the machine: open for both, so that it takes what is written */
#define PH_FILE_MEMFD 64u /* deleted file: it never had a name; its text is in the path */

struct ph_file_pm {
    int32_t fd;
    uint32_t kind;       /* enum ph_file_kind */
    uint32_t flags;      /* PH_FILE_* */
    uint32_t open_flags; /* O_* as fcntl(F_GETFL) tells */
    uint32_t fd_flags;   /* FD_CLOEXEC */
    int32_t same_as;     /* lower descriptor of the same open file description, or -1 */
    int32_t peer;        /* socket: descriptor of the other end, or -1 */
    uint32_t mode;       /* st_mode */
    uint64_t position, size;
    uint64_t dev, ino;
    union {
        uint64_t rdev;     /* of a device */
        uint64_t birth_ns; /* of a regular file: when it was made; 0: not known */
    };
    uint64_t mtime_ns;
    uint64_t data_offset,
        data_size;        /* into the data table: contents, watches, bytes in flight */
    uint32_t path;        /* string: the kernel's name for it */
    uint32_t socket_type; /* SOCK_* of a socketpair */
    uint32_t detail;      /* pipe: size of its buffer; socket: that of its send buffer; memfd:
                             seals; inherited: the number; another regular file: ph_tail_sum
                             of the bytes before `size`, 0: not known */
    uint32_t shutdown;    /* socket: RCV_SHUTDOWN 1, SEND_SHUTDOWN 2; inherited regular file:
                             its ph_tail_sum */
};
_Static_assert(sizeof(struct ph_file_pm) == 112, "ph_file_pm is part of the format");

/** Whether a dead descriptor fails (EBADF), rather than being closed at the other end: an end
 *  of file would be believed. */
static inline bool ph_file_fails(const struct ph_file_pm *f)
{
    return S_ISREG(f->mode) || S_ISDIR(f->mode) || (f->open_flags & O_PATH);
}

/* What a copy of a file is known by. */
#define PH_TAIL_BYTES 4096 /* at most */

/** The sum over the last bytes before @p size of a file. @return 0: it cannot be read. */
static inline uint32_t ph_tail_sum(int fd, uint64_t size)
{
    uint64_t tail[PH_TAIL_BYTES / 8] = {0};
    size_t n = size < sizeof tail ? (size_t)size : sizeof tail;
    if (pread(fd, tail, n, (off_t)(size - n)) != (ssize_t)n)
        return 0;
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ n;
    for (size_t i = 0; i < (n + 7) / 8; i++) {
        hash = (hash ^ tail[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    return (uint32_t)(hash >> 16) | 1u;
}

/** When a file was made, ns; 0: the file system does not tell. */
static inline uint64_t ph_birth_ns(const struct statx *sx)
{
    return sx->stx_mask & STATX_BTIME
               ? (uint64_t)sx->stx_btime.tv_sec * 1000000000u + sx->stx_btime.tv_nsec
               : 0;
}

/* Content: bytes at an offset of a file, or one message; the bytes follow, padded to 8. */
struct ph_chunk_pm {
    uint64_t offset, size;
};

struct ph_epoll_pm {
    int32_t fd;
    uint32_t events;
    uint64_t data;
};
_Static_assert(sizeof(struct ph_epoll_pm) == 16, "ph_epoll_pm is part of the format");

struct ph_timerfd_pm {
    int32_t clock;
    uint32_t flags;    /* TFD_TIMER_*; with TFD_TIMER_ABSTIME value_ns is a moment */
    uint64_t ticks;    /* expirations that were not read */
    uint64_t value_ns; /* until it expires; 0: not armed */
    uint64_t interval_ns;
};
_Static_assert(sizeof(struct ph_timerfd_pm) == 32, "ph_timerfd_pm is part of the format");

#define PH_WATCH_MAX 1000000 /* recovery counts up to it */

struct ph_watch_pm {
    int32_t wd; /* 1 to PH_WATCH_MAX */
    uint32_t mask;
    uint32_t path, reserved; /* string */
};
_Static_assert(sizeof(struct ph_watch_pm) == 16, "ph_watch_pm is part of the format");

enum ph_lock_kind { PH_LOCK_POSIX = 1, PH_LOCK_OFD, PH_LOCK_FLOCK };

struct ph_lock_pm {
    int32_t fd;
    uint16_t kind, exclusive;
    uint64_t start, length; /* bytes; length 0: to the end, however far that moves */
};
_Static_assert(sizeof(struct ph_lock_pm) == 24, "ph_lock_pm is part of the format");

/* The kernel's struct sigaction on x86-64. */
struct ph_sigaction_pm {
    uint64_t handler, flags, restorer, mask;
};

struct ph_limit_pm {
    uint64_t soft, hard;
};
#define PH_LIMITS 16

/* setitimer: microseconds */
struct ph_itimer_pm {
    int64_t interval_s, interval_us, value_s, value_us;
};

/* timer_create */
struct ph_timer_pm {
    int32_t id, clock, signal;
    int32_t notify; /* SIGEV_NONE, SIGEV_SIGNAL or SIGEV_THREAD */
    uint32_t tid;   /* of the thread that gets the signal; 0: any */
    uint32_t reserved;
    uint64_t value;                 /* sigev_value */
    uint64_t value_ns, interval_ns; /* until it expires; 0: not armed */
};
_Static_assert(sizeof(struct ph_timer_pm) == 48, "ph_timer_pm is part of the format");

/* Of which of its process group and session the program is the leader. */
#define PH_LEADS_GROUP   1u
#define PH_LEADS_SESSION 2u
#define PH_FOREGROUND    4u /* and that group has the terminal */

/* What prctl(PR_SET_MM, PR_SET_MM_MAP) wants to know: struct prctl_mm_map. */
struct ph_mm_pm {
    uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
    uint64_t arg_start, arg_end, env_start, env_end;
};

/* CPUID words whose set bits the program may rely on; recovery needs all of them. */
#define PH_CPU_WORDS 8
struct ph_cpu_pm {
    uint32_t word[PH_CPU_WORDS]; /* order: see ph_cpu_read */
    uint64_t xcr0;
};

struct ph_record_pm {
    uint64_t magic;
    uint32_t version, header_size;
    uint64_t size; /* of the record, bytes */
    uint64_t epoch, generation;
    uint64_t realtime_ns;
    uint64_t clock_ns[PH_CLOCKS]; /* what the program's clocks show */
    uint64_t clock_offsets;       /* address of struct ph_clock_offsets, or 0 */
    uint64_t clock_thread;        /* of struct ph_clock_thread, from a thread's fs */

    struct ph_table_pm vmas, threads, files, locks, timers, auxv, vdso, data, strings;

    struct ph_mm_pm mm;
    uint64_t vdso_start; /* where the program knows the vdso to be; its image is a table */
    uint64_t vvar_start; /* where the data pages before it start */
    uint64_t socket_fd;  /* number of the control socket in the program */
    uint64_t xcomp_perm; /* ARCH_GET_XCOMP_PERM */
    struct ph_cpu_pm cpu;
    struct ph_sigaction_pm sigaction[64]; /* signal n at n - 1 */
    struct ph_limit_pm limit[PH_LIMITS];
    struct ph_itimer_pm itimer[3];
    int32_t pid;        /* as the program knows it */
    int32_t pid_actual; /* when the epoch was taken */
    uint32_t umask;
    uint32_t cwd, exe, hostname; /* strings; a removed cwd: "... (deleted)" */
    uint32_t leads;              /* PH_LEADS_* */
    uint16_t xsave_size;         /* ph_cpu_states_end(cpu.xcr0); 0: not known */
    uint16_t cpu_more;           /* ph_cpu_more() */
};

#endif
