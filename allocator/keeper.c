/* SPDX-License-Identifier: MIT */
/*
 * keeper.c - being a good parent; see keeper.h
 *
 * Two threads: the main one waits for signals and for the child, the drainer (keeper_drain.c)
 * consumes batches. All pool calls between ph_keeper_open and the drainer's end are the
 * drainer's.
 *
 * Invariant
 *  K3  The program is never killed, stopped or waited for longer than it takes to end, but
 * after its final epoch, and when its memory turns out to be damaged (keeper_check.h).
 */
#include "keeper.h"

#include "cli.h"
#include "keeper_drain.h"
#include "memory_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

uint64_t ph_keeper_default_ring(void)
{
    uint64_t ring = ph_memory_limit() / 8, most = UINT64_C(1) << 30;
    return ring < most ? ring : most;
}

/** Signals that whoever sent them meant for the program. */
static void forwarded(sigset_t *set)
{
    static const int plain[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1,
                                SIGUSR2, SIGALRM, SIGURG,  SIGXCPU, SIGPWR};
    sigemptyset(set);
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        sigaddset(set, plain[i]);
    for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++)
        sigaddset(set, sig);
}

/** Whether @p sig is one that reaches us and could be --on-signal's. */
static bool takes_signal(int sig)
{
    sigset_t set;
    forwarded(&set);
    return sig > 0 && sigismember(&set, sig) == 1;
}

static uint64_t signal_bit(int sig)
{
    return UINT64_C(1) << (sig - 1);
}

bool ph_keeper_option(const char *command, int option, const char *value,
                      struct ph_keeper_options *out)
{
    const char *wrong = NULL;
    switch (option) {
    case 256:
        if (!ph_cli_staging(value, &out->ring_bytes))
            wrong = "--staging takes a size such as 256M, at least 4M";
        break;
    case 257:
        if (!ph_cli_duration(value, &out->every_ns))
            wrong = "--every takes a time such as 30s, 10m or 1h";
        break;
    case 258:
        out->on_signal = ph_cli_signal(value);
        if (!takes_signal(out->on_signal))
            wrong = "--on-signal takes a signal such as USR1";
        break;
    case 259:
        out->final_epoch = true;
        break;
    case 260:
        out->strict = true;
        break;
    default:
        return false;
    }
    if (wrong)
        ph_cli_die(command, PH_EUSAGE, wrong);
    return true;
}

static struct rlimit file_size; /* as this command was given it */

void ph_keeper_block_signals(sigset_t *old)
{
    sigset_t set;
    forwarded(&set);
    pthread_sigmask(SIG_BLOCK, &set, old);
    signal(SIGPIPE, SIG_IGN);
    /* The limit of file sizes is meant for the program. Where it cannot be raised, a pool that
     * is too large is an error, not our end. */
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &file_size);
    struct rlimit most = {file_size.rlim_max, file_size.rlim_max};
    setrlimit(RLIMIT_FSIZE, &most);
}

