//! The node agent: what every node of a cluster runs besides Kubernetes' own programs.
//!
//! One program, `ake-node-agent`, with one subcommand per systemd unit, so that each unit has only the capabilities
//! that its job needs: [`join`] turns the claim in user data into this node's files, [`network`] keeps routes, the
//! CNI configuration and the guard rules, [`csi`] serves kubelet's volume calls, [`vip`] holds the API server's VIP
//! on a master, [`report`] tells Heat how the first start went.

pub mod api;
pub mod bundle;
pub mod config;
pub mod csi;
pub mod files;
pub mod join;
pub mod netlink;
pub mod network;
pub mod pki;
pub mod render;
pub mod report;
pub mod vip;
