/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* What the program and src/layout.rs share. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; the family stands
 * beside them, so that an IPv6 packet to such an address is not taken for IPv4. Ports are in network order. */
#pragma once

#include <linux/types.h>

#define FAMILY_V4 4
#define FAMILY_V6 6

/* A ring is an array of chunks. 512 bytes each: the smallest ring, 251 slots, is one chunk. */
#define CHUNK_SLOTS 254

#define LISTENER_CLIENT_IP 1

#define MEMBER_ALIVE 1

/* Neighbours ask for the address: no router sends us what is for it. */
#define VIP_ON_LINK 1

/* Another instance answers neighbours. */
#define CONTROL_STANDBY 1

struct listener_key {
    __u8 address[16];
    __be16 port;
    __u8 protocol;
    __u8 family;
} __attribute__((aligned(4)));

struct listener {
    __u32 id;    /* index of its counters and its terms */
    __u32 ring;  /* index of its pool's ring */
    __u32 acl;   /* id of its source ranges, 0 for everybody */
    __u32 terms; /* whom it lets in: a fingerprint, never 0 */
    __u32 flags;
};

struct vip_key {
    __u8 address[16];
    __u32 family;
};

struct source_key {
    __u32 prefix; /* of what follows, in bits */
    __u32 acl;
    __u8 address[16];
};

struct chunk {
    __u32 size; /* slots of the whole ring; the same in each chunk */
    __u16 slots[CHUNK_SLOTS];
};

struct member {
    __u16 mac[3];
    __u16 flags;
    __u32 generation; /* a flow of another generation was the slot's former owner's */
};

struct flow_key {
    __u8 source[16];
    __u8 destination[16];
    __be16 source_port;
    __be16 destination_port;
    __u8 protocol;
    __u8 family;
    __u16 zero;
} __attribute__((aligned(8), may_alias));

struct flow {
    __u32 slot;
    __u32 generation;
    __u32 tag; /* of the packet that opened it: a second one with the same is its repetition */
    __u32 listener;
    __u32 terms; /* of the listener when it last let the flow in; others: ask again */
};

/* What the other instance of a pair is told of a flow that began. */
struct news {
    struct flow_key key;
    struct flow flow;
};

/* What a processor found out about a flow's packets, in one line of its cache. It holds in the epoch in which it was
 * found, and not for long: the flow's entry must not pass for one that nobody uses. */
struct recent {
    struct flow_key key;
    __u16 mac[3];
    __u16 zero;
    __u32 listener;
    __u32 epoch;
    __u32 since; /* in jiffies */
    __u32 unused;
};

#define RECENTS 4096 /* 12 bits of a hash */
#define RECENT_JIFFIES 100 /* 0.1 to 1 s */

/* Of a datagram in fragments: only the first of them has ports. */
struct fragment_key {
    __u8 source[16];
    __u8 destination[16];
    __u32 id;
    __u8 protocol; /* IPv4 only */
    __u8 family;
    __u16 zero;
} __attribute__((aligned(8)));

struct fragment {
    __u32 slot;
    __u32 generation;
    __u32 listener;
};

struct traffic {
    __u64 packets;
    __u64 bytes;
};

/* New flows of a processor in this second or so. */
struct rate {
    __u64 window;
    __u64 flows;
    __u64 unrecorded; /* since loading */
};

struct control {
    __u32 flags;
    __u32 epoch; /* another one after each change of listeners or members */
};

struct port_drop_key {
    struct listener_key port; /* port and protocol 0 where the VIP has no such listener */
    __u32 reason;
};

/* src/layout.rs has their names, in this order. */
enum drop {
    DROP_MALFORMED,
    DROP_FRAGMENT,
    DROP_EXTENSION_HEADER,
    DROP_NO_LISTENER,
    DROP_SOURCE_RANGE,
    DROP_NO_MEMBER,
    DROP_ICMP,
    DROPS,
};