void ph_keeper_unblock_signals(const sigset_t *old)
{
    pthread_sigmask(SIG_SETMASK, old, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    setrlimit(RLIMIT_FSIZE, &file_size);
}

/** What a system call that failed means: some kernels and filters do not have or allow it. */
static int refused(struct ph_keeper *k, const char *call)
{
    int err = errno;
    snprintf(k->detail, sizeof k->detail, "%s: %s", call, strerror(err));
    if (ph_error_of(err) == PH_EMFILE)
        return PH_EMFILE;
    return err == EPERM || err == ENOSYS || err == EACCES ? PH_EKERNEL : PH_ENOMEM;
}

int ph_keeper_open(struct ph_keeper *k, const char *command, const char *pool_path,
                   struct ph_pool *pool, const struct ph_keeper_options *options,
                   uint64_t generation, uint64_t first_epoch)
{
    uint64_t ring_bytes = options->ring_bytes ? options->ring_bytes : ph_keeper_default_ring();
    /* The tables of an epoch go back to the kernel. glibc would keep blocks of up to 32 MiB
     * once one of that size has been freed (mallopt(3)): 63 instead of 26 MiB for a 1 GiB
     * program. */
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    *k = (struct ph_keeper){.command = command,
                            .options = *options,
                            .pool_path = pool_path,
                            .pool = pool,
                            .files = {.command = command, .pool = pool, .fd = -1},
                            .memfd = -1,
                            .program_socket = -1,
                            .socket = -1};
    uint64_t pages = (ring_bytes < PH_RING_MIN ? PH_RING_MIN : ring_bytes) / PH_PAGE;
    uint64_t size = ph_staging_size(pages);
    int pair[2];
    /* Not close-on-exec: the program's ends pass through exec. Ours never execs. */
    k->memfd = memfd_create("pyheap-staging", 0);
    if (k->memfd < 0)
        return refused(k, "memfd_create");
    if (ftruncate(k->memfd, (off_t)size) != 0)
        return refused(k, "the staging memory's size");
    void *map =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, k->memfd, 0);
    if (map == MAP_FAILED)
        return refused(k, "mapping the staging memory");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0)
        return refused(k, "socketpair");
    k->socket = pair[0];
    k->program_socket = pair[1];
    fcntl(k->socket, F_SETFD, FD_CLOEXEC);
    k->control = map;
    k->control->magic = PH_CONTROL_MAGIC;
    k->control->version = PH_CONTROL_VERSION;
    k->control->ring_pages = pages;
    k->control->asks = options->every_ns || options->on_signal || options->final_epoch;
    k->control->asks_on = (options->final_epoch ? signal_bit(SIGTERM) : 0) |
                          (options->on_signal ? signal_bit(options->on_signal) : 0);
    k->control->strict = options->strict;
    k->group_kills = ph_memory_group_kills("");
    ph_undo_directory(pool_path, k->control->undo_directory);
    ph_undo_directory(pool_path, k->undo_directory);
    k->control->generation = generation;
    k->control->first_epoch = first_epoch;
    struct ph_pool_info info;
    ph_pool_get_info(pool, &info);
    k->control->keep = info.keep;
    k->control->pool_id = k->pool_id = info.id;
    k->control->keeper_pid = getpid();
    k->control->keeper_group = getpgrp();
    k->control->keeper_session = getsid(0);
    atomic_store(&k->control->durable, first_epoch);
    ph_drain_open(&k->drain, k->control, (unsigned char *)map + PH_CONTROL_SIZE, pages);
    ph_pool_on_written(pool, ph_keeper_release, k);
    return 0;
}

void ph_keeper_close(struct ph_keeper *k)
{
    munmap(k->control, ph_staging_size(k->drain.ring_pages));
    close(k->memfd);
    close(k->socket);
    close(k->program_socket);
}

/* ---- the program -------------------------------------------------------------------- */

/** Epochs that the keeper asks for: one at a time, and the next not before it is durable. */
struct asking {
    uint64_t next_ns;  /* when the clock asks again; 0: never */
    uint64_t final_ns; /* until when the last epoch may take; 0: none has been asked for */
    bool ended;        /* the program was ended after its last epoch */
    uint64_t alone_ns; /* when a signal came whose twin has not; 0: none */
    bool alone_passed; /* it came by the program */
};

#define FINAL_GRACE_NS UINT64_C(60000000000)

static void ask(struct ph_keeper *k, enum ph_ask why)
{
    atomic_store(&k->control->asked_why, why);
    atomic_fetch_add(&k->control->asked, 1);
    ph_futex_wake(&k->control->asked);
}

/** Whether the epoch asked for last has come to an end, good or bad. */
static bool answered(const struct ph_keeper *k)
{
    const struct ph_control *c = k->control;
    uint64_t epoch = atomic_load(&c->answer);
    return atomic_load(&c->answered) == atomic_load(&c->asked) &&
           (atomic_load(&c->durable) >= epoch || atomic_load(&c->failed) >= epoch);
}

static void ask_by_clock(struct ph_keeper *k, struct asking *a)
{
    uint64_t now = ph_now_ns();
    if (!a->next_ns || now < a->next_ns || a->final_ns)
        return;
    /* While an epoch is under way the next one waits, and does not pile up. */
    if (answered(k)) {
        ask(k, PH_ASK_CLOCK);
        a->next_ns = now + k->options.every_ns;
    }
}

