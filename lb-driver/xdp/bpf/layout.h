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
/* It may come back to its flows; a slot without flags is nobody's. */
#define MEMBER_DOWN 2
/* Beside ALIVE: it keeps its connections, and nothing else goes to it. */
#define MEMBER_UNWELL 4

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
    __u32 id;    /* index of its counters */
    __u32 ring;  /* index of its pool's ring */
    __u32 acl;   /* id of its source ranges, 0 for everybody */
    __u32 terms; /* whom it lets in: a fingerprint of 24 bits, never 0 */
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

/* Where a flow is remembered; flows.h says how it is read and written. */
struct flow {
    __u64 who;   /* the flow's print, 48 bits, and its member's slot; 0: nobody's */
    __u64 state; /* from the top: seen again 1, age 15, tag 8, generation 16, terms 24 */
};

/* One line of a processor's cache. */
struct bucket {
    struct flow flows[4];
};

/* Of the flows of a bucket. */
struct bucket_keys {
    struct flow_key keys[4];
};

/* The other instance of a pair is told of a flow that began, and tells of flows. */
struct told {
    struct flow_key key;
    __u32 slot;
    __u32 generation;
    __u32 mark; /* tag, seen again at bit 8, age at bit 16 */
    __u32 over; /* whether it holds against what is known already */
};

/* What a processor found out about a flow's packets, in one line of its cache. It holds in the epoch in which it was
 * found, and not for long: the flow's entry must not pass for one that nobody uses. */
struct recent {
    __u64 key[5];
    __u16 head[4]; /* a frame's first 8 bytes: the member's address, and the beginning of ours */
    __u32 listener;
    __u32 epoch;
    __u32 since; /* in jiffies */
    __u32 zero;
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
