//! Every path of the API, with what it takes and answers.

use std::sync::Arc;

use ake_api_client::{
    Address, AddressRequest, Batch, Bundle, BundleRequest, Cluster, ClusterRequest, ClusterState,
    KubernetesRequest, LoadBalancer, LoadBalancerRequest, Member, MemberRequest, NodePort, NodePortRequest,
    Pool, PoolRequest, ProjectAddress, Quotas,
};
use axum::{Router, http::Method};
use serde_json::{Value, json};

use super::{
    App, handlers,
    handlers::LONGEST_WAIT,
    health, openapi,
    openapi::{Api, Operation},
    parts, versions,
};

const ADDRESSES: &str = "/v1/addresses";

const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

const CLUSTER: &str = "/v1/clusters/{cluster}";
const ADDRESS: &str = "/v1/clusters/{cluster}/addresses/{name}";
const POOL: &str = "/v1/clusters/{cluster}/pools/{name}";
const MEMBER: &str = "/v1/clusters/{cluster}/pools/{pool}/members/{name}";
const LOAD_BALANCER: &str = "/v1/clusters/{cluster}/load-balancers/{name}";
const NODE_PORT: &str = "/v1/clusters/{cluster}/node-ports/{port}";

/// The routes that need a token, those that do not, and the description of both.
pub(super) fn routes() -> (Router<Arc<App>>, Router<Arc<App>>, Value) {
    let api = about_clusters(Api::new());
    let api = about_parts(about_addresses(api));
    about_itself(api).finish()
}

