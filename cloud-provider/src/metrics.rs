//! What `/metrics` shows, under upstream's names where upstream has one.

use std::{sync::LazyLock, time::Duration};

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

struct Metrics {
    registry: Registry,
    openstack_duration: HistogramVec,
    openstack_total: IntCounterVec,
    openstack_errors: IntCounterVec,
    reconcile_duration: HistogramVec,
    reconcile_total: IntCounterVec,
    reconcile_errors: IntCounterVec,
    steps: IntCounterVec,
    conditions: IntCounterVec,
    leader: IntGaugeVec,
    stopped: IntGaugeVec,
    loadbalancer_syncs: IntCounterVec,
    node_syncs: HistogramVec,
    node_sync_errors: IntCounterVec,
    host_updates: HistogramVec,
    running: IntGaugeVec,
    queue_adds: IntCounterVec,
    queue_depth: IntGaugeVec,
    queue_retries: IntCounterVec,
    queue_waits: HistogramVec,
    queue_work: HistogramVec,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).ok()?;
            registry.register(Box::new(counter.clone())).ok()?;
            Some(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels).ok()?;
            registry.register(Box::new(gauge.clone())).ok()?;
            Some(gauge)
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: Vec<f64>| {
            let histogram =
                HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels).ok()?;
            registry.register(Box::new(histogram.clone())).ok()?;
            Some(histogram)
        };
        let made = (|| {
            let calls = vec![0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
            let rounds = vec![0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1000.0];
            Some(Self {
                openstack_duration: histogram(
                    "openstack_api_request_duration_seconds",
                    "Seconds that a call to OpenStack took",
                    &["request"],
                    calls,
                )?,
                openstack_total: counter("openstack_api_requests_total", "Calls to OpenStack", &["request"])?,
                openstack_errors: counter(
                    "openstack_api_request_errors_total",
                    "Calls to OpenStack that failed",
                    &["request"],
                )?,
                reconcile_duration: histogram(
                    "cloudprovider_openstack_reconcile_duration_seconds",
                    "Seconds that a reconciliation took",
                    &["operation"],
                    rounds,
                )?,
                reconcile_total: counter(
                    "cloudprovider_openstack_reconcile_total",
                    "Reconciliations",
                    &["operation"],
                )?,
                reconcile_errors: counter(
                    "cloudprovider_openstack_reconcile_errors_total",
                    "Reconciliations that failed",
                    &["operation"],
                )?,
                steps: counter("ake_steps_total", "Steps taken, by kind and result", &["step", "result"])?,
                conditions: counter(
                    "ake_cloud_conditions_total",
                    "Failures of the cloud by named condition, such as CloudCredentialRefused",
                    &["condition"],
                )?,
                leader: gauge("leader_election_master_status", "1 while leading", &["name"])?,
                stopped: gauge(
                    "ake_stopped",
                    "1 while a guard holds up all removals, or everything, of a controller",
                    &["controller"],
                )?,
                loadbalancer_syncs: counter(
                    "service_controller_loadbalancer_sync_total",
                    "Syncs of load balancers",
                    &[],
                )?,
                node_syncs: histogram(
                    "service_controller_nodesync_latency_seconds",
                    "Seconds from a change of Nodes until load balancers have followed it",
                    &[],
                    doubling(0.125, 14),
                )?,
                node_sync_errors: counter(
                    "service_controller_nodesync_error_total",
                    "Tries to have load balancers follow a change of Nodes that failed",
                    &[],
                )?,
                host_updates: histogram(
                    "service_controller_update_loadbalancer_host_latency_seconds",
                    "Seconds that it took to write the nodes behind load balancers",
                    &[],
                    doubling(0.125, 14),
                )?,
                running: gauge(
                    "running_managed_controllers",
                    "1 while a controller runs",
                    &["manager", "name"],
                )?,
                queue_adds: counter("workqueue_adds_total", "Changes that were queued", &["name"])?,
                queue_depth: gauge("workqueue_depth", "Changes that wait", &["name"])?,
                queue_retries: counter("workqueue_retries_total", "What is to be tried again", &["name"])?,
                queue_waits: histogram(
                    "workqueue_queue_duration_seconds",
                    "Seconds that the oldest change had waited when it was looked at",
                    &["name"],
                    doubling(0.001, 18),
                )?,
                queue_work: histogram(
                    "workqueue_work_duration_seconds",
                    "Seconds from when changes were looked at until they were done with",
                    &["name"],
                    doubling(0.001, 18),
                )?,
                registry: registry.clone(),
            })
        })();
        match made {
            Some(metrics) => metrics,
            // All names are constants of this function and tested below.
            None => unreachable!("a metric's name or label is not valid"),
        }
    }
}

/// So many limits of a histogram, each twice the one before.
fn doubling(first: f64, count: i32) -> Vec<f64> {
    (0..count).map(|power| first * 2_f64.powi(power)).collect()
}

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

/// They are done with; so many are to be tried again.
pub fn worked(queue: &str, elapsed: Duration, retries: usize) {
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

/// Whether a guard holds a controller up.
pub fn stopped(controller: &str, stopped: bool) {
    METRICS.stopped.with_label_values(&[controller]).set(i64::from(stopped));
}

/// All of it, as Prometheus reads it.
#[must_use]
pub fn render() -> String {
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
        let text = render();
        for name in [
            "service_controller_nodesync_latency_seconds_count 1",
            "service_controller_update_loadbalancer_host_latency_seconds_count 1",
            r#"running_managed_controllers{manager="cloud-controller-manager",name="service"} 1"#,
            r#"workqueue_adds_total{name="service"} 1"#,
            r#"workqueue_retries_total{name="service"} 1"#,
        ] {
            assert!(text.contains(name), "{name}: {text}");
        }
    }
}
