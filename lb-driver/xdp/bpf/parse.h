/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* From headers to a flow. */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>

#include "layout.h"

/* IEEE 802.1Q, after the addresses. */
struct vlan {
    __be16 tag;
    __be16 protocol;
};

/* <linux/icmp.h> brings the C library in. */
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_PARAMETER_PROBLEM 4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define ICMPV6_SOLICITATION 135
#define ICMPV6_ADVERTISEMENT 136

struct icmp {
    __u8 type;
    __u8 code;
    __u16 checksum;
    __u32 rest;
};

/* RFC 8200, section 4.5. */
struct fragment_header {
    __u8 next;
    __u8 reserved;
    __be16 offset; /* in units of 8 bytes, from bit 3 on; bit 0: more follow */
    __be32 id;
};

#define V4_MORE 0x2000
#define V4_OFFSET 0x1fff
#define V6_MORE 0x0001
#define V6_OFFSET 0xfff8

/* Extension headers that are stepped over. */
#define EXTENSIONS 4

enum part {
    WHOLE,
    FIRST, /* fragment: it has the ports */
    LATER,
};

/* What a packet is, once parsed. */
struct packet {
    struct flow_key flow;
    __u32 number; /* of one that opens a flow: its repetition has the same */
    __u32 fragment_id;
    __u8 opens;  /* the first packet of a flow, as far as the packet itself tells */
    __u8 stated; /* the protocol says which packet opens a flow */
    __u8 part;
    __u8 protocol;
};

/* A key is written in the words that it is read in: a processor waits for its own writes if it reads several at once. */
static __always_inline __u64 join(__u32 first, __u32 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return first | (__u64)second << 32;
#else
    return (__u64)first << 32 | second;
#endif
}

static __always_inline void map_v4(__u64 address[2], __be32 v4)
{
    address[0] = 0;
    address[1] = join(bpf_htonl(0xffff), v4);
}

static __always_inline void copy_v6(__u64 address[2], const struct in6_addr *v6)
{
    const __u32 *words = v6->in6_u.u6_addr32;

    address[0] = join(words[0], words[1]);
    address[1] = join(words[2], words[3]);
}

#define SOURCE(flow) ((__u64 *)(flow))
#define DESTINATION(flow) ((__u64 *)(flow) + 2)

/* All of a key behind the addresses. */
static __always_inline __u64 ports_word(__u32 ports, __u8 protocol, __u8 family)
{
    return join(ports, bpf_htonl((__u32)protocol << 24 | (__u32)family << 16));
}

static __always_inline void set_ports(struct flow_key *flow, __u32 ports, __u8 protocol, __u8 family)
{
    ((__u64 *)flow)[4] = ports_word(ports, protocol, family);
}

/* Addresses, protocol and part of a packet; where its transport header begins, or why it has none. */
static __always_inline void *parse_v4(struct iphdr *ip, void *end, struct packet *packet, __u32 *refused)
{
    struct flow_key *flow = &packet->flow;
    void *header = (void *)ip + ip->ihl * 4;

    packet->protocol = ip->protocol;
    map_v4(SOURCE(flow), ip->saddr);
    map_v4(DESTINATION(flow), ip->daddr);
    set_ports(flow, 0, 0, FAMILY_V4);
    if (ip->ihl < 5 || header > end) {
        *refused = DROP_MALFORMED;
        return NULL;
    }
    if (ip->frag_off & bpf_htons(V4_MORE | V4_OFFSET)) {
        packet->part = ip->frag_off & bpf_htons(V4_OFFSET) ? LATER : FIRST;
        packet->fragment_id = ip->id;
    }
    return header;
}

static __always_inline void *parse_v6(struct ipv6hdr *ip, void *end, struct packet *packet, __u32 *refused)
{
    struct flow_key *flow = &packet->flow;
    void *header = ip + 1;
    __u8 next = ip->nexthdr;

    copy_v6(SOURCE(flow), &ip->saddr);
    copy_v6(DESTINATION(flow), &ip->daddr);
    set_ports(flow, 0, 0, FAMILY_V6);
    for (int i = 0; i <= EXTENSIONS; i++) {
        if (next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS) {
            struct ipv6_opt_hdr *options = header;

            if ((void *)(options + 1) > end) {
                *refused = DROP_MALFORMED;
                return NULL;
            }
            next = options->nexthdr;
            header += (options->hdrlen + 1) * 8;
        } else if (next == IPPROTO_FRAGMENT) {
            struct fragment_header *fragment = header;

            if ((void *)(fragment + 1) > end || packet->part != WHOLE) {
                *refused = DROP_MALFORMED;
                return NULL;
            }
            next = fragment->next;
            header = fragment + 1;
            if (fragment->offset & bpf_htons(V6_MORE | V6_OFFSET)) {
                packet->part = fragment->offset & bpf_htons(V6_OFFSET) ? LATER : FIRST;
                packet->fragment_id = fragment->id;
            }
            if (packet->part == LATER)
                return header;
        } else if (next == IPPROTO_ROUTING || next == IPPROTO_AH) {
            break;
        } else {
            packet->protocol = next;
            return header;
        }
    }
    *refused = DROP_EXTENSION_HEADER;
    return NULL;
}

/* Ports, and whether the packet opens a flow. */
static __always_inline bool parse_transport(void *header, void *end, struct packet *packet, __u8 family)
{
    struct tcphdr *tcp = header;
    struct udphdr *udp = header;

    switch (packet->protocol) {
    case IPPROTO_TCP:
        if ((void *)(tcp + 1) > end)
            return false;
        packet->stated = 1;
        packet->opens = tcp->syn && !tcp->ack;
        packet->number = packet->opens ? tcp->seq : 0;
        break;
    case IPPROTO_UDP:
        if ((void *)(udp + 1) > end)
            return false;
        break;
    case IPPROTO_SCTP: {
        /* ports, verification tag, checksum; then the first chunk: INIT comes alone, with tag 0 */
        __u32 *words = header;

        if ((void *)(words + 3) > end)
            return false;
        packet->stated = 1;
        if (words[1] == 0 && (void *)(words + 5) <= end && *(__u8 *)(words + 3) == 1) {
            packet->opens = 1;
            packet->number = words[4];
        }
        break;
    }
    }
    set_ports(&packet->flow, *(__u32 *)header, packet->protocol, family);
    return true;
}
