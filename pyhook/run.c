/* SPDX-License-Identifier: MIT */
/*
 * run.c - pyheap-run: start a Python program whose memory is kept in a pool
 *
 * Claims the pool, then makes the child: the interpreter with libpyheap.so preloaded. What is
 * refused is refused before the program has run. From then on this process is the keeper.
 */
#include "allocator/cli.h"
#include "allocator/keeper.h"
#include "command.h"
#include "resume.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define ME "pyheap-run"

static const char usage[] =
    "usage: pyheap-run [options] [python options] program.py [arguments]\n"
    "Run a Python program in a persistent heap. It calls pyheap.epoch() where its state is to\n"
    "be saved; after a crash, pyheap-recover goes on from the last epoch.\n"
    "\n"
    "  --pool FILE       the pool (default: the program's name with .pm, in this directory)\n"
    "  --fresh           discard the unfinished run in the pool\n"
    "  --resume          for jobs that run again: go on with the unfinished run in the pool,\n"
    "                    or start, or do nothing if this command's run has finished\n"
    "  --pool-size SIZE  the most the pool may grow to (default: 4 x memory, at least 64G);\n"
    "                    the file is sparse, see du\n"
    "  --staging SIZE    memory for epochs on their way to the pool (default: memory / 8, at\n"
    "                    most 1G)\n"
    "  --keep K          epochs that stay recoverable (default 2)\n"
    "  --every TIME      take an epoch as often, such as 30s or 10m, without the program's "
    "doing\n"
    "  --on-signal NAME  take one when pyheap-run gets this signal, such as USR1\n"
    "  --final-epoch     on SIGTERM take a last one, wait until it is durable, and end\n"
    "  --strict          raise UnsupportedError from epoch() if something could not come "
    "back,\n"
    "                    instead of a warning\n"
    "  --python PATH     the interpreter, CPython 3.9 to 3.14 (default: python3)\n"
    "  --help, --version\n";

struct options {
    char pool[PATH_MAX];
    const char *python;
    unsigned long long pool_size;
    struct ph_keeper_options keeper;
    unsigned keep;
    bool fresh, resume;
    char **for_recover; /* those of the options that pyheap-recover takes, too */
    struct ph_command command;
    char **argv; /* for the interpreter; argv[0] is set later */
};

static _Noreturn void die(int code, const char *detail)
{
    ph_cli_die(ME, code, detail);
}

static void parse(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {{"pool", required_argument, 0, 'p'},
                                          {"fresh", no_argument, 0, 'f'},
                                          {"resume", no_argument, 0, 'r'},
                                          {"pool-size", required_argument, 0, 's'},
                                          {"keep", required_argument, 0, 'k'},
                                          {"python", required_argument, 0, 'y'},
                                          {"help", no_argument, 0, 'h'},
                                          {"version", no_argument, 0, 'v'},
                                          PH_KEEPER_LONG_OPTIONS,
                                          {0, 0, 0, 0}};
    size_t n_for_recover = 0;
    *o = (struct options){.python = "python3",
                          .keep = 2,
                          .for_recover = calloc((size_t)argc + 1, sizeof *o->for_recover)};
    if (!o->for_recover)
        die(PH_ENOMEM, "options");
    opterr = 0;
    /* Options of ours are long; the first word that is none belongs to Python. */
    while (optind < argc && strncmp(argv[optind], "--", 2) == 0) {
        char detail[128];
        unsigned long long n;
        int word = optind;
        int option = getopt_long(argc, argv, "+", known, NULL);
        if (option == -1)
            break;
        switch (option) {
        case 'p':
            if (strlen(optarg) >= sizeof o->pool)
                die(PH_EUSAGE, "--pool: name too long");
            strcpy(o->pool, optarg);
            break;
        case 'f':
            o->fresh = true;
            break;
        case 'r':
            o->resume = true;
            break;
        case 's':
            if (!ph_cli_size(optarg, &o->pool_size))
                die(PH_EUSAGE, "--pool-size takes a size such as 64G");
            break;
        case 'k':
            if (!ph_cli_size(optarg, &n) || n < 2 || n > 1000000)
                die(PH_EUSAGE, "--keep takes a number, at least 2");
            o->keep = (unsigned)n;
            break;
        case 'y':
            o->python = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        case 'v':
            puts(ME " " PYHEAP_VERSION);
            exit(0);
        default:
            if (ph_keeper_option(ME, option, optarg, &o->keeper)) {
                while (word < optind)
                    o->for_recover[n_for_recover++] = argv[word++];
                break;
            }
            snprintf(detail, sizeof detail, "option %s", argv[optind - 1]);
            die(PH_EUSAGE, detail);
        }
    }
    if (o->fresh && o->resume)
        die(PH_EUSAGE, "--fresh and --resume exclude each other");
    ph_command_parse(&o->command, argc - optind, argv + optind);
    if (!o->command.runs_something) {
        fputs(usage, stderr);
        exit(ph_error_status(PH_EUSAGE));
    }
    if (!o->pool[0] && !ph_command_pool_name(&o->command, o->pool, sizeof o->pool))
        die(PH_EUSAGE, "name the pool with --pool");
    o->argv = argv + optind - 1;
}

