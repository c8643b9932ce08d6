/* SPDX-License-Identifier: MIT */
/*
 * agent_internal.h - what the parts of the agent share
 *
 * The order of reading: agent.c (life), park.c (threads stand still), pieces.c (one of them
 * helps), capture.c (an epoch from begin to end), memory.c (mappings), pages.c (their pages),
 * files.c and its parts (descriptors, see files.h).
 *
 * Everything here runs while all other threads are parked at arbitrary instructions, so it
 * takes no lock, calls no malloc, no stdio, and nothing in libc that might. Working memory is
 * the scratch range: never captured, empty after recovery.
 */
#ifndef PH_AGENT_INTERNAL_H
#define PH_AGENT_INTERNAL_H

#include "agent.h"
#include "allocator/heap.h"
#include "allocator/staging.h"
#include "allocator/track.h"
#include "record.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

/* ---- scratch ---------------------------------------------------------------------- */

/** A growing array in the scratch range. */
struct ph_area {
    unsigned char *base;
    size_t used, size; /* bytes */
    bool overflow;     /* something did not fit: the epoch fails */
    uint8_t number;    /* in struct ph_scratch */
};

/** Have the first @p n bytes of @p area, at most its size, be memory. @return false: none. */
bool ph_area_reach(struct ph_area *area, size_t n);

/** Room for @p n bytes, 8-aligned, zeroed. On overflow a dummy that may be written to, if @p n
 * is the size of an entry; NULL if it is more than 256 bytes. */
void *ph_area_push(struct ph_area *area, size_t n);

/* Each area's share of the scratch range, in MiB. */
#define PH_AREAS(X)                                                                            \
    X(text, 48)                                                                                \
    X(regions, 64)                                                                             \
    X(changed, 64)                                                                             \
    X(present, 128)                                                                            \
    X(before, 128)                                                                             \
    X(bounds, 8)                                                                               \
    X(vmas, 64)                                                                                \
    X(threads, 8)                                                                              \
    X(files, 16)                                                                               \
    X(locks, 8)                                                                                \
    X(timers, 1) X(auxv, 1) X(vdso, 1) X(data, 240) X(strings, 64) X(relook, 1) X(hot, 160)

struct ph_areas {
#define X(name, mib) struct ph_area name;
    PH_AREAS(X)
#undef X
};
#define X(name, mib) +(UINT64_C(mib) << 20)
_Static_assert(PH_SCRATCH_HEAD PH_AREAS(X) <= PH_SCRATCH_SIZE,
               "the areas fit in the scratch range");
#undef X

/* ---- agent.c ---------------------------------------------------------------------- */

/** The agent's state. In .bss, so captured and restored; see ph_agent_recovered for what is
 *  made anew then. */
struct ph_agent {
    bool active, forked;
    int socket_fd;
    pid_t pid;                      /* virtual */
    uint64_t generation;            /* of this incarnation */
    uint64_t epoch;                 /* newest taken */
    uint64_t failed_seen;           /* newest failed epoch that was reported */
    bool full;                      /* the next epoch must be a full one */
    bool tracking;                  /* track is open */
    bool same_mappings;             /* this epoch's are the last one's */
    _Atomic int in_epoch, settling; /* who parks the others: never both */
    struct {
        _Atomic int running;
        _Atomic bool lost; /* the next epoch must be a full one */
        bool open;         /* the next epoch has begun, and pages of it are staged */
        uint64_t epoch;    /* which, while it is open */
        uint64_t looked;   /* the epoch for which hot blocks have been looked at */
        uint64_t pages;    /* staged ahead */
        uint64_t least;    /* changed pages that are worth it */
    } ahead;
    bool restorer_mapped; /* what is left of the restorer is still mapped */
    struct ph_track track;
    struct ph_stage stage;
    struct ph_areas areas;
    bool no_memory;                            /* for an area, in this epoch */
    uint64_t vdso_start, vdso_end, vvar_start; /* as the program knows them */
    uint32_t fd_messages;                      /* sent in this epoch */
    ptrdiff_t rseq_offset;
    bool rseq;
    struct ph_agent_status status;
    char detail[1024];
};
extern struct ph_agent ph_agent;

#define PH_CONTROL ((struct ph_control *)PH_CONTROL_BASE)

/** Set the error detail: @p text, then @p path if not NULL, then the text of @p err if not 0.
 */
void ph_agent_detail(const char *text, const char *subject, int err);

bool ph_agent_keeper_alive(void);

/** One line on stderr, by write(2): "pyheap: " and the given pieces, NULL-terminated. */
void ph_agent_say(const char *piece, ...) __attribute__((sentinel));

