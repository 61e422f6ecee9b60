/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* The flow table: two buckets of four for each flow, each bucket one line of a processor's cache; so a flow is found, or
 * known to be new, with two waits for memory that go on at once, and nothing is locked.
 *
 * `who` says all that decides where a packet goes, in one word that is read and written at once: whose flow it is, and
 * the member. It changes hands by compare-exchange: from what was read to BUSY, then `state`, then the new word. Who
 * reads looks at it again after `state`; what changed meanwhile was not found. A writer that comes second leaves it: its
 * flow goes by the ring, and is entered by its next packet. Reads and writes keep their order where the processor keeps
 * it: build.rs lets no other one pass. */
#pragma once

#include "print.h"

#define READ(word) (*(volatile __u64 *)&(word))
#define WRITE(word, value) (*(volatile __u64 *)&(word) = (value))

/* A flow's two buckets, and what it is called there. */
struct spot {
    struct bucket *first, *second;
    __u32 places[2];
    __u64 print;
};

/* An entry as it was read. */
struct found {
    struct flow *flow;
    __u64 who, state;
    __u32 index; /* from 0 to 2 * WAYS - 1 */
};

static __always_inline bool locate(const struct flow_key *key, bool v4, struct spot *spot)
{
    __u64 hash = seeded_hash((const __u64 *)key, v4);

    spot->print = print_of(hash);
    spot->places[0] = hash >> bucket_shift;
    spot->places[1] = across(hash) >> bucket_shift;
    spot->first = bpf_map_lookup_elem(&flows, &spot->places[0]);
    spot->second = bpf_map_lookup_elem(&flows, &spot->places[1]);
    return spot->first && spot->second;
}

/* Has the memory's answer come while other things are done. */
static __always_inline void await(const struct spot *spot)
{
    READ(spot->first->flows[0].who);
    READ(spot->second->flows[0].who);
}

static __always_inline struct flow *entry(const struct spot *spot, __u32 index)
{
    return &(index < WAYS ? spot->first : spot->second)->flows[index % WAYS];
}

static __always_inline bool find(const struct spot *spot, struct found *found)
{
#pragma unroll
    for (__u32 index = 0; index < 2 * WAYS; index++) {
        struct flow *flow = entry(spot, index);
        __u64 who = READ(flow->who);

        if (who >> PRINT_SHIFT == spot->print) {
            found->state = READ(flow->state);
            if (READ(flow->who) != who)
                continue;
            found->flow = flow;
            found->who = who;
            found->index = index;
            return true;
        }
    }
    return false;
}

static __always_inline __u32 now(void)
{
    return bpf_jiffies64() >> AGE_JIFFIES_SHIFT & AGE_MASK;
}

static __always_inline struct flow_key *key_of(const struct spot *spot, const struct found *found)
{
    __u32 place = found->index < WAYS ? spot->places[0] : spot->places[1];
    struct bucket_keys *keys = bpf_map_lookup_elem(&flow_keys, &place);

    return keys ? &keys->keys[found->index % WAYS] : NULL;
}

/* Whether an entry that was let in by other terms is this flow's, or one that is called the same. */
static __always_inline bool is_of(const struct spot *spot, const struct found *found, const struct flow_key *key)
{
    const __u64 *a = (const __u64 *)key_of(spot, found), *b = (const __u64 *)key;

    return a && a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4];
}

/* Only of an entry that is BUSY: nobody else writes it meanwhile, so each key is that of its print. */
static __always_inline void keep_key(const struct spot *spot, const struct found *found, const struct flow_key *key)
{
    struct flow_key *kept = key_of(spot, found);

    if (kept)
        *kept = *key;
    /* The compiler, too, must not write `who` before. */
    asm volatile("" : : : "memory");
}

/* Makes it younger, and keeps what a packet found out. An entry that changed meanwhile stays as it is. */
static __always_inline void refresh(const struct found *found, __u64 state)
{
    if (state != found->state)
        __sync_val_compare_and_swap(&found->flow->state, found->state, state);
}

/* 1 for 0, else 0, without a branch: the verifier follows each way of each, and there are eight. */
static __always_inline __u32 is_zero(__u64 who)
{
    __u64 negative = -who;

    asm volatile("" : "+r"(negative));
    return ((who | negative) >> 63) ^ 1;
}

/* Which entry gives way to a new flow: a free one of the bucket that has more of them; else one that was seen once
 * before those that were seen again; of those the oldest. */
static __always_inline void victim(const struct spot *spot, struct found *found)
{
    __u32 time = now(), best = 0, free = 0, frees[2] = {}, second;

#pragma unroll
    for (__u32 index = 0; index < 2 * WAYS; index++) {
        __u32 is_free = is_zero(READ(entry(spot, index)->who));

        free |= is_free << index;
        frees[index / WAYS] += is_free;
    }
    second = (frees[0] - frees[1]) >> 31;
#pragma unroll
    for (__u32 index = 0; index < 2 * WAYS; index++) {
        __u32 mark = READ(entry(spot, index)->state) >> AGE_SHIFT, is_free = free >> index & 1;
        __u32 rank = ((time - mark) & AGE_MASK) | (~mark & SEEN) | is_free << 16 |
                     (is_free & (index < WAYS ? second ^ 1 : second)) << 17;

        rank = rank << 3 | index;
        if (rank >= best)
            best = rank;
    }
    found->index = best & 7;
    found->flow = entry(spot, found->index);
    found->who = READ(found->flow->who);
}

/* Writes an entry, if it is still the one that was read. */
static __always_inline bool enter(const struct spot *spot, const struct found *found, const struct flow_key *key,
                                  __u32 slot, __u64 state)
{
    struct flow *flow = found->flow;

    if (found->who == BUSY || __sync_val_compare_and_swap(&flow->who, found->who, BUSY) != found->who)
        return false;
    keep_key(spot, found, key);
    WRITE(flow->state, state);
    WRITE(flow->who, spot->print << PRINT_SHIFT | (slot & 0xffff));
    return true;
}