/**
 * After SIGTERM: once the last epoch is durable the program is ended at once, since whatever
 * it did from here on would be done again. If none can be had it gets the SIGTERM after all.
 */
static void finish_final(struct ph_keeper *k, struct asking *a, pid_t child)
{
    if (!a->final_ns || a->ended)
        return;
    const struct ph_control *c = k->control;
    bool done = answered(k), good = done && atomic_load(&c->answer) &&
                                    atomic_load(&c->durable) >= atomic_load(&c->answer);
    if (good) {
        a->ended = true;
        kill(child, SIGKILL);
    } else if (done || ph_now_ns() > a->final_ns) {
        ph_cli_complain(k->command, "no final epoch could be taken; the program gets SIGTERM",
                        done ? c->failed_detail : "it took too long");
        a->final_ns = 0;
        k->options.final_epoch = false;
        kill(child, SIGTERM);
    }
}

#define TWIN_NS UINT64_C(20000000)

/**
 * Sent to all processes of a job it comes to us twice, once by the program (@p passed); or
 * once, since two that wait are one. A twin that comes late costs an epoch more, none is lost.
 */
static bool is_twin(struct asking *a, bool passed)
{
    uint64_t now = ph_now_ns();
    bool twin = a->alone_ns && a->alone_passed != passed && now - a->alone_ns < TWIN_NS;
    a->alone_ns = twin ? 0 : now;
    a->alone_passed = passed;
    return twin;
}

/** Pass on the signals that have come, but for those that mean us. */
static void forward(struct ph_keeper *k, struct asking *a, int signals, pid_t child)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
        int sig = (int)info.ssi_signo;
        if (sig == SIGTERM && k->options.final_epoch) {
            if (!a->final_ns) {
                a->final_ns = ph_now_ns() + FINAL_GRACE_NS;
                ask(k, PH_ASK_FINAL);
            }
        } else if (sig == k->options.on_signal) {
            if (!is_twin(a, (pid_t)info.ssi_pid == child))
                ask(k, PH_ASK_SIGNAL);
        } else if (info.ssi_code != SI_KERNEL) {
            /* What the terminal sends, it sends to the whole foreground group. */
            kill(child, sig);
        }
    }
}

/** Until when to sleep, in milliseconds, if nothing comes. */
static int sleep_ms(const struct ph_keeper *k, const struct asking *a)
{
    if (a->final_ns || (k->control->asks && !answered(k)))
        return 5;
    if (!a->next_ns)
        return -1;
    uint64_t now = ph_now_ns();
    uint64_t ms = now < a->next_ns ? (a->next_ns - now) / 1000000 + 1 : 5;
    return ms < 1000000 ? (int)ms : 1000000;
}

/** The terminal's modes before the program had it, and by which descriptor; -1: none. */
static int note_terminal(struct termios *modes)
{
    for (int fd = 0; fd < 3; fd++)
        if (tcgetattr(fd, modes) == 0)
            return fd;
    return -1;
}

/** A program that was killed has not set them back, as it does when it ends: without echo and
 *  lines nobody could type what we advise. */
static void reset_terminal(int fd, const struct termios *modes)
{
    if (fd >= 0 && tcgetpgrp(fd) == getpgrp())
        tcsetattr(fd, TCSADRAIN, modes);
}

#define LOSS_GRACE_NS UINT64_C(1000000000) /* a program that ends closes its socket first */

/**
 * The program has closed its end of the socket and lives: whoever it is now, it is not ours.
 * @param lost_ns when that was seen; 0: not yet, or it has been said.
 */
static void say_lost(const struct ph_keeper *k, const struct pollfd *socket, uint64_t *lost_ns)
{
    if (socket->revents & (POLLHUP | POLLERR) && atomic_load(&k->control->attached))
        *lost_ns = ph_now_ns();
    if (!*lost_ns || ph_now_ns() - *lost_ns < LOSS_GRACE_NS)
        return;
    *lost_ns = 0;
    ph_cli_complain(k->command,
                    "no more epochs can be taken, though the program goes on; the last durable "
                    "one is safe",
                    "it has executed another program in its place, or closed descriptors that "
                    "are not its own");
}

