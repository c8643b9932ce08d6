/* SPDX-License-Identifier: MIT */
/*
 * pool_kill - SIGKILL at random moments
 *
 * A child creates or opens the pool and commits epochs of a known history, with migration in
 * its background thread and extents allocated as they are needed; the parent kills it at a
 * random moment, and then checks:
 *
 *   - `pmempool check` finds the file in order (once its creation was complete);
 *   - the newest epoch is the last one whose commit returned, or the one in flight;
 *   - every epoch listed is right, byte for byte, read beside no writer and as a writer;
 *   - the files are those that were published, or those in flight as well, and right.
 *
 * The next child goes on from there. This covers what pool_crash leaves out, libpmemobj's
 * metadata, but only for the death of the process: the kernel lives on here.
 *
 *   PH_KILL_ROUNDS  how many kills (default 150)
 */
#include "allocator/pool_internal.h"
#include "tests/unit/pool_model.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define SEED      77
#define FILE_MAX  300000
#define FILES_MAX 60

struct shared {
    _Atomic uint64_t committed, published;
    _Atomic bool created;
    _Atomic int err;
};
static struct shared *shared;
static char path[512];
static uint64_t random_state = SEED;

static uint64_t rnd(void)
{
    return model_mix(random_state += UINT64_C(0x9e3779b97f4a7c15));
}

