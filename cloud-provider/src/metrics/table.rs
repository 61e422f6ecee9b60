//! All metrics by name.

use std::{collections::BTreeMap, sync::Mutex, time::Instant};

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector,
};

/// All of them.
pub(super) struct Metrics {
    pub(super) registry: Registry,
    pub(super) all: Vec<Box<dyn Collector>>,
    pub(super) openstack_duration: HistogramVec,
    pub(super) openstack_total: IntCounterVec,
    pub(super) openstack_errors: IntCounterVec,
    pub(super) reconcile_duration: HistogramVec,
    pub(super) reconcile_total: IntCounterVec,
    pub(super) reconcile_errors: IntCounterVec,
    pub(super) steps: IntCounterVec,
    pub(super) conditions: IntCounterVec,
    pub(super) leader: IntGaugeVec,
    pub(super) leader_slow: IntCounterVec,
    pub(super) healthy: IntGaugeVec,
    pub(super) health_checks: IntCounterVec,
    pub(super) pools_down: IntGaugeVec,
    pub(super) stopped: IntGaugeVec,
    pub(super) loadbalancer_syncs: IntCounterVec,
    pub(super) node_syncs: HistogramVec,
    pub(super) node_sync_errors: IntCounterVec,
    pub(super) host_updates: HistogramVec,
    pub(super) running: IntGaugeVec,
    pub(super) queue_adds: IntCounterVec,
    pub(super) queue_depth: IntGaugeVec,
    pub(super) queue_retries: IntCounterVec,
    pub(super) queue_waits: HistogramVec,
    pub(super) queue_work: HistogramVec,
    pub(super) queue_unfinished: GaugeVec,
    pub(super) queue_longest: GaugeVec,
    /// Since when each queue's changes are being worked on.
    pub(super) working: Mutex<BTreeMap<String, Instant>>,
    pub(super) node_syncs_first: HistogramVec,
    pub(super) taint_removals: HistogramVec,
    pub(super) route_syncs: IntCounterVec,
    pub(super) rest_requests: IntCounterVec,
    pub(super) rest_durations: HistogramVec,
    pub(super) build: IntGaugeVec,
}

impl Metrics {
    pub(super) fn new() -> Self {
        match Self::make(Maker::default()) {
            Some(metrics) => metrics,
            // All names are constants of this file, and tested.
            None => unreachable!("a metric's name or label is not valid"),
        }
    }

