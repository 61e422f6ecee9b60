//! Services of type LoadBalancer.
