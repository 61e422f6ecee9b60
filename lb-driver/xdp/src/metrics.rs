//! Prometheus metrics.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

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

fn collect(
    status: &lb_driver::vendor::xdp::wire::StatusDocument,
    writes: u64,
    states: u64,
) -> prometheus::Result<String> {
    let registry = Registry::new();
    let counters = |name, help, labels| -> prometheus::Result<IntCounterVec> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    };
    let gauges = |name, help, labels| -> prometheus::Result<IntGaugeVec> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    };
    let counter = |name: &str, help: &str, value| -> prometheus::Result<()> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        registry.register(Box::new(counter))
    };
    let port = ["load_balancer", "vip", "protocol", "port"];
    let packets = counters("ake_xdp_packets_total", "Packets from clients to a port of a VIP.", &port)?;
    let bytes = counters("ake_xdp_bytes_total", "Bytes from clients to a port of a VIP.", &port)?;
    let port_drops = counters(
        "ake_xdp_port_drops_total",
        "Packets to a port of a VIP that were dropped; without protocol and port: to none that is open.",
        &["load_balancer", "vip", "protocol", "port", "reason"],
    )?;
    for balancer in &status.load_balancers {
        let (owner, vip) = (balancer.owner.to_string(), balancer.vip.to_string());
        for listener in &balancer.listeners {
            let (protocol, port) = (listener.protocol.to_string(), listener.port.to_string());
            let labels = [&owner, &vip, &protocol, &port];
            packets.with_label_values(&labels).inc_by(listener.packets);
            bytes.with_label_values(&labels).inc_by(listener.bytes);
            for (reason, count) in &listener.drops {
                port_drops.with_label_values(&[&owner, &vip, &protocol, &port, reason]).inc_by(*count);
            }
        }
        for (reason, count) in &balancer.drops {
            port_drops.with_label_values(&[owner.as_str(), &vip, "", "", reason]).inc_by(*count);
        }
    }
    let flows = counters("ake_xdp_new_flows_total", "Flows that began at a member.", &["pool", "member"])?;
    let up = gauges("ake_xdp_member_up", "1 if the member takes packets.", &["pool", "member"])?;
    let slots =
        gauges("ake_xdp_ring_slots", "Slots of the pool's ring that are the member's.", &["pool", "member"])?;
    for pool in &status.pools {
        for member in &pool.members {
            let labels = [pool.owner.to_string(), member.name.clone()];
            flows.with_label_values(&labels).inc_by(member.new_flows);
            up.with_label_values(&labels).set(i64::from(member.healthy == Some(true)));
            slots.with_label_values(&labels).set(member.slots.into());
        }
    }
    let drops = counters("ake_xdp_drops_total", "Packets to VIPs that were dropped.", &["reason"])?;
    for (reason, count) in &status.drops {
        drops.with_label_values(&[reason]).inc_by(*count);
    }
    counter(
        "ake_xdp_unrecorded_flows_total",
        "New flows that went by the ring alone, because too many began within a second.",
        status.unrecorded_flows,
    )?;
    counter("ake_xdp_map_writes_total", "Writes to the kernel's maps since the start.", writes)?;
    counter("ake_xdp_states_total", "States taken over the API since the start.", states)?;
    if let Some(pair) = &status.pair {
        counter(
            "ake_xdp_flows_told_total",
            "Flows that the other instance of a pair was told of.",
            pair.flows_told,
        )?;
        counter(
            "ake_xdp_flows_heard_total",
            "Flows that the other instance of a pair told of.",
            pair.flows_heard,
        )?;
        counter(
            "ake_xdp_flows_unknown_total",
            "Flows that the other instance told of, of members that are not known here.",
            pair.flows_unknown,
        )?;
        for (name, help, holds) in [
            ("ake_xdp_active", "1 if this instance of a pair is the active one.", pair.active),
            ("ake_xdp_peer_told", "1 if the other instance is told of flows.", pair.peer_told),
        ] {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(holds.into());
            registry.register(Box::new(gauge))?;
        }
    }
    let version = IntGauge::new("ake_xdp_state_version", "Number of the version that is held.")?;
    version.set(status.version.map_or(0, |version| i64::try_from(version.number).unwrap_or(i64::MAX)));
    registry.register(Box::new(version))?;
    TextEncoder::new().encode_to_string(&registry.gather())
}
