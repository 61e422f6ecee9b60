//! Everything that speaks to the Kubernetes API server.
