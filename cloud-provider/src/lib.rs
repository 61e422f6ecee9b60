//! The cloud controller manager and the node agent.