fn about_clusters(api: Api) -> Api {
    let wait = |operation: Operation| {
        let schema = json!({"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT});
        operation.query(
            "wait",
            false,
            schema,
            "With If-None-Match, seconds to wait until the state, member health included, is other than it says.",
        )
    };
    api.on(
        |api| api.read::<Vec<Cluster>>("/v1/clusters", "The project's clusters; for an application credential its own."),
        handlers::list,
    )
    .on(
        |api| api.read::<Quotas>("/v1/quota", "What the project has of what it may have."),
        handlers::quota,
    )
    .on(
        |api| wait(api.read::<ClusterState>(CLUSTER, "All that a cluster owns; the change feed.")).tagged(),
        handlers::get,
    )
    .on(
        |api| api.write::<ClusterRequest, ClusterState>(PUT, CLUSTER, "Registers a cluster.").tagged(),
        handlers::register,
    )
    .on(
        |api| {
            api.write::<(), ()>(DELETE, CLUSTER, "Forgets a cluster whose servers are gone, and frees what it had.")
                .tagged()
        },
        handlers::delete_cluster,
    )
    .on(
        |api| {
            let path = "/v1/clusters/{cluster}/deleting";
            let about = "Marks a cluster as going away: its load balancers but the API server's go, nothing new is taken.";
            api.write::<(), ClusterState>(POST, path, about).tagged()
        },
        handlers::mark_deleting,
    )
    .on(
        |api| {
            let path = "/v1/clusters/{cluster}/batch";
            api.write::<Batch, ClusterState>(POST, path, "Writes that take effect together or not at all.").tagged()
        },
        handlers::batch,
    )
    .on(
        |api| {
            let path = "/v1/clusters/{cluster}/kubernetes";
            let about = "Says which Kubernetes writes for a cluster from now on. An application credential may not: a copied \
                         cloud.conf has it as well.";
            api.write::<KubernetesRequest, ClusterState>(PUT, path, about).tagged()
        },
        handlers::put_kubernetes,
    )
    .on(
        |api| {
            let path = "/v1/clusters/{cluster}/bundles/{role}";
            api.write::<BundleRequest, ()>(PUT, path, "Stores a role's sealed bundle.").tagged()
        },
        handlers::put_bundle,
    )
}

fn about_addresses(api: Api) -> Api {
    api.on(
        |api| {
            let about = "The project's addresses: those of its clusters, and those that outlived theirs.";
            api.read::<Vec<ProjectAddress>>(ADDRESSES, about)
        },
        handlers::addresses,
    )
    .on(
        |api| {
            let about = "Gives back an address that outlived its cluster. An application credential may not: it is one cluster's.";
            api.write::<(), ()>(DELETE, "/v1/addresses/{address}", about)
        },
        handlers::release_address,
    )
}

fn about_parts(api: Api) -> Api {
    api.on(|api| api.read::<Address>(ADDRESS, "A VIP.").tagged(), parts::get_address)
        .on(
            |api| api.write::<AddressRequest, Address>(PUT, ADDRESS, "Asks for a VIP.").tagged(),
            parts::put_address,
        )
        .on(|api| api.write::<(), ()>(DELETE, ADDRESS, "Frees a VIP.").tagged(), parts::delete_address)
        .on(|api| api.read::<Pool>(POOL, "A set of nodes.").tagged(), parts::get_pool)
        .on(
            |api| api.write::<PoolRequest, Pool>(PUT, POOL, "Writes a set of nodes.").tagged(),
            parts::put_pool,
        )
        .on(|api| api.write::<(), ()>(DELETE, POOL, "Removes a pool.").tagged(), parts::delete_pool)
        .on(|api| api.read::<Member>(MEMBER, "A node of a pool.").tagged(), parts::get_member)
        .on(
            |api| api.write::<MemberRequest, Member>(PUT, MEMBER, "Writes one node of a pool.").tagged(),
            parts::put_member,
        )
        .on(|api| api.write::<(), ()>(DELETE, MEMBER, "Removes a member.").tagged(), parts::delete_member)
        .on(
            |api| api.read::<LoadBalancer>(LOAD_BALANCER, "A VIP's listeners.").tagged(),
            parts::get_load_balancer,
        )
        .on(
            |api| {
                let about = "Writes a VIP's listeners.";
                api.write::<LoadBalancerRequest, LoadBalancer>(PUT, LOAD_BALANCER, about).tagged()
            },
            parts::put_load_balancer,
        )
        .on(
            |api| api.write::<(), ()>(DELETE, LOAD_BALANCER, "Removes a load balancer.").tagged(),
            parts::delete_load_balancer,
        )
        .on(
            |api| api.read::<NodePort>(NODE_PORT, "The address pairs of a node's port.").tagged(),
            parts::get_node_port,
        )
        .on(
            |api| {
                let about = "Asks for address pairs of a node's port.";
                api.write::<NodePortRequest, NodePort>(PUT, NODE_PORT, about).tagged()
            },
            parts::put_node_port,
        )
        .on(
            |api| {
                let about = "Takes back what one asker wished for a node's port.";
                let query = json!({"type": "string"});
                api.write::<(), ()>(DELETE, NODE_PORT, about)
                    .query("asker", true, query, "Whose wish it is.")
                    .tagged()
            },
            parts::delete_node_port,
        )
}

fn about_itself(api: Api) -> Api {
    api.on(
        |api| {
            let path = "/v1/claims/{claim}";
            api.write::<(), Bundle>(POST, path, "Hands a bundle to a server it is for, once.").open()
        },
        handlers::claim,
    )
    .on(|api| api.read::<Value>("/", "The versions that there are.").open(), versions)
    .on(|api| api.read::<Value>("/v1", "The versions that there are.").open(), versions)
    .on(|api| api.read::<Value>("/v1/", "The versions that there are.").open(), versions)
    .on(|api| api.read::<Value>(openapi::PATH, "This description.").open(), super::description)
    .on(
        |api| api.read::<Health>("/healthz", "Whether the program runs.").open(),
        async || axum::Json(Health { status: "ok" }),
    )
    .on(|api| api.read::<Health>("/readyz", "Whether requests can be served.").open(), health)
}

/// What is said of the service's own health: nothing of anybody's objects.
#[derive(serde::Serialize, schemars::JsonSchema)]
pub(super) struct Health {
    /// `ok`.
    pub(super) status: &'static str,
}
