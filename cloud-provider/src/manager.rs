//! The cloud controller manager: one leader, its watches, and the controllers on them.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Service},
    discovery::v1::EndpointSlice,
};
use openstack_client::{CloudConfig, config::ConfigError};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::Cloud,
    cluster::{Backoff, Cluster, Leadership, LeaseError, LeaseSettings, Recorder, Selector, Subject},
    flags::Flags,
    metrics, nodes,
    serve::{self, Health},
    services::{
        self,
        controller::News,
        observe::Views,
        view::{Classes, ServiceView, SliceView},
    },
    volumes,
};

/// Between two tries to log in.
const LOGIN: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };

/// How often the cloud config is compared with the one that was read.
const CONFIG_PERIOD: Duration = Duration::from_secs(1);

/// How long controllers may take to end.
const ENDING: Duration = Duration::from_secs(20);

/// Runs until told to stop, until leadership is lost, or until the cloud config changes.
pub async fn run(flags: Flags, stop: CancellationToken) -> anyhow::Result<()> {
    // Nothing else is tried with a config that cannot be right.
    let config = CloudConfig::load(&flags.cloud_config)?;
    for warning in &config.warnings {
        tracing::warn!("{}: {warning}", flags.cloud_config.display());
    }
    flags.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let config_text = std::fs::read_to_string(&flags.cloud_config).unwrap_or_default();
    let cluster_id = config.ake.cluster_id.as_deref().map(|text| {
        text.parse::<uuid::Uuid>().map_err(|_| {
            anyhow!(
                "{}: [AKE] cluster-id = {text:?}: expected a UUID, the id of the cluster's root stack",
                flags.cloud_config.display()
            )
        })
    });
    let cluster_id = cluster_id.transpose()?;

    let health = Health::default();
    serve::serve(&flags, health.clone()).await?;
    let cluster = Cluster::connect(flags.kubeconfig.as_deref()).await?;
    let recorder = Recorder::start(cluster.clone());
    let (views, news, nodes_changed) = watch(&cluster, flags.classes());

    let Some(leadership) = lead(&flags, &cluster, &stop).await? else { return Ok(()) };
    metrics::leading(&flags.leader_elect_resource_name, true);
    let lost = leadership.lost();
    let ending = CancellationToken::new();
    let manager = Manager {
        flags: flags.clone(),
        config,
        cluster,
        recorder,
        views,
        news,
        nodes_changed,
        leadership,
        health,
    };
    let leadership = manager.leadership.clone();
    let mut work = tokio::spawn(manager.control(cluster_id, ending.clone()));
    tokio::select! {
        ended = &mut work => {
            leadership.release().await;
            return ended.context("a controller has died")?;
        }
        () = stop.cancelled() => {}
        () = changed(&flags.cloud_config, &config_text) => {
            tracing::info!("the cloud config has changed: ending, to be started anew with it");
        }
        () = lost.cancelled() => {
            // What another leader may do already must not be done twice: no ending in order.
            work.abort();
            return Err(anyhow!("leadership lost"));
        }
    }
    ending.cancel();
    if tokio::time::timeout(ENDING, &mut work).await.is_err() {
        tracing::warn!("a controller did not end in time");
        work.abort();
    }
    leadership.release().await;
    metrics::leading(&flags.leader_elect_resource_name, false);
    Ok(())
}

/// What the leader works with.
struct Manager {
    flags: Flags,
    config: CloudConfig,
    cluster: Cluster,
    recorder: Recorder,
    views: Views,
    news: Arc<News>,
    nodes_changed: Arc<Notify>,
    leadership: Leadership,
    health: Health,
}

