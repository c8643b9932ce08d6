/* SPDX-License-Identifier: MIT */
/*
 * pool_crash - power cuts at random moments, simulated
 *
 * The real pool code runs epochs of a known history, migration included, on a small pool. All
 * its writes and syncs pass through io.c, where they are recorded. At random moments an image
 * is made of what a disk might hold if the power failed then: everything that was synced, and
 * of each 512-byte sector written since, any of its versions or the old content. The image is
 * opened with the real ph_pool_open. What must hold, for every image:
 *
 *   - it opens, and shows no damage that would have to be stepped over;
 *   - its newest epoch is the one of the last root record that was synced; or of the one in
 *     flight, if that has been written;
 *   - every epoch it lists has its pages, its absences and its record, byte for byte;
 *   - its files are those of the last root record that was synced, or of the one in flight,
 *     byte for byte;
 *   - at least `keep` epochs are listed, once there are so many.
 *
 * Now and then an epoch fills all that the pool believes to be free, and is given up: so what
 * is free too early is overwritten. A life ends with such an image, and the next life goes on
 * from it. Now and then an image is also opened for writing and continued for some epochs.
 *
 * What the model leaves out: libpmemobj's own metadata. Its stores go through a mapping, and
 * are not seen by io.c. So all extents are allocated before the recording starts, what opening
 * changed is taken as durable, and at the end of each life the file is compared with the
 * recording to prove that nothing else changed it. That libpmemobj's allocations are atomic is
 * its own claim; pool_kill tests it against SIGKILL.
 *
 * Then the same with each of the wrong orders of enum ph_wrong: these must be caught.
 *
 *   PH_CRASH_IMAGES  how many images of the right order (default 4000)
 *   PH_CRASH_SEED    another history
 */
#include "allocator/pool_internal.h"
#include "tests/unit/pool_free.h"
#include "tests/unit/pool_model.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define POOL_SIZE (UINT64_C(24) << 20)
#define EXTENTS   64
#define KEEP      3
#define LIFE      40 /* epochs */
#define NEW_POOL  3  /* lives of a pool */
#define FILES     30 /* stored by then they are given up, and it starts again */

struct sector {
    uint64_t offset;
    unsigned char bytes[PH_SECTOR];
};

static unsigned char *current, *durable; /* the file as the kernel and as the disk has it */
static struct sector *pending;
static size_t npending, pending_capacity;
static uint64_t durable_newest;              /* epoch of the last root record that was synced */
static uint64_t flying_newest;               /* of one that was written since */
static uint64_t durable_files, flying_files; /* likewise */
static uint64_t root_at;                     /* offset of root record A */
static uint64_t seed, random_state;
static char pool_path[512], image_path[512], copy_path[512];
static int image_fd = -1;
static bool recording;
static unsigned write_odds = 12; /* a crash at one in so many writes, before and after */
static unsigned naming;          /* so many writes more from when a slot was written */
static unsigned long images, continued, lives, wanted;
static char failure[400];

static uint64_t rnd(void)
{
    return model_mix(random_state += UINT64_C(0x9e3779b97f4a7c15));
}

