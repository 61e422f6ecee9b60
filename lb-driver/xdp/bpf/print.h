/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* What a flow is called in its table, and where it stands there. src/table.rs has it, too. build.rs takes this file for a
 * part of the layout: with another one, flows begin anew. */
#pragma once

#include "maps.h"

/* Of a bucket. */
#define WAYS 4

#define PRINT_SHIFT 16
#define PRINT_MASK 0xffffffffffffULL
#define BUSY 1ULL

#define TERMS_MASK 0xffffffU
#define GENERATION_SHIFT 24
#define TAG_SHIFT 40
#define AGE_SHIFT 48
#define AGE_MASK 0x7fffU
#define SEEN 0x8000U /* above the age */

/* One step of the age: 0.5 to 5 s, by the kernel's HZ; all of them: 4.6 to 46 h. */
#define AGE_JIFFIES_SHIFT 9

/* UMAC's NH (RFC 4418, 5.2.2): two flows have the same sum by one of 2^32 seeds. Of IPv4, words 0 and 2 say nothing. */
static __always_inline __u64 seeded_sum(const __u64 words[5], const volatile __u32 *seed, bool v4)
{
    __u64 sum = 0;

#pragma unroll
    for (int i = 0; i < 5; i++) {
        if (v4 && (i == 0 || i == 2))
            continue;
        sum += (__u64)((__u32)words[i] + seed[2 * i]) * (__u32)((__u32)(words[i] >> 32) + seed[2 * i + 1]);
    }
    return sum;
}

static __always_inline __u64 stir(__u64 sum, __u64 factor)
{
    sum = (sum ^ (sum >> 32)) * factor;
    return sum ^ (sum >> 29);
}

static __always_inline __u64 seeded_hash(const __u64 words[5], bool v4)
{
    return stir(seeded_sum(words, seed, v4), 0x9e3779b97f4a7c15ULL) +
           stir(seeded_sum(words, seed + 10, v4), 0xbf58476d1ce4e5b9ULL);
}

/* The lower 48 bits of a hash are the print, the upper ones say the buckets: the second is as far from the first as
 * from it back, and by the print alone, so that an entry tells in any size of the table where it belongs. */
static __always_inline __u64 print_of(__u64 hash)
{
    hash &= PRINT_MASK;
    return hash ? hash : 1;
}

static __always_inline __u64 across(__u64 hash)
{
    return hash ^ (((print_of(hash) * 0xff51afd7ed558ccdULL) | 1ULL << 48) & ~PRINT_MASK);
}

/* Of a packet that opens a flow: its repetition has the same. */
static __always_inline __u32 tag_of(__u32 number)
{
    return number * 0x9e3779b1U >> 24;
}

static __always_inline __u64 state_of(__u32 seen_and_age, __u32 tag, __u32 generation, __u32 terms)
{
    return (__u64)seen_and_age << AGE_SHIFT | (__u64)(tag & 0xff) << TAG_SHIFT |
           (__u64)(generation & 0xffff) << GENERATION_SHIFT | (terms & TERMS_MASK);
}
