//! `ake-api show`: whose VIP is this, and why is that member down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
};

use ake_api_client::{ClusterState, Member};

use crate::{
    config::Config,
    decide::facts::Retained,
    device::{self, Seen, View},
    service::answers,
    store::Store,
};

/// Answers the operator's question.
pub async fn show(config: &Config, about: &str) -> anyhow::Result<String> {
    let store = Store::open_to_read(&config.database()?).await?;
    let (_, clusters) = store.load_all().await?;
    let retained = store.retained(None).await?;
    let view = ask(config).await?;
    let states: Vec<ClusterState> =
        clusters.iter().map(|loaded| answers::state(loaded, &view, &config.device.check_sources)).collect();
    text(about, &states, &retained, &view)
}

async fn ask(config: &Config) -> anyhow::Result<View> {
    let mut view = View::default();
    let drivers = device::drivers(config)?;
    for (url, driver) in &drivers {
        let mut seen = Seen::default();
        match driver.read().await {
            Ok(state) => seen.state = Some(Arc::new(state)),
            Err(e) => seen.failure = Some(e.to_string()),
        }
        seen.status = driver.status().await.map(Arc::new).ok();
        view.devices.insert(url.clone(), seen);
    }
    device::close(&drivers).await;
    Ok(view)
}

fn text(about: &str, states: &[ClusterState], retained: &[Retained], view: &View) -> anyhow::Result<String> {
    let mut out = String::new();
    let known: BTreeSet<String> = states.iter().map(|state| state.cluster.id.to_string()).collect();
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
        for (cluster, objects) in seen.state.iter().flat_map(|state| device::unknown(state, &known)) {
            writeln!(
                out,
                "  {objects} pools and load balancers of cluster {cluster}, which the database does not know"
            )?;
        }
    }
    if let Ok(vip) = about.parse::<IpAddr>() {
        return Ok(out + &vip_text(vip, states, retained)?);
    }
    let found: Vec<&ClusterState> = states
        .iter()
        .filter(|s| about == "all" || s.cluster.id.to_string() == about || s.cluster.name == about)
        .collect();
    if found.is_empty() && about != "all" {
        anyhow::bail!(
            "{about}: expected the id or name of a cluster, a VIP, or all; {} clusters are registered",
            states.len()
        );
    }
    for state in &found {
        out += &cluster_text(state)?;
    }
    if found.is_empty() {
        out += "no clusters are registered\n";
    }
    for one in retained.iter().filter(|_| about == "all") {
        out += &retained_text(one)?;
    }
    Ok(out)
}

fn retained_text(one: &Retained) -> anyhow::Result<String> {
    let mut out = String::new();
    writeln!(out, "{}: retained by project {}, was {}", one.address, one.project, one.name)?;
    if let Some(about) = &one.about {
        writeln!(out, "  {about}")?;
    }
    if one.going {
        writeln!(out, "  given back, and about to go")?;
    }
    Ok(out)
}

fn vip_text(vip: IpAddr, states: &[ClusterState], retained: &[Retained]) -> anyhow::Result<String> {
    let mut out = String::new();
    if let Some(one) = retained.iter().find(|one| one.address == vip) {
        out += &retained_text(one)?;
    }
    let Some(state) = states.iter().find(|s| s.cluster.vip_blocks.iter().any(|block| block.contains(vip)))
    else {
        if !out.is_empty() {
            return Ok(out);
        }
        anyhow::bail!("{vip}: it is in no cluster's VIP blocks, and no project has retained it");
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
    if let Some(uid) = cluster.kubernetes {
        writeln!(out, "  Kubernetes {uid}")?;
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
            member.address,
            if member.mac.is_empty() { "(MAC address found by the balancer)" } else { &member.mac },
            member.weight
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
