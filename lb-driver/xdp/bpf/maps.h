/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What user space writes and the program reads: settings and maps. Layouts are in layout.h. */
#pragma once

#include "layout.h"

/* Set before loading. */
volatile const __u16 own_mac[3] = {};
/* New flows of a processor in 2^30 ns that are entered into `flows`. */
volatile const __u64 new_flows = 0;
/* Whether another instance is told of flows. */
volatile const __u32 paired = 0;
/* Of a flow's hash, its first bucket's place is what is left of this many bits on. */
volatile const __u32 bucket_shift = 48;
/* Of the hash: secret, and the same as long as the table lives. */
volatile const __u32 seed[20] = {};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct listener_key);
    __type(value, struct listener);
} listeners SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct vip_key);
    __type(value, __u32);
} vips SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct source_key);
    __type(value, __u32);
} sources SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, __u32);
    __array(values, struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __uint(map_flags, BPF_F_INNER_MAP);
        /* Sizes: of a type that is named only here, clang tells the loader nothing but the name. */
        __uint(key_size, sizeof(__u32));
        __uint(value_size, sizeof(struct chunk));
    });
} rings SEC(".maps");

/* Slots of each ring, for a start: the chunk that is found must say the same. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} ring_sizes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct member);
} members SEC(".maps");

/* Nobody maps it into memory; but what could be mapped begins with a page, so that each bucket is one line of a
 * processor's cache. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct bucket);
} flows SEC(".maps");

/* Whose they are, for who reads the table; a packet is compared with them in doubt alone. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct bucket_keys);
} flow_keys SEC(".maps");

/* Flows that began, for the other instance. What does not fit is told when all flows are. */
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1);
} news SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, RECENTS);
    __type(key, __u32);
    __type(value, struct recent);
} recents SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 1);
    __type(key, struct fragment_key);
    __type(value, struct fragment);
} fragments SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct rate);
} rates SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct control);
} control SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct traffic);
} listener_traffic SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} member_flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, DROPS);
    __type(key, __u32);
    __type(value, __u64);
} drops SEC(".maps");

/* Entries are made by the first drop. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct port_drop_key);
    __type(value, __u64);
} port_drops SEC(".maps");