static void die(const char *what)
{
    fprintf(stderr, "pool_kill: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* File i: of some size; every third has the content of the one before. */
static size_t file_content(uint64_t i, unsigned char *to, char name[64])
{
    uint64_t kind = i % 3 == 2 ? i - 1 : i;
    size_t size = model_mix(kind) % FILE_MAX;

    for (size_t k = 0; k < size; k++)
        to[k] = (unsigned char)model_mix(kind + k / 256);
    snprintf(name, 64, "/lib/file%llu.so", (unsigned long long)i);
    return size;
}

static unsigned char content[FILE_MAX], read_back[FILE_MAX];

/* A piece of the file after the last one; at its end, publish now and then. */
static int file_step(struct ph_pool *p, size_t *at)
{
    char name[64];
    uint64_t i = ph_pool_files(p);
    size_t size = file_content(i, content, name), left = size - *at;
    int err = 0;

    if (i == FILES_MAX)
        return 0;
    if (!p->files.active) {
        *at = 0;
        return ph_pool_file_begin(p, &(struct ph_file_id){name, size, i});
    }
    if (left) {
        size_t n = left < 8 * PH_PAGE ? left : 8 * PH_PAGE;
        err = ph_pool_file_append(p, content + *at, n);
        *at += n;
        return err;
    }
    err = ph_pool_file_end(p);
    if (!err && i % 2) {
        err = ph_pool_file_publish(p);
        if (!err)
            atomic_store(&shared->published, ph_pool_files(p));
    }
    return err;
}

static const char *check_files(struct ph_pool *p)
{
    uint64_t n = ph_pool_files(p), least = atomic_load(&shared->published);
    char name[64];

    if (n < least || n > least + 2)
        return "other files than were published";
    atomic_store(&shared->published, n);
    for (uint64_t i = 0; i < n; i++) {
        size_t size = file_content(i, content, name);
        const struct ph_stored *f = ph_pool_file_find(p, &(struct ph_file_id){name, size, i});
        if (!f || ph_stored_verify(p, f))
            return "a file is missing or damaged";
        for (uint64_t at = 0, k; at < size; at += k * PH_PAGE) {
            uint64_t place = ph_stored_place(f, at, &k);
            size_t part = k * PH_PAGE < size - at ? k * PH_PAGE : size - at;
            if (pread(ph_pool_fd(p), read_back + at, part, (off_t)place) != (ssize_t)part)
                return "a file cannot be read";
        }
        if (memcmp(content, read_back, size) != 0)
            return "a file has wrong content";
    }
    return NULL;
}

/* The program that is killed. */
static void child(void)
{
    struct ph_pool *p;
    struct model m;
    struct ph_epoch_info newest;
    size_t at = 0;
    int err = atomic_load(&shared->created)
                  ? ph_pool_open(&p, path, PH_POOL_WRITE)
                  : ph_pool_create(&p, path, &(struct ph_pool_options){.size = 64 << 20});

    if (!err) {
        atomic_store(&shared->created, true);
        model_at(&m, SEED, ph_pool_epochs(p, &newest, 1) ? newest.number : 0);
    }
    while (!err) {
        model_step(&m);
        err = model_commit(&m, p);
        if (!err)
            atomic_store(&shared->committed, m.epoch);
        for (unsigned i = 0; i < 3 && !err; i++)
            err = file_step(p, &at);
    }
    atomic_store(&shared->err, err);
    _exit(1);
}

static int run_command(char *const argv[])
{
    extern char **environ;
    pid_t pid;
    int status;

    if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) || waitpid(pid, &status, 0) < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static const char *check(enum ph_pool_mode mode)
{
    struct ph_pool *p;
    struct ph_epoch_info newest = {0};
    uint64_t committed = atomic_load(&shared->committed);
    const char *wrong = NULL;
    int err = ph_pool_open(&p, path, mode);

    if (err)
        return ph_error_name(err);
    ph_pool_epochs(p, &newest, 1);
    if (newest.number != committed && newest.number != committed + 1)
        wrong = "the newest epoch is not the last committed one";
    else
        wrong = model_check(SEED, p);
    if (!wrong)
        wrong = check_files(p);
    /* The epoch that was in flight may have become durable: then it stays. */
    atomic_store(&shared->committed, newest.number);
    ph_pool_close(p);
    return wrong;
}

/* The first kills are to hit the creation; the others come after some epochs. */
static void wait_a_moment(unsigned long i, pid_t pid)
{
    uint64_t enough = atomic_load(&shared->committed) + rnd() % 6;
    const struct timespec ms = {0, 1000000};
    struct timespec t = {0, (long)(rnd() % 20000) * 1000};
    siginfo_t info = {0};

    while (i >= 20 && atomic_load(&shared->committed) < enough &&
           waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0)
        nanosleep(&ms, NULL);
    nanosleep(&t, NULL);
}

static const char *one_round(unsigned long i, bool have_pmempool)
{
    char *const pmempool[] = {"pmempool", "check", path, NULL};
    const char *wrong = NULL;
    pid_t pid = fork();
    int status;

    if (pid == 0)
        child();
    if (pid < 0)
        die("fork");
    wait_a_moment(i, pid);
    kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid)
        die("waitpid");
    if (!WIFSIGNALED(status))
        return ph_error_name(atomic_load(&shared->err));
    if (!atomic_load(&shared->created)) {
        struct ph_pool *p;
        int err = ph_pool_open(&p, path, PH_POOL_READ);
        if (err == 0) { /* a claim, or it was just complete */
            ph_pool_close(p);
            err = ph_pool_clear(path, false);
        }
        return err == 0 || err == PH_ENOENT ? NULL : ph_error_name(err);
    }
    if (have_pmempool && run_command(pmempool) != 0)
        return "pmempool check fails";
    wrong = check(PH_POOL_READ);
    return wrong ? wrong : check(PH_POOL_WRITE);
}

int main(void)
{
    const char *rounds_text = getenv("PH_KILL_ROUNDS"), *tmp = getenv("TMPDIR"), *wrong = NULL;
    unsigned long rounds = rounds_text ? strtoul(rounds_text, NULL, 0) : 150, i;
    char *const version[] = {"pmempool", "--version", NULL};
    bool have_pmempool = run_command(version) == 0;

    shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("mmap");
    snprintf(path, sizeof(path), "%s/pool_kill.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(path))
        die(path);
    strcat(path, "/pool");
    ph_tuning = (struct ph_tuning){.stretch_pages = 64,
                                   .trigger_bytes = 2 << 20,
                                   .trigger_epochs = 6,
                                   .write_max = 32 * PH_PAGE,
                                   .ahead = 2};
    for (i = 0; i < rounds && !wrong; i++)
        wrong = one_round(i, have_pmempool);
    printf("pool_kill: %lu kills, %llu epochs, %llu files, %s: %s\n", i,
           (unsigned long long)atomic_load(&shared->committed),
           (unsigned long long)atomic_load(&shared->published),
           have_pmempool ? "pmempool check after each" : "pmempool (pmdk-tools) not installed",
           wrong ? wrong : "all right");
    unlink(path);
    *strrchr(path, '/') = 0;
    rmdir(path);
    return wrong != NULL;
}
