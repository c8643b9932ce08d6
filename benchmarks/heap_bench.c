/* SPDX-License-Identifier: MIT */
/*
 * heap_bench.c - what an allocation costs, beside glibc's in the same run
 *
 * Build and run:  cmake --build build --target heap_bench && build/bin/heap_bench
 * Prints nanoseconds per allocate/free pair, the best of many short rounds of each, as the
 * machine may be busy with other things. Patterns:
 *   pair    one block, allocated and freed again and again
 *   churn   1000 live blocks, a random one replaced each time, of the same size
 *   mixed   the same with sizes from 16 to 512 bytes
 *   bulk    100,000 blocks allocated, then freed in order
 */
#include "allocator/heap.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct allocator {
    const char *name;
    void *(*alloc)(size_t);
    void (*free)(void *);
};

static const struct allocator allocators[] = {
    {"pyheap", ph_heap_malloc, ph_heap_free},
    {"glibc", malloc, free},
};

enum pattern { PAIR, CHURN, MIXED, BULK, PATTERNS };
static const char *const pattern_name[PATTERNS] = {"pair", "churn", "mixed", "bulk"};

#define ROUNDS 50
#define PAIRS  100000 /* a round */
#define LIVE   1000
#define BLOCKS 100000
static void *block[BLOCKS];

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Runs @p pattern and returns the number of pairs. */
static long run(const struct allocator *a, enum pattern pattern, size_t size, long pairs)
{
    uint32_t state = 1;
    switch (pattern) {
    case PAIR:
        for (long i = 0; i < pairs; i++) {
            void *volatile p = a->alloc(size);
            a->free(p);
        }
        return pairs;
    case CHURN:
    case MIXED:
        for (int i = 0; i < LIVE; i++)
            block[i] = a->alloc(size);
        for (long i = 0; i < pairs; i++) {
            uint32_t r = random_next(&state);
            a->free(block[r % LIVE]);
            block[r % LIVE] = a->alloc(pattern == CHURN ? size : 16 + r % 497);
        }
        for (int i = 0; i < LIVE; i++)
            a->free(block[i]);
        return pairs + LIVE;
    default:
        for (long done = 0; done < pairs; done += BLOCKS) {
            for (int i = 0; i < BLOCKS; i++)
                block[i] = a->alloc(size);
            for (int i = 0; i < BLOCKS; i++)
                a->free(block[i]);
        }
        return (pairs + BLOCKS - 1) / BLOCKS * BLOCKS;
    }
}

static double best(const struct allocator *a, enum pattern pattern, size_t size, long pairs)
{
    double least = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double start = seconds();
        long done = run(a, pattern, size, pairs);
        double ns = (seconds() - start) * 1e9 / (double)done;
        if (ns < least)
            least = ns;
    }
    return least;
}

int main(void)
{
    static const size_t sizes[] = {32, 64, 200, 512, 4096, 16384, 65536, 8 << 20};
    int err = ph_heap_init();
    if (err) {
        fprintf(stderr, "heap_bench: the heap's range cannot be reserved (%d)\n", err);
        return 1;
    }
    printf("%-6s %9s %10s %10s   ns per pair\n", "", "bytes", "pyheap", "glibc");
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            if ((pattern == MIXED && i) || (pattern != PAIR && sizes[i] > 512))
                continue;
            double ns[2];
            for (int a = 0; a < 2; a++)
                ns[a] = best(&allocators[a], pattern, sizes[i], PAIRS);
            printf("%-6s %9zu %10.1f %10.1f\n", pattern_name[pattern], sizes[i], ns[0], ns[1]);
        }
    }
    return 0;
}