static void die(const char *what)
{
    fprintf(stderr, "pool_crash: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void violated(const char *what, const char *more)
{
    if (!failure[0])
        snprintf(failure, sizeof(failure), "%s%s%s", what, more ? ": " : "", more ? more : "");
}

/* ---- checking an image -------------------------------------------------------------- */

/* File i of this history: sometimes the content of another. */
static size_t file_content(uint64_t i, unsigned char *to, char path[64])
{
    uint64_t kind = model_mix(seed + i) % 3 ? i : i % 3;
    size_t size = model_mix(seed ^ kind) % 60000;

    for (size_t k = 0; k < size; k++)
        to[k] = (unsigned char)model_mix(seed + kind * 7 + k / 512);
    snprintf(path, 64, "/lib/file%llu.so", (unsigned long long)i);
    return size;
}

static int store_file(struct ph_pool *p, uint64_t i)
{
    static unsigned char content[60000];
    char path[64];
    size_t size = file_content(i, content, path);
    int err = ph_pool_file_begin(p, &(struct ph_file_id){path, size, i});

    for (size_t at = 0; at < size && !err; at += 3 * PH_PAGE)
        err = ph_pool_file_append(p, content + at,
                                  size - at < 3 * PH_PAGE ? size - at : 3 * PH_PAGE);
    return err ? err : ph_pool_file_end(p);
}

static const char *check_files(struct ph_pool *p)
{
    static unsigned char want[60000], got[60000];
    static char path[64];

    for (size_t i = 0; i < ph_pool_files(p); i++) {
        size_t size = file_content(i, want, path);
        const struct ph_stored *f = ph_pool_file_find(p, &(struct ph_file_id){path, size, i});
        if (!f || strcmp(ph_stored_path(f), path) != 0 || ph_stored_verify(p, f))
            return path;
        for (uint64_t at = 0, n; at < size; at += n * PH_PAGE) {
            uint64_t place = ph_stored_place(f, at, &n);
            uint64_t part = n * PH_PAGE < size - at ? n * PH_PAGE : size - at;
            if (!place || pread(ph_pool_fd(p), got + at, part, (off_t)place) != (ssize_t)part)
                return path;
        }
        if (memcmp(want, got, size) != 0)
            return path;
    }
    return NULL;
}

static void check_pool(struct ph_pool *p)
{
    uint64_t newest = p->epochs ? p->epoch[p->epochs - 1].info.number : 0;
    const char *wrong;

    if (newest != p->root.recent[0].number)
        violated("the newest epoch is damaged", NULL);
    else if (newest != durable_newest && newest != flying_newest)
        violated("it is not the newest durable epoch", NULL);
    else if (ph_pool_epochs(p, NULL, 0) < (newest < KEEP ? newest : KEEP))
        violated("too few epochs", NULL);
    else if (p->root.files != durable_files && p->root.files != flying_files)
        violated("its files are not the durable ones", NULL);
    else if ((wrong = check_files(p)) != NULL)
        violated("a file is wrong", wrong);
    else if ((wrong = model_check(seed, p)) != NULL)
        violated("an epoch is wrong", wrong);
}

static void copy_image(const char *to)
{
    static unsigned char buffer[1 << 16], zero[1 << 16];
    int fd = open(to, O_RDWR | O_CREAT | O_TRUNC, 0600);

    if (fd < 0 || ftruncate(fd, POOL_SIZE))
        die(to);
    for (uint64_t at = 0; at < POOL_SIZE; at += sizeof(buffer)) {
        if (pread(image_fd, buffer, sizeof(buffer), (off_t)at) != sizeof(buffer))
            die("reading the image");
        if (memcmp(buffer, zero, sizeof(zero)) != 0 &&
            pwrite(fd, buffer, sizeof(buffer), (off_t)at) != sizeof(buffer))
            die("copying the image");
    }
    close(fd);
}

/* Open for writing, and go on for a while. In a process of its own, since libpmemobj refuses to
 * have two pools with the same id open in one. */
static int continue_here(const char *path)
{
    struct ph_pool *p;
    struct model m;
    int err = ph_pool_open(&p, path, PH_POOL_WRITE);

    if (err) {
        violated("it does not open for writing", ph_error_name(err));
    } else {
        check_pool(p);
        model_at(&m, seed, p->epochs ? p->epoch[p->epochs - 1].info.number : 0);
        for (int i = 0; i < 8 && !err; i++) {
            model_step(&m);
            err = model_commit(&m, p);
            if (!err && i % 2)
                err = store_file(p, ph_pool_files(p));
        }
        if (!err)
            err = ph_pool_file_publish(p);
        durable_newest = m.epoch;
        durable_files = ph_pool_files(p);
        if (err)
            violated("it cannot be continued", ph_error_name(err));
        check_pool(p);
        ph_pool_close(p);
    }
    if (failure[0])
        printf("pool_crash: continued: %s\n", failure);
    return failure[0] != 0;
}

static void continue_image(void)
{
    char text[5][24];
    char *argv[] = {"pool_crash", "--continue", copy_path, text[0], text[1],
                    text[2],      text[3],      text[4],   NULL};
    const uint64_t value[5] = {seed, durable_newest, flying_newest, durable_files,
                               flying_files};
    pid_t pid;
    int status;

    copy_image(copy_path);
    for (int i = 0; i < 5; i++)
        snprintf(text[i], sizeof(text[i]), "%llu", (unsigned long long)value[i]);
    fflush(stdout);
    if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ) ||
        waitpid(pid, &status, 0) != pid)
        die("starting a process");
    if (status)
        violated("it cannot be continued", "see above");
    continued++;
}

