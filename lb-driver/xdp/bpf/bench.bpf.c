// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* For benches/packets.rs: the least that a balancer must do, and a source of many flows. */
#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before loading. */
volatile const __u16 own_mac[3] = {};

/* What varies from frame to frame. */
struct source {
    __u64 count;
    __u32 flows;   /* so many sources, in turns */
    __u32 vips;    /* so many destinations, in turns */
    __u32 numbers; /* whether each frame has a sequence number of its own */
    __u32 zero;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct source);
} source SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} next SEC(".maps");

/* Only the MAC addresses. */
SEC("xdp")
int limit(struct xdp_md *ctx)
{
    void *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = (void *)(long)ctx->data;
    __u16 *words = (void *)eth;

    if ((void *)(eth + 1) > end)
        return XDP_PASS;
    words[0] = own_mac[0];
    words[1] = own_mac[1];
    words[2] = own_mac[2];
    words[3] = own_mac[0];
    words[4] = own_mac[1];
    words[5] = own_mac[2];
    return XDP_TX;
}

/* Another flow's frame, to `next`. Checksums are not kept: nobody behind looks at them. */
SEC("xdp")
int many(struct xdp_md *ctx)
{
    void *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = (void *)(long)ctx->data;
    __u16 *words = (void *)eth;
    __u32 index = 0, flow, *client, *vip;
    struct source *state = bpf_map_lookup_elem(&source, &index);
    struct tcphdr *tcp;

    if (!state || (void *)(eth + 1) > end)
        return XDP_ABORTED;
    words[0] = own_mac[0];
    words[1] = own_mac[1];
    words[2] = own_mac[2];
    if (eth->h_proto == bpf_htons(ETH_P_IP)) {
        struct iphdr *ip = (void *)(eth + 1);

        tcp = (void *)(ip + 1);
        if ((void *)(tcp + 1) > end)
            return XDP_ABORTED;
        client = &ip->saddr;
        vip = &ip->daddr;
    } else {
        struct ipv6hdr *ip = (void *)(eth + 1);

        tcp = (void *)(ip + 1);
        if ((void *)(tcp + 1) > end)
            return XDP_ABORTED;
        client = &ip->saddr.in6_u.u6_addr32[3];
        vip = &ip->daddr.in6_u.u6_addr32[3];
    }
    state->count += 1;
    flow = state->flows ? state->count % state->flows : state->count;
    *client = bpf_htonl(0x0a000000 + (flow >> 12));
    tcp->source = bpf_htons(1024 + (flow & 0xfff));
    if (state->vips)
        *vip = bpf_htonl(0xc6120000 + flow % state->vips);
    if (state->numbers)
        tcp->seq = state->count;
    bpf_tail_call(ctx, &next, 0);
    return XDP_ABORTED;
}