/** The interpreter as execve wants it: searched in PATH, if it is a mere name. */
static void find_interpreter(const char *name, char *buf, size_t size)
{
    const char *path = strchr(name, '/') ? NULL : getenv("PATH");
    if (!path) {
        snprintf(buf, size, "%s", name);
        if (access(buf, X_OK) == 0)
            return;
    }
    for (const char *p = path; p && *p;) {
        size_t n = strcspn(p, ":");
        snprintf(buf, size, "%.*s/%s", n ? (int)n : 1, n ? p : ".", name);
        struct stat st;
        if (access(buf, X_OK) == 0 && stat(buf, &st) == 0 && S_ISREG(st.st_mode))
            return;
        p += n + (p[n] == ':');
    }
    die(PH_EPYTHON, name);
}

static void check_program(const struct options *o)
{
    if (o->command.script && access(o->command.script, R_OK) != 0)
        die(errno == EACCES ? PH_EACCES : PH_ENOENT, o->command.script);
}

/** Take the pool's name, when nothing else is in the way any more. What has it is removed, if
 * it is finished, or with --fresh. */
static void take_name(const struct options *o, struct ph_pool *pool)
{
    int rc;
    do {
        rc = ph_pool_clear(o->pool, o->fresh);
        if (rc == 0)
            rc = ph_pool_take(pool);
        else if (rc == PH_EUNFINISHED)
            break;
    } while (rc == PH_EUNFINISHED); /* another has come first: it is asked again */
    if (rc) {
        ph_pool_remove(pool);
        die(rc, rc == PH_EKERNEL ? "linkat" : o->pool);
    }
    ph_undo_clear(o->pool);
}

/** POOL.undo may belong to a pool that has had this name, and is needed for that. */
static void check_undo(const struct options *o)
{
    char directory[PH_UNDO_MAX], detail[PH_UNDO_MAX + 256];
    struct ph_pool_info info = {0};
    struct ph_pool *pool;
    ph_undo_directory(o->pool, directory);
    uint64_t owner = ph_undo_owner(directory);
    if (owner && ph_pool_open(&pool, o->pool, PH_POOL_READ) == 0) {
        ph_pool_get_info(pool, &info);
        ph_pool_close(pool);
    }
    if (!owner || owner == info.id)
        return;
    snprintf(detail, sizeof detail,
             "%s belongs to another pool, which had this name: call it NAME.undo, after what "
             "that is called now, or if that is no more, remove it",
             directory);
    die(PH_EUSAGE, detail);
}

