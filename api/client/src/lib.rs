//! The wire types of `ake-api`, version 1, and a small client for them.
//!
//! Everything a cluster owns hangs below `/v1/clusters/{cluster}`. Names of addresses, pools, members and
//! load balancers are chosen by the writer and are unique within their cluster, so every write is an
//! idempotent `PUT`; a repeated one answers with the object as it stands.
//!
//! | path below `/v1` | methods | body → answer |
//! |---|---|---|
//! | `/clusters` | GET | → `[Cluster]` of the caller's project |
//! | `/clusters/{cluster}` | GET, PUT, DELETE | [`ClusterRequest`] → [`ClusterState`] (GET carries an ETag) |
//! | `/clusters/{cluster}?wait=SECONDS` | GET, with If-None-Match | → [`ClusterState`] as soon as it differs, or 304: the change feed |
//! | `/clusters/{cluster}/deleting` | POST | → [`ClusterState`]; takes nothing new afterwards |
//! | `/clusters/{cluster}/addresses/{name}` | PUT, DELETE | [`AddressRequest`] → [`Address`] |
//! | `/clusters/{cluster}/pools/{name}` | PUT, DELETE | [`PoolRequest`] → [`Pool`] |
//! | `/clusters/{cluster}/pools/{pool}/members/{name}` | PUT, DELETE | [`MemberRequest`] → [`Member`] |
//! | `/clusters/{cluster}/load-balancers/{name}` | PUT, DELETE | [`LoadBalancerRequest`] → [`LoadBalancer`] |
//! | `/clusters/{cluster}/node-ports/{port}` | PUT, DELETE | [`NodePortRequest`] → [`NodePort`] |
//! | `/clusters/{cluster}/bundles/{role}` | PUT | [`BundleRequest`] → 204 |
//! | `/clusters/{cluster}/batch` | POST | [`Batch`] → [`ClusterState`] |
//! | `/claims/{claim}` | POST, no token | → [`Bundle`], once per server |
//!
//! Errors are a JSON object [`Problem`] with the HTTP status that fits.

mod client;
mod types;

pub use client::{Client, Error, TokenSource};
pub use types::*;