/** Write the given pieces, NULL-terminated, into @p buf, as many as fit. @return buf. */
char *ph_join(char *buf, size_t size, const char *piece, ...) __attribute__((sentinel));

/** Write @p s, may be NULL, behind the @p used bytes of @p buf, as much as fits. @return as
 * many are used then. */
size_t ph_append(char *buf, size_t used, size_t size, const char *s);

static inline bool ph_starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/** Decimal digits of @p v into @p buf (at least 24 bytes). @return buf. */
char *ph_format_u64(char *buf, uint64_t v);

/** Read all of @p path into @p area, 0-terminated. @return its length, negative errno. */
long ph_read_file(const char *path, struct ph_area *area);

/** What getdents64(2) fills in. */
struct ph_dirent {
    uint64_t ino, off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};

/** Add a string to the record. @return its reference. */
uint32_t ph_record_string(const char *s, size_t n);
/** The same of what the symbolic link @p path leads to; 0: that cannot be read. */
uint32_t ph_record_link(const char *path);

/* ---- park.c ----------------------------------------------------------------------- */

/**
 * Stop all other threads, run @p body on this one with its registers saved, let them go on.
 * @p meanwhile, or NULL, is run as well, while some of them may still be on their way. Both are
 * called inside the signal handler. Returns a second time after recovery, without having called
 * them.
 * @return 0, PH_ETHREAD.
 */
int ph_park_and_run(void (*meanwhile)(void), void (*body)(void));

/**
 * Note the signals that came since the threads were parked. Blocked in all of them, they are
 * delivered when the threads go on, and would be lost to a recovered program. To be called
 * after the interval timers were read: a timer that was running then is not pending as well.
 */
void ph_park_note_pending(void);

/** The number of the parking that is under way; not 0, and another each time. */
uint32_t ph_park_turn(void);
/** The processor on which it was begun. */
unsigned ph_park_processor(void);

/* ---- pieces.c --------------------------------------------------------------------- */

typedef void ph_piece(uint32_t number);
/** Have pieces 0 to @p number - 1 done, in any order, by this thread and one that is parked.
 * @pre all threads are parked. */
void ph_pieces_do(uint32_t number, ph_piece *piece);
/** Before the next ph_pieces_do: more pieces that are to be done with it, or at the latest by
 * ph_pieces_finish. */
void ph_pieces_add(uint32_t number, ph_piece *piece);
void ph_pieces_finish(void);
/** In the thread that was parked last in @p turn: help with them, if they come soon. */
void ph_pieces_help(uint32_t turn);

/** The action of the parking signal as the program set it; 0 filled if never. */
extern struct ph_sigaction_pm ph_park_old_action;
#define PH_PARK_SIGNAL 33

/* ---- memory.c, pages.c, files.c (its parts: files.h)
 * ------------------------------------------ */

/** Read the mappings into areas.vmas (struct ph_vma_pm) and the mm numbers into @p record. */
int ph_memory_map(struct ph_record_pm *record);
/** After it: what /proc/self/exe leads to. @return its reference in areas.strings. */
uint32_t ph_memory_executable(void);

/** Add to areas.vmas what madvise and mlock have been told; with @p full, for certain. */
void ph_memory_flags(bool full);

/** While all are parked: whether memory has moved in a way that the tracker does not see. */
bool ph_memory_moved(void);
/** Room for what a scan reports, *max regions; another for one within that scan (@p inner). */
struct ph_track_region *ph_memory_regions(bool inner, size_t *max);

/** The end of the stretch of private mappings that begins with @p v, all of which are
 * registered with the tracker; @p v: there is none. Between them lies nothing of ours. */
const struct ph_vma_pm *ph_pages_stretch(const struct ph_vma_pm *v,
                                         const struct ph_vma_pm *end);

/**
 * Scans that ph_memory_stage will need if the mappings are those of the epoch before: how many
 * there are, and whether they tell of *every stretch if there is something new in it; one of
 * them, by any thread (pieces.c), which returns whether there is; and none is to be used.
 */
uint32_t ph_pages_early_prepare(bool *every);
bool ph_pages_early_scan(uint32_t number);
void ph_pages_early_forget(void);

/** Stage the changed pages, or all with @p full; fill areas.present. Counts into status. */
int ph_memory_stage(uint64_t epoch, bool full);

/** Name the files that are mapped to the keeper, if they are others than at the last epoch.
 * @return 0, PH_EKEEPER. */
int ph_mapped_stage(uint64_t epoch, uint64_t now_ns);
/** Whether the keeper knows that the named files with text are what they were. */
bool ph_mapped_hold(void);

