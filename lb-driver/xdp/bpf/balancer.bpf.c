// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* Direct server return: a packet to a VIP leaves by the port it came in by, with a member's MAC address as its
 * destination and ours as its source. Nothing else in it changes. */
#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "answer.h"
#include "choose.h"
#include "hear.h"
#include "layout.h"
#include "maps.h"
#include "parse.h"
#include "recent.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

static __always_inline int forward(struct ethhdr *eth, const __u16 mac[3])
{
    copy_mac(eth->h_dest, mac);
    copy_mac(eth->h_source, own_mac);
    return XDP_TX;
}

/* Has the fragments follow that come after the first. */
static __always_inline void lead(const struct packet *packet, __u32 slot, const struct listener *listener,
                                 const struct member *member)
{
    struct fragment_key key = fragment_of(packet);
    struct fragment fragment = {.slot = slot, .generation = member->generation, .listener = listener->id};

    bpf_map_update_elem(&fragments, &key, &fragment, BPF_ANY);
}

/* The member of a flow that no entry answers for, by the ring; `slot` becomes its slot. `found` is the entry that does
 * not answer, if any: the old flow of these ports is over, or its member is down or gone. Nobody else has the state of
 * a connection, so the entry of one waits for a member that is down, here and with the other instance. */
static __always_inline struct member *begin(const struct packet *packet, bool v4, const struct listener *listener,
                                            const struct spot *spot, struct found *found, __u32 *slot)
{
    __u32 tag = packet->opens ? tag_of(packet->number) : 0;
    const struct flow_key *key = &packet->flow;
    struct member *member = chosen(listener, key, flow_hash(key), slot);
    bool stays = found->flow && packet->stated && !packet->opens && may_return(found);

    if (packet->opens)
        forget((const __u64 *)key, v4);
    if (!member)
        return NULL;
    if (!stays && (found->flow || recorded())) {
        __u64 state = state_of(now(), tag, member->generation, listener->terms);

        if (!found->flow)
            victim(spot, found);
        if (enter(spot, found, key, *slot, state))
            tell(key, *slot, member->generation, tag);
    }
    /* A packet from the middle of a flow that is not in the table (we were restarted) begins nothing. */
    if (packet->opens || !packet->stated) {
        __u64 *flows_of_member = bpf_map_lookup_elem(&member_flows, slot);

        if (flows_of_member)
            *flows_of_member += 1;
    }
    return member;
}

static __always_inline int balance(struct ethhdr *eth, const struct packet *packet, bool v4, __u64 bytes)
{
    const struct flow_key *key = &packet->flow;
    struct listener_key port = port_of(key);
    __u32 epoch = current_epoch(), slot;
    struct member *member = NULL;
    struct found found = {};
    struct listener *listener;
    struct spot spot;
    bool let_in;

    if (!locate(key, v4, &spot))
        return XDP_ABORTED;
    await(&spot);
    listener = bpf_map_lookup_elem(&listeners, &port);
    if (!listener)
        return refuse(key, DROP_NO_LISTENER);
    count(listener->id, bytes);
    let_in = find(&spot, &found) && (found.state & TERMS_MASK) == listener->terms;
    if (!let_in && listener->acl && !admitted(listener->acl, key))
        return drop(&port, DROP_SOURCE_RANGE);
    if (found.flow && (!packet->opens || (__u8)(found.state >> TAG_SHIFT) == tag_of(packet->number)) &&
        (let_in || is_of(&spot, &found, key)))
        member = member_of(&found);
    /* Only a connection is lost elsewhere; one that still begins is none. */
    if (member && (packet->opens || !packet->stated) && (member->flags & MEMBER_UNWELL))
        member = NULL;
    if (member) {
        __u32 seen = packet->opens ? found.state >> AGE_SHIFT & SEEN : SEEN;

        slot = found.who & 0xffff;
        refresh(&found,
                state_of(seen | now(), found.state >> TAG_SHIFT, found.state >> GENERATION_SHIFT, listener->terms));
        if (!packet->opens && packet->part == WHOLE)
            keep((const __u64 *)key, v4, listener->id, member, epoch);
    } else {
        member = begin(packet, v4, listener, &spot, &found, &slot);
        if (!member)
            return drop(&port, DROP_NO_MEMBER);
    }
    if (packet->part == FIRST)
        lead(packet, slot, listener, member);
    return forward(eth, member->mac);
}

