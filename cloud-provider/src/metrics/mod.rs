//! What `/metrics` shows, under upstream's names where upstream has one.

mod table;

use std::{
    collections::BTreeMap,
    sync::{LazyLock, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{Encoder, TextEncoder, core::Collector};
use table::Metrics;

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// A change of Nodes has been followed, or a try has failed.
pub fn nodes_followed(since: Duration, failed: bool) {
    if failed {
        METRICS.node_sync_errors.with_label_values::<&str>(&[]).inc();
    } else {
        METRICS.node_syncs.with_label_values::<&str>(&[]).observe(since.as_secs_f64());
    }
}

/// The nodes behind load balancers were written.
pub fn hosts_updated(elapsed: Duration) {
    METRICS.host_updates.with_label_values::<&str>(&[]).observe(elapsed.as_secs_f64());
}

/// We have begun to say what a Node is that was made so long ago.
pub fn node_met(since: Duration) {
    METRICS.node_syncs_first.with_label_values::<&str>(&[]).observe(since.as_secs_f64());
}

/// Pods are let onto a Node that was made so long ago.
pub fn node_released(since: Duration) {
    METRICS.taint_removals.with_label_values::<&str>(&[]).observe(since.as_secs_f64());
}

/// The address pairs of nodes' ports were looked at.
pub fn routes_seen() {
    METRICS.route_syncs.with_label_values::<&str>(&[]).inc();
}

/// The API server has begun to answer a call, or will not. `host` with its port, if it is not the scheme's; `method` as HTTP
/// calls it; `code` of the answer, if there was one.
pub fn kubernetes_call(host: &str, method: &str, code: Option<u16>, elapsed: Duration) {
    let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
    METRICS.rest_requests.with_label_values(&[code.as_str(), host, method]).inc();
    METRICS.rest_durations.with_label_values(&[method]).observe(elapsed.as_secs_f64());
}

/// A controller runs, or has ended.
pub fn running(name: &str, running: bool) {
    METRICS.running.with_label_values(&["cloud-controller-manager", name]).set(i64::from(running));
}

/// A change was queued; so many wait now.
pub fn queued(queue: &str, waiting: usize) {
    METRICS.queue_adds.with_label_values(&[queue]).inc();
    METRICS.queue_depth.with_label_values(&[queue]).set(i64::try_from(waiting).unwrap_or(i64::MAX));
}

/// All changes that waited are looked at now, the oldest after so long.
pub fn dequeued(queue: &str, waited: Duration) {
    METRICS.queue_depth.with_label_values(&[queue]).set(0);
    METRICS.queue_waits.with_label_values(&[queue]).observe(waited.as_secs_f64());
}

/// They are being worked on from now on.
pub fn working(queue: &str) {
    under_way().insert(queue.to_owned(), Instant::now());
}

fn under_way() -> MutexGuard<'static, BTreeMap<String, Instant>> {
    METRICS.working.lock().unwrap_or_else(PoisonError::into_inner)
}

/// They are done with; so many are to be tried again.
pub fn worked(queue: &str, elapsed: Duration, retries: usize) {
    under_way().remove(queue);
    for gauge in [&METRICS.queue_unfinished, &METRICS.queue_longest] {
        gauge.with_label_values(&[queue]).set(0.0);
    }
    METRICS.queue_work.with_label_values(&[queue]).observe(elapsed.as_secs_f64());
    METRICS.queue_retries.with_label_values(&[queue]).inc_by(u64::try_from(retries).unwrap_or(u64::MAX));
}

/// A call to OpenStack has ended.
pub fn openstack_call(request: &str, elapsed: Duration, failed: bool) {
    METRICS.openstack_duration.with_label_values(&[request]).observe(elapsed.as_secs_f64());
    METRICS.openstack_total.with_label_values(&[request]).inc();
    if failed {
        METRICS.openstack_errors.with_label_values(&[request]).inc();
    }
}

/// A reconciliation has ended.
pub fn reconciled(operation: &str, elapsed: Duration, failed: bool) {
    METRICS.reconcile_duration.with_label_values(&[operation]).observe(elapsed.as_secs_f64());
    METRICS.reconcile_total.with_label_values(&[operation]).inc();
    if failed {
        METRICS.reconcile_errors.with_label_values(&[operation]).inc();
    }
    if operation == "service" {
        METRICS.loadbalancer_syncs.with_label_values::<&str>(&[]).inc();
    }
}

/// A step was taken, or has failed.
pub fn step(kind: &str, failed: bool) {
    METRICS.steps.with_label_values(&[kind, if failed { "error" } else { "ok" }]).inc();
}

/// The cloud has failed in a way that has a name.
pub fn condition(name: &str) {
    METRICS.conditions.with_label_values(&[name]).inc();
}

/// Whether we lead.
pub fn leading(name: &str, leading: bool) {
    METRICS.leader.with_label_values(&[name]).set(i64::from(leading));
}

/// The Lease had to be read before it could be renewed.
pub fn lease_reread(name: &str) {
    METRICS.leader_slow.with_label_values(&[name]).inc();
}

/// A health check (`healthz`, `livez`, `readyz`) was answered.
pub fn health_checked(kind: &str, well: bool) {
    METRICS.healthy.with_label_values(&["cloud-controller-manager", kind]).set(i64::from(well));
    let status = if well { "success" } else { "pending" };
    METRICS.health_checks.with_label_values(&["cloud-controller-manager", status, kind]).inc();
}

/// So many sets of nodes have no healthy member.
pub fn pools_down(count: usize) {
    METRICS.pools_down.with_label_values::<&str>(&[]).set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// Whether a guard holds a controller up.
pub fn stopped(controller: &str, stopped: bool) {
    METRICS.stopped.with_label_values(&[controller]).set(i64::from(stopped));
}

/// All metrics, as the reference lists them.
#[must_use]
pub fn all() -> &'static [Box<dyn Collector>] {
    &METRICS.all
}

/// All of it, as Prometheus reads it.
#[must_use]
pub fn render() -> String {
    METRICS.build.with_label_values(&[concat!("v", env!("CARGO_PKG_VERSION"))]).set(1);
    for (queue, since) in under_way().iter() {
        for gauge in [&METRICS.queue_unfinished, &METRICS.queue_longest] {
            gauge.with_label_values(&[queue.as_str()]).set(since.elapsed().as_secs_f64());
        }
    }
    let mut text = Vec::new();
    if TextEncoder::new().encode(&METRICS.registry.gather(), &mut text).is_err() {
        return String::new();
    }
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_shown() {
        reconciled("service", Duration::from_millis(20), false);
        step("put_pool", true);
        let text = render();
        assert!(text.contains("service_controller_loadbalancer_sync_total"), "{text}");
        assert!(text.contains(r#"ake_steps_total{result="error",step="put_pool"}"#), "{text}");
        nodes_followed(Duration::from_secs(1), false);
        hosts_updated(Duration::from_secs(1));
        running("service", true);
        queued("service", 1);
        dequeued("service", Duration::from_millis(3));
        worked("service", Duration::from_millis(3), 1);
        working("other");
        node_met(Duration::from_secs(2));
        node_released(Duration::from_secs(3));
        routes_seen();
        kubernetes_call("k:6443", "PATCH", Some(409), Duration::from_millis(3));
        kubernetes_call("k:6443", "GET", None, Duration::from_millis(3));
        lease_reread("ccm");
        health_checked("readyz", false);
        pools_down(2);
        let text = render();
        for name in [
            "service_controller_nodesync_latency_seconds_count 1",
            "service_controller_update_loadbalancer_host_latency_seconds_count 1",
            r#"running_managed_controllers{manager="cloud-controller-manager",name="service"} 1"#,
            r#"workqueue_adds_total{name="service"} 1"#,
            r#"workqueue_retries_total{name="service"} 1"#,
            r#"workqueue_unfinished_work_seconds{name="other"}"#,
            r#"workqueue_longest_running_processor_seconds{name="service"} 0"#,
            "node_controller_initial_node_sync_delay_seconds_sum 2",
            "node_controller_cloud_provider_taint_removal_delay_seconds_sum 3",
            "route_controller_route_sync_total 1",
            r#"rest_client_requests_total{code="409",host="k:6443",method="PATCH"} 1"#,
            r#"rest_client_requests_total{code="<error>",host="k:6443",method="GET"} 1"#,
            r#"rest_client_request_duration_seconds_count{verb="GET"} 1"#,
            r#"leader_election_slowpath_total{name="ccm"} 1"#,
            r#"kubernetes_healthcheck{name="cloud-controller-manager",type="readyz"} 0"#,
            r#"kubernetes_healthchecks_total{name="cloud-controller-manager",status="pending",type="readyz"} 1"#,
            "ake_pools_without_healthy_members 2",
            "kubernetes_build_info{git_version=",
        ] {
            assert!(text.contains(name), "{name}: {text}");
        }
    }
}
