/* SPDX-License-Identifier: MIT */
/* The directory of what is to be undone, which two write at a time: U5 of allocator/undo.h. */
#include "allocator/undo.h"

#include "pyhook/agent_internal.h"
#include "pyhook/files.h"
#include "pyhook/undo.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ID    UINT64_C(0x123456789abcdef0)
#define TURNS 20000

struct ph_capture ph_capture;
static _Atomic uint64_t epoch; /* of what is made */
static _Atomic uint64_t gone;  /* the newest epoch that is not needed any more */
static atomic_bool stop;

uint64_t ph_undo_newest(void)
{
    return atomic_load(&epoch);
}

void ph_agent_say(const char *piece, ...)
{
    (void)piece;
}

int ph_files_send(uint64_t number, const int *fd, size_t n)
{
    (void)number, (void)fd, (void)n;
    return 0;
}

static void *keeper(void *directory)
{
    while (!atomic_load(&stop))
        ph_undo_remove(directory, ID, 0, atomic_load(&gone));
    return NULL;
}

/** A directory in memory where there is one: what is made in it is synced. */
static struct ph_control *control(void)
{
    struct ph_control *c =
        mmap((void *)PH_CONTROL_BASE, PH_CONTROL_SIZE, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    cr_assert(c == (void *)PH_CONTROL_BASE);
    char root[] = "/dev/shm/undo-XXXXXX", other[] = "/tmp/undo-XXXXXX";
    const char *made = mkdtemp(root);
    if (!made)
        made = mkdtemp(other);
    cr_assert_not_null(made);
    snprintf(c->undo_directory, sizeof c->undo_directory, "%s/pool.undo", made);
    c->pool_id = ID;
    return c;
}

static void remove_directory(const struct ph_control *c)
{
    char parent[sizeof c->undo_directory];
    snprintf(parent, sizeof parent, "%s", c->undo_directory);
    *strrchr(parent, '/') = 0;
    ph_undo_remove(c->undo_directory, 0, 0, UINT64_MAX);
    cr_assert_eq(rmdir(parent), 0, "not everything is gone");
}

Test(undo, u5_what_is_made_has_an_owner)
{
    struct ph_control *c = control();
    struct stat st = {.st_dev = 1, .st_ino = 2};
    char text[300] = "/";
    memset(text + 1, 'x', sizeof text - 2); /* too long for a name */
    int fd = memfd_create("file", MFD_CLOEXEC);
    cr_assert(fd >= 0 && ftruncate(fd, 10) == 0);
    struct ph_undo_bytes bytes = {.st = &st, .fd = fd, .own = true, .from = 3, .to = 10};
    struct ph_undo_note note = {.kind = PH_UNDO_REMOVED_DIRECTORY, .path = "/x"};
    pthread_t thread;
    cr_assert(pthread_create(&thread, NULL, keeper, c->undo_directory) == 0);
    for (unsigned turn = 1; turn <= TURNS; turn++) {
        atomic_store(&epoch, turn);
        note.path = turn % 3 == 1 ? "/x" : text;
        long err = turn % 3 ? ph_undo_note(&note) : ph_undo_write(&bytes, "/x");
        cr_assert_eq(err, 0, "%ld", err);
        uint64_t owner = ph_undo_owner(c->undo_directory);
        cr_assert_eq(owner, ID, "turn %u: %llx", turn, (unsigned long long)owner);
        atomic_store(&gone, turn);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    close(fd);
    remove_directory(c);
}

/** One that another pool has the name of is left alone, by both. */
Test(undo, u4_anothers_directory_stays)
{
    struct ph_control *c = control();
    struct ph_undo_note note = {.kind = PH_UNDO_REMOVED_DIRECTORY, .path = "/x"};
    atomic_store(&epoch, 1);
    cr_assert_eq(ph_undo_note(&note), 0);
    c->pool_id = ID + 1;
    cr_assert_eq(ph_undo_note(&note), -EBUSY);
    ph_undo_remove(c->undo_directory, ID + 1, 0, UINT64_MAX);
    cr_assert_eq(ph_undo_owner(c->undo_directory), ID);
    remove_directory(c);
}
