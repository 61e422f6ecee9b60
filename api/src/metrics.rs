//! What is counted.

use std::{sync::Arc, time::Duration};

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// All metrics of the service. A clone counts into the same ones.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    reconciliations: IntCounterVec,
    reconcile_seconds: HistogramVec,
    device_changes: IntCounter,
    neutron_writes: IntCounterVec,
    leads: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("ake_api_requests_total", "Requests by method, path and status"),
            &["method", "path", "status"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("ake_api_request_seconds", "How long requests took"),
            &["method", "path"],
        )?;
        let reconciliations = IntCounterVec::new(
            Opts::new(
                "ake_api_reconciliations_total",
                "Comparisons of a balancer with what is wanted, by outcome",
            ),
            &["device", "outcome"],
        )?;
        let reconcile_seconds = HistogramVec::new(
            HistogramOpts::new("ake_api_reconcile_seconds", "How long comparisons, with their writes, took"),
            &["device"],
        )?;
        let device_changes = IntCounter::new("ake_api_device_changes_total", "Changes written to balancers")?;
        let neutron_writes = IntCounterVec::new(
            Opts::new("ake_api_neutron_writes_total", "Writes to Neutron by what was written"),
            &["what"],
        )?;
        let leads = IntGauge::new(
            "ake_api_writes_to_balancers",
            "1 where this instance, of several, is the one that writes to the balancers",
        )?;
        registry.register(Box::new(leads.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(reconciliations.clone()))?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        registry.register(Box::new(device_changes.clone()))?;
        registry.register(Box::new(neutron_writes.clone()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                registry,
                requests,
                seconds,
                reconciliations,
                reconcile_seconds,
                device_changes,
                neutron_writes,
                leads,
            }),
        })
    }

    /// A request is answered. `path` is the route, not what stood in the request.
    pub fn answered(&self, method: &str, path: &str, status: u16, elapsed: Duration) {
        self.inner.requests.with_label_values(&[method, path, &status.to_string()]).inc();
        self.inner.seconds.with_label_values(&[method, path]).observe(elapsed.as_secs_f64());
    }

    /// A balancer was compared.
    pub fn reconciled(&self, device: &str, success: bool, elapsed: Duration) {
        let outcome = if success { "success" } else { "failure" };
        self.inner.reconciliations.with_label_values(&[device, outcome]).inc();
        self.inner.reconcile_seconds.with_label_values(&[device]).observe(elapsed.as_secs_f64());
    }

    /// Changes were written to a balancer.
    pub fn device_written(&self, changes: usize) {
        self.inner.device_changes.inc_by(changes as u64);
    }

    /// This instance is the one that writes to balancers, or is not.
    pub fn leads(&self, leads: bool) {
        self.inner.leads.set(i64::from(leads));
    }

    /// Something was written to Neutron.
    pub fn neutron_written(&self, what: &str) {
        self.inner.neutron_writes.with_label_values(&[what]).inc();
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.inner.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