/** Wait for the child's end. Threads of libraries cannot take its signals away. */
static int wait_for_end(struct ph_keeper *k, pid_t child)
{
    sigset_t set;
    forwarded(&set);
    int status;
    struct asking a = {.next_ns = k->options.every_ns ? ph_now_ns() + k->options.every_ns : 0};
    uint64_t lost_ns = 0;
    struct pollfd fd[3] = {
        {.fd = (int)syscall(SYS_pidfd_open, child, 0), .events = POLLIN},
        {.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .events = POLLIN},
        {.fd = k->socket}};
    while (waitpid(child, &status, WNOHANG) != child) {
        /* Without a pidfd (out of descriptors) ask now and then. */
        poll(fd, 3, fd[0].fd < 0 || lost_ns ? 50 : sleep_ms(k, &a));
        say_lost(k, &fd[2], &lost_ns);
        if (fd[2].revents)
            fd[2].fd = -1; /* once */
        fd[2].revents = 0;
        if (fd[1].fd >= 0)
            forward(k, &a, fd[1].fd, child);
        ask_by_clock(k, &a);
        finish_final(k, &a, child);
    }
    close(fd[0].fd);
    close(fd[1].fd);
    return a.ended ? W_EXITCODE(0, SIGTERM) : status;
}

static void report(struct ph_keeper *k, int status, const struct ph_pool_info *info)
{
    char how[96];
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "was ended by SIG%s%s", sigabbrev_np(WTERMSIG(status)),
                 WCOREDUMP(status) ? " (core dumped)" : "");
    else
        snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(status));
    /* A refusal of recovery's own has said why. */
    if (WIFEXITED(status) && ph_error_is_status(WEXITSTATUS(status)) &&
        !atomic_load(&k->control->attached))
        fprintf(stderr, "%s: nothing has been changed; epoch %llu is safe\n", k->command,
                (unsigned long long)info->newest);
    else if (info->newest == 0)
        fprintf(stderr, "%s: the program %s before any epoch was durable: nothing to recover\n",
                k->command, how);
    else
        fprintf(stderr,
                "%s: the program %s; epoch %llu is safe: to go on from it, run "
                "pyheap-recover %s\n",
                k->command, how, (unsigned long long)info->newest, k->pool_path);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
        ph_memory_group_kills("") != k->group_kills)
        ph_cli_complain(k->command,
                        "it was killed for lack of memory; epochs that are safe stay so: raise "
                        "the control group's limit (memory.max), or leave the program more of "
                        "it with a smaller --staging",
                        NULL);
    if (k->failure && atomic_load(&k->control->failed) > info->newest)
        ph_cli_complain(k->command, ph_error_text(k->failure), k->detail);
}

/** Whatever ran, it was no Python that the library knows: say so, even if it ended well. */
static int never_attached(struct ph_keeper *k, int status)
{
    ph_pool_remove(k->pool);
    /* A refusal of the library's own, or of execve, has said why. */
    if (WIFEXITED(status) && ph_error_is_status(WEXITSTATUS(status)))
        return status;
    ph_cli_complain(k->command, ph_error_text(PH_EPYTHON),
                    "what was executed did not load libpyheap.so as CPython does");
    return W_EXITCODE(ph_error_status(PH_EPYTHON), 0);
}

/** Whether damaged memory may be why the program ended like this, or may have gone unnoticed.
 */
static bool may_be_damage(int status)
{
    if (WIFEXITED(status))
        return true;
    int sig = WTERMSIG(status);
    return sig == SIGSEGV || sig == SIGBUS || sig == SIGILL || sig == SIGFPE || sig == SIGABRT;
}

/** Somebody has cut the pool short under a program that had it mapped. To close it would touch
 * it: it is left as it is. */
