//! Nodes: addresses, provider id, labels, address pairs, and life cycle.
