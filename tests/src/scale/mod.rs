//! What a cluster of many nodes and Services costs: time, writes and memory.

mod cloud;
mod kubernetes;
mod services;
mod site;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{
    measure::{Row, quantiles_of},
    page::Section,
};
use services::Wish;
use site::{Counts, Site, node_name};

/// Nodes and Services of the first measurement.
const NODES: u32 = 1000;
const SERVICES: usize = 1000;
/// Nodes and Services of the second one.
const MANY_NODES: u32 = 5000;
const MANY_SERVICES: usize = 10_000;
/// How often one more comes and goes.
const TIMES: usize = 10;
/// Longest that anything may take.
const LONGEST: Duration = Duration::from_secs(240);
/// Calm after a change, before the next one.
const CALM: Duration = Duration::from_millis(700);

/// Measures times and writes; takes about three minutes. To be run apart.
pub fn measure() -> Result<Vec<Row>> {
    runtime()?.block_on(async {
        let mut site = Site::build(2000).await?;
        site.make_nodes(0..NODES).await?;
        let mut rows = vec![settle(&mut site, NODES).await?];
        rows.extend(from_empty(&site, SERVICES, 1, "60 s").await?);
        rows.extend(one_more_service(&site).await?);
        rows.extend(node_changes(&site).await?);
        rows.extend(memory(&site)?);
        rows.extend(restarts(&mut site).await?);
        Ok(rows)
    })
}

/// Measures memory and restarts of more of everything; takes about four minutes. To be run apart.
pub fn measure_many() -> Result<Vec<Row>> {
    runtime()?.block_on(async {
        let mut site = Site::build(10_000).await?;
        site.make_nodes(0..MANY_NODES).await?;
        let mut rows = vec![settle(&mut site, MANY_NODES).await?];
        rows.extend(from_empty(&site, MANY_SERVICES, 10, "").await?);
        rows.extend(memory(&site)?);
        rows.extend(restarts(&mut site).await?);
        Ok(rows)
    })
}

/// The page's section for [`measure`].
#[must_use]
pub fn section(rows: Vec<Row>) -> Section {
    Section {
        title: "1,000 Services on 1,000 nodes",
        text: "A real API server with its etcd, the controller manager, `ake-api` (SQLite) and `ake-xdp` with one cluster, all on two \
               shared cores, programs of the development profile. Nodes are objects; one host answers ARP, health checks (every two \
               seconds) and VIPs for all of them. Keystone, Nova and Neutron are imitated and take 10 ms for a call; nobody keeps a security \
               group. A Service's time is from the API server's acceptance to the first answer through its VIP; a node's until the \
               balancer's ring has it, checked, or has it no more.",
        rows,
    }
}

/// The page's section for [`measure_many`].
#[must_use]
pub fn many_section(rows: Vec<Row>) -> Section {
    Section {
        title: "10,000 Services on 5,000 nodes",
        text: "As above, with ten Services on each VIP (`ake.dev/share`) and health checks every ten seconds. Memory is \
               resident, of the development profile. A restart's time is until the first round that found nothing to do.",
        rows,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?)
}

/// Lets the controller manager find the nodes, and write their ports' address pairs.
async fn settle(site: &mut Site, nodes: u32) -> Result<Row> {
    let begun = Instant::now();
    site.start_manager()?;
    let site = &*site;
    site.until("address pairs of all nodes", LONGEST, async || {
        Ok((site.cloud.calls().1 >= u64::from(nodes)).then_some(()))
    })
    .await?;
    let (reads, writes) = site.cloud.calls();
    eprintln!(
        "{nodes} nodes: {:.1} s, {reads} reads and {writes} writes of OpenStack",
        begun.elapsed().as_secs_f64()
    );
    let what = "all nodes' ports have their address pairs, from the controller manager's first start";
    Ok(Row::new(
        what,
        format!("{:.1} s, {reads} calls that read, {writes} that write", begun.elapsed().as_secs_f64()),
        "",
    ))
}

/// All Services at once. `sharing`: as many have one VIP.
async fn from_empty(site: &Site, count: usize, sharing: usize, aim: &str) -> Result<Vec<Row>> {
    let before = Costs::now(site).await?;
    let wishes = (0..count).map(|number| Wish::new("bench", number, sharing)).collect();
    let begun = Instant::now();
    let times = services::make(site, wishes, LONGEST).await?;
    let all = begun.elapsed().as_secs_f64();
    let costs = Costs::now(site).await?.since(&before);
    eprintln!("{count} Services: {all:.1} s; {costs}");
    Ok(vec![
        Row::new(
            format!("{count} Services, from the first one's creation to the last one's answer"),
            format!("{all:.1} s"),
            aim,
        ),
        Row::new("one of them", quantiles_of(&times), ""),
        Row::new("what was written for them", costs.to_string(), ""),
    ])
}

/// One more Service, several times.
async fn one_more_service(site: &Site) -> Result<Vec<Row>> {
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    for number in 0..TIMES {
        let before = Costs::now(site).await?;
        let wish = Wish::new("more", number, 1);
        let path = wish.path();
        times.extend(services::make(site, vec![wish], LONGEST).await?);
        costs.push(Costs::now(site).await?.since(&before));
        site.kubernetes.delete(&path).await?;
        site.until("the Service is gone", LONGEST, async || {
            Ok(site.kubernetes.get(&path).await.is_err().then_some(()))
        })
        .await?;
        tokio::time::sleep(CALM).await;
    }
    eprintln!("one more Service: {times:?}");
    Ok(vec![
        Row::new("one more Service, accepted to first answer", quantiles_of(&times), "1 s"),
        Row::new("what is written for it", most(&costs), ""),
    ])
}

