/* SPDX-License-Identifier: MIT */
/*
 * pool_pace.c - when migration runs, and the thread that it runs in
 *
 * When the log beyond the kept epochs, heirs included, exceeds an eighth of the home image, at
 * least ph_tuning.trigger_bytes, or ph_tuning.trigger_epochs epochs (which bounds the walk at
 * opening); or the log finds no segment. Then it goes home down to two thirds of that: what
 * stays may be written again meanwhile, and need not go home. The writer waits when the log is
 * a quarter or an epoch over the trigger, whatever is more; what an epoch has in heirs does not
 * count for that, since they become home nearly at once. So the file takes at most home + kept
 * epochs + 5/4 of the trigger (or it and the largest epoch) + the newest epoch + files.
 */
#include "allocator/pool_internal.h"

struct ph_tuning ph_tuning = {
    .stretch_pages = PH_STRETCH_PAGES,
    .trigger_bytes = UINT64_C(32) << 20,
    .trigger_epochs = 64,
    .heir_run = 128,
    .write_max = UINT64_C(8) << 20,
    .ahead = 2,
};

static uint64_t trigger(const struct ph_pool *p)
{
    uint64_t part = p->root.home_pages / 8 * PH_PAGE;

    return part > ph_tuning.trigger_bytes ? part : ph_tuning.trigger_bytes;
}

/* Epochs that may leave the log. While somebody holds a view, none: see pool_view.c. Never
 * fewer than those that have been retired, even if the newest have been lost since: for an heir
 * of theirs may be a home already, and be written to (P11). */
size_t ph_home_excess(const struct ph_pool *p)
{
    size_t n = p->epochs > p->super.keep ? p->epochs - p->super.keep : 0;

    while (n < p->epochs && p->epoch[n].info.number < p->root.oldest)
        n++;
    return p->views ? 0 : n;
}

static uint64_t size_of(const struct ph_epoch *e)
{
    return e->info.bytes + e->info.heir_bytes;
}

static uint64_t backlog(const struct ph_pool *p)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < ph_home_excess(p); i++)
        bytes += size_of(&p->epoch[i]);
    return bytes;
}

size_t ph_home_batch(const struct ph_pool *p)
{
    size_t n = 0, excess = ph_home_excess(p);
    uint64_t rest = backlog(p);

    while (n < excess && (p->all_home || rest > trigger(p) / 3 * 2 ||
                          excess - n > (size_t)ph_tuning.trigger_epochs / 2))
        rest -= size_of(&p->epoch[n++]);
    return n ? n : excess;
}

bool ph_home_due(const struct ph_pool *p)
{
    return ph_home_excess(p) > ph_tuning.trigger_epochs || backlog(p) > trigger(p);
}

bool ph_home_behind(const struct ph_pool *p)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < ph_home_excess(p); i++)
        if (p->epoch[i].info.bytes > largest)
            largest = p->epoch[i].info.bytes;
    uint64_t most = trigger(p) + (largest > trigger(p) / 4 ? largest : trigger(p) / 4);
    return ph_home_excess(p) > 4 * (size_t)ph_tuning.trigger_epochs || backlog(p) > most;
}

/* ---- the background thread ------------------------------------------------------ */

static bool wants_extent(const struct ph_pool *p)
{
    return !p->grow_failed && !p->broken && !p->pop_lost &&
           ph_extent_count(p, PH_EXTENT_FREE) < ph_tuning.ahead;
}

static void *background(void *arg)
{
    struct ph_pool *p = arg;

    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        if (p->migrate_now) {
            p->migrating = true;
            pthread_mutex_unlock(&p->lock);
            int err = ph_home_migrate(p);
            pthread_mutex_lock(&p->lock);
            p->migrating = p->migrate_now = false;
            p->migrate_err = err;
            p->migrations++;
            pthread_cond_broadcast(&p->done);
        } else if (p->awake && wants_extent(p)) {
            uint32_t slot;
            p->grow_failed = ph_extent_grow(p, &slot) != 0;
        } else {
            pthread_cond_wait(&p->wake, &p->lock);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

void ph_home_wake(struct ph_pool *p)
{
    if (!p->thread_runs)
        return;
    p->awake = true;
    p->grow_failed = false;
    if (ph_home_due(p))
        p->migrate_now = true;
    pthread_cond_signal(&p->wake);
}

static int force(struct ph_pool *p)
{
    uint64_t before = p->migrations;
    int err;

    if (!p->thread_runs) {
        pthread_mutex_unlock(&p->lock);
        err = ph_home_migrate(p);
        pthread_mutex_lock(&p->lock);
        return err;
    }
    p->migrate_now = true;
    pthread_cond_signal(&p->wake);
    while (p->migrations == before)
        pthread_cond_wait(&p->done, &p->lock);
    return p->migrate_err;
}

int ph_home_force(struct ph_pool *p, bool all)
{
    int err = PH_ENOEPOCH;

    if (ph_home_excess(p)) {
        p->all_home = all;
        err = force(p);
        p->all_home = false;
    }
    return err;
}

int ph_home_start(struct ph_pool *p)
{
    if (ph_tuning.single_threaded)
        return 0;
    if (pthread_create(&p->thread, NULL, background, p))
        return PH_ENOMEM;
    p->thread_runs = true;
    return 0;
}

void ph_home_stop(struct ph_pool *p)
{
    if (!p->thread_runs)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    p->thread_runs = false;
}
