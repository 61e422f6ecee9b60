/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* What the balancer answers itself: echo requests, and neighbours that ask for VIPs on the link. */
#pragma once

#include "choose.h"

/* RFC 826, for IPv4 over Ethernet. */
struct arp {
    __be16 hardware;
    __be16 protocol;
    __u8 lengths[2];
    __be16 operation;
    __u16 sender_mac[3];
    __be32 sender;
    __u16 target_mac[3];
    __be32 target;
} __attribute__((packed));

#define ARP_REQUEST 1
#define ARP_REPLY 2

/* RFC 4861, sections 4.3 and 4.4, with the one option that is needed: a link-layer address. */
struct neighbour {
    struct icmp icmp;
    struct in6_addr target;
    __u8 option;
    __u8 length; /* in units of 8 bytes */
    __u16 mac[3];
};

#define OPTION_SOURCE 1
#define OPTION_TARGET 2
#define SOLICITED_OVERRIDE 0x60000000

static __always_inline void copy_mac(void *to, const volatile void *from)
{
    const volatile __u16 *source = from;
    __u16 *words = to;

    words[0] = source[0];
    words[1] = source[1];
    words[2] = source[2];
}

static __always_inline void turn(struct ethhdr *eth)
{
    copy_mac(eth->h_dest, eth->h_source);
    copy_mac(eth->h_source, own_mac);
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

/* Makes an echo request the reply to it. */
static __always_inline void echo(struct icmp *icmp, __u8 reply)
{
    __u16 *word = (__u16 *)icmp;
    __u16 was = *word;

    icmp->type = reply;
    icmp->checksum = amend(icmp->checksum, was, *word);
}

static __always_inline int echo_v4(struct ethhdr *eth, struct iphdr *ip, struct icmp *icmp)
{
    __u16 *word = (__u16 *)&ip->ttl;
    __be32 vip = ip->daddr;
    __u16 was = *word;

    echo(icmp, ICMP_ECHO_REPLY);
    ip->daddr = ip->saddr;
    ip->saddr = vip;
    ip->ttl = 64;
    ip->check = amend(ip->check, was, *word);
    turn(eth);
    return XDP_TX;
}

static __always_inline int echo_v6(struct ethhdr *eth, struct ipv6hdr *ip, struct icmp *icmp)
{
    struct in6_addr vip = ip->daddr;

    echo(icmp, ICMPV6_ECHO_REPLY);
    ip->daddr = ip->saddr;
    ip->saddr = vip;
    ip->hop_limit = 64;
    turn(eth);
    return XDP_TX;
}

/* Whether neighbours get an answer from this instance when they ask for an address. */
static __always_inline bool answers_for(const __u8 address[16], __u8 family)
{
    __u32 *flags = vip_flags(address, family), index = 0;
    struct control *state;

    if (!flags || !(*flags & VIP_ON_LINK))
        return false;
    state = bpf_map_lookup_elem(&control, &index);
    return state && !(state->flags & CONTROL_STANDBY);
}

static __always_inline int answer_arp(struct ethhdr *eth, struct arp *arp, void *end)
{
    __u64 address[2];
    __be32 vip;

    if ((void *)(arp + 1) > end || arp->operation != bpf_htons(ARP_REQUEST) || arp->hardware != bpf_htons(1) ||
        arp->protocol != bpf_htons(ETH_P_IP) || arp->lengths[0] != ETH_ALEN || arp->lengths[1] != 4)
        return XDP_PASS;
    vip = arp->target;
    /* Who asks for its own address tells it: the instance that was active before, most of the time. */
    if (vip == arp->sender)
        return XDP_PASS;
    map_v4(address, vip);
    if (!answers_for((__u8 *)address, FAMILY_V4))
        return XDP_PASS;
    arp->operation = bpf_htons(ARP_REPLY);
    copy_mac(arp->target_mac, arp->sender_mac);
    arp->target = arp->sender;
    copy_mac(arp->sender_mac, own_mac);
    arp->sender = vip;
    turn(eth);
    return XDP_TX;
}

/* The checksum of an advertisement. */
static __always_inline __u16 checksum(const struct ipv6hdr *ip, const struct neighbour *neighbour)
{
    const __u16 *addresses = (const __u16 *)&ip->saddr, *words = (const __u16 *)neighbour;
    __u32 sum = bpf_htons(sizeof(*neighbour)) + bpf_htons(IPPROTO_ICMPV6);

    for (int i = 0; i < 16; i++)
        sum += addresses[i] + words[i];
    return ~fold(sum);
}

/* A solicitation without the asker's link-layer address is the kernel's: of one who makes sure that nobody has the
 * address (RFC 4862). */
static __always_inline int answer_solicitation(struct ethhdr *eth, struct ipv6hdr *ip, struct neighbour *asked, void *end)
{
    struct in6_addr asker = ip->saddr;

    if ((void *)(asked + 1) > end || asked->icmp.code || ip->hop_limit != 255 || asked->option != OPTION_SOURCE ||
        asked->length != 1 || !answers_for(asked->target.s6_addr, FAMILY_V6))
        return XDP_PASS;
    ip->payload_len = bpf_htons(sizeof(*asked));
    ip->saddr = asked->target;
    ip->daddr = asker;
    asked->icmp.type = ICMPV6_ADVERTISEMENT;
    asked->icmp.checksum = 0;
    asked->icmp.rest = bpf_htonl(SOLICITED_OVERRIDE);
    asked->option = OPTION_TARGET;
    copy_mac(asked->mac, own_mac);
    asked->icmp.checksum = checksum(ip, asked);
    turn(eth);
    return XDP_TX;
}