static void check_image(void)
{
    struct ph_pool *p;
    bool was = recording;
    int err;

    recording = false;
    images++;
    err = ph_pool_open(&p, image_path, PH_POOL_READ);
    if (err) {
        violated("it does not open", ph_error_name(err));
    } else {
        check_pool(p);
        ph_pool_close(p);
        if (!failure[0] && rnd() % 40 == 0)
            continue_image();
    }
    recording = was;
}

/* ---- making an image ---------------------------------------------------------------- */

static void put(const void *bytes, uint64_t offset)
{
    if (pwrite(image_fd, bytes, PH_SECTOR, (off_t)offset) != PH_SECTOR)
        die("writing the image");
}

/* Of the pending sectors some reach the disk: none, few, half, most, all; or only the last
 * ones; or all but one. */
static bool reaches(unsigned how, size_t i, uint64_t odd)
{
    static const unsigned percent[5] = {0, 10, 50, 90, 100};

    if (how < 5)
        return rnd() % 100 < percent[how];
    if (how == 5)
        return i + 1 + odd % 8 >= npending;
    return i != odd % npending;
}

static void crash(void)
{
    uint64_t odd = rnd();
    unsigned how = (unsigned)(rnd() % 7);

    for (size_t i = 0; i < npending; i++)
        if (reaches(how, i, odd))
            put(pending[i].bytes, pending[i].offset);
    check_image();
}

static void restore_image(void)
{
    for (size_t i = 0; i < npending; i++)
        put(durable + pending[i].offset, pending[i].offset);
}

static void maybe_crash(unsigned one_in)
{
    if (failure[0] || rnd() % one_in)
        return;
    crash();
    restore_image();
}

/* ---- recording ---------------------------------------------------------------------- */

static void note_root(const unsigned char *bytes, uint64_t offset, size_t size)
{
    struct ph_root_pm r;

    if (size != sizeof(r) || (offset != root_at && offset != root_at + PH_PAGE))
        return;
    memcpy(&r, bytes, sizeof(r));
    flying_newest = r.recent[0].number;
    flying_files = r.files;
}

static void on_write(void *arg, uint64_t offset, const struct iovec *iov, int n)
{
    (void)arg;
    if (!recording)
        return;
    if (iov[0].iov_len < 64) /* what an extent is: rarely written, and much hangs on it */
        naming = 24;
    unsigned odds = naming ? 2 : write_odds;
    naming -= naming != 0;
    maybe_crash(odds);
    for (int i = 0; i < n; offset += iov[i].iov_len, i++) {
        uint64_t end = offset + iov[i].iov_len;
        memcpy(current + offset, iov[i].iov_base, iov[i].iov_len);
        note_root(iov[i].iov_base, offset, iov[i].iov_len);
        for (uint64_t at = offset / PH_SECTOR * PH_SECTOR; at < end; at += PH_SECTOR) {
            if (npending == pending_capacity) {
                pending_capacity = pending_capacity * 2 + 4096;
                pending = realloc(pending, pending_capacity * sizeof(*pending));
                if (!pending)
                    die("memory");
            }
            pending[npending].offset = at;
            memcpy(pending[npending++].bytes, current + at, PH_SECTOR);
        }
    }
    maybe_crash(odds);
}

static int before(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg;
    if (op == PH_IO_DISCARD) { /* to the disk as good as a write */
        void *zeros = calloc(1, size);
        if (!zeros)
            die("memory");
        on_write(NULL, offset, &(struct iovec){zeros, size}, 1);
        free(zeros);
    }
    if (recording && op == PH_IO_SYNC)
        maybe_crash(2);
    return 0;
}

static void on_synced(void *arg)
{
    (void)arg;
    if (!recording)
        return;
    for (size_t i = 0; i < npending; i++) {
        memcpy(durable + pending[i].offset, current + pending[i].offset, PH_SECTOR);
        put(durable + pending[i].offset, pending[i].offset);
    }
    npending = 0;
    durable_newest = flying_newest;
    durable_files = flying_files;
    maybe_crash(4);
}

static const struct ph_io_hooks hooks = {NULL, before, on_write, on_synced};

/* ---- lives -------------------------------------------------------------------------- */

