/* SPDX-License-Identifier: MIT */
/* A process record is believed only when it is well formed: R1 to R8 of record.h. */
#include "recovery/recovery.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static unsigned char blob[8192];
static struct ph_record_pm *r;
static struct ph_vma_pm *vma;
static struct ph_thread_pm *thread;
static struct ph_file_pm *file;
static struct ph_lock_pm *lock_;
static struct ph_timer_pm *timer;
static unsigned char *data;

static void *add(struct ph_table_pm *t, uint64_t count, size_t entry)
{
    t->offset = r->size;
    t->count = count;
    r->size = (r->size + count * entry + 7) & ~UINT64_C(7);
    return blob + t->offset;
}

/** A record with three mappings, two threads, two descriptors. */
static void make(void)
{
    memset(blob, 0, sizeof blob);
    r = (struct ph_record_pm *)blob;
    r->magic = PH_RECORD_MAGIC;
    r->version = PH_RECORD_VERSION;
    r->size = r->header_size = sizeof *r;
    vma = add(&r->vmas, 3, sizeof *vma);
    for (unsigned i = 0; i < 3; i++)
        vma[i] = (struct ph_vma_pm){.start = 0x400000 + i * 0x10000,
                                    .end = 0x404000 + i * 0x10000,
                                    .kind = PH_VMA_ANON,
                                    .prot = 3};
    thread = add(&r->threads, 2, sizeof *thread);
    for (unsigned i = 0; i < 2; i++)
        thread[i] = (struct ph_thread_pm){.context = 0x400100,
                                          .fs = 0x400200,
                                          .tid_address = 0x400300,
                                          .cleared_address = 0x400300,
                                          .flags = i ? PH_THREAD_CALLER : PH_THREAD_LEADER,
                                          .name = "python3"};
    file = add(&r->files, 4, sizeof *file);
    file[0] = (struct ph_file_pm){.fd = 0, .kind = PH_FILE_INHERIT, .same_as = -1};
    file[1] = (struct ph_file_pm){.fd = 7,
                                  .kind = PH_FILE_REGULAR,
                                  .flags = PH_FILE_DELETED,
                                  .same_as = -1,
                                  .data_offset = 8,
                                  .data_size = 56};
    file[2] = (struct ph_file_pm){
        .fd = 8, .kind = PH_FILE_TIMERFD, .same_as = -1, .data_offset = 64, .data_size = 32};
    file[3] = (struct ph_file_pm){
        .fd = 9, .kind = PH_FILE_INOTIFY, .same_as = -1, .data_offset = 96, .data_size = 16};
    thread[1].tid = 4001;
    timer = add(&r->timers, 2, sizeof *timer);
    timer[0] = (struct ph_timer_pm){.id = 1, .signal = 34};
    timer[1] = (struct ph_timer_pm){.id = 0, .signal = 32, .tid = 4001};
    lock_ = add(&r->locks, 1, sizeof *lock_);
    *lock_ = (struct ph_lock_pm){.fd = 7, .kind = PH_LOCK_POSIX, .start = 5, .length = 10};
    add(&r->auxv, 16, 1);
    add(&r->vdso, 16, 1);
    data = add(&r->data, 112, 1);
    /* Two chunks: of 5 bytes, padded to 8, and of 16. */
    *(struct ph_chunk_pm *)(data + 8) = (struct ph_chunk_pm){.offset = 100, .size = 5};
    *(struct ph_chunk_pm *)(data + 32) = (struct ph_chunk_pm){.offset = 200, .size = 16};
    *(struct ph_watch_pm *)(data + 96) = (struct ph_watch_pm){.wd = 1, .path = 1};
    char *strings = add(&r->strings, 8, 1);
    memcpy(strings, "\0/tmp\0\0", 8);
    r->cwd = 1;
}

static int check(void)
{
    const char *why;
    return ph_record_check(blob, r->size, &why);
}

TestSuite(record, .init = make);

Test(record, a_good_one_is_accepted)
{
    cr_assert_eq(check(), 0);
    cr_assert_str_eq(ph_record_text(r, r->cwd), "/tmp");
}

Test(record, another_version_is_told_from_damage)
{
    r->version++;
    cr_assert_eq(check(), PH_ENEWER);
    r->magic++;
    cr_assert_eq(check(), PH_ECORRUPT);
}