static bool limits_file_size(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

static void join_command(char *buf, size_t size, char *const *argv)
{
    size_t n = 0;
    buf[0] = 0;
    for (char *const *a = argv; *a && n + 1 < size; a++)
        n += (size_t)snprintf(buf + n, size - n, "%s%s", a == argv ? "" : " ", *a);
}

/**
 * What LD_PRELOAD can name: its list ends entries at spaces and colons (ld.so(8)), so such a
 * directory is named by a descriptor. @return the descriptor, or -1 where none was needed.
 */
static int preloadable(const char *library, char *buf, size_t size)
{
    if (!strpbrk(library, " :")) {
        snprintf(buf, size, "%s", library);
        return -1;
    }
    const char *slash = strrchr(library, '/');
    snprintf(buf, size, "%.*s", (int)(slash - library), library);
    int dir = open(buf, O_PATH | O_DIRECTORY);
    snprintf(buf, size, "/proc/self/fd/%d%s", dir, slash);
    return dir;
}

/** In the child: the environment and the signals, then the interpreter. */
static _Noreturn void become_program(const struct options *o, struct ph_keeper *k,
                                     const sigset_t *mask, const char *interpreter,
                                     const char *library)
{
    char value[PATH_MAX + 4096], name[PATH_MAX];
    int dir = preloadable(library, name, sizeof name);
    const char *preload = getenv("LD_PRELOAD"), *user_malloc = getenv("PYTHONMALLOC");
    bool debug = user_malloc && strstr(user_malloc, "debug");
    snprintf(value, sizeof value, "%s%s%s", name, preload && *preload ? ":" : "",
             preload ? preload : "");
    setenv("LD_PRELOAD", value, 1);
    setenv("PYTHONMALLOC", debug ? "pyheap_debug" : "pyheap", 1);
    snprintf(value, sizeof value, "%d,%d,%d,%d", (int)getpid(), k->memfd, k->program_socket,
             dir);
    setenv("PYHEAP_CONTROL", value, 1);
    ph_keeper_unblock_signals(mask);
    o->argv[0] = (char *)o->python;
    execv(interpreter, o->argv);
    ph_cli_complain(ME, ph_error_text(PH_EPYTHON), interpreter);
    _exit(ph_error_status(PH_EPYTHON));
}

int main(int argc, char **argv)
{
    struct options o;
    char interpreter[PATH_MAX], library[PATH_MAX], command[PH_COMMAND_MAX];
    struct ph_keeper keeper;
    struct ph_pool *pool;
    sigset_t mask;
    ph_keeper_block_signals(&mask);
    parse(&o, argc, argv);
    ph_cli_need_proc(ME);
    join_command(command, sizeof command, o.argv + 1);
    if (o.resume)
        ph_resume(o.pool, command, o.for_recover, &mask);
    int rc = ph_cli_installed("lib/pyheap/libpyheap.so", library, sizeof library);
    if (rc)
        die(rc, library);
    find_interpreter(o.python, interpreter, sizeof interpreter);
    check_program(&o);
    ph_cli_expect_no_pool(ME, o.pool);
    check_undo(&o);
    struct ph_pool_options options = {.size = o.pool_size, .keep = o.keep, .command = command};
    rc = ph_pool_prepare(&pool, o.pool, &options);
    if (rc == PH_EPOOLSIZE && !limits_file_size())
        die(PH_EUSAGE,
            "--pool-size: less than a pool needs, or more than this file system takes");
    if (rc)
        die(rc, rc == PH_ENOMEM
                    ? "addresses or a thread for the pool; is there a limit, ulimit -v or -u?"
                : limits_file_size() ? "the pool's size; there is a limit, ulimit -f: raise it "
                                       "or name a smaller --pool-size"
                                     : o.pool);
    rc = ph_keeper_open(&keeper, ME, o.pool, pool, &o.keeper, 0, 0);
    if (rc) {
        ph_pool_remove(pool);
        die(rc, keeper.detail);
    }
    take_name(&o, pool);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        become_program(&o, &keeper, &mask, interpreter, library);
    if (child < 0) {
        int err = errno;
        ph_pool_remove(pool);
        die(PH_ENOMEM, err == EAGAIN ? "a process; is there a limit, ulimit -u?" : "fork");
    }
    ph_keeper_exit_like(ph_keeper_watch(&keeper, child));
}
