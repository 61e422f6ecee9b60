//! The cloud controller manager: one leader, its watches, and the controllers on them.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Service},
    discovery::v1::EndpointSlice,
};
use openstack_client::CloudConfig;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::Cloud,
    cluster::{Backoff, Cluster, Leadership, LeaseSettings, Recorder, Selector, Subject},
    flags::Flags,
    metrics, nodes,
    serve::{self, Health},
    services::{
        self,
        controller::News,
        observe::Views,
        view::{ServiceView, SliceView},
    },
    volumes,
};

/// Between two tries to log in.
const LOGIN: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) };

/// How often the cloud config is compared with the one that was read.
const CONFIG_PERIOD: Duration = Duration::from_secs(10);

/// How long controllers may take to end.
const ENDING: Duration = Duration::from_secs(20);

/// Runs until told to stop, until leadership is lost, or until the cloud config changes.
pub async fn run(flags: Flags, stop: CancellationToken) -> anyhow::Result<()> {
    // Nothing else is tried with a config that cannot be right.
    let config = CloudConfig::load(&flags.cloud_config)?;
    for warning in &config.warnings {
        tracing::warn!("{}: {warning}", flags.cloud_config.display());
    }
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
    let (views, news, nodes_changed) = watch(&cluster);

    let leadership = lead(&flags, &cluster, &stop).await?;
    let lost = leadership.lost();
    metrics::leading(&flags.leader_elect_resource_name, true);

    let ending = CancellationToken::new();
    let work = async {
        anyhow::ensure!(views.ready().await, "a watch has ended");
        let cluster_id = match cluster_id {
            Some(id) => id,
            None => identity(&cluster).await?,
        };
        let cloud = Arc::new(log_in(&config, cluster_id, &views, &recorder).await);
        health.set_ready(true);
        let mut running = JoinSet::new();
        if flags.runs("cloud-node-controller") || flags.runs("cloud-node-lifecycle-controller") {
            let context = nodes::controller::Context {
                cluster: cluster.clone(),
                cloud: cloud.clone(),
                recorder: recorder.clone(),
                leadership: leadership.clone(),
                nodes: views.nodes.clone(),
                wake: nodes_changed.clone(),
                drift_period: flags.drift_period,
                monitor_period: flags.node_monitor_period,
                initialize: flags.runs("cloud-node-controller"),
                life_cycle: flags.runs("cloud-node-lifecycle-controller"),
                dry_run: flags.dry_run,
            };
            let ending = ending.clone();
            running.spawn(async move {
                nodes::controller::run(context, ending).await;
                Ok(())
            });
        }
        if flags.runs("service-lb-controller") {
            let context = services::controller::Context {
                cluster: cluster.clone(),
                cloud: cloud.clone(),
                recorder: recorder.clone(),
                leadership: leadership.clone(),
                views: views.clone(),
                news: news.clone(),
                drift_period: flags.drift_period,
                pairs: flags.runs("node-route-controller"),
                dry_run: flags.dry_run,
            };
            let ending = ending.clone();
            running.spawn(async move {
                services::controller::run(context, ending).await;
                Ok(())
            });
        }
        if flags.runs("volume-controller") && !flags.dry_run {
            let (cluster, recorder) = (cluster.clone(), recorder.clone());
            let (session, ending) = (cloud.session.clone(), ending.clone());
            running.spawn(async move {
                volumes::controller::run(cluster, recorder, session, cluster_id, ending)
                    .await
                    .context("volumes")
            });
        }
        while let Some(ended) = running.join_next().await {
            ended.context("a controller has died")??;
            if !ending.is_cancelled() {
                bail!("a controller has ended");
            }
        }
        anyhow::Ok(())
    };
    tokio::pin!(work);
    let result = tokio::select! {
        ended = &mut work => ended,
        () = stop.cancelled() => Ok(()),
        // What another leader may do already must not be done twice: no ending in order.
        () = lost.cancelled() => return Err(anyhow!("leadership lost")),
        () = changed(&flags.cloud_config, &config_text) => {
            tracing::info!("the cloud config has changed: ending, to be started anew with it");
            stop.cancel();
            Ok(())
        }
    };
    metrics::leading(&flags.leader_elect_resource_name, false);
    ending.cancel();
    if result.is_ok() && tokio::time::timeout(ENDING, work).await.is_err() {
        tracing::warn!("a controller did not end in time");
    }
    release(&flags, &leadership, &stop).await;
    result
}

/// Starts the watches; they are warm before we lead.
fn watch(cluster: &Cluster) -> (Views, Arc<News>, Arc<Notify>) {
    let news = Arc::new(News::default());
    let nodes_changed = Arc::new(Notify::new());
    let services = {
        let news = news.clone();
        cluster.watch(Selector::default(), services::view::service, move |change| news.service(&change))
    };
    let nodes = {
        let (wake, nodes_changed) = (news.wake.clone(), nodes_changed.clone());
        cluster.watch(Selector::default(), nodes::view::node, move |_| {
            wake.notify_one();
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

async fn lead(flags: &Flags, cluster: &Cluster, stop: &CancellationToken) -> anyhow::Result<Leadership> {
    if !flags.leader_elect {
        return Ok(Leadership::alone());
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
    Ok(Leadership::acquire(cluster, settings, identity, stop.clone()).await?)
}

/// Waits until the Lease is given back, so that another can lead at once.
async fn release(flags: &Flags, leadership: &Leadership, stop: &CancellationToken) {
    if !flags.leader_elect {
        return;
    }
    stop.cancel();
    for _ in 0..50 {
        if leadership.is_released() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Who the cluster is where nobody has said it.
async fn identity(cluster: &Cluster) -> anyhow::Result<uuid::Uuid> {
    let namespace = cluster.get::<Namespace>(None, "kube-system").await?;
    let uid =
        namespace.and_then(|namespace| namespace.metadata.uid).context("namespace kube-system has no UID")?;
    uid.parse().with_context(|| format!("UID {uid:?} of namespace kube-system: expected a UUID"))
}

/// Tries until there is a login, and says why there is none on whatever waits for one.
async fn log_in(config: &CloudConfig, cluster_id: uuid::Uuid, views: &Views, recorder: &Recorder) -> Cloud {
    let mut failures = 0;
    loop {
        let error = match Cloud::connect(config, cluster_id).await {
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
    loop {
        tokio::time::sleep(CONFIG_PERIOD).await;
        match tokio::fs::read_to_string(path).await {
            Ok(now) if now != text => match CloudConfig::parse(&now) {
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "{} has changed, and cannot be used: still with the old one", path.display())
                }
            },
            _ => {}
        }
    }
}
