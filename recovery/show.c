/* SPDX-License-Identifier: MIT */
/* show.c - pyheap-recover --list and --verify */
#include "command.h"
#include "progress.h"

#include "allocator/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct ph_epoch_info *ph_command_epochs(struct ph_pool *pool, size_t *n)
{
    *n = ph_pool_epochs(pool, NULL, 0);
    struct ph_epoch_info *e = calloc(*n + 1, sizeof *e);
    if (!e)
        ph_cli_die(PH_COMMAND, PH_ENOMEM, NULL);
    size_t again = ph_pool_epochs(pool, e, *n);
    *n = again < *n ? again : *n;
    return e;
}

int ph_command_view(struct ph_pool *pool, uint64_t number, struct ph_view **view, char *detail,
                    size_t size)
{
    *view = NULL;
    int rc = ph_pool_view(pool, number, view);
    if (rc) {
        const char *why = ph_pool_error_detail(pool);
        snprintf(detail, size, "epoch %llu%s%s", (unsigned long long)number, *why ? ": " : "",
                 why);
        return rc;
    }
    size_t record_size;
    const char *why = "";
    const void *record = ph_view_record(*view, &record_size);
    rc = ph_record_check(record, record_size, &why);
    if (rc) {
        snprintf(detail, size, "epoch %llu: record: %s", (unsigned long long)number, why);
        ph_view_free(*view);
        *view = NULL;
    }
    return rc;
}

/** Whether recovery of the newest epoch needs any mapped file on disk. */
static void list_files(struct ph_pool *pool, uint64_t newest)
{
    struct ph_view *view;
    size_t size, missing;
    uint64_t bytes;
    const char *why, *first;
    if (!newest || ph_pool_view(pool, newest, &view) != 0)
        return;
    const void *record = ph_view_record(view, &size);
    if (ph_record_check(record, size, &why) == 0) {
        size_t n = ph_recovery_needed(pool, record, &bytes, &missing, &first);
        if (missing)
            printf("self-contained: no, %zu of %zu mapped files are not in the pool (%s%s)\n",
                   missing, n, first, missing > 1 ? ", ..." : "");
        else
            printf("self-contained: yes, %zu mapped files, %.1f MiB\n", n,
                   (double)bytes / (1 << 20));
    }
    ph_view_free(view);
}

void ph_command_list(struct ph_pool *pool, const char *path)
{
    struct ph_pool_info info;
    ph_pool_get_info(pool, &info);
    size_t n;
    struct ph_epoch_info *e = ph_command_epochs(pool, &n);
    printf("%s: %s, %s; %.1f MiB on disk\n", path, info.command,
           info.state == PH_POOL_FINISHED ? "finished" : "not finished",
           (double)info.allocated / (1 << 20));
    list_files(pool, info.newest);
    printf("%10s  %-19s  %10s  %14s  %s\n", "epoch", "time", "pages", "bytes", "label");
    for (size_t i = 0; i < n; i++) {
        char when[32];
        time_t t = (time_t)(e[i].time / 1000000000u);
        struct tm tm;
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
        printf("%10llu  %-19s  %10llu  %14llu  %s\n", (unsigned long long)e[i].number, when,
               (unsigned long long)e[i].pages, (unsigned long long)e[i].bytes, e[i].label);
    }
    free(e);
}

static uint64_t view_bytes(const struct ph_view *view)
{
    size_t n;
    const struct ph_run *run = ph_view_runs(view, &n);
    uint64_t pages = 0;
    for (size_t i = 0; i < n; i++)
        pages += run[i].npages;
    return pages * PH_PAGE;
}

static int verify_pages(struct ph_view *view, uint64_t number, char *detail, size_t size)
{
    struct ph_progress progress;
    uint64_t bad = 0;
    ph_progress_begin(&progress, PH_COMMAND, number);
    int rc = ph_view_verify(view, ph_progress_show, &progress, &bad);
    ph_progress_end(&progress);
    if (rc)
        snprintf(detail, size, "epoch %llu: page at 0x%llx", (unsigned long long)number,
                 (unsigned long long)bad);
    return rc;
}

static int verify_files(struct ph_pool *pool)
{
    size_t n = ph_pool_files(pool);
    int result = 0;
    for (size_t i = 0; i < n; i++) {
        const struct ph_stored *file = ph_pool_file(pool, i);
        int rc = ph_stored_verify(pool, file);
        if (rc) {
            ph_cli_complain(PH_COMMAND, "the copy of a mapped file cannot be read",
                            ph_stored_path(file));
            result = rc;
        }
    }
    if (n && !result)
        printf("copies of %zu mapped files: intact\n", n);
    return result;
}

int ph_command_verify(struct ph_pool *pool)
{
    size_t n;
    struct ph_epoch_info *e = ph_command_epochs(pool, &n);
    int result = n ? 0 : PH_ENOEPOCH;
    for (size_t i = 0; i < n; i++) {
        struct ph_view *view;
        char detail[256];
        int rc = ph_command_view(pool, e[i].number, &view, detail, sizeof detail);
        if (rc == 0)
            rc = verify_pages(view, e[i].number, detail, sizeof detail);
        if (rc) {
            ph_cli_complain(PH_COMMAND, ph_error_text(rc), detail);
            result = rc;
            ph_view_free(view);
            continue;
        }
        printf("epoch %llu: intact, %.1f MiB\n", (unsigned long long)e[i].number,
               (double)view_bytes(view) / (1 << 20));
        ph_view_free(view);
    }
    free(e);
    if (!n)
        ph_cli_complain(PH_COMMAND, ph_error_text(PH_ENOEPOCH), NULL);
    int rc = verify_files(pool);
    return result ? result : rc;
}
