// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* Direct server return: a packet to a VIP leaves by the port it came in by, with a member's MAC address as its
 * destination and ours as its source. Nothing else in it changes. */
#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "layout.h"
#include "maps.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* <linux/icmp.h> brings the C library in. */
#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO_REQUEST 8
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129

struct icmp {
    __u8 type;
    __u8 code;
    __u16 checksum;
    __u32 rest;
};

/* What a packet is, once parsed. */
struct packet {
    struct flow_key flow;
    __u32 tag;
    __u8 opens;  /* the first packet of a flow, as far as the packet itself tells */
    __u8 stated; /* the protocol says which packet opens a flow */
};

static __always_inline int drop(__u32 reason)
{
    __u64 *count = bpf_map_lookup_elem(&drops, &reason);

    if (count)
        *count += 1;
    return XDP_DROP;
}

static __always_inline bool is_vip(const struct flow_key *flow)
{
    struct vip_key key = {.family = flow->family};

    __builtin_memcpy(key.address, flow->destination, sizeof(key.address));
    return bpf_map_lookup_elem(&vips, &key);
}

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
    return hash ^ (hash >> 32);
}

/* The same on every instance, or a failover would move flows. */
static __always_inline __u32 hash(const struct flow_key *flow, bool client_only)
{
    const __u64 *words = (const __u64 *)flow;
    __u64 hash = mix(mix(0x414b45, words[0]), words[1]);

    if (!client_only)
        hash = mix(mix(mix(hash, words[2]), words[3]), words[4]);
    hash = (hash ^ (hash >> 29)) * 0xbf58476d1ce4e5b9ULL;
    return hash >> 32;
}

static __always_inline struct member *alive(__u32 slot)
{
    struct member *member = bpf_map_lookup_elem(&members, &slot);

    return member && (member->flags & MEMBER_ALIVE) ? member : NULL;
}

static __always_inline struct member *established(const struct flow *flow)
{
    struct member *member;

    if (!flow)
        return NULL;
    member = alive(flow->slot);
    return member && member->generation == flow->generation ? member : NULL;
}

/* By the ring; `slot` becomes the member's. */
static __always_inline struct member *chosen(__u32 ring, __u32 hash, __u32 *slot)
{
    __u32 index = 0, place;
    struct chunk *chunk;
    void *chunks;

    chunks = bpf_map_lookup_elem(&rings, &ring);
    if (!chunks)
        return NULL;
    chunk = bpf_map_lookup_elem(chunks, &index);
    if (!chunk || !chunk->size)
        return NULL;
    place = hash % chunk->size;
    index = place / CHUNK_SLOTS;
    if (index) {
        chunk = bpf_map_lookup_elem(chunks, &index);
        if (!chunk)
            return NULL;
    }
    place %= CHUNK_SLOTS;
    /* The verifier does not follow a remainder, and clang would drop a check that it sees to be true. */
    asm volatile("" : "+r"(place));
    if (place >= CHUNK_SLOTS)
        return NULL;
    *slot = chunk->slots[place];
    return alive(*slot);
}

/* A copy as a whole would lose the `volatile`, and with it the value that is set before loading. */
static __always_inline void sign(struct ethhdr *eth)
{
    for (int i = 0; i < ETH_ALEN; i++)
        eth->h_source[i] = own_mac[i];
}

static __always_inline int forward(struct ethhdr *eth, const struct member *member)
{
    __builtin_memcpy(eth->h_dest, member->mac, ETH_ALEN);
    sign(eth);
    return XDP_TX;
}

static __always_inline bool admitted(__u32 acl, const struct flow_key *flow)
{
    struct source_key key = {.prefix = 8 * (sizeof(key) - sizeof(key.prefix)), .acl = acl};

    __builtin_memcpy(key.address, flow->source, sizeof(key.address));
    return bpf_map_lookup_elem(&sources, &key);
}

