/* SPDX-License-Identifier: MIT */
/*
 * restorer_vdso.c - when this kernel's vdso is not the one that the program knows
 *
 * libc has resolved addresses inside the old vdso and keeps them in places that nobody can list
 * (GOT entries of indirect functions among them). So the old image comes back at the old
 * address, and the first instructions of each of its functions become a jump to the same
 * function of the new one, wherever that is.
 */
#include "allocator/syscall.h"
#include "restorer.h"

#include <elf.h>

#define JUMP_SIZE 13 /* movabs $to, %r11; jmp *%r11 */

struct image {
    const Elf64_Sym *symbol;
    const char *strings;
    uint32_t count;
    uint64_t bias; /* address = bias + st_value */
};

/** The number of symbols is not stored; the hash tables know it (System V gABI; DT_GNU_HASH).
 */
static uint32_t gnu_hash_symbols(const uint32_t *table)
{
    uint32_t buckets = table[0], first = table[1], bloom = table[2], last = 0;
    const uint32_t *bucket = table + 4 + bloom * 2, *chain = bucket + buckets;
    for (uint32_t i = 0; i < buckets; i++)
        if (bucket[i] > last)
            last = bucket[i];
    if (last < first)
        return first;
    while (!(chain[last - first] & 1))
        last++;
    return last + 1;
}

static bool read_image(struct image *out, uint64_t base)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)base;
    const Elf64_Phdr *segment = (const Elf64_Phdr *)(base + header->e_phoff);
    const Elf64_Dyn *dynamic = 0;
    *out = (struct image){.bias = base};
    for (unsigned i = 0; i < header->e_phnum; i++) {
        if (segment[i].p_type == PT_LOAD)
            out->bias = base + segment[i].p_offset - segment[i].p_vaddr;
        if (segment[i].p_type == PT_DYNAMIC)
            dynamic = (const Elf64_Dyn *)(base + segment[i].p_offset);
    }
    for (; dynamic && dynamic->d_tag; dynamic++) {
        uint64_t at = out->bias + dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_SYMTAB)
            out->symbol = (const Elf64_Sym *)at;
        else if (dynamic->d_tag == DT_STRTAB)
            out->strings = (const char *)at;
        else if (dynamic->d_tag == DT_HASH)
            out->count = ((const uint32_t *)at)[1];
        else if (dynamic->d_tag == DT_GNU_HASH && !out->count)
            out->count = gnu_hash_symbols((const uint32_t *)at);
    }
    return out->symbol && out->strings && out->count;
}

static bool is_function(const Elf64_Sym *s)
{
    unsigned type = ELF64_ST_TYPE(s->st_info);
    return s->st_shndx != SHN_UNDEF && s->st_value && (type == STT_FUNC || type == STT_NOTYPE);
}

static uint64_t find(const struct image *image, const char *name)
{
    for (uint32_t i = 1; i < image->count; i++)
        if (is_function(&image->symbol[i]) &&
            ph_r_equal(image->strings + image->symbol[i].st_name, name))
            return image->bias + image->symbol[i].st_value;
    return 0;
}

/** The system call that a vdso function stands for; the arguments are the same. -1: none. */
static int call_number(const char *name)
{
    static const struct {
        char name[20];
        int nr;
    } known[] = {{"clock_gettime", SYS_clock_gettime},
                 {"gettimeofday", SYS_gettimeofday},
                 {"time", SYS_time},
                 {"getcpu", SYS_getcpu},
                 {"clock_getres", SYS_clock_getres},
                 {"getrandom", SYS_getrandom}};
    static const char prefix[] = "__vdso_";
    bool prefixed = true;
    for (unsigned i = 0; prefixed && i < sizeof prefix - 1; i++)
        prefixed = name[i] == prefix[i];
    if (prefixed)
        name += sizeof prefix - 1;
    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        if (ph_r_equal(name, known[i].name))
            return known[i].nr;
    return -1;
}

static void write_jump(uint8_t *at, uint64_t to)
{
    at[0] = 0x49, at[1] = 0xbb; /* movabs $to, %r11 */
    for (unsigned i = 0; i < 8; i++)
        at[2 + i] = (uint8_t)(to >> (8 * i));
    at[10] = 0x41, at[11] = 0xff, at[12] = 0xe3; /* jmp *%r11 */
}

static void write_call(uint8_t *at, int nr)
{
    at[0] = 0xb8; /* mov $nr, %eax */
    for (unsigned i = 0; i < 4; i++)
        at[1 + i] = (uint8_t)((unsigned)nr >> (8 * i));
    at[5] = 0x0f, at[6] = 0x05, at[7] = 0xc3; /* syscall; ret */
}

void ph_r_vdso_jumps(uint64_t at, uint64_t size, uint64_t now, uint64_t now_size)
{
    struct image old, new = {0};
    if (!read_image(&old, at))
        ph_r_die(85, "the saved vdso cannot be read", at, 0);
    bool have_new = now_size && read_image(&new, now);
    for (uint32_t i = 1; i < old.count; i++) {
        const Elf64_Sym *s = &old.symbol[i];
        if (!is_function(s))
            continue;
        const char *name = old.strings + s->st_name;
        uint64_t entry = old.bias + s->st_value;
        if (entry < at || entry + JUMP_SIZE > at + size)
            continue;
        uint64_t to = have_new ? find(&new, name) : 0;
        int nr = call_number(name);
        if (to)
            write_jump((uint8_t *)entry, to);
        else if (nr >= 0)
            write_call((uint8_t *)entry, nr);
    }
}
