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
//! | `/addresses` | GET | → `[ProjectAddress]`: those of the project's clusters, and those that it has retained |
//! | `/addresses/{address}` | DELETE | gives back a retained address; not with an application credential |
//! | `/clusters/{cluster}/pools/{name}` | PUT, DELETE | [`PoolRequest`] → [`Pool`] |
//! | `/clusters/{cluster}/pools/{pool}/members/{name}` | PUT, DELETE | [`MemberRequest`] → [`Member`] |
//! | `/clusters/{cluster}/load-balancers/{name}` | PUT, DELETE | [`LoadBalancerRequest`] → [`LoadBalancer`] |
//! | `/clusters/{cluster}/node-ports/{port}` | PUT, DELETE | [`NodePortRequest`] → [`NodePort`] |
//! | `/clusters/{cluster}/bundles/{role}` | PUT | [`BundleRequest`] → 204 |
//! | `/clusters/{cluster}/batch` | POST | [`Batch`] → [`ClusterState`] |
//! | `/clusters/{cluster}/kubernetes` | PUT | [`KubernetesRequest`] → [`ClusterState`]; not with an application credential |
//! | `/quota` | GET | → [`Quotas`] of the caller's project |
//! | `/claims/{claim}` | POST, no token | → [`Bundle`], once per server |
//!
//! Errors are a JSON object [`Problem`] with the HTTP status that fits.

mod addresses;
mod client;
mod kubernetes;
mod quota;
mod types;

pub use addresses::*;
pub use client::{Client, Error, TokenSource};
pub use kubernetes::*;
pub use quota::{Quota, Quotas};
pub use types::*;