/// A node comes, is let out, and goes, several times.
async fn node_changes(site: &Site) -> Result<Vec<Row>> {
    let names = ["a node joins", "a node is excluded and drains", "a node is deleted"];
    let (mut times, mut costs) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for number in (NODES..).take(TIMES) {
        let path = format!("/api/v1/nodes/{}", node_name(number));
        for (at, what) in names.iter().enumerate() {
            let before = Costs::now(site).await?;
            match at {
                0 => site.join_node(number).await?,
                1 => {
                    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
                    let change = serde_json::json!({"metadata": {"labels": {label: "true"}}});
                    site.kubernetes.merge(&path, &change).await?;
                }
                _ => site.remove_node(number).await?,
            }
            let begun = Instant::now();
            let member = format!("member=\"{}\"", node_name(number));
            site.until(what, LONGEST, async || {
                let seen = site.balancer_metrics().await?;
                let (slots, is_member) =
                    (seen.sum("ake_xdp_ring_slots", &[&member]), seen.has("ake_xdp_member_up", &member));
                let done = match at {
                    0 => slots > 0.0,
                    1 => slots == 0.0,
                    _ => !is_member,
                };
                Ok(done.then_some(()))
            })
            .await?;
            times[at].push(begun.elapsed().as_secs_f64());
            tokio::time::sleep(CALM).await;
            costs[at].push(Costs::now(site).await?.since(&before));
        }
    }
    let mut rows = Vec::new();
    for (at, what) in names.iter().enumerate() {
        eprintln!("{what}: {:?}; {}", times[at], most(&costs[at]));
        rows.push(Row::new(format!("{what}, until the balancer follows"), quantiles_of(&times[at]), "5 s"));
        rows.push(Row::new(
            "what is written for it",
            most(&costs[at]),
            "the same for any number of Services",
        ));
    }
    Ok(rows)
}

fn memory(site: &Site) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, aim, program) in [
        ("ake-cloud-controller-manager", "64 MiB", site.manager.as_ref()),
        ("ake-api", "", site.api.as_ref()),
        ("ake-xdp", "", Some(&site.balancer)),
    ] {
        let size = program.context("it does not run")?.memory()?;
        eprintln!("{name}: {size:.1} MiB");
        rows.push(Row::new(format!("resident memory of {name}"), format!("{size:.1} MiB"), aim));
    }
    Ok(rows)
}

/// Programs are started anew, and nothing has changed.
async fn restarts(site: &mut Site) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, is_manager) in [("ake-cloud-controller-manager", true), ("ake-api", false)] {
        let before = Costs::now(site).await?;
        if let Some(old) = if is_manager { site.manager.take() } else { site.api.take() } {
            old.stop()?;
        }
        let begun = Instant::now();
        if is_manager {
            site.start_manager()?;
        } else {
            site.start_api().await?;
        }
        let site = &*site;
        site.until("the first round is over", LONGEST, async || {
            let done = if is_manager {
                let rounds =
                    |what: &str| ("cloudprovider_openstack_reconcile_total", format!("operation=\"{what}\""));
                let seen = site.manager_metrics().await?;
                ["service", "node"].map(rounds).iter().all(|(name, label)| seen.sum(name, &[label]) > 0.0)
            } else {
                let seen = site.api_metrics().await?;
                seen.sum("ake_api_reconciliations_total", &["outcome=\"success\""]) > 0.0
            };
            Ok(done.then_some(()))
        })
        .await?;
        let seconds = begun.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let costs = Costs::now(site).await?.since(&before);
        eprintln!("{name} started anew: {seconds:.1} s; {costs}");
        rows.push(Row::new(
            format!("{name} started anew, nothing has changed"),
            format!("{seconds:.1} s"),
            "30 s",
        ));
        rows.push(Row::new("what it writes", costs.to_string(), "nothing"));
    }
    Ok(rows)
}

/// What has been written so far.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Costs {
    /// States that the balancer was sent.
    states: f64,
    /// Writes to its maps.
    maps: f64,
    /// Writes to Neutron.
    neutron: f64,
    /// Writes to Services and Nodes.
    kubernetes: f64,
}

impl Costs {
    async fn now(site: &Site) -> Result<Self> {
        let balancer: Counts = site.balancer_metrics().await?;
        Ok(Self {
            states: balancer.sum("ake_xdp_states_total", &[]),
            maps: balancer.sum("ake_xdp_map_writes_total", &[]),
            neutron: site.cloud.calls().1 as f64,
            kubernetes: site.kubernetes.writes().await?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            states: self.states - before.states,
            maps: self.maps - before.maps,
            neutron: self.neutron - before.neutron,
            kubernetes: self.kubernetes - before.kubernetes,
        }
    }
}

impl std::fmt::Display for Costs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { states, maps, neutron, kubernetes } = self;
        write!(
            f,
            "{states} states to the balancer ({maps} writes to its maps), {neutron} calls to Neutron, {kubernetes} to the API server"
        )
    }
}

/// The most of each that was written in one turn.
fn most(costs: &[Costs]) -> String {
    let most = |of: &dyn Fn(&Costs) -> f64| costs.iter().map(of).fold(0.0, f64::max);
    let worst = Costs {
        states: most(&|costs| costs.states),
        maps: most(&|costs| costs.maps),
        neutron: most(&|costs| costs.neutron),
        kubernetes: most(&|costs| costs.kubernetes),
    };
    format!("at most {worst}")
}
