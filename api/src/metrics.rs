//! What is counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ake_api_client::Quota;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

/// All metrics of the service. A clone counts into the same ones.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    made: Made,
    requests: IntCounterVec,
    seconds: HistogramVec,
    refusals: IntCounterVec,
    reconciliations: IntCounterVec,
    reconcile_seconds: HistogramVec,
    device_changes: IntCounter,
    neutron_writes: IntCounterVec,
    orphans: IntGaugeVec,
    orphans_removed: IntCounterVec,
    sweep_stopped: IntGaugeVec,
    leads: IntGauge,
    quota_used: IntGaugeVec,
    quota_limit: IntGaugeVec,
    /// Held by who sets quotas and by who reads: nobody sees them half.
    whole: Mutex<()>,
    reloads: IntCounterVec,
}

/// Metrics while they are made.
#[derive(Default)]
struct Made {
    registry: Registry,
    all: Vec<Box<dyn Collector>>,
}

impl Made {
    fn keep<C: Collector + Clone + 'static>(&mut self, collector: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(collector.clone()))?;
        self.all.push(Box::new(collector.clone()));
        Ok(collector)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn times(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help), labels)?)
    }
}

impl Metrics {
    /// Makes and registers them.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut made = Made::default();
        Ok(Self {
            inner: Arc::new(Inner {
                requests: made.counters(
                    "ake_api_requests_total",
                    "Requests by method, path and status",
                    &["method", "path", "status"],
                )?,
                seconds: made.times(
                    "ake_api_request_seconds",
                    "How long requests took",
                    &["method", "path"],
                )?,
                refusals: made.counters(
                    "ake_api_refusals_total",
                    "Requests that were refused, by the code of the answer: quota, too-many-requests, forbidden and so on",
                    &["code"],
                )?,
                reconciliations: made.counters(
                    "ake_api_reconciliations_total",
                    "Comparisons of a balancer with what is wanted, by outcome",
                    &["device", "outcome"],
                )?,
                reconcile_seconds: made.times(
                    "ake_api_reconcile_seconds",
                    "How long comparisons, with their writes, took",
                    &["device"],
                )?,
                device_changes: made.keep(IntCounter::new(
                    "ake_api_device_changes_total",
                    "Changes written to balancers",
                )?)?,
                neutron_writes: made.counters(
                    "ake_api_neutron_writes_total",
                    "Writes to Neutron by what was written",
                    &["what"],
                )?,
                orphans: made.gauges(
                    "ake_api_orphans",
                    "Objects that carry AKE's mark and that no row of the database knows, by balancer, or of Neutron",
                    &["place"],
                )?,
                orphans_removed: made.counters(
                    "ake_api_orphans_removed_total",
                    "Such objects that were removed",
                    &["place"],
                )?,
                sweep_stopped: made.gauges(
                    "ake_api_orphan_sweep_stopped",
                    "1 where such objects stay, because the database is empty or they are more than orphan_budget",
                    &["place"],
                )?,
                leads: made.keep(IntGauge::new(
                    "ake_api_writes_to_balancers",
                    "1 where this instance, of several, is the one that writes to the balancers",
                )?)?,
                quota_used: made.gauges(
                    "ake_api_quota_used",
                    "How much a project has, by quota",
                    &["project", "quota"],
                )?,
                quota_limit: made.gauges(
                    "ake_api_quota_limit",
                    "How much a project may have, by quota; not there where it has no limit",
                    &["project", "quota"],
                )?,
                whole: Mutex::default(),
                reloads: made.counters(
                    "ake_api_reloads_total",
                    "Files that were read anew while the service ran: certificate, balancers (the certificate and \
                     authorities for them), audit-log; after a failure the old ones stay in use",
                    &["what", "outcome"],
                )?,
                made,
            }),
        })
    }

    /// All of them, as the reference lists them.
    #[must_use]
    pub fn all(&self) -> &[Box<dyn Collector>] {
        &self.inner.made.all
    }

    /// A request is answered. `path` is the route, not what stood in the request.
    pub fn answered(&self, method: &str, path: &str, status: u16, elapsed: Duration) {
        self.inner.requests.with_label_values(&[method, path, &status.to_string()]).inc();
        self.inner.seconds.with_label_values(&[method, path]).observe(elapsed.as_secs_f64());
    }

    /// A request is refused with this code.
    pub fn refused(&self, code: &str) {
        self.inner.refusals.with_label_values(&[code]).inc();
    }

    /// A balancer was compared.
    pub fn reconciled(&self, device: &str, success: bool, elapsed: Duration) {
        self.inner.reconciliations.with_label_values(&[device, outcome(success)]).inc();
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

    /// What no row of the database knows was counted in a place.
    pub fn orphans(&self, place: &str, objects: usize, stopped: bool) {
        self.inner.orphans.with_label_values(&[place]).set(i64::try_from(objects).unwrap_or(i64::MAX));
        self.inner.sweep_stopped.with_label_values(&[place]).set(i64::from(stopped));
    }

    /// Some of it was removed.
    pub fn orphans_removed(&self, place: &str, objects: usize) {
        self.inner.orphans_removed.with_label_values(&[place]).inc_by(objects as u64);
    }

    /// Something was written to Neutron.
    pub fn neutron_written(&self, what: &str) {
        self.inner.neutron_writes.with_label_values(&[what]).inc();
    }

    /// What each project has of what it may have, by quota. Those that are not named any more are forgotten.
    pub fn quotas(&self, projects: &BTreeMap<String, BTreeMap<String, Quota>>) {
        let Inner { quota_used, quota_limit, whole, .. } = &*self.inner;
        let _whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
        quota_used.reset();
        quota_limit.reset();
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (project, quotas) in projects {
            for (quota, Quota { used, limit }) in quotas {
                quota_used.with_label_values(&[project, quota]).set(number(*used));
                if let Some(limit) = limit {
                    quota_limit.with_label_values(&[project, quota]).set(number(*limit));
                }
            }
        }
    }

    /// Files were read anew.
    pub fn reloaded(&self, what: &str, success: bool) {
        self.inner.reloads.with_label_values(&[what, outcome(success)]).inc();
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let gathered = {
            let _whole = self.inner.whole.lock().unwrap_or_else(PoisonError::into_inner);
            self.inner.made.registry.gather()
        };
        let mut text = Vec::new();
        TextEncoder::new().encode(&gathered, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn outcome(success: bool) -> &'static str {
    if success { "success" } else { "failure" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_while_another_measures_sees_all_quotas() {
        let metrics = Metrics::new().unwrap();
        let quotas = BTreeMap::from([("pools".to_owned(), Quota { used: 1, limit: Some(2) })]);
        let projects: BTreeMap<_, _> = (0..50).map(|n| (format!("p{n}"), quotas.clone())).collect();
        metrics.quotas(&projects);
        let others = metrics.clone();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200).for_each(|_| others.quotas(&projects)));
            for _ in 0..200 {
                let text = metrics.text().unwrap();
                assert_eq!(text.matches("ake_api_quota_limit{").count(), projects.len());
            }
        });
    }
}
