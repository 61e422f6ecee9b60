//! AKE's own balancer: an XDP data plane behind a versioned state.
