//! The cloud's side of volumes: claims get volumes, volumes get attached, released volumes go.
//!
//! One queue per kind of object, each worked off as observe, plan, apply, status: `view` holds what is read,
//! `provision`, `release`, `attach` and `resize` each hold a pure plan and what carries it out, and `cloud` the
//! idempotent operations on Cinder and Nova with their waits.

mod attach;
mod cloud;
mod finalizers;
mod provision;
mod quantity;
mod release;
mod resize;
mod view;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSINode, StorageClass, VolumeAttachment},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Backoff, Cluster, Index, Key, Leadership, Next, Queue, Recorder, Selector},
    services::apply::StepError,
};
use cloud::Cloud;
use view::{AttachmentView, ByVolume, ClaimView, ClassView, DriverView, PersistentView};

/// As the sidecars: 1 s, doubled up to 5 min.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };

/// Objects of one kind that are worked on at once.
const WORKERS: usize = 8;

/// The component that Events name.
const COMPONENT: &str = "cinder.csi.openstack.org";

/// Everything that the workers share.
struct Context {
    cluster: Cluster,
    recorder: Recorder,
    /// Without it nothing is begun.
    leadership: Leadership,
    cloud: Cloud,
    /// The cloud with ake-api, which knows whose the cluster is.
    whole: Arc<crate::cloud::Cloud>,
    claims: Index<PersistentVolumeClaim, ClaimView>,
    volumes: Index<PersistentVolume, PersistentView>,
    classes: Index<StorageClass, ClassView>,
    attachments: Index<VolumeAttachment, AttachmentView>,
    drivers: Index<CSINode, DriverView>,
    zones: Index<Node, Option<String>>,
    /// Claims whose volume may have been begun in this life of the program.
    begun: provision::Begun,
}

/// Keeps volumes until `stop`. Only the leader may run this.
pub async fn run(
    cluster: Cluster,
    recorder: Recorder,
    leadership: Leadership,
    whole: Arc<crate::cloud::Cloud>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let [claims, volumes, attachments] = [(); 3].map(|()| Queue::<Key>::new(BACKOFF));
    let context = Arc::new(watch(
        cluster,
        recorder,
        leadership,
        Cloud::new(whole.session.clone(), whole.cluster_id),
        whole,
        [&claims, &volumes, &attachments],
    ));
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = context.ready() => {}
    }
    tracing::info!(cluster_id = context.cloud.cluster(), "keeping volumes");
    let (a, b, c) = (Arc::clone(&context), Arc::clone(&context), context);
    let (stop_a, stop_b, stop_c) = (stop.clone(), stop.clone(), stop.clone());
    tokio::join!(
        claims.run(WORKERS, stop.clone(), move |key| {
            let (context, stop) = (Arc::clone(&a), stop_a.clone());
            async move { until(&context, &stop, work_on_claim(&context, &key)).await }
        }),
        volumes.run(WORKERS, stop.clone(), move |key| {
            let (context, stop) = (Arc::clone(&b), stop_b.clone());
            async move { until(&context, &stop, release::work(&context, &key)).await }
        }),
        attachments.run(WORKERS, stop.clone(), move |key| {
            let (context, stop) = (Arc::clone(&c), stop_c.clone());
            async move { until(&context, &stop, attach::work(&context, &key)).await }
        }),
    );
    Ok(())
}

async fn work_on_claim(context: &Context, key: &Key) -> Result<Next, Error> {
    match resize::work(context, key).await? {
        Some(next) => Ok(next),
        None => provision::work(context, key).await,
    }
}

/// Drops the work where it stands when somebody else leads by now: every step can be repeated, and the waits
/// for the cloud are long.
async fn until(
    context: &Context,
    stop: &CancellationToken,
    work: impl Future<Output = Result<Next, Error>>,
) -> Result<Next, Error> {
    if !context.leadership.is_valid() {
        // Either it is renewed at last, or the process ends.
        return Ok(Next::After(BACKOFF.first));
    }
    tokio::select! {
        () = stop.cancelled() => Ok(Next::Done),
        outcome = work => outcome,
    }
}

/// Begins all watches. What changes is put into the queue of what it may concern.
fn watch(
    cluster: Cluster,
    recorder: Recorder,
    leadership: Leadership,
    cloud: Cloud,
    whole: Arc<crate::cloud::Cloud>,
    queues: [&Queue<Key>; 3],
) -> Context {
    let [claims, volumes, attachments] = queues.map(Clone::clone);
    let all = Selector::default;
    let by_volume = ByVolume::default();
    let of_claims = {
        let claims = claims.clone();
        cluster.watch(all(), view::claim, move |change| claims.add(change.key.clone()))
    };
    let of_volumes = {
        let (volumes, attachments, by_volume) = (volumes.clone(), attachments.clone(), by_volume.clone());
        cluster.watch(all(), view::persistent, move |change| {
            volumes.add(change.key.clone());
            if let Some(claim) = change.new.and_then(|volume| volume.claim.clone()) {
                claims.add(claim);
            }
            by_volume.of(&change.key.name).into_iter().for_each(|attachment| attachments.add(attachment));
        })
    };
    let of_attachments = cluster.watch(all(), view::attachment, move |change| {
        if view::wakes(change.old, change.new) {
            attachments.add(change.key.clone());
        }
        if let Some(attachment) = change.new.or(change.old) {
            by_volume.note(&attachment.volume, change.key, change.new.is_some());
            volumes.add(Key::whole(attachment.volume.clone()));
        }
    });
    Context {
        claims: of_claims,
        volumes: of_volumes,
        attachments: of_attachments,
        classes: cluster.watch(all(), view::class, |_| {}),
        drivers: cluster.watch(all(), view::driver, |_| {}),
        zones: cluster.watch(all(), view::zone, |_| {}),
        begun: provision::Begun::default(),
        cluster,
        recorder,
        leadership,
        cloud,
        whole,
    }
}

impl Context {
    /// Waits until all lists are there: nothing is decided from a part of them.
    async fn ready(&self) {
        self.claims.ready().await;
        self.volumes.ready().await;
        self.classes.ready().await;
        self.attachments.ready().await;
        self.drivers.ready().await;
        self.zones.ready().await;
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// By the API server.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    /// By the cloud.
    #[error(transparent)]
    Cloud(#[from] cloud::CloudError),
    /// By ake-api, which did not take it that the cluster is this Kubernetes.
    #[error(transparent)]
    Claim(#[from] Box<StepError>),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// Whether people should hear of it: somebody else's write in between is nobody's fault.
    fn is_news(&self) -> bool {
        match self {
            Self::Cluster(error) => !error.is_conflict(),
            Self::Claim(error) => !matches!(**error, StepError::Stale | StepError::Deposed),
            _ => true,
        }
    }
}