static bool is_short(struct ph_keeper *k)
{
    struct stat st;
    struct ph_pool_info info;
    ph_pool_get_info(k->pool, &info);
    return fstat(ph_pool_fd(k->pool), &st) == 0 && (uint64_t)st.st_size < info.size;
}

static int cut_short(struct ph_keeper *k)
{
    ph_cli_complain(k->command, ph_error_text(PH_ETRUNC), k->pool_path);
    return W_EXITCODE(ph_error_status(PH_ETRUNC), 0);
}

/** The pool is as it was before the recovery. */
static int damaged(struct ph_keeper *k, int rc)
{
    if (is_short(k))
        return cut_short(k);
    ph_cli_complain(k->command, ph_error_text(rc), k->check.detail);
    ph_pool_close(k->pool);
    return W_EXITCODE(ph_error_status(rc), 0);
}

/** A pool that was renamed while the program ran: what was cut off goes with it. */
static void follow_pool(struct ph_keeper *k)
{
    char undo[PH_UNDO_MAX];
    if (!ph_pool_renamed(k->pool, k->new_path))
        return;
    k->pool_path = k->new_path;
    ph_undo_directory(k->pool_path, undo);
    uint64_t owner = ph_undo_owner(k->undo_directory);
    if (owner && owner != k->pool_id) /* another run has the old name by now */
        ;
    else if (rename(k->undo_directory, undo) != 0 && errno != ENOENT)
        fprintf(stderr,
                "%s: the pool has been renamed, but %s could not be, which belongs to it: %s; "
                "call it %s before a recovery\n",
                k->command, k->undo_directory, strerror(errno), undo);
    snprintf(k->undo_directory, sizeof k->undo_directory, "%s", undo);
}

int ph_keeper_watch(struct ph_keeper *k, pid_t child)
{
    struct termios modes;
    int terminal = note_terminal(&modes);
    close(k->program_socket);
    close(k->memfd);
    ph_check_start(&k->check, child);
    int rc = pthread_create(&k->drainer, NULL, ph_keeper_drain, k);
    if (rc) {
        ph_cli_complain(k->command, ph_error_text(PH_ENOMEM),
                        "a thread for the pool; is there a limit, ulimit -u or -v?");
        kill(child, SIGKILL);
    }
    bool started = rc == 0;
    int status = wait_for_end(k, child);
    bool finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (WIFSIGNALED(status))
        reset_terminal(terminal, &modes);
    if (!may_be_damage(status))
        ph_check_stop(&k->check);
    atomic_store(&k->unfinished, !finished);
    if (started) {
        atomic_store(&k->stop, true);
        atomic_fetch_add(&k->control->produced_seq, 1);
        ph_futex_wake(&k->control->produced_seq);
        pthread_join(k->drainer, NULL);
    }
    ph_keeper_files_free(&k->files);
    follow_pool(k);
    rc = ph_check_end(&k->check);
    if (rc && rc != PH_EINTR)
        return damaged(k, rc);

    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS && is_short(k))
        return cut_short(k);
    if (started && !k->control->generation && !atomic_load(&k->control->attached))
        return never_attached(k, status);
    struct ph_pool_info info;
    ph_pool_get_info(k->pool, &info);
    if (!started) {
        info.newest ? ph_pool_close(k->pool) : ph_pool_remove(k->pool);
        return W_EXITCODE(ph_error_status(PH_ENOMEM), 0);
    }
    if (finished && info.newest) {
        rc = ph_pool_finish(k->pool, 0);
        if (rc)
            ph_cli_complain(k->command, ph_error_text(rc), ph_pool_error_detail(k->pool));
    }
    if (finished || !info.newest)
        ph_undo_remove(k->undo_directory, k->pool_id, 0, UINT64_MAX);
    if (info.newest)
        ph_pool_close(k->pool);
    else
        ph_pool_remove(k->pool);
    if (!finished)
        report(k, status, &info);
    return status;
}

void ph_keeper_exit_like(int status)
{
    if (WIFEXITED(status))
        exit(WEXITSTATUS(status));
    int sig = WTERMSIG(status);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none); /* the program's core is the one that matters */
    fflush(NULL);
    signal(sig, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(sig);
    exit(128 + sig);
}
