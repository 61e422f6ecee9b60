//! The node agent: routes, the CNI configuration, guard rules and the units of a node.