/**
 * Read the descriptors into areas.files; send those to be made durable to the keeper.
 * @return 0, PH_EKERNEL, PH_EKEEPER; PH_EUNSUPPORTED in strict mode: something cannot come
 * back.
 */
int ph_files_capture(uint64_t epoch);

/** Whether there are the numbers that a capture opens descriptors at. Without them what the
 *  kernel tells of the others would be missing, unnoticed. @return 0, PH_EMFILE. */
int ph_files_spare(void);

/** Remember which descriptors there are, as inherited. When the program starts. */
void ph_files_inherit(void);

/** Before an epoch's pages are copied: note where these are now. */
void ph_files_find_inherited(void);

/** In a recovered program: they are others now. */
void ph_files_inherit_again(void);

/* ---- terminal.c --------------------------------------------------------------------- */

/** In a recovered program: the terminal that it has now gets the modes of the one it had. */
void ph_terminal_again(void);

/** Move a descriptor of ours out of the program's way, close-on-exec. @return the new one. */
int ph_files_hide(int fd);

/* ---- hot.c -------------------------------------------------------------------------- */

#define PH_HOT_BLOCK (UINT64_C(2) << 20) /* what is hot or not as a whole: a huge page */
#define PH_HOT_HALF  (PH_HOT_BLOCK / PH_PAGE / 2)

/** The page at @p addr, to be looked at; NULL if it cannot be read. Asked for ascending ones.
 */
typedef const void *ph_hot_page(uint64_t addr);

/** Memory to know about all of the heap that is in use now. @return false: there is none. */
bool ph_hot_reach(void);
/** Before the scans of an epoch in [start, end), once: see which hot blocks rest. */
void ph_hot_look(uint64_t start, uint64_t end, ph_hot_page *page_at);
/** After it: note samples of [start, end), pages of hot blocks that are present. */
void ph_hot_sample(uint64_t start, uint64_t end, ph_hot_page *page_at);
/** Later: those whose samples are the same are not hot until the epoch. NULL: none is. */
void ph_hot_decide(uint64_t start, uint64_t end, ph_hot_page *page_at);
/** Whether @p at is hot; *run_end: how far, at most to @p end, that stays so. */
bool ph_hot_run(uint64_t at, uint64_t end, uint64_t *run_end);
/** Pages [start, end) have been found changed, by a scan that protected them again; @p ahead:
 * by the first one of the pages that are copied ahead. */
void ph_hot_changed(uint64_t start, uint64_t end, bool ahead);
/** @p n pages from @p start have been staged; @p copy is what was. */
void ph_hot_staged(uint64_t start, uint64_t n, const void *copy);
/** The epoch has seen all of [start, end). */
void ph_hot_settle(uint64_t start, uint64_t end);
/** After an epoch, while all runs: make hot blocks whole again, for @p most_ns at most. */
void ph_hot_mend(uint64_t most_ns);
/** There is no live page in [start, end): whatever comes there is new. */
void ph_hot_dead(uint64_t start, uint64_t end);

/* ---- ahead.c ------------------------------------------------------------------------ */

void ph_ahead_init(void);
/** Copy what has changed, for the epoch that the caller is about to take. While the program
 * runs, in a thread without the GIL. */
void ph_ahead_run(void);
/** Have it stop, @pre in_epoch is set; returns when it has. */
void ph_ahead_end(void);

/* ---- settle.c ----------------------------------------------------------------------- */

/** With all threads parked: in a recovered program, end what the restorer has left behind, and
 * have no memory mapped from the pool any more. @return 0, PH_ENOMEM. */
int ph_settle(void);

/** The second of these alone, before a fork. */
void ph_settle_before_fork(void);
void ph_settle_pause(void); /* a moment, while another thread parks all */

/* ---- timers.c ----------------------------------------------------------------------- */

/** Before threads are parked. */
void ph_timers_before(void);
/** By a thread that is parked, with all signals blocked. @return those that wait for it. */
uint64_t ph_timers_parked(uint32_t tid);
/** When the threads have stopped, before anything takes time. */
void ph_timers_begin(void);

/** Add to areas.timers those of timer_create. */
void ph_timers_note(void);
/** After ph_park_note_pending: those whose signal waits shall expire at once. */
void ph_timers_expired(void);

/* ---- capture.c -------------------------------------------------------------------- */

/** Take epoch @p number; called by ph_park_and_run. @return via the global below. */
struct ph_capture {
    uint64_t epoch;
    const char *label;
    bool full;
    int result;
};
extern struct ph_capture ph_capture;
void ph_capture_run(void);

#endif