static __always_inline int balance(struct ethhdr *eth, struct packet *packet, __u64 bytes)
{
    struct listener_key key = {
        .port = packet->flow.destination_port,
        .protocol = packet->flow.protocol,
        .family = packet->flow.family,
    };
    struct listener *listener;
    struct member *member;
    struct traffic *traffic;
    struct flow *flow;
    __u32 slot = 0;

    __builtin_memcpy(key.address, packet->flow.destination, sizeof(key.address));
    listener = bpf_map_lookup_elem(&listeners, &key);
    if (!listener)
        return is_vip(&packet->flow) ? drop(DROP_NO_LISTENER) : XDP_PASS;
    traffic = bpf_map_lookup_elem(&listener_traffic, &listener->id);
    if (traffic) {
        traffic->packets += 1;
        traffic->bytes += bytes;
    }
    if (listener->acl && !admitted(listener->acl, &packet->flow))
        return drop(DROP_SOURCE_RANGE);

    flow = bpf_map_lookup_elem(&flows, &packet->flow);
    member = established(flow);
    if (member && (!packet->opens || flow->tag == packet->tag))
        return forward(eth, member);

    member = chosen(listener->ring, hash(&packet->flow, listener->flags & LISTENER_CLIENT_IP), &slot);
    if (!member)
        return drop(DROP_NO_MEMBER);
    struct flow began = {.slot = slot, .generation = member->generation, .tag = packet->tag};
    bpf_map_update_elem(&flows, &packet->flow, &began, BPF_ANY);
    /* A packet from the middle of a flow that is not in the table (we were restarted) begins nothing. */
    if (packet->opens || !packet->stated) {
        __u64 *count = bpf_map_lookup_elem(&member_flows, &slot);

        if (count)
            *count += 1;
    }
    return forward(eth, member);
}

/* Ports, and whether the packet opens a flow. */
static __always_inline bool parse_transport(void *header, void *end, struct packet *packet)
{
    struct flow_key *flow = &packet->flow;
    struct tcphdr *tcp = header;
    struct udphdr *udp = header;

    switch (flow->protocol) {
    case IPPROTO_TCP:
        if ((void *)(tcp + 1) > end)
            return false;
        packet->stated = 1;
        packet->opens = tcp->syn && !tcp->ack;
        packet->tag = packet->opens ? tcp->seq : 0;
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
            packet->tag = words[4];
        }
        break;
    }
    }
    flow->source_port = udp->source;
    flow->destination_port = udp->dest;
    return true;
}

static __always_inline __u16 fold(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return sum + (sum >> 16);
}

/* RFC 1624: a checksum after one of its words changed. */
static __always_inline __u16 amend(__u16 check, __u16 from, __u16 to)
{
    return ~fold((__u16)~check + (__u16)~from + to);
}

static __always_inline void turn(struct ethhdr *eth)
{
    __builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
    sign(eth);
}

/* Makes an echo request the reply to it; false for any other message. */
static __always_inline bool echo(struct icmp *icmp, __u8 request, __u8 reply)
{
    __u16 *word = (__u16 *)icmp;
    __u16 was = *word;

    if (icmp->type != request || icmp->code)
        return false;
    icmp->type = reply;
    icmp->checksum = amend(icmp->checksum, was, *word);
    return true;
}

static __always_inline int icmp_v4(struct ethhdr *eth, struct iphdr *ip, struct icmp *icmp, void *end)
{
    __u16 *word = (__u16 *)&ip->ttl;
    __be32 vip = ip->daddr;
    __u16 was = *word;

    if ((void *)(icmp + 1) > end)
        return drop(DROP_MALFORMED);
    if (!echo(icmp, ICMP_ECHO_REQUEST, ICMP_ECHO_REPLY))
        return drop(DROP_ICMP);
    ip->daddr = ip->saddr;
    ip->saddr = vip;
    ip->ttl = 64;
    ip->check = amend(ip->check, was, *word);
    turn(eth);
    return XDP_TX;
}