static void read_file(const char *path, unsigned char *to)
{
    int fd = open(path, O_RDONLY);

    if (fd < 0 || pread(fd, to, POOL_SIZE, 0) != (ssize_t)POOL_SIZE)
        die(path);
    close(fd);
}

static void create(void)
{
    struct ph_pool *p;
    int err = ph_pool_create(&p, pool_path,
                             &(struct ph_pool_options){.size = POOL_SIZE, .keep = KEEP});

    for (uint32_t slot; !err && p->extents < EXTENTS;) {
        pthread_mutex_lock(&p->lock);
        err = ph_extent_grow(p, &slot);
        pthread_mutex_unlock(&p->lock);
    }
    if (err)
        die(ph_error_name(err));
    root_at = p->super.self + PH_PAGE;
    ph_pool_close(p);
}

/* Now and then a file, published at some time; now and then all are given up. */
static int some_file(struct ph_pool *p)
{
    int err = 0;

    if (ph_pool_files(p) == FILES) {
        pthread_mutex_lock(&p->lock);
        err = ph_files_give_up(p);
        p->files.refused = false;
        pthread_mutex_unlock(&p->lock);
    } else if (rnd() % 2) {
        err = store_file(p, ph_pool_files(p));
    }
    return err || rnd() % 4 ? err : ph_pool_file_publish(p);
}

/* An epoch that fills all that is believed to be free, and is given up. */
static int scribble(struct ph_pool *p, uint64_t number)
{
    static uint64_t page[PH_PAGE / 8] __attribute__((aligned(PH_PAGE)));
    const void *from = page;
    int err = ph_pool_begin(p, number);
    uint64_t left = pool_free_pages(p);

    write_odds = 300;
    ph_tuning.heir_run = UINT32_MAX; /* an heir fills its extent only in part */
    for (uint64_t i = 0; i < left && !err; i++) {
        uint64_t addr = (UINT64_C(1) << 40) + i * PH_PAGE;
        model_fill(rnd(), page);
        err = ph_pool_append(p, &addr, &from, 1, NULL);
        if (!err)
            err = ph_queue_flush(p); /* the page is used again */
    }
    ph_pool_abort(p);
    write_odds = 12;
    return err;
}

static void life(void)
{
    struct ph_pool *p;
    struct model m;
    int err = ph_pool_open(&p, pool_path, PH_POOL_WRITE);

    if (err) {
        violated("the next life does not open", ph_error_name(err));
        return;
    }
    read_file(pool_path, current);
    memcpy(durable, current, POOL_SIZE);
    npending = 0;
    if (pwrite(image_fd, durable, POOL_SIZE, 0) != (ssize_t)POOL_SIZE)
        die("writing the image");
    durable_newest = flying_newest = p->epochs ? p->epoch[p->epochs - 1].info.number : 0;
    durable_files = flying_files = p->root.files;
    model_at(&m, seed, durable_newest);
    uint32_t homes;
    bool fewer_homes = false; /* than before the last epoch */
    recording = true;
    for (int i = 0; i < LIFE && !failure[0] && images < wanted && !err; i++) {
        if (rnd() % 8 == 0) { /* an epoch that is given up */
            struct model ahead = m;
            model_step(&ahead);
            err = model_append(&ahead, p);
            ph_pool_abort(p);
        }
        if (!err && m.epoch && (fewer_homes || rnd() % 8 == 0))
            err = scribble(p, m.epoch + 1);
        if (!err)
            err = some_file(p);
        model_step(&m);
        homes = ph_extent_count(p, PH_EXTENT_HOME);
        if (!err)
            err = model_commit(&m, p);
        fewer_homes = ph_extent_count(p, PH_EXTENT_HOME) < homes;
        ph_tuning.heir_run = rnd() % 2 ? 1 : UINT32_MAX; /* homes that were heirs, and not */
    }
    recording = false;
    if (err)
        violated("an epoch fails", ph_error_name(err));
    if (p->extents != EXTENTS)
        die("more extents were needed than there are");
    if (!failure[0]) {
        unsigned char *file = malloc(POOL_SIZE);
        if (!file)
            die("memory");
        read_file(pool_path, file);
        if (memcmp(file, current, POOL_SIZE) != 0)
            violated("the file was changed by something that is not recorded", NULL);
        free(file);
        crash();
        copy_image(copy_path);
    }
    ph_pool_close(p);
    if (!failure[0] && rename(copy_path, pool_path))
        die("rename");
    lives++;
}

