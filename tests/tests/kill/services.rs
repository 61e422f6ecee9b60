//! Steps that are taken for a Service.

use anyhow::{Context as _, Result};
use scenarios::{cluster::items, wait_for};
use serde_json::{Value, json};

use crate::{PATIENCE, Stage};

const NAME: &str = "kill";
const PORT: u16 = 7001;

/// How they come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A Service is made.
    Made,
    /// It is deleted.
    Deleted,
}

pub(crate) fn prepare(stage: &Stage<'_>, way: Way) -> Result<()> {
    match way {
        Way::Made => Ok(()),
        Way::Deleted => {
            make(stage)?;
            wait_for("a Service", PATIENCE, || Ok(is_in_order(stage, Way::Made)?.then_some(())))
        }
    }
}

pub(crate) fn provoke(stage: &Stage<'_>, way: Way) -> Result<()> {
    match way {
        Way::Made => make(stage),
        Way::Deleted => stage.kubectl(&["delete", "service", NAME, "--wait=false"]),
    }
}

pub(crate) fn is_in_order(stage: &Stage<'_>, way: Way) -> Result<bool> {
    match way {
        Way::Made => {
            let Some(service) = stage.find("service", NAME)? else { return Ok(false) };
            let uid = service["metadata"]["uid"].as_str().context("a Service without a UID")?;
            let state = stage.state()?;
            let balancer = &state["load_balancers"][format!("svc-{uid}")];
            let published = &service["status"]["loadBalancer"]["ingress"];
            Ok(published.as_array().is_some_and(|all| all.len() == 1)
                && balancer["vip"] == published[0]["ip"]
                && balancer["applied"] == true
                && service["metadata"]["finalizers"].to_string().matches("load-balancer-cleanup").count()
                    == 1
                && of_services(&state) == [("addresses", 1), ("pools", 1), ("load_balancers", 1)]
                && rules(stage)? == 1)
        }
        Way::Deleted => {
            let is_clean = of_services(&stage.state()?).iter().all(|(_, count)| *count == 0);
            Ok(is_clean && stage.find("service", NAME)?.is_none() && rules(stage)? == 0)
        }
    }
}

pub(crate) fn clear(stage: &Stage<'_>, way: Way) -> Result<()> {
    if way == Way::Made {
        stage.kubectl(&["delete", "service", NAME, "--wait=false", "--ignore-not-found"])?;
    }
    wait_for("nothing left of a Service", PATIENCE, || Ok(is_in_order(stage, Way::Deleted)?.then_some(())))
}

/// One with a pool of its own.
fn make(stage: &Stage<'_>) -> Result<()> {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": {
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": NAME}, "ports": [{"port": PORT}]}});
    stage.cluster.apply(&service.to_string())
}

/// How many of each kind the cluster has for Services: there is one Service at most.
fn of_services(state: &Value) -> [(&'static str, usize); 3] {
    ["addresses", "pools", "load_balancers"].map(|kind| {
        let names = state[kind].as_object().into_iter().flat_map(|all| all.keys());
        let is_theirs =
            |name: &&String| ["svc-", "local-", "nodes"].iter().any(|first| name.starts_with(first));
        (kind, names.filter(is_theirs).count())
    })
}

/// Rules of security groups for the Service's port.
fn rules(stage: &Stage<'_>) -> Result<usize> {
    let rules = stage.tenant.api()?.get("network", "/v2.0/security-group-rules")?;
    Ok(items(&json!({"items": rules["security_group_rules"]}))
        .iter()
        .filter(|rule| rule["port_range_min"] == PORT)
        .count())
}