    fn make(mut maker: Maker) -> Option<Self> {
        let calls = vec![0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let rounds = vec![0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1000.0];
        Some(Self {
            openstack_duration: maker.histogram(
                "openstack_api_request_duration_seconds",
                "Seconds that a call to OpenStack took",
                &["request"],
                calls,
            )?,
            openstack_total: maker.counter(
                "openstack_api_requests_total",
                "Calls to OpenStack",
                &["request"],
            )?,
            openstack_errors: maker.counter(
                "openstack_api_request_errors_total",
                "Calls to OpenStack that failed",
                &["request"],
            )?,
            reconcile_duration: maker.histogram(
                "cloudprovider_openstack_reconcile_duration_seconds",
                "Seconds that a reconciliation took",
                &["operation"],
                rounds,
            )?,
            reconcile_total: maker.counter(
                "cloudprovider_openstack_reconcile_total",
                "Reconciliations",
                &["operation"],
            )?,
            reconcile_errors: maker.counter(
                "cloudprovider_openstack_reconcile_errors_total",
                "Reconciliations that failed",
                &["operation"],
            )?,
            steps: maker.counter(
                "ake_steps_total",
                "Steps taken, by kind and result",
                &["step", "result"],
            )?,
            conditions: maker.counter(
                "ake_cloud_conditions_total",
                "Failures of the cloud by named condition, such as CloudCredentialRefused",
                &["condition"],
            )?,
            leader: maker.gauge("leader_election_master_status", "1 while leading", &["name"])?,
            leader_slow: maker.counter(
                "leader_election_slowpath_total",
                "Renewals of the Lease for which it had to be read first",
                &["name"],
            )?,
            healthy: maker.gauge(
                "kubernetes_healthcheck",
                "1 if the last health check of this type was answered well",
                &["name", "type"],
            )?,
            health_checks: maker.counter(
                "kubernetes_healthchecks_total",
                "Health checks that were answered, by how (success, pending)",
                &["name", "status", "type"],
            )?,
            pools_down: maker.gauge(
                "ake_pools_without_healthy_members",
                "Sets of nodes behind load balancers of which none passes its checks",
                &[],
            )?,
            stopped: maker.gauge(
                "ake_stopped",
                "1 while a guard holds up all removals, or everything, of a controller",
                &["controller"],
            )?,
            loadbalancer_syncs: maker.counter(
                "service_controller_loadbalancer_sync_total",
                "Syncs of load balancers",
                &[],
            )?,
            node_syncs: maker.histogram(
                "service_controller_nodesync_latency_seconds",
                "Seconds from a change of Nodes until load balancers have followed it",
                &[],
                doubling(0.125, 14),
            )?,
            node_sync_errors: maker.counter(
                "service_controller_nodesync_error_total",
                "Tries to have load balancers follow a change of Nodes that failed",
                &[],
            )?,
            host_updates: maker.histogram(
                "service_controller_update_loadbalancer_host_latency_seconds",
                "Seconds that it took to write the nodes behind load balancers",
                &[],
                doubling(0.125, 14),
            )?,
            running: maker.gauge(
                "running_managed_controllers",
                "1 while a controller runs",
                &["manager", "name"],
            )?,
            queue_adds: maker.counter("workqueue_adds_total", "Changes that were queued", &["name"])?,
            queue_depth: maker.gauge("workqueue_depth", "Changes that wait", &["name"])?,
            queue_retries: maker.counter(
                "workqueue_retries_total",
                "What is to be tried again",
                &["name"],
            )?,
            queue_waits: maker.histogram(
                "workqueue_queue_duration_seconds",
                "Seconds that the oldest change had waited when it was looked at",
                &["name"],
                doubling(0.001, 18),
            )?,
            queue_work: maker.histogram(
                "workqueue_work_duration_seconds",
                "Seconds from when changes were looked at until they were done with",
                &["name"],
                doubling(0.001, 18),
            )?,
            queue_unfinished: maker.seconds(
                "workqueue_unfinished_work_seconds",
                "Seconds that changes which are being worked on have taken so far",
            )?,
            queue_longest: maker.seconds(
                "workqueue_longest_running_processor_seconds",
                "Seconds that the longest of them has taken so far",
            )?,
            working: Mutex::default(),
            node_syncs_first: maker.histogram(
                "node_controller_initial_node_sync_delay_seconds",
                "Seconds from the making of a Node until we began to say what it is",
                &[],
                doubling(1.0, 12),
            )?,
            taint_removals: maker.histogram(
                "node_controller_cloud_provider_taint_removal_delay_seconds",
                "Seconds from the making of a Node until pods were let onto it",
                &[],
                doubling(1.0, 12),
            )?,
            route_syncs: maker.counter(
                "route_controller_route_sync_total",
                "Looks at the address pairs of nodes' ports",
                &[],
            )?,
            rest_requests: maker.counter(
                "rest_client_requests_total",
                "Calls to the API server, watches among them, by status code (<error> without one), host and method",
                &["code", "host", "method"],
            )?,
            rest_durations: maker.histogram(
                "rest_client_request_duration_seconds",
                "Seconds until the API server began to answer a call",
                &["verb"],
                doubling(0.005, 14),
            )?,
            build: maker.gauge("kubernetes_build_info", "1, with what was built", &["git_version"])?,
            registry: maker.registry,
            all: maker.all,
        })
    }
}

/// Makes metrics and keeps them.
#[derive(Default)]
struct Maker {
    registry: Registry,
    all: Vec<Box<dyn Collector>>,
}

impl Maker {
    fn keep<C: Collector + Clone + 'static>(&mut self, made: prometheus::Result<C>) -> Option<C> {
        let made = made.ok()?;
        self.registry.register(Box::new(made.clone())).ok()?;
        self.all.push(Box::new(made.clone()));
        Some(made)
    }

    fn counter(&mut self, name: &str, help: &str, labels: &[&str]) -> Option<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &[&str]) -> Option<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn seconds(&mut self, name: &str, help: &str) -> Option<GaugeVec> {
        self.keep(GaugeVec::new(Opts::new(name, help), &["name"]))
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> Option<HistogramVec> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }
}

/// So many limits of a histogram, each twice the one before.
fn doubling(first: f64, count: i32) -> Vec<f64> {
    (0..count).map(|power| first * 2_f64.powi(power)).collect()
}
