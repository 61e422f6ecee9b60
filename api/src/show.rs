//! `ake-api show`: whose VIP is this, and why is that member down.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr, sync::Arc};

use ake_api_client::{ClusterState, Member};

use crate::{
    config::Config,
    device::{self, Seen, View},
    service::answers,
    store::{Loaded, Store},
};

/// Answers the operator's question.
pub async fn show(config: &Config, about: &str) -> anyhow::Result<String> {
    let store = Store::open_to_read(&config.database()?).await?;
    let (_, clusters) = store.load_all().await?;
    let view = ask(config).await?;
    let states: Vec<ClusterState> =
        clusters.iter().map(|loaded| answers::state(loaded, &view, &config.device.check_sources)).collect();
    text(about, &clusters, &states, &view)
}

async fn ask(config: &Config) -> anyhow::Result<View> {
    let mut view = View::default();
    for (url, driver) in device::drivers(config)? {
        let mut seen = Seen::default();
        match driver.read().await {
            Ok(state) => seen.state = Some(Arc::new(state)),
            Err(e) => seen.failure = Some(e.to_string()),
        }
        seen.status = driver.status().await.map(Arc::new).ok();
        view.devices.insert(url, seen);
    }
    Ok(view)
}

fn text(about: &str, clusters: &[Loaded], states: &[ClusterState], view: &View) -> anyhow::Result<String> {
    let mut out = String::new();
    for (url, seen) in &view.devices {
        let version = seen.state.as_ref().map(|state| state.version.to_string());
        writeln!(
            out,
            "balancer {url}: {}",
            match (&seen.failure, version) {
                (Some(failure), _) => failure.clone(),
                (None, Some(version)) => format!("holds state {version}"),
                (None, None) => "not asked".to_owned(),
            }
        )?;
    }
    if let Ok(vip) = about.parse::<IpAddr>() {
        return Ok(out + &vip_text(vip, states)?);
    }
    let found: Vec<&ClusterState> = states
        .iter()
        .filter(|s| about == "all" || s.cluster.id.to_string() == about || s.cluster.name == about)
        .collect();
    if found.is_empty() && about != "all" {
        anyhow::bail!(
            "{about}: expected the id or name of a cluster, a VIP, or all; {} clusters are registered",
            clusters.len()
        );
    }
    for state in &found {
        out += &cluster_text(state)?;
    }
    if found.is_empty() {
        out += "no clusters are registered\n";
    }
    Ok(out)
}

fn vip_text(vip: IpAddr, states: &[ClusterState]) -> anyhow::Result<String> {
    let mut out = String::new();
    let Some(state) = states.iter().find(|s| s.cluster.vip_blocks.iter().any(|block| block.contains(vip)))
    else {
        anyhow::bail!("{vip}: it is in no cluster's VIP blocks");
    };
    let cluster = &state.cluster;
    writeln!(out, "{vip}: cluster {} ({}) of project {}", cluster.name, cluster.id, cluster.project)?;
    let names: Vec<&String> =
        state.addresses.iter().filter(|(_, a)| a.address == vip).map(|(name, _)| name).collect();
    if names.is_empty() {
        writeln!(out, "  in its blocks, but not in use")?;
    }
    for name in names {
        writeln!(out, "  address {name}")?;
        for (lb, _) in state.load_balancers.iter().filter(|(_, lb)| lb.address == *name) {
            balancer_text(&mut out, state, lb)?;
        }
    }
    Ok(out)
}

fn cluster_text(state: &ClusterState) -> anyhow::Result<String> {
    let cluster = &state.cluster;
    let mut out = String::new();
    let blocks: Vec<String> = cluster.vip_blocks.iter().map(ToString::to_string).collect();
    writeln!(
        out,
        "cluster {} ({}){}",
        cluster.name,
        cluster.id,
        if cluster.deleting { ", being deleted" } else { "" }
    )?;
    writeln!(out, "  project    {}", cluster.project)?;
    writeln!(out, "  network    {}", cluster.network)?;
    writeln!(out, "  pod range  {}", cluster.pod_range)?;
    if let Some(range) = cluster.pod_range_v6 {
        writeln!(out, "             {range}")?;
    }
    writeln!(out, "  VIP blocks {}", blocks.join(", "))?;
    for (name, address) in &state.addresses {
        writeln!(out, "  address {name}: {}", address.address)?;
    }
    for name in state.load_balancers.keys() {
        balancer_text(&mut out, state, name)?;
    }
    let used: Vec<&String> =
        state.load_balancers.values().flat_map(|lb| lb.listeners.iter().map(|l| &l.pool)).collect();
    for (name, pool) in state.pools.iter().filter(|(name, _)| !used.contains(name)) {
        writeln!(out, "  pool {name}, which no load balancer uses")?;
        members_text(&mut out, &pool.members)?;
    }
    for (port, node_port) in &state.node_ports {
        let pairs: Vec<String> = node_port.pairs.iter().map(ToString::to_string).collect();
        writeln!(out, "  node port {port}: {}", pairs.join(", "))?;
    }
    Ok(out)
}

fn balancer_text(out: &mut String, state: &ClusterState, name: &str) -> anyhow::Result<()> {
    let Some(lb) = state.load_balancers.get(name) else { return Ok(()) };
    let listeners: Vec<String> = lb
        .listeners
        .iter()
        .map(|l| format!("{}/{} -> {}", format!("{:?}", l.protocol).to_uppercase(), l.port, l.pool))
        .collect();
    let applied = match (&lb.applied, &lb.reason) {
        (true, _) => "applied".to_owned(),
        (false, reason) => format!("NOT applied: {}", reason.as_deref().unwrap_or("no reason known")),
    };
    writeln!(out, "  load balancer {name} on {}: {}; {applied}", lb.vip, listeners.join(", "))?;
    if !lb.source_ranges.is_empty() {
        let ranges: Vec<String> = lb.source_ranges.iter().map(ToString::to_string).collect();
        writeln!(out, "    only from {}", ranges.join(", "))?;
    }
    let mut pools: Vec<&String> = lb.listeners.iter().map(|l| &l.pool).collect();
    pools.dedup();
    for pool in pools {
        if let Some(found) = state.pools.get(pool) {
            writeln!(out, "    pool {pool}: {} members", found.members.len())?;
            members_text(out, &found.members)?;
        }
    }
    Ok(())
}

fn members_text(out: &mut String, members: &BTreeMap<String, Member>) -> anyhow::Result<()> {
    for (name, member) in members {
        let health = match (member.healthy, &member.reason) {
            (Some(true), None) => "up".to_owned(),
            (Some(true), Some(reason)) => format!("up, {reason}"),
            (Some(false), reason) => format!("DOWN: {}", reason.as_deref().unwrap_or("no reason given")),
            (None, Some(reason)) => format!("not checked yet: {reason}"),
            (None, None) => "not checked yet".to_owned(),
        };
        let draining = if member.draining { ", draining" } else { "" };
        writeln!(
            out,
            "      {name} {} {} weight {}{draining}: {health}",
            member.address, member.mac, member.weight
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