#define DAMAGED(statement)                                                                     \
    do {                                                                                       \
        make();                                                                                \
        statement;                                                                             \
        cr_assert_eq(check(), PH_ECORRUPT, #statement);                                        \
    } while (0)

Test(record, R1_tables_lie_inside)
{
    DAMAGED(r->vmas.count = 1000);
    DAMAGED(r->vmas.count = UINT64_MAX / 8);
    DAMAGED(r->threads.offset = r->size + 8);
    DAMAGED(r->files.offset = UINT64_MAX - 7);
    DAMAGED(r->data.offset++);
    DAMAGED(file[1].data_size = 200);
    DAMAGED(file[1].data_offset = UINT64_MAX);
    DAMAGED(r->locks.count = 1000);
    make();
    const char *why;
    cr_assert_eq(ph_record_check(blob, r->size - 8, &why), PH_ECORRUPT);
    cr_assert_eq(ph_record_check(blob, 10, &why), PH_ECORRUPT);
}

Test(record, R2_strings_end_and_references_stay_inside)
{
    DAMAGED(blob[r->strings.offset + r->strings.count - 1] = 'x');
    DAMAGED(r->strings.count = 0);
    DAMAGED(r->cwd = 8);
    DAMAGED(vma[1].path = 4000000000u);
    DAMAGED(file[0].path = 8);
}

Test(record, R3_mappings_ascend_and_spare_our_own_ranges)
{
    DAMAGED(vma[1].start = vma[0].start);
    DAMAGED(vma[1].end = vma[1].start);
    DAMAGED(vma[1].end += 1);
    DAMAGED(vma[2].end = UINT64_C(1) << 60);
    DAMAGED(vma[2].end = PH_RESTORER_BASE + PH_PAGE);
    DAMAGED((vma[2].start = PH_CONTROL_BASE, vma[2].end = PH_CONTROL_BASE + PH_PAGE));
    DAMAGED(vma[0].kind = 9);
    DAMAGED(vma[0].prot = 8);
}

Test(record, R4_one_leader_and_one_caller)
{
    DAMAGED(thread[1].flags |= PH_THREAD_LEADER);
    DAMAGED(thread[0].flags = 0);
    DAMAGED(thread[1].flags = 0);
    DAMAGED(thread[1].fs = 0);
    DAMAGED(memset(thread[0].name, 'x', 16));
}

Test(record, descriptors_ascend_and_refer_downwards)
{
    DAMAGED(file[1].fd = 0);
    DAMAGED(file[0].fd = -3);
    DAMAGED(file[1].same_as = 7);
    DAMAGED(file[1].kind = 0);
    DAMAGED(file[1].kind = PH_FILE_DEAD + 1);
}

#define CHUNK(at) ((struct ph_chunk_pm *)(data + (at)))

Test(record, R5_the_data_of_a_descriptor_is_what_its_kind_says)
{
    DAMAGED(CHUNK(8)->size = 57);
    DAMAGED(CHUNK(8)->size = UINT64_MAX);
    DAMAGED(CHUNK(32)->size = 17);
    DAMAGED(CHUNK(32)->offset = UINT64_MAX - 3);
    DAMAGED(file[1].data_size = 48);
    DAMAGED(file[1].data_offset = 4);
    DAMAGED(file[1].flags = 0); /* a file with a name has its content in itself */
    DAMAGED(file[0].data_size = 8);
    DAMAGED(file[2].data_size = 24);
    DAMAGED(file[3].data_size = 8);
    DAMAGED((file[3].kind = PH_FILE_EPOLL, file[3].data_size = 8));
    DAMAGED(((struct ph_watch_pm *)(data + 96))->wd = 0);
    DAMAGED(((struct ph_watch_pm *)(data + 96))->wd = PH_WATCH_MAX + 1);
    DAMAGED(((struct ph_watch_pm *)(data + 96))->path = 8);
}

Test(record, R7_timers_are_distinct_and_their_threads_known)
{
    DAMAGED(timer[1].id = 1);
    DAMAGED(timer[0].signal = 65);
    DAMAGED(timer[0].id = -1);
    DAMAGED(timer[1].tid = 12345);
}

Test(record, R6_locks_belong_to_descriptors)
{
    DAMAGED(lock_->fd = 6);
    DAMAGED(lock_->kind = 0);
    DAMAGED(lock_->kind = PH_LOCK_FLOCK + 1);
    DAMAGED(lock_->start = UINT64_MAX);
    DAMAGED(lock_->length = INT64_MAX);
}

Test(record, no_random_damage_leads_outside)
{
    /* Whatever is accepted must be safe to walk: touch all that it refers to. */
    unsigned seed = 1, accepted = 0;
    for (int round = 0; round < 200000; round++) {
        make();
        uint64_t size = r->size;
        for (int n = 1 + rand_r(&seed) % 3; n; n--)
            blob[(unsigned)rand_r(&seed) % size] = (unsigned char)rand_r(&seed);
        const char *why;
        if (ph_record_check(blob, size, &why) != 0)
            continue;
        accepted++;
        const struct ph_file_pm *f = (const void *)(blob + r->files.offset);
        for (uint64_t i = 0; i < r->files.count; i++) {
            cr_assert_leq(r->data.offset + f[i].data_offset + f[i].data_size, size);
            cr_assert_leq(strlen(ph_record_text(r, f[i].path)), size);
        }
        const struct ph_vma_pm *v = (const void *)(blob + r->vmas.offset);
        for (uint64_t i = 0; i < r->vmas.count; i++)
            cr_assert_leq(strlen(ph_record_text(r, v[i].path)), size);
    }
    cr_assert_gt(accepted, 0u);
}

Test(record, R8_what_the_restorer_touches_is_mapped)
{
    DAMAGED(thread[1].context = 0x404000);
    DAMAGED(thread[1].context = UINT64_MAX - 8);
    DAMAGED(thread[1].tid_address = 0x403ffe);
    DAMAGED((thread[0].tid_address = 0x410100, vma[1].prot = 1));
    DAMAGED(thread[0].cleared_address = 0x403ffe);
    DAMAGED(r->clock_offsets = 0x420000 + 0x4000 - 8);
    DAMAGED((r->clock_offsets = 0x400400, r->clock_thread = UINT64_MAX - 0x100000));
    make();
    r->clock_offsets = 0x400400;
    r->clock_thread = UINT64_MAX - 0xff; /* before fs, as of a thread's own variables */
    cr_assert_eq(check(), 0);
}
