/* SPDX-License-Identifier: MIT */
/* test_keeper_files - mapped files are stored, and it shows when one is another on the disk */
#include "allocator/keeper_files.h"

#include "allocator/staging.h"
#include "tests/unit/pool_fixture.h"

#include <string.h>

TestSuite(keeper_files, .init = fixture_setup, .fini = fixture_teardown);

enum { LIBRARY, DATA, FILES };

static char path[FILES][300];
static struct ph_keeper_files files;
static _Atomic uint64_t hold;

static void write_file(int i, const char *text)
{
    snprintf(path[i], sizeof path[i], "%s/file%d", fixture_dir, i);
    int fd = open(path[i], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/** Name the files as they are now. @return what they hash to. */
static uint64_t name_all(void)
{
    static uint64_t bytes[200];
    size_t used = 0;
    memset(bytes, 0, sizeof bytes);
    for (int i = 0; i < FILES; i++) {
        struct ph_mapped_file *m = (void *)((char *)bytes + used);
        struct stat st;
        cr_assert_eq(stat(path[i], &st), 0);
        uint32_t room = ((uint32_t)strlen(path[i]) + 8) / 8 * 8;
        *m = (struct ph_mapped_file){(uint64_t)st.st_size,
                                     (uint64_t)st.st_mtim.tv_sec * 1000000000u +
                                         (uint64_t)st.st_mtim.tv_nsec,
                                     st.st_dev,
                                     st.st_ino,
                                     room,
                                     i == LIBRARY};
        strcpy((char *)(m + 1), path[i]);
        used += sizeof *m + room;
    }
    ph_keeper_files_name(&files, bytes, used);
    ph_keeper_files_named(&files);
    return ph_mapped_hash(bytes, used);
}

static void look(void)
{
    files.looked_ns = 0; /* now */
    ph_keeper_files_look(&files, &hold);
}

static uint64_t begin(struct ph_pool *p)
{
    struct model m = {.seed = 61};
    fixture_run(p, &m, 1);
    files = (struct ph_keeper_files){.command = "test", .pool = p, .fd = -1};
    write_file(LIBRARY, "code");
    write_file(DATA, "numbers");
    uint64_t hash = name_all();
    look();
    cr_assert_eq(hold, 0, "before they are stored");
    files.ready_ns = 0;
    while (ph_keeper_files_pending(&files))
        ph_keeper_files_step(&files);
    look();
    cr_assert_eq(hold, hash);
    return hash;
}

static void end(struct ph_pool *p)
{
    ph_keeper_files_free(&files);
    for (int i = 0; i < FILES; i++)
        unlink(path[i]);
    ph_pool_close(p);
}

Test(keeper_files, a_library_that_is_replaced_is_noticed)
{
    struct ph_pool *p = fixture_create();
    uint64_t hash = begin(p);
    char kept[310];
    snprintf(kept, sizeof kept, "%s.old", path[LIBRARY]);
    cr_assert_eq(rename(path[LIBRARY], kept), 0);
    look();
    cr_assert_eq(hold, 0, "it is gone");
    write_file(LIBRARY, "code");
    look();
    cr_assert_eq(hold, 0, "another one has its name");
    cr_assert_eq(rename(kept, path[LIBRARY]), 0);
    look();
    cr_assert_eq(hold, hash, "it is back");
    write_file(LIBRARY, "code!");
    look();
    cr_assert_eq(hold, 0, "it has been written to");
    end(p);
}

Test(keeper_files, data_that_changes_is_for_the_program_to_notice)
{
    struct ph_pool *p = fixture_create();
    uint64_t hash = begin(p);
    write_file(DATA, "others");
    look();
    cr_assert_eq(hold, hash);
    end(p);
}

Test(keeper_files, new_names_do_not_hold_before_they_are_stored)
{
    struct ph_pool *p = fixture_create();
    uint64_t hash = begin(p);
    write_file(LIBRARY, "more code");
    uint64_t other = name_all();
    cr_assert_neq(hash, other);
    look();
    cr_assert_eq(hold, 0);
    files.ready_ns = 0;
    while (ph_keeper_files_pending(&files))
        ph_keeper_files_step(&files);
    look();
    cr_assert_eq(hold, other);
    end(p);
}
