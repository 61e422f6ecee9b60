/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* Flows that the other instance of a pair tells of, entered as packets enter theirs: user space runs this program over
 * them. */
#pragma once

#include "choose.h"

/* As many as fit into what a program is run over: a page, less the kernel's share. */
#define MOST_TOLD 60

static __noinline int hear(const struct told *told)
{
    __u32 age = (now() - (told->mark >> 16)) & AGE_MASK, seen = told->mark >> 8 & 1 ? SEEN : 0;
    struct flow_key key = told->key;
    struct found found = {};
    struct spot spot;
    __u64 state;

    if (!locate(&key, key.family == FAMILY_V4, &spot))
        return 0;
    find(&spot, &found);
    if (found.flow && !told->over)
        return 0;
    /* Whom the port lets in is asked by the first packet that comes. */
    state = state_of(seen | age, told->mark, told->generation, 0);
    if (!found.flow)
        victim(&spot, &found);
    return enter(&spot, &found, &key, told->slot, state);
}

/* Answers what time it is, as the table counts it. */
SEC("xdp")
int ake_hear(struct xdp_md *ctx)
{
    void *end = (void *)(long)ctx->data_end;
    struct told *told = (void *)(long)ctx->data;

    for (int i = 0; i < MOST_TOLD; i++, told++) {
        if ((void *)(told + 1) > end)
            break;
        hear(told);
    }
    return now();
}
