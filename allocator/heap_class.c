/* SPDX-License-Identifier: MIT */
/*
 * heap_class.c - size classes
 *
 * Steps of 16 bytes up to 512, as CPython's objects are many and small; then eight classes to
 * a doubling, so that at most an eighth of a block is lost; above 4 KiB the sizes are what a
 * slab holds n of, so that no more is lost at the slab's end than rounding to 128 bytes costs.
 * Powers of two are always among them: a slot of such a class is aligned to its size.
 */
#include "heap_internal.h"

const uint16_t ph_class_size[PH_CLASSES] = {
    16,   32,   48,   64,   80,   96,   112,  128,  144,   160,   176,   192,   208,   224,
    240,  256,  272,  288,  304,  320,  336,  352,  368,   384,   400,   416,   432,   448,
    464,  480,  496,  512,  576,  640,  704,  768,  832,   896,   960,   1024,  1152,  1280,
    1408, 1536, 1664, 1792, 1920, 2048, 2304, 2560, 2816,  3072,  3328,  3584,  3840,  4096,
    4608, 4992, 5376, 5888, 6528, 7168, 8192, 9344, 10880, 13056, 16384, 21760, 32768,
};

uint8_t ph_class_by_16[1024 / 16 + 1];
uint8_t ph_class_by_128[PH_SMALL_MAX / 128 + 1];

static void fill(uint8_t *table, unsigned entries, unsigned step)
{
    unsigned c = 0;
    for (unsigned i = 0; i < entries; i++) {
        while (ph_class_size[c] < i * step)
            c++;
        table[i] = (uint8_t)c;
    }
}

void ph_class_init(void)
{
    fill(ph_class_by_16, sizeof ph_class_by_16, 16);
    fill(ph_class_by_128, sizeof ph_class_by_128, 128);
}