impl Manager {
    /// Runs the controllers until `ending`.
    async fn control(self, cluster_id: Option<uuid::Uuid>, ending: CancellationToken) -> anyhow::Result<()> {
        let cloud = tokio::select! {
            () = ending.cancelled() => return Ok(()),
            cloud = self.cloud(cluster_id) => Arc::new(cloud?),
        };
        self.health.set_ready(true);
        let flags = &self.flags;
        let mut running = JoinSet::new();
        if flags.runs("cloud-node-controller") || flags.runs("cloud-node-lifecycle-controller") {
            metrics::running("cloud-node-controller", true);
            let work = nodes::controller::run(self.nodes(&cloud), ending.clone());
            running.spawn(async {
                work.await;
                Ok(())
            });
        }
        if flags.runs("service-lb-controller") {
            metrics::running("service-lb-controller", true);
            let work = services::controller::run(self.services(&cloud), ending.clone());
            running.spawn(async {
                work.await;
                Ok(())
            });
        }
        if flags.runs("volume-controller") && !flags.dry_run {
            metrics::running("volume-controller", true);
            let work = volumes::controller::run(
                self.cluster.clone(),
                self.recorder.clone(),
                self.leadership.clone(),
                cloud.clone(),
                ending.clone(),
            );
            running.spawn(async { work.await.context("volumes") });
        }
        while let Some(ended) = running.join_next().await {
            ended.context("a controller has died")??;
            if !ending.is_cancelled() {
                bail!("a controller has ended");
            }
        }
        ending.cancelled().await;
        Ok(())
    }

    /// Waits for the first complete view, and for a login.
    async fn cloud(&self, cluster_id: Option<uuid::Uuid>) -> anyhow::Result<Cloud> {
        anyhow::ensure!(self.views.ready().await, "a watch has ended");
        let kubernetes = identity(&self.cluster).await?;
        let cluster_id = cluster_id.unwrap_or(kubernetes);
        Ok(log_in(&self.config, (cluster_id, kubernetes), &self.views, &self.recorder).await)
    }

    fn nodes(&self, cloud: &Arc<Cloud>) -> nodes::controller::Context {
        nodes::controller::Context {
            cluster: self.cluster.clone(),
            cloud: cloud.clone(),
            recorder: self.recorder.clone(),
            leadership: self.leadership.clone(),
            nodes: self.views.nodes.clone(),
            wake: self.nodes_changed.clone(),
            drift_period: self.flags.drift_period,
            monitor_period: self.flags.node_monitor_period,
            initialize: self.flags.runs("cloud-node-controller"),
            life_cycle: self.flags.runs("cloud-node-lifecycle-controller"),
            dry_run: self.flags.dry_run,
        }
    }

    fn services(&self, cloud: &Arc<Cloud>) -> services::controller::Context {
        services::controller::Context {
            cluster: self.cluster.clone(),
            cloud: cloud.clone(),
            recorder: self.recorder.clone(),
            leadership: self.leadership.clone(),
            views: self.views.clone(),
            news: self.news.clone(),
            drift_period: self.flags.drift_period,
            pairs: self.flags.runs("node-route-controller"),
            routes: self.flags.routes(),
            dry_run: self.flags.dry_run,
        }
    }
}

/// Starts the watches; they are warm before we lead.
fn watch(cluster: &Cluster, classes: Classes) -> (Views, Arc<News>, Arc<Notify>) {
    let news = Arc::new(News::default());
    let nodes_changed = Arc::new(Notify::new());
    let services = {
        let news = news.clone();
        let project = move |service| services::view::service(service, &classes);
        cluster.watch(Selector::default(), project, move |change| news.service(&change))
    };
    let nodes = {
        let (news, nodes_changed) = (news.clone(), nodes_changed.clone());
        cluster.watch(Selector::default(), nodes::view::node, move |_| {
            news.node();
            nodes_changed.notify_one();
        })
    };
    let slices = {
        let (wake, services) = (news.wake.clone(), services.clone());
        cluster.watch::<EndpointSlice, SliceView>(Selector::default(), services::view::slice, move |change| {
            // Where all nodes take traffic it does not matter which have endpoints.
            let of =
                |view: Option<&Arc<SliceView>>| view.and_then(|view| services.get(view.service.as_ref()?));
            let matters = |service: Arc<ServiceView>| service.wants && service.local;
            if of(change.new).is_some_and(matters) || of(change.old).is_some_and(matters) {
                wake.notify_one();
            }
        })
    };
    (Views { services, nodes, slices }, news, nodes_changed)
}

