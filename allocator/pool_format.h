/* SPDX-License-Identifier: MIT */
/*
 * pool_format.h - what lies in a pool file, and the protocol that keeps it whole
 *
 * Until its first epoch it is a claim (pool_claim.c), one page. Then
 * the file is a libpmemobj pool with the layout name PH_POOL_LAYOUT. libpmemobj owns its
 * headers, lanes and chunk headers. Ours are the root object and the extents:
 *
 *   root object   | superblock page | root record A page | root record B page | slots ... |
 *   extent        | index of a stretch | 64 MiB of pages | a few more pages          |
 *
 * A slot names an extent, an object of one fixed size that libpmemobj allocates straight into
 * the slot, so no crash leaks one. An extent is free, or home of one stretch of the program's
 * address space (64 MiB, 16384 pages, with a table of their checksums), or part of the log.
 * Extents are never given back to libpmemobj; they change between the three.
 *
 * Or part of the files: copies of what the program maps from files, its text above all.
 *
 * An epoch in the log is: pages, those of stretches that it has changed most of in *heirs*,
 * each an extent with the pages where they will be at home; then one blob, [index
 * entries][record], in one or more pieces; then a header page that names the pieces, their
 * checksums and the header of the epoch before. A file is: its content, in one or more pieces,
 * the last page filled up with zeros; then a header page that names the pieces and the header
 * of the file before. The root record names the newest one. A file with the content of another
 * has its pieces. All numbers are little-endian. All offsets are bytes from the start of the
 * file.
 *
 * Definitions. N is the newest epoch, O the oldest recoverable one, H the home epoch, all as
 * the newer intact root record says. The *log* is the chain of epochs e with H < e <= N,
 * linked backward from N. The *files* are the chain that a root record names. A root record
 * *reaches* its log, its files, and all that their headers name.
 * *Durable* means written, then fdatasync returned 0.
 *
 * Invariants:
 *  P1 commit   A root record that names N, or a file, is written only after all that it
 *              reaches is durable.
 *  P2 order    H < O <= N, or N = O = 0. Epochs O..N of the log are recoverable.
 *  P3 retire   A home page or its table entry changes only at addresses of which the log
 *              has a version v, H < v < O, and after both root records durably say O.
 *              Likewise what lies in an heir: the log has it, or one that overwrites it.
 *              But a page whose table entry is durably zero may become a hole, after both
 *              root records say H: nobody reads it.
 *  P4 home     A root record says H = m only after the newest version <= m of every page in
 *              the log, and its table entry, is durable at home; but for pages of which the
 *              log has a version v, m < v <= O, since P6 never looks for them there.
 *  P5 reuse    A segment of an extent, or the rest of one, is written only where neither
 *              root record reaches. So both records are renewed when H rises, N falls or
 *              files are given up. (With P3, this makes the older record right too, should
 *              the newer one be lost.)
 *  P6 read     A page at epoch e, O <= e <= N, is its newest version <= e in the log;
 *              without one, what is at home if its table entry is not zero; else absent. P3
 *              makes it so that a half-written home page is never what P6 reads.
 *  P7 stretch  A slot says home only after the stretch's table is durable zeros (or P11),
 *              and an extent that was home is reused only after its slot durably says so no
 *              more, and H has risen since, by which readers notice.
 *  P8 trust    Nothing read from the file is used before its checksum or bounds are
 *              checked.
 *  P9 sector   Root records and slots do not cross a 512-byte sector, the unit that a disk
 *              writes whole.
 *  P10 files   Files never cost an epoch: damage to them is the same as having none, and
 *              where an epoch finds no room they are given up.
 *  P11 heir    The slot of an heir says home only after all of the stretch that P4 asks for
 *              with some m, H < m < O, is durable in it: so with H it is as right as the old
 *              home, since the log has all pages in which they differ. H rises to m only
 *              after the heir's slot durably says home, and the old home's durably does not.
 *              While both say so, the heir is the one that the log refers to, and the other
 *              may be reused as P7 says.
 */
#ifndef PH_POOL_FORMAT_H
#define PH_POOL_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define PH_POOL_LAYOUT   "pyheap"
#define PH_POOL_VERSION  5u /* 1 had no files, 2 no marks; 3, 4 no heirs */

#define PH_CLAIM_MAGIC   UINT64_C(0x4d494c4350454850) /* "PHEPCLIM" */
#define PH_SUPER_MAGIC   UINT64_C(0x4b4c425045485950) /* "PYHEPBLK" */
#define PH_ROOT_MAGIC    UINT64_C(0x544f4f5250454850) /* "PHEPROOT" */
#define PH_HEADER_MAGIC  UINT64_C(0x434f504550454850) /* "PHEPEPOC" */

#define PH_FILE_MAGIC    UINT64_C(0x454c494650454850) /* "PHEPFILE" */

#define PH_SECTOR        512
#define PH_STRETCH_PAGES 16384u /* 64 MiB */
#define PH_RECENT_MAX    20
#define PH_PIECES_MAX    192
#define PH_FILE_PIECES   160

/* XXH3-128. Of a page never zero, which stands for absent; and its highest bit is not the
 * hash's, but says whether the page may hold the owner of a lock (lock_shape.h). */
#define PH_SUM_MARK      (UINT64_C(1) << 63) /* in hi */
struct ph_sum_pm {
    uint64_t lo, hi;
};

