// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* Checks of a VIP by way of one member: what leaves with that member's mark leaves to its MAC address, whatever the
 * neighbour table says. Nothing else is touched. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* src/probe.rs has both. */
#define MARK 0x414b0000
#define MARK_MASK 0xffff0000

struct station {
    __u8 mac[6];
    __u16 known;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct station);
} stations SEC(".maps");

SEC("classifier")
int ake_probe(struct __sk_buff *skb)
{
    __u32 index = skb->mark & ~MARK_MASK;
    struct station *station;

    if ((skb->mark & MARK_MASK) != MARK)
        return TC_ACT_UNSPEC;
    station = bpf_map_lookup_elem(&stations, &index);
    if (!station || !station->known)
        return TC_ACT_SHOT;
    if (bpf_skb_store_bytes(skb, 0, station->mac, ETH_ALEN, 0))
        return TC_ACT_SHOT;
    return TC_ACT_UNSPEC;
}
