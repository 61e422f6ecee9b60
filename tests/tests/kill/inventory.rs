//! What steps can leave over: all that there is, and what is there of it that was not.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use scenarios::{cluster::items, wait_for};
use serde_json::Value;

use crate::{PATIENCE, Stage};

impl Stage<'_> {
    /// One line for each thing that the cluster and its project have, servers and their ports aside: no step makes them.
    pub(crate) fn inventory(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        let state = self.state()?;
        for kind in ["addresses", "pools", "load_balancers"] {
            let names = state[kind].as_object().context("a state without a kind")?.keys();
            all.extend(names.map(|name| format!("{kind} {name}")));
        }
        let listed = |service: &str, path: &str, key: &str| -> Result<Vec<Value>> {
            let said = self.tenant.api()?.get(service, path)?;
            Ok(said[key].as_array().with_context(|| format!("{path} without {key}"))?.clone())
        };
        let rules = listed("network", "/v2.0/security-group-rules", "security_group_rules")?;
        let what = [
            "security_group_id",
            "direction",
            "ethertype",
            "protocol",
            "port_range_min",
            "port_range_max",
            "remote_ip_prefix",
            "remote_group_id",
        ];
        all.extend(rules.iter().map(|rule| format!("rule {:?}", what.map(|key| rule[key].to_string()))));
        let ports = listed("network", "/v2.0/ports", "ports")?;
        let is_servers =
            |port: &&Value| port["device_owner"].as_str().is_some_and(|it| it.starts_with("compute:"));
        all.extend(ports.iter().filter(|port| !is_servers(port)).map(|port| format!("port {}", port["id"])));
        let volumes = listed("block-storage", "/volumes/detail", "volumes")?;
        all.extend(volumes.iter().map(|volume| format!("volume {} {}", volume["name"], volume["status"])));
        for kind in ["services", "nodes", "persistentvolumes", "persistentvolumeclaims", "volumeattachments"]
        {
            let found = self.cluster.get(&[kind, "--all-namespaces"])?;
            all.extend(items(&found).iter().map(|object| format!("{kind} {}", object["metadata"]["name"])));
        }
        Ok(all)
    }

    /// Waits until there is what there was: nothing more, and nothing less.
    pub(crate) fn nothing_left(&self, before: &BTreeSet<String>) -> Result<()> {
        wait_for("what there was before", PATIENCE, || {
            let now = self.inventory()?;
            let (more, less): (Vec<_>, Vec<_>) =
                (now.difference(before).collect(), before.difference(&now).collect());
            ensure!(more.is_empty() && less.is_empty(), "left over: {more:?}; missing: {less:?}");
            Ok(Some(()))
        })
    }
}