/* Alone in its file, in the place of a pool that is made with the first epoch (pool_claim.c).
 */
struct ph_claim_pm {
    uint64_t magic;
    uint32_t version;
    uint32_t keep;
    uint64_t file_size; /* of the pool to be */
    uint64_t created;   /* CLOCK_REALTIME, nanoseconds */
    uint64_t id[2];     /* random; the pool's */
    char command[512];
    struct ph_sum_pm sum; /* of all above */
};

/* Written once, at creation. version comes right after magic in every version. */
struct ph_super_pm {
    uint64_t magic;
    uint32_t version;
    uint32_t stretch_pages; /* pages of a stretch */
    uint32_t extent_pages;  /* pages of an extent: table, stretch, and what is left over */
    uint32_t slot_count;
    uint64_t self;        /* offset of this page */
    uint64_t root_object; /* offset and size of libpmemobj's root object */
    uint64_t root_size;
    uint64_t slots; /* offset of the slots, page-aligned */
    uint64_t file_size;
    uint64_t created; /* CLOCK_REALTIME, nanoseconds */
    uint64_t id[2];   /* random */
    uint32_t keep;
    uint32_t reserved;
    char command[512];
    struct ph_sum_pm sum; /* of all above */
};

/* An epoch's header page: where it is, for a root record. */
struct ph_recent_pm {
    uint64_t number;
    uint64_t header;
};

struct ph_root_pm {
    uint64_t magic;
    uint64_t seq; /* the record with the greater one is the newer; its parity is its place */
    uint64_t id[2];
    uint64_t oldest;     /* O */
    uint64_t home_epoch; /* H */
    uint64_t home_pages;
    uint32_t state; /* enum ph_pool_state */
    int32_t exit_status;
    struct ph_recent_pm recent[PH_RECENT_MAX]; /* N first; more, to step over a damaged one */
    uint64_t files;                            /* how many */
    uint64_t files_head;                       /* header of the newest; 0: there are none */
    uint64_t reserved[12];
    struct ph_sum_pm sum; /* of all above */
};

#define PH_SLOT_NONE 0u
#define PH_SLOT_HOME 1u

struct ph_slot_pm {
    uint64_t oid[2]; /* a PMEMoid, written by libpmemobj; all zero: empty */
    /* The rest is ours. */
    uint64_t stretch; /* first address of the stretch at home here */
    uint32_t role;    /* PH_SLOT_* */
    uint32_t check;   /* over oid[1], stretch, role; 0 if role is none */
};

struct ph_entry_pm {
    uint64_t addr;
    uint64_t offset; /* of the page; 0: forgotten by this epoch */
    struct ph_sum_pm sum;
};

struct ph_piece_pm {
    uint64_t offset;
    uint64_t size; /* bytes; the next piece goes on where this ends */
};

struct ph_header_pm {
    uint64_t magic;
    uint32_t version;
    uint32_t pieces;
    uint64_t id[2];
    uint64_t number;
    uint64_t prev_number; /* the epoch before; 0: none */
    uint64_t prev_header;
    uint64_t time;        /* CLOCK_REALTIME, nanoseconds */
    uint64_t entries;     /* index entries, ascending by address */
    uint64_t pages;       /* of them, not forgotten */
    uint64_t bytes;       /* of log taken, this page included, heirs not */
    uint64_t record_size; /* bytes */
    struct ph_sum_pm index_sum, record_sum;
    char label[64];
    struct ph_piece_pm piece[PH_PIECES_MAX];
    uint64_t heir_bytes; /* of pages in heirs */
    uint64_t reserved[101];
    struct ph_sum_pm sum; /* of all above */
};

/* A file's header page. */
struct ph_stored_pm {
    uint64_t magic;
    uint32_t version;
    uint32_t pieces;
    uint64_t id[2];
    uint64_t number;      /* of the file: 1, 2, ... */
    uint64_t prev_header; /* of file number - 1; 0: none */
    uint64_t size;        /* bytes, as of the pieces together */
    uint64_t mtime_ns;
    struct ph_sum_pm path_sum; /* XXH3-128 of the whole path, without its end */
    struct ph_sum_pm content_sum;
    char path[1024]; /* for people: the end of a path that does not fit */
    struct ph_piece_pm piece[PH_FILE_PIECES];
    uint64_t reserved[50];
    struct ph_sum_pm sum; /* of all above */
};

_Static_assert(sizeof(struct ph_sum_pm) == 16, "on-media");
_Static_assert(sizeof(struct ph_claim_pm) == 576 &&
                   offsetof(struct ph_claim_pm, version) == 8 &&
                   offsetof(struct ph_claim_pm, sum) == 560,
               "on-media");
_Static_assert(sizeof(struct ph_stored_pm) == 4096, "on-media");
_Static_assert(sizeof(struct ph_super_pm) == 624 &&
                   offsetof(struct ph_super_pm, version) == 8 &&
                   offsetof(struct ph_super_pm, sum) == 608,
               "on-media");
_Static_assert(sizeof(struct ph_root_pm) == PH_SECTOR, "on-media, P9");
_Static_assert(sizeof(struct ph_slot_pm) == 32 && PH_SECTOR % sizeof(struct ph_slot_pm) == 0,
               "on-media, P9");
_Static_assert(sizeof(struct ph_entry_pm) == 32, "on-media");
_Static_assert(sizeof(struct ph_header_pm) == 4096, "on-media");

#endif