async fn lead(
    flags: &Flags,
    cluster: &Cluster,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Leadership>> {
    if !flags.leader_elect {
        return Ok(Some(Leadership::alone()));
    }
    let settings = LeaseSettings {
        namespace: flags.leader_elect_resource_namespace.clone(),
        name: flags.leader_elect_resource_name.clone(),
        duration: flags.leader_elect_lease_duration,
        renew_deadline: flags.leader_elect_renew_deadline,
        retry_period: flags.leader_elect_retry_period,
    };
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let identity = format!("{host}_{}", uuid::Uuid::new_v4());
    match Leadership::acquire(cluster, settings, identity, stop.clone()).await {
        Err(LeaseError::Stopped) => Ok(None),
        led => Ok(Some(led?)),
    }
}

/// Which Kubernetes this is; and who the cluster is where nobody has said it.
async fn identity(cluster: &Cluster) -> anyhow::Result<uuid::Uuid> {
    let namespace = cluster.get::<Namespace>(None, "kube-system").await;
    let namespace =
        namespace.context("namespace kube-system, which the controller manager must be let read")?;
    let uid =
        namespace.and_then(|namespace| namespace.metadata.uid).context("namespace kube-system has no UID")?;
    uid.parse().with_context(|| format!("UID {uid:?} of namespace kube-system: expected a UUID"))
}

/// Tries until there is a login, and says why there is none on whatever waits for one.
async fn log_in(
    config: &CloudConfig,
    (cluster_id, kubernetes): (uuid::Uuid, uuid::Uuid),
    views: &Views,
    recorder: &Recorder,
) -> Cloud {
    let mut failures = 0;
    loop {
        let error = match Cloud::connect(config, cluster_id, kubernetes).await {
            Ok(cloud) => return cloud,
            Err(error) => error,
        };
        failures += 1;
        let condition = error.condition();
        metrics::condition(condition);
        tracing::error!(%error, condition, "no login to the cloud");
        for (key, node) in views.nodes.all().iter().filter(|(_, node)| node.uninitialized) {
            let subject = Subject::new::<Node>(key.clone(), node.uid.clone());
            recorder.warn("cloud-node-controller", subject, condition, error.to_string());
        }
        for (key, service) in views.services.all() {
            if service.is_wanted() && service.ingress.is_empty() || !service.is_wanted() && service.finalizer
            {
                let subject = Subject::new::<Service>(key, service.uid.clone());
                recorder.warn("service-controller", subject, condition, error.to_string());
            }
        }
        tokio::time::sleep(LOGIN.pause(failures)).await;
    }
}

/// Returns once the file says something else that can be read.
async fn changed(path: &Path, text: &str) {
    let mut seen = text.to_owned();
    loop {
        tokio::time::sleep(CONFIG_PERIOD).await;
        let Ok(now) = tokio::fs::read_to_string(path).await else { continue };
        match look(text, &mut seen, now) {
            Some(Ok(())) => return,
            Some(Err(error)) => {
                tracing::error!(%error, "{} has changed, and cannot be used: still with the old one", path.display());
            }
            None => {}
        }
    }
}

/// Whether what a cloud config says `now` can be used in place of the `text` that is in use; none where it is that one, or
/// was `seen` at the look before.
fn look(text: &str, seen: &mut String, now: String) -> Option<Result<(), ConfigError>> {
    if now == *seen {
        return None;
    }
    seen.clone_from(&now);
    (now != text).then(|| CloudConfig::parse(&now).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_config_that_cannot_be_used_is_told_once_each_time_that_it_is_another() {
        let good = "[Global]\nauth-url = http://keystone:5000/v3\napplication-credential-id = a\n\
            application-credential-secret = s\n";
        let renewed = good.replace("id = a", "id = b");
        let (bad, worse) = (good.replace("auth-url", "auth-ulr"), good.replace("[Global]", "[Gobal]"));
        let mut seen = good.to_owned();
        for (now, told) in [
            (good, None),
            (&bad, Some(false)),
            (&bad, None),
            (&worse, Some(false)),
            (&worse, None),
            (good, None),
            (&bad, Some(false)),
            (&renewed, Some(true)),
        ] {
            assert_eq!(look(good, &mut seen, now.to_owned()).map(|read| read.is_ok()), told, "{now}");
        }
    }
}