static void run(enum ph_wrong wrong, unsigned long n)
{
    ph_tuning.wrong = wrong;
    failure[0] = 0;
    images = lives = continued = 0;
    wanted = n;
    recording = false;
    random_state = seed;
    unlink(pool_path);
    create();
    while (images < wanted && !failure[0]) {
        if (lives % NEW_POOL == NEW_POOL - 1) { /* first epochs are different */
            unlink(pool_path);
            create();
        }
        life();
    }
}

static unsigned long number(const char *name, unsigned long otherwise)
{
    const char *s = getenv(name);

    return s && *s ? strtoul(s, NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
    static const char *const wrong[] = {
        [PH_WRONG_NO_DATA_BARRIER] = "no sync between data and root (P1)",
        [PH_WRONG_NO_RETIRE] = "home written before its epochs are retired (P3)",
        [PH_WRONG_NO_HOME_BARRIER] = "log freed before home is synced (P4)",
        [PH_WRONG_EARLY_REUSE] = "log reused before the root is synced (P5)",
        [PH_WRONG_NO_FILE_BARRIER] = "no sync between files and root (P1)",
        [PH_WRONG_LATE_WRITES] = "sync while writes of the log are pending (W4)",
        [PH_WRONG_EARLY_NAME] = "home named before its table is synced (P7)",
        [PH_WRONG_LATE_UNNAME] = "home reused before its slot is synced (P7)",
        [PH_WRONG_EARLY_HEIR] = "heir named before it is whole (P11)",
        [PH_WRONG_TWO_HOMES] = "home epoch rises before the old home's slot is synced (P11)",
        [PH_WRONG_LATE_VERSION] = "not at home what only an epoch after O has anew (P4)",
    };
    char directory[] = "/dev/shm/pool_crash.XXXXXX", elsewhere[] = "/tmp/pool_crash.XXXXXX";
    const char *dir;
    unsigned caught = 0, orders = 0;
    bool bad;

    ph_tuning = (struct ph_tuning){.stretch_pages = 32,
                                   .trigger_bytes = 2 << 20,
                                   .trigger_epochs = 4,
                                   .heir_run = 1,
                                   .write_max = 16 * PH_PAGE,
                                   .single_threaded = true};
    if (argc == 8 && strcmp(argv[1], "--continue") == 0) {
        seed = strtoull(argv[3], NULL, 10);
        durable_newest = strtoull(argv[4], NULL, 10);
        flying_newest = strtoull(argv[5], NULL, 10);
        durable_files = strtoull(argv[6], NULL, 10);
        flying_files = strtoull(argv[7], NULL, 10);
        return continue_here(argv[2]);
    }
    dir = mkdtemp(directory);
    if (!dir)
        dir = mkdtemp(elsewhere);
    if (!dir)
        die("no directory for temporary files");
    snprintf(pool_path, sizeof(pool_path), "%s/pool", dir);
    snprintf(image_path, sizeof(image_path), "%s/image", dir);
    snprintf(copy_path, sizeof(copy_path), "%s/copy", dir);
    seed = number("PH_CRASH_SEED", 20240229);
    current = malloc(POOL_SIZE);
    durable = malloc(POOL_SIZE);
    image_fd = open(image_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (!current || !durable || image_fd < 0)
        die(image_path);
    ph_io_hooks = &hooks;

    run(PH_WRONG_NONE, number("PH_CRASH_IMAGES", 4000));
    bad = failure[0] != 0;
    printf("pool_crash: %lu images in %lu lives, %lu of them continued: %s%s\n", images, lives,
           continued, bad ? "WRONG: " : "all right", failure);
    for (int i = PH_WRONG_NO_DATA_BARRIER; i <= PH_WRONG_LATE_VERSION; i++) {
        run((enum ph_wrong)i, 4000);
        orders++;
        caught += failure[0] != 0;
        printf("pool_crash: %s: %s after %lu images%s%s\n", wrong[i],
               failure[0] ? "caught" : "NOT CAUGHT", images, failure[0] ? ": " : "", failure);
    }
    printf("pool_crash: %s (%u of %u wrong orders caught)\n",
           bad || caught < orders ? "FAILED" : "passed", caught, orders);
    unlink(pool_path);
    unlink(image_path);
    unlink(copy_path);
    rmdir(dir);
    return bad || caught < orders;
}
