/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* What most packets need: what this processor knows of their flow already, without a call into the kernel. */
#pragma once

#include "choose.h"

/* Words of a packet are not aligned. */
typedef __u64 __attribute__((may_alias)) head_word;

/* A frame's addresses: `head` has the member's, and the beginning of ours. */
static __always_inline int send(struct ethhdr *eth, const __u16 head[4])
{
    __u16 *words = (__u16 *)eth;

    *(head_word *)eth = *(const head_word *)head;
    words[4] = own_mac[1];
    words[5] = own_mac[2];
    return XDP_TX;
}

static __always_inline __u32 current_epoch(void)
{
    __u32 index = 0;
    struct control *state = bpf_map_lookup_elem(&control, &index);

    return state ? state->epoch : 0;
}

/* Where a processor keeps what it knows of a flow. */
static __always_inline struct recent *recent_of(const __u64 key[5], bool v4)
{
    __u64 sum = (key[1] >> 32) * 0x9e3779b97f4a7c15ULL + (__u32)key[4] * 0xc2b2ae3d27d4eb4fULL +
                (key[3] >> 32) * 0xff51afd7ed558ccdULL;
    __u32 place;

    if (!v4)
        sum += key[0] * 0x165667b19e3779f9ULL + (__u32)key[1] * 0x27d4eb2f165667c5ULL + key[2] + (key[3] << 32);
    place = sum >> 52;
    return bpf_map_lookup_elem(&recents, &place);
}

/* Of IPv4, words 0 and 2 say nothing, and word 4 says that it is IPv4. */
static __always_inline bool is_about(const struct recent *recent, const __u64 key[5], bool v4)
{
    return recent->key[4] == key[4] && recent->key[1] == key[1] && recent->key[3] == key[3] &&
           (v4 || (recent->key[0] == key[0] && recent->key[2] == key[2]));
}

static __always_inline bool tells(const struct recent *recent, const __u64 key[5], bool v4, __u32 epoch)
{
    return is_about(recent, key, v4) && recent->epoch == epoch &&
           (__u32)bpf_jiffies64() - recent->since < RECENT_JIFFIES;
}

/* Whether a packet, which is no fragment, goes on with a flow that another one opened; else it must be looked at. */
static __always_inline bool goes_on(__u8 protocol, const void *header, const void *end)
{
    const __u8 *bytes = header;

    switch (protocol) {
    case IPPROTO_TCP:
        return (void *)(bytes + sizeof(struct tcphdr)) <= end && (bytes[13] & 0x12) != 0x02; /* SYN without ACK */
    case IPPROTO_UDP:
        return (void *)(bytes + sizeof(struct udphdr)) <= end;
    case IPPROTO_SCTP:
        return (void *)(bytes + 12) <= end && *(const __u32 *)(bytes + 4); /* INIT has tag 0 */
    default:
        return false;
    }
}

/* Sends a packet where the one before it went, if that is known. */
static __always_inline bool sent(struct ethhdr *eth, const __u64 key[5], bool v4, __u64 bytes)
{
    struct recent *recent = recent_of(key, v4);

    if (!recent || !tells(recent, key, v4, current_epoch()))
        return false;
    count(recent->listener, bytes);
    send(eth, recent->head);
    return true;
}

/* What is known of a flow is known of the one before it on the same ports, too: a new one begins without. */
static __always_inline void forget(const __u64 key[5], bool v4)
{
    struct recent *recent = recent_of(key, v4);

    if (recent && is_about(recent, key, v4))
        recent->key[4] = 0;
}

/* `epoch` is the one from before all was looked up. */
static __always_inline void keep(const __u64 key[5], bool v4, __u32 listener, const struct member *member, __u32 epoch)
{
    struct recent *recent = recent_of(key, v4);

    if (!recent)
        return;
    __builtin_memcpy(recent->key, key, sizeof(recent->key));
    recent->head[0] = member->mac[0];
    recent->head[1] = member->mac[1];
    recent->head[2] = member->mac[2];
    recent->head[3] = own_mac[0];
    recent->listener = listener;
    recent->epoch = epoch;
    recent->since = bpf_jiffies64();
}
