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

struct listener_key {
    __u8 address[16];
    __be16 port;
    __u8 protocol;
    __u8 family;
};

struct listener {
    __u32 id;   /* index of its counters */
    __u32 ring; /* index of its pool's ring */
    __u32 acl;  /* id of its source ranges, 0 for everybody */
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
    __u8 mac[6];
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
};

struct flow {
    __u32 slot;
    __u32 generation;
    __u32 tag; /* of the packet that opened it: a second one with the same is its repetition */
};

struct traffic {
    __u64 packets;
    __u64 bytes;
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