/* A fragment without ports goes where the first one went. */
static __always_inline int follow(struct ethhdr *eth, const struct packet *packet, __u64 bytes)
{
    struct fragment_key key = fragment_of(packet);
    struct fragment *fragment = bpf_map_lookup_elem(&fragments, &key);
    struct member *member;

    if (!fragment)
        return refuse(&packet->flow, DROP_FRAGMENT);
    member = owner(fragment->slot, fragment->generation);
    if (!member)
        return refuse(&packet->flow, DROP_NO_MEMBER);
    count(fragment->listener, bytes);
    return forward(eth, member->mac);
}

/* An error about a packet that a member sent: `sent` is that packet's flow, seen from the client's side, as the packets
 * of the client are. */
static __always_inline int return_error(struct ethhdr *eth, const struct flow_key *sent, bool v4, __u64 bytes)
{
    struct listener_key port = port_of(sent);
    struct listener *listener = bpf_map_lookup_elem(&listeners, &port);
    struct member *member = NULL;
    struct found found = {};
    struct spot spot;
    __u32 slot = 0;

    if (!listener)
        return refuse(sent, DROP_ICMP);
    count(listener->id, bytes);
    if (listener->acl && !admitted(listener->acl, sent))
        return drop(&port, DROP_SOURCE_RANGE);
    if (locate(sent, v4, &spot) && find(&spot, &found))
        member = member_of(&found);
    if (!member)
        member = chosen(listener, sent, flow_hash(sent), &slot);
    return member ? forward(eth, member->mac) : drop(&port, DROP_NO_MEMBER);
}

/* Turns the flow of a packet that is quoted in an error round; false where the packet is not one from `vip`. */
static __always_inline bool turn_round(struct packet *sent, void *header, void *end, const struct flow_key *outer)
{
    __u64 *source = SOURCE(&sent->flow), *destination = DESTINATION(&sent->flow);
    const __u64 *vip = DESTINATION(outer);
    struct udphdr *ports = header;
    __u64 client[2];

    /* Eight bytes of the transport header are all that an error must quote. */
    if ((void *)(ports + 1) > end || source[0] != vip[0] || source[1] != vip[1])
        return false;
    client[0] = destination[0];
    client[1] = destination[1];
    destination[0] = source[0];
    destination[1] = source[1];
    source[0] = client[0];
    source[1] = client[1];
    sent->flow.source_port = ports->dest;
    sent->flow.destination_port = ports->source;
    sent->flow.protocol = sent->protocol;
    return true;
}

static __always_inline int icmp_v4(struct ethhdr *eth, struct iphdr *ip, struct icmp *icmp, void *end,
                                   struct packet *packet)
{
    struct iphdr *quoted = (void *)(icmp + 1);
    struct packet sent = {};
    __u32 refused = 0;
    void *header;

    if ((void *)(icmp + 1) > end)
        return refuse(&packet->flow, DROP_MALFORMED);
    if (packet->part == FIRST)
        return refuse(&packet->flow, DROP_FRAGMENT);
    switch (icmp->type) {
    case ICMP_ECHO_REQUEST:
        if (icmp->code || !vip_flags(packet->flow.destination, FAMILY_V4))
            break;
        return echo_v4(eth, ip, icmp);
    case ICMP_UNREACHABLE:
    case ICMP_TIME_EXCEEDED:
    case ICMP_PARAMETER_PROBLEM:
        if ((void *)(quoted + 1) > end)
            return refuse(&packet->flow, DROP_MALFORMED);
        header = parse_v4(quoted, end, &sent, &refused);
        if (!header || sent.part == LATER || !turn_round(&sent, header, end, &packet->flow))
            break;
        return return_error(eth, &sent.flow, true, end - (void *)eth);
    }
    return refuse(&packet->flow, DROP_ICMP);
}

static __always_inline int icmp_v6(struct ethhdr *eth, struct ipv6hdr *ip, struct icmp *icmp, void *end,
                                   struct packet *packet)
{
    struct ipv6hdr *quoted = (void *)(icmp + 1);
    struct packet sent = {};
    __u32 refused = 0;
    void *header;

    if ((void *)(icmp + 1) > end)
        return refuse(&packet->flow, DROP_MALFORMED);
    if (packet->part == FIRST)
        return refuse(&packet->flow, DROP_FRAGMENT);
    switch (icmp->type) {
    case ICMPV6_ECHO_REQUEST:
        if (icmp->code || !vip_flags(packet->flow.destination, FAMILY_V6))
            break;
        return echo_v6(eth, ip, icmp);
    case ICMPV6_SOLICITATION:
        return answer_solicitation(eth, ip, (void *)icmp, end);
    case ICMPV6_UNREACHABLE ... ICMPV6_PARAMETER_PROBLEM:
        if ((void *)(quoted + 1) > end)
            return refuse(&packet->flow, DROP_MALFORMED);
        header = parse_v6(quoted, end, &sent, &refused);
        if (!header || sent.part == LATER || !turn_round(&sent, header, end, &packet->flow))
            break;
        return return_error(eth, &sent.flow, false, end - (void *)eth);
    }
    return refuse(&packet->flow, DROP_ICMP);
}

