//! The cloud controller manager: nodes, load balancers and volumes of one cluster.

fn main() {}