static __always_inline int icmp_v6(struct ethhdr *eth, struct ipv6hdr *ip, struct icmp *icmp, void *end)
{
    struct in6_addr vip = ip->daddr;

    if ((void *)(icmp + 1) > end)
        return drop(DROP_MALFORMED);
    if (!echo(icmp, ICMPV6_ECHO_REQUEST, ICMPV6_ECHO_REPLY))
        return drop(DROP_ICMP);
    ip->daddr = ip->saddr;
    ip->saddr = vip;
    ip->hop_limit = 64;
    turn(eth);
    return XDP_TX;
}

static __always_inline void map_v4(__u8 address[16], __be32 v4)
{
    __u32 *words = (__u32 *)address;

    words[0] = 0;
    words[1] = 0;
    words[2] = bpf_htonl(0xffff);
    words[3] = v4;
}

static __always_inline int from_v4(struct ethhdr *eth, void *end)
{
    struct iphdr *ip = (void *)(eth + 1);
    struct packet packet = {};
    void *header;

    if ((void *)(ip + 1) > end)
        return XDP_PASS;
    header = (void *)ip + ip->ihl * 4;
    packet.flow.family = FAMILY_V4;
    packet.flow.protocol = ip->protocol;
    map_v4(packet.flow.source, ip->saddr);
    map_v4(packet.flow.destination, ip->daddr);
    if (ip->ihl < 5 || header > end)
        return is_vip(&packet.flow) ? drop(DROP_MALFORMED) : XDP_PASS;
    /* Only the first fragment has ports, and what one node gets of a datagram without the rest is of no use. */
    if (ip->frag_off & bpf_htons(0x3fff))
        return is_vip(&packet.flow) ? drop(DROP_FRAGMENT) : XDP_PASS;
    switch (ip->protocol) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
        if (!parse_transport(header, end, &packet))
            return is_vip(&packet.flow) ? drop(DROP_MALFORMED) : XDP_PASS;
        return balance(eth, &packet, end - (void *)eth);
    case IPPROTO_ICMP:
        return is_vip(&packet.flow) ? icmp_v4(eth, ip, header, end) : XDP_PASS;
    default:
        return is_vip(&packet.flow) ? drop(DROP_NO_LISTENER) : XDP_PASS;
    }
}

static __always_inline int from_v6(struct ethhdr *eth, void *end)
{
    struct ipv6hdr *ip = (void *)(eth + 1);
    struct packet packet = {};

    if ((void *)(ip + 1) > end)
        return XDP_PASS;
    packet.flow.family = FAMILY_V6;
    packet.flow.protocol = ip->nexthdr;
    __builtin_memcpy(packet.flow.source, &ip->saddr, sizeof(packet.flow.source));
    __builtin_memcpy(packet.flow.destination, &ip->daddr, sizeof(packet.flow.destination));
    switch (ip->nexthdr) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
        if (!parse_transport(ip + 1, end, &packet))
            return is_vip(&packet.flow) ? drop(DROP_MALFORMED) : XDP_PASS;
        return balance(eth, &packet, end - (void *)eth);
    case IPPROTO_ICMPV6:
        return is_vip(&packet.flow) ? icmp_v6(eth, ip, (void *)(ip + 1), end) : XDP_PASS;
    case IPPROTO_FRAGMENT:
        return is_vip(&packet.flow) ? drop(DROP_FRAGMENT) : XDP_PASS;
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_DSTOPTS:
        return is_vip(&packet.flow) ? drop(DROP_EXTENSION_HEADER) : XDP_PASS;
    default:
        return is_vip(&packet.flow) ? drop(DROP_NO_LISTENER) : XDP_PASS;
    }
}

SEC("xdp")
int ake_balancer(struct xdp_md *ctx)
{
    void *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = (void *)(long)ctx->data;

    if ((void *)(eth + 1) > end)
        return XDP_PASS;
    /* A bridge floods what it does not know: such frames are somebody else's. */
    for (int i = 0; i < ETH_ALEN; i++)
        if (eth->h_dest[i] != own_mac[i])
            return XDP_PASS;
    switch (eth->h_proto) {
    case bpf_htons(ETH_P_IP):
        return from_v4(eth, end);
    case bpf_htons(ETH_P_IPV6):
        return from_v6(eth, end);
    default:
        return XDP_PASS;
    }
}