static __always_inline int from_v4(struct ethhdr *eth, struct iphdr *ip, void *end)
{
    struct packet packet = {};
    __u32 refused = 0;
    void *header;

    if ((void *)(ip + 1) > end)
        return XDP_PASS;
    if (ip->ihl == 5 && !(ip->frag_off & bpf_htons(V4_MORE | V4_OFFSET)) && goes_on(ip->protocol, ip + 1, end)) {
        __u64 key[5];

        map_v4(key, ip->saddr);
        map_v4(key + 2, ip->daddr);
        key[4] = ports_word(*(__u32 *)(ip + 1), ip->protocol, FAMILY_V4);
        if (sent(eth, key, true, end - (void *)eth))
            return XDP_TX;
    }
    header = parse_v4(ip, end, &packet, &refused);
    if (!header)
        return refuse(&packet.flow, refused);
    if (packet.part == LATER)
        return follow(eth, &packet, end - (void *)eth);
    switch (packet.protocol) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
        if (!parse_transport(header, end, &packet, FAMILY_V4))
            return refuse(&packet.flow, DROP_MALFORMED);
        return balance(eth, &packet, true, end - (void *)eth);
    case IPPROTO_ICMP:
        return icmp_v4(eth, ip, header, end, &packet);
    default:
        return refuse(&packet.flow, DROP_NO_LISTENER);
    }
}

static __always_inline int from_v6(struct ethhdr *eth, struct ipv6hdr *ip, void *end)
{
    struct packet packet = {};
    __u32 refused = 0;
    void *header;

    if ((void *)(ip + 1) > end)
        return XDP_PASS;
    if (goes_on(ip->nexthdr, ip + 1, end)) {
        __u64 key[5];

        copy_v6(key, &ip->saddr);
        copy_v6(key + 2, &ip->daddr);
        key[4] = ports_word(*(__u32 *)(ip + 1), ip->nexthdr, FAMILY_V6);
        if (sent(eth, key, false, end - (void *)eth))
            return XDP_TX;
    }
    header = parse_v6(ip, end, &packet, &refused);
    if (!header)
        return refuse(&packet.flow, refused);
    if (packet.part == LATER)
        return follow(eth, &packet, end - (void *)eth);
    switch (packet.protocol) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
        if (!parse_transport(header, end, &packet, FAMILY_V6))
            return refuse(&packet.flow, DROP_MALFORMED);
        return balance(eth, &packet, false, end - (void *)eth);
    case IPPROTO_ICMPV6:
        return icmp_v6(eth, ip, header, end, &packet);
    default:
        return refuse(&packet.flow, DROP_NO_LISTENER);
    }
}

/* From many to many: only neighbours who ask. */
static __always_inline int from_group(struct ethhdr *eth, __be16 protocol, void *network, void *end)
{
    struct neighbour *asked = network + sizeof(struct ipv6hdr);
    struct ipv6hdr *ip = network;

    if (protocol == bpf_htons(ETH_P_ARP))
        return answer_arp(eth, network, end);
    if (protocol != bpf_htons(ETH_P_IPV6) || (void *)(asked + 1) > end || ip->nexthdr != IPPROTO_ICMPV6 ||
        asked->icmp.type != ICMPV6_SOLICITATION)
        return XDP_PASS;
    return answer_solicitation(eth, ip, asked, end);
}

SEC("xdp")
int ake_balancer(struct xdp_md *ctx)
{
    void *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = (void *)(long)ctx->data;
    const __u16 *words = (void *)eth;
    void *network = eth + 1;
    __be16 protocol;

    if (network > end)
        return XDP_PASS;
    protocol = words[6];
    if (protocol == bpf_htons(ETH_P_8021Q)) {
        struct vlan *vlan = network;

        network = vlan + 1;
        if (network > end)
            return XDP_PASS;
        protocol = vlan->protocol;
    }
    if (words[0] != own_mac[0] || words[1] != own_mac[1] || words[2] != own_mac[2])
        /* A bridge floods what it does not know: such frames are somebody else's. */
        return eth->h_dest[0] & 1 ? from_group(eth, protocol, network, end) : XDP_PASS;
    switch (protocol) {
    case bpf_htons(ETH_P_IP):
        return from_v4(eth, network, end);
    case bpf_htons(ETH_P_IPV6):
        return from_v6(eth, network, end);
    case bpf_htons(ETH_P_ARP):
        return answer_arp(eth, network, end);
    default:
        return XDP_PASS;
    }
}
