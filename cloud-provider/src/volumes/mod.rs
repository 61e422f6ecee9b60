//! Cinder volumes: provisioning, attaching, and the CSI node service.
