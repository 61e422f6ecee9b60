/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* Which member takes a packet. */
#pragma once

#include "flows.h"
#include "parse.h"

/* Every drop of a packet to a VIP: `port` has the VIP, and the listener's port and protocol if there is one. */
static __noinline int drop(const struct listener_key *port, __u32 reason)
{
    struct port_drop_key key = {.port = *port, .reason = reason};
    __u64 *count = bpf_map_lookup_elem(&drops, &reason), none = 0;

    if (count)
        *count += 1;
    count = bpf_map_lookup_elem(&port_drops, &key);
    if (!count) {
        bpf_map_update_elem(&port_drops, &key, &none, BPF_NOEXIST);
        count = bpf_map_lookup_elem(&port_drops, &key);
    }
    if (count)
        *count += 1;
    return XDP_DROP;
}

static __always_inline __u32 *vip_flags(const __u8 address[16], __u8 family)
{
    struct vip_key key = {.family = family};

    __builtin_memcpy(key.address, address, sizeof(key.address));
    return bpf_map_lookup_elem(&vips, &key);
}

/* A packet that no listener takes: dropped if it is for a VIP, else the kernel's. */
static __noinline int refuse(const struct flow_key *flow, __u32 reason)
{
    struct listener_key vip = {.family = flow->family};

    if (!vip_flags(flow->destination, flow->family))
        return XDP_PASS;
    __builtin_memcpy(vip.address, flow->destination, sizeof(vip.address));
    return drop(&vip, reason);
}

/* A word's share in a hash: shares are independent, so that a processor works on several at once. */
static __always_inline __u64 share(__u64 word, __u64 factor)
{
    return (word ^ (word >> 32)) * factor;
}

static __always_inline __u64 finish(__u64 sum)
{
    return (sum ^ (sum >> 29)) * 0xbf58476d1ce4e5b9ULL;
}

/* Of a flow's client. What this and the next return is the same on every instance, or a failover would move flows;
 * tests/packets/flows.rs has them too. */
static __always_inline __u64 client_hash(const struct flow_key *flow)
{
    const __u64 *words = (const __u64 *)flow;

    return finish(share(words[0], 0x9e3779b97f4a7c15ULL) + share(words[1], 0xc2b2ae3d27d4eb4fULL));
}

/* Of a whole flow. */
static __always_inline __u64 flow_hash(const struct flow_key *flow)
{
    const __u64 *words = (const __u64 *)flow;

    return finish(share(words[0], 0x9e3779b97f4a7c15ULL) + share(words[1], 0xc2b2ae3d27d4eb4fULL) +
                  share(words[2], 0x165667b19e3779f9ULL) + share(words[3], 0x27d4eb2f165667c5ULL) +
                  share(words[4], 0xff51afd7ed558ccdULL));
}

static __always_inline struct member *alive(__u32 slot)
{
    struct member *member = bpf_map_lookup_elem(&members, &slot);

    return member && (member->flags & MEMBER_ALIVE) ? member : NULL;
}

/* Of generations, an entry of the flow table has 16 bits. */
static __always_inline struct member *owner(__u32 slot, __u32 generation)
{
    struct member *member = alive(slot);

    return member && (__u16)member->generation == (__u16)generation ? member : NULL;
}

/* The member that an entry says, if the slot is still its own. */
static __always_inline struct member *member_of(const struct found *found)
{
    return owner(found->who & 0xffff, found->state >> GENERATION_SHIFT);
}

/* Whether that member may come back. */
static __always_inline bool may_return(const struct found *found)
{
    __u32 slot = found->who & 0xffff;
    struct member *member = bpf_map_lookup_elem(&members, &slot);

    return member && (member->flags & MEMBER_DOWN) &&
           (__u16)member->generation == (__u16)(found->state >> GENERATION_SHIFT);
}

