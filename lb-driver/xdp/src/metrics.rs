//! Prometheus metrics.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use lb_driver::vendor::xdp::wire::StatusDocument;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use crate::engine::Engine;

/// Serves `GET /metrics`.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(engine)
}

async fn metrics(State(engine): State<Arc<Engine>>) -> impl IntoResponse {
    match tokio::task::spawn_blocking(move || text(&engine)).await {
        Ok(Ok(text)) => (StatusCode::OK, text),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// The metrics as they are now: the kernel counts, this reads.
fn text(engine: &Engine) -> Result<String, String> {
    let status = engine.status().map_err(|error| error.to_string())?;
    let (writes, states) = engine.activity();
    collect(&status, writes, states).map_err(|error| error.to_string())
}

fn collect(status: &StatusDocument, writes: u64, states: u64) -> prometheus::Result<String> {
    let families = Families::new()?;
    families.fill(status, writes, states);
    let registry = Registry::new();
    families.all(status.pair.is_some()).into_iter().try_for_each(|family| registry.register(family))?;
    TextEncoder::new().encode_to_string(&registry.gather())
}

/// All metrics, as the reference lists them: those of a pair among them.
pub fn all() -> prometheus::Result<Vec<Box<dyn Collector>>> {
    Ok(Families::new()?.all(true))
}

/// Every metric that there is.
struct Families {
    packets: IntCounterVec,
    bytes: IntCounterVec,
    port_drops: IntCounterVec,
    new_flows: IntCounterVec,
    up: IntGaugeVec,
    slots: IntGaugeVec,
    drops: IntCounterVec,
    unrecorded: IntCounter,
    writes: IntCounter,
    states: IntCounter,
    told: IntCounter,
    heard: IntCounter,
    unknown: IntCounter,
    active: IntGauge,
    peer_told: IntGauge,
    version: IntGauge,
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let counters = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauges = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let port = ["load_balancer", "vip", "protocol", "port"];
        let member = ["pool", "member"];
        Ok(Self {
            packets: counters("ake_xdp_packets_total", "Packets from clients to a port of a VIP.", &port)?,
            bytes: counters("ake_xdp_bytes_total", "Bytes from clients to a port of a VIP.", &port)?,
            port_drops: counters(
                "ake_xdp_port_drops_total",
                "Packets to a port of a VIP that were dropped; without protocol and port: to none that is open.",
                &["load_balancer", "vip", "protocol", "port", "reason"],
            )?,
            new_flows: counters("ake_xdp_new_flows_total", "Flows that began at a member.", &member)?,
            up: gauges("ake_xdp_member_up", "1 if the member takes packets.", &member)?,
            slots: gauges("ake_xdp_ring_slots", "Slots of the pool's ring that are the member's.", &member)?,
            drops: counters("ake_xdp_drops_total", "Packets to VIPs that were dropped.", &["reason"])?,
            unrecorded: IntCounter::new(
                "ake_xdp_unrecorded_flows_total",
                "New flows that went by the ring alone, because too many began within a second.",
            )?,
            writes: IntCounter::new(
                "ake_xdp_map_writes_total",
                "Writes to the kernel's maps since the start.",
            )?,
            states: IntCounter::new("ake_xdp_states_total", "States taken over the API since the start.")?,
            told: IntCounter::new(
                "ake_xdp_flows_told_total",
                "Flows that the other instance of a pair was told of.",
            )?,
            heard: IntCounter::new(
                "ake_xdp_flows_heard_total",
                "Flows that the other instance of a pair told of.",
            )?,
            unknown: IntCounter::new(
                "ake_xdp_flows_unknown_total",
                "Flows that the other instance told of, of members that are not known here.",
            )?,
            active: IntGauge::new("ake_xdp_active", "1 if this instance of a pair is the active one.")?,
            peer_told: IntGauge::new("ake_xdp_peer_told", "1 if the other instance is told of flows.")?,
            version: IntGauge::new("ake_xdp_state_version", "Number of the version that is held.")?,
        })
    }

    /// As what Prometheus collects; those of a pair only where there is one.
    fn all(self, pair: bool) -> Vec<Box<dyn Collector>> {
        let mut all: Vec<Box<dyn Collector>> = vec![
            Box::new(self.packets),
            Box::new(self.bytes),
            Box::new(self.port_drops),
            Box::new(self.new_flows),
            Box::new(self.up),
            Box::new(self.slots),
            Box::new(self.drops),
            Box::new(self.unrecorded),
            Box::new(self.writes),
            Box::new(self.states),
            Box::new(self.version),
        ];
        if pair {
            all.push(Box::new(self.told));
            all.push(Box::new(self.heard));
            all.push(Box::new(self.unknown));
            all.push(Box::new(self.active));
            all.push(Box::new(self.peer_told));
        }
        all
    }

    fn fill(&self, status: &StatusDocument, writes: u64, states: u64) {
        for balancer in &status.load_balancers {
            let (owner, vip) = (balancer.owner.to_string(), balancer.vip.to_string());
            for listener in &balancer.listeners {
                let (protocol, port) = (listener.protocol.to_string(), listener.port.to_string());
                let labels = [&owner, &vip, &protocol, &port];
                self.packets.with_label_values(&labels).inc_by(listener.packets);
                self.bytes.with_label_values(&labels).inc_by(listener.bytes);
                for (reason, count) in &listener.drops {
                    let labels = [&owner, &vip, &protocol, &port, reason];
                    self.port_drops.with_label_values(&labels).inc_by(*count);
                }
            }
            for (reason, count) in &balancer.drops {
                self.port_drops.with_label_values(&[owner.as_str(), &vip, "", "", reason]).inc_by(*count);
            }
        }
        for pool in &status.pools {
            for member in &pool.members {
                let labels = [pool.owner.to_string(), member.name.clone()];
                self.new_flows.with_label_values(&labels).inc_by(member.new_flows);
                self.up.with_label_values(&labels).set(i64::from(member.healthy == Some(true)));
                self.slots.with_label_values(&labels).set(member.slots.into());
            }
        }
        for (reason, count) in &status.drops {
            self.drops.with_label_values(&[reason]).inc_by(*count);
        }
        self.unrecorded.inc_by(status.unrecorded_flows);
        self.writes.inc_by(writes);
        self.states.inc_by(states);
        if let Some(pair) = &status.pair {
            self.told.inc_by(pair.flows_told);
            self.heard.inc_by(pair.flows_heard);
            self.unknown.inc_by(pair.flows_unknown);
            self.active.set(pair.active.into());
            self.peer_told.set(pair.peer_told.into());
        }
        let number = status.version.map_or(0, |version| i64::try_from(version.number).unwrap_or(i64::MAX));
        self.version.set(number);
    }
}