/* The slot at a hash's place in a ring of this size, if that is its size; `size` becomes the ring's. */
static __always_inline bool at_place(void *chunks, __u32 hash, __u32 *size, __u32 *slot)
{
    __u32 place = hash % *size, index = place / CHUNK_SLOTS;
    struct chunk *chunk = bpf_map_lookup_elem(chunks, &index);
    bool found;

    if (!chunk) {
        *size = 0;
        return false;
    }
    found = chunk->size == *size;
    *size = chunk->size;
    place %= CHUNK_SLOTS;
    /* The verifier does not follow a remainder, and clang would drop a check that it sees to be true. */
    asm volatile("" : "+r"(place));
    if (place >= CHUNK_SLOTS)
        return false;
    *slot = chunk->slots[place];
    return found;
}

/* By the ring; `slot` becomes the member's. */
static __always_inline struct member *chosen(const struct listener *listener, const struct flow_key *flow, __u64 hash,
                                             __u32 *slot)
{
    __u32 ring = listener->ring, *known, size, spread;
    void *chunks = bpf_map_lookup_elem(&rings, &ring);

    known = bpf_map_lookup_elem(&ring_sizes, &ring);
    if (!chunks || !known)
        return NULL;
    if (listener->flags & LISTENER_CLIENT_IP)
        hash = client_hash(flow);
    spread = hash >> 32;
    size = *known ? *known : 1;
    if (at_place(chunks, spread, &size, slot))
        return alive(*slot);
    /* The ring is being swapped for one of another size. Chunk 0 is always there. */
    if (!size) {
        size = 1;
        at_place(chunks, 0, &size, slot);
    }
    if (!size || !at_place(chunks, spread, &size, slot))
        return NULL;
    return alive(*slot);
}

static __always_inline bool admitted(__u32 acl, const struct flow_key *flow)
{
    struct source_key key = {.prefix = 8 * (sizeof(key) - sizeof(key.prefix)), .acl = acl};

    __builtin_memcpy(key.address, flow->source, sizeof(key.address));
    return bpf_map_lookup_elem(&sources, &key);
}

static __always_inline void count(__u32 listener, __u64 bytes)
{
    struct traffic *traffic = bpf_map_lookup_elem(&listener_traffic, &listener);

    if (traffic) {
        traffic->packets += 1;
        traffic->bytes += bytes;
    }
}

/* Whether a new flow is entered into `flows`. Above a rate none is: they would push those out that are alive, and the
 * ring sends each of their packets to the same member without an entry, too. The clock is asked once so many began. */
static __always_inline bool recorded(void)
{
    __u32 index = 0;
    struct rate *rate = bpf_map_lookup_elem(&rates, &index);

    if (!rate)
        return false;
    if (rate->flows >= new_flows) {
        __u64 window = bpf_ktime_get_coarse_ns() >> 30;

        if (rate->window != window) {
            rate->window = window;
            rate->flows = 0;
        }
    }
    if (rate->flows >= new_flows) {
        rate->unrecorded += 1;
        return false;
    }
    rate->flows += 1;
    return true;
}

/* Whoever reads looks by himself: nobody is woken for each flow. */
static __always_inline void tell(const struct flow_key *key, __u32 slot, __u32 generation, __u32 tag)
{
    struct told *told;

    if (!paired)
        return;
    told = bpf_ringbuf_reserve(&news, sizeof(*told), 0);
    if (!told)
        return;
    told->key = *key;
    told->slot = slot;
    told->generation = generation;
    told->mark = tag;
    told->over = 1;
    bpf_ringbuf_submit(told, BPF_RB_NO_WAKEUP);
}

static __always_inline struct listener_key port_of(const struct flow_key *flow)
{
    struct listener_key port = {
        .port = flow->destination_port,
        .protocol = flow->protocol,
        .family = flow->family,
    };

    __builtin_memcpy(port.address, flow->destination, sizeof(port.address));
    return port;
}

static __always_inline struct fragment_key fragment_of(const struct packet *packet)
{
    struct fragment_key key = {.id = packet->fragment_id, .family = packet->flow.family};

    __builtin_memcpy(key.source, packet->flow.source, sizeof(key.source));
    __builtin_memcpy(key.destination, packet->flow.destination, sizeof(key.destination));
    if (key.family == FAMILY_V4)
        key.protocol = packet->protocol;
    return key;
}
