//! Operations on Cinder and Nova that may be repeated at any time, each with its own deadline.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use openstack_client::{
    Error, Session, servers,
    volumes::{self, NewVolume, Volume, VolumeStatus},
};

/// Who owns a volume.
pub(super) const CLUSTER: &str = "cinder.csi.openstack.org/cluster";
/// What becomes of a volume when its cluster goes.
pub(super) const RECLAIM_POLICY: &str = "ake.dev/reclaim-policy";

/// Longest wait for a volume to be made.
const CREATED_WITHIN: Duration = Duration::from_secs(120);
/// Longest wait for a volume to be attached, detached or grown.
const CHANGED_WITHIN: Duration = Duration::from_secs(90);
/// Longest wait for a volume to go.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// What went wrong with a volume.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloudError {
    #[error(transparent)]
    Api(#[from] Error),
    #[error("volume {volume} is {status}: expected {expected}")]
    State { volume: String, status: VolumeStatus, expected: &'static str },
    #[error("volume {volume} is still {status} after {} s: expected {expected}", .after.as_secs())]
    TooSlow { volume: String, status: VolumeStatus, expected: &'static str, after: Duration },
    #[error("volume {volume} is attached to server {other}: expected it to be free, or on server {server}")]
    Elsewhere { volume: String, other: String, server: String },
    #[error("volume {volume} went back to {status} while it was being attached to server {server}")]
    GaveUp { volume: String, status: VolumeStatus, server: String },
    #[error("volume {volume} carries {key} = {found:?}: expected {expected:?}; it is left alone")]
    NotOurs { volume: String, key: &'static str, found: String, expected: String },
    #[error("{count} volumes of this cluster are called {name}: expected one at most")]
    Ambiguous { name: String, count: usize },
    #[error("volume {volume} called {name} has {found} GiB: expected at least {expected}")]
    TooSmall { volume: String, name: String, found: u64, expected: u64 },
}

/// The cloud, as one cluster sees it.
pub(super) struct Cloud {
    session: Session,
    cluster: String,
}

impl Cloud {
    pub(super) fn new(session: Session, cluster: uuid::Uuid) -> Self {
        Self { session, cluster: cluster.to_string() }
    }

    /// Whether volumes can be attached in every zone.
    pub(super) fn ignores_zones(&self) -> bool {
        self.session.config().block_storage.ignore_volume_az
    }

    /// The cluster's id.
    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// This cluster's volume of that name.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Volume>, CloudError> {
        let filter = volumes::Filter {
            name: Some(name.to_owned()),
            metadata: [(CLUSTER.to_owned(), self.cluster.clone())].into(),
        };
        let mut found = volumes::list(&self.session, &filter).await?;
        match found.len() {
            0 | 1 => Ok(found.pop()),
            count => Err(CloudError::Ambiguous { name: name.to_owned(), count }),
        }
    }

    /// Makes a volume, or takes the one that an earlier try has made.
    pub(super) async fn create(&self, mut wanted: NewVolume) -> Result<Volume, CloudError> {
        wanted.metadata.insert(CLUSTER.to_owned(), self.cluster.clone());
        let made = match self.find(&wanted.name).await? {
            Some(volume) if volume.size < wanted.size => {
                return Err(CloudError::TooSmall {
                    volume: volume.id,
                    name: wanted.name,
                    found: volume.size,
                    expected: wanted.size,
                });
            }
            Some(volume) => volume,
            None => volumes::create(&self.session, &wanted).await?,
        };
        let done = |volume: &Volume| {
            matches!(volume.status, VolumeStatus::Available | VolumeStatus::InUse | VolumeStatus::Error)
        };
        let volume = self.wait(&made.id, CREATED_WITHIN, "available", done).await?;
        if volume.status == VolumeStatus::Error {
            // A volume that failed is of no use; the next try shall make another.
            volumes::delete(&self.session, &volume.id).await?;
            return Err(CloudError::State {
                volume: volume.id,
                status: volume.status,
                expected: "available",
            });
        }
        Ok(volume)
    }

    /// Deletes this cluster's volume and waits until it is gone. One that carries another owner is left alone.
    pub(super) async fn delete(&self, id: &str) -> Result<(), CloudError> {
        let volume = match volumes::get(&self.session, id).await {
            Err(error) if error.is_missing() => return Ok(()),
            answer => answer?,
        };
        let owner = volume.metadata.get(CLUSTER).map_or("", String::as_str);
        if owner != self.cluster {
            return Err(CloudError::NotOurs {
                volume: id.to_owned(),
                key: CLUSTER,
                found: owner.to_owned(),
                expected: self.cluster.clone(),
            });
        }
        if volume.status != VolumeStatus::Deleting {
            if !matches!(
                volume.status,
                VolumeStatus::Available
                    | VolumeStatus::Error
                    | VolumeStatus::ErrorDeleting
                    | VolumeStatus::ErrorExtending
            ) {
                let expected = "available";
                return Err(CloudError::State { volume: volume.id, status: volume.status, expected });
            }
            volumes::delete(&self.session, id).await?;
        }
        let gone = |volume: &Volume| volume.status == VolumeStatus::ErrorDeleting;
        match self.wait(id, GONE_WITHIN, "gone", gone).await {
            Err(CloudError::Api(error)) if error.is_missing() => Ok(()),
            Err(error) => Err(error),
            Ok(volume) => {
                Err(CloudError::State { volume: volume.id, status: volume.status, expected: "gone" })
            }
        }
    }

    /// Attaches a volume to a server and waits until it is in use there.
    pub(super) async fn attach(&self, id: &str, server: &str) -> Result<Volume, CloudError> {
        let volume = volumes::get(&self.session, id).await?;
        let begun = match volume.status {
            VolumeStatus::Available => false,
            VolumeStatus::Attaching | VolumeStatus::Reserved => true,
            VolumeStatus::InUse | VolumeStatus::Detaching | VolumeStatus::Extending => {
                match volume.attachments.iter().find(|attachment| attachment.server_id != server) {
                    Some(other) => {
                        return Err(CloudError::Elsewhere {
                            volume: volume.id,
                            other: other.server_id.clone(),
                            server: server.to_owned(),
                        });
                    }
                    None => true,
                }
            }
            status => return Err(CloudError::State { volume: volume.id, status, expected: "available" }),
        };
        if volume.status == VolumeStatus::InUse {
            return Ok(volume);
        }
        if !begun {
            servers::attach_volume(&self.session, server, id).await?;
        }
        // Nova reserves the volume before it answers, so one that is available now has been given up.
        let done = |volume: &Volume| {
            matches!(volume.status, VolumeStatus::Available | VolumeStatus::InUse | VolumeStatus::Error)
        };
        let volume = self.wait(id, CHANGED_WITHIN, "in-use", done).await?;
        if volume.status == VolumeStatus::InUse && volume.is_attached_to(server) {
            return Ok(volume);
        }
        Err(CloudError::GaveUp { volume: volume.id, status: volume.status, server: server.to_owned() })
    }

    /// Detaches a volume from a server and waits until it is free. A volume or a server that is gone, and a
    /// volume that was never attached, are success.
    pub(super) async fn detach(&self, id: &str, server: &str) -> Result<(), CloudError> {
        let volume = match volumes::get(&self.session, id).await {
            Err(error) if error.is_missing() => return Ok(()),
            answer => answer?,
        };
        match volume.status {
            VolumeStatus::Available => return Ok(()),
            VolumeStatus::Attaching | VolumeStatus::Reserved => {
                // It may still arrive at the server.
                let done = |volume: &Volume| {
                    !matches!(volume.status, VolumeStatus::Attaching | VolumeStatus::Reserved)
                };
                self.wait(id, CHANGED_WITHIN, "in-use or available", done).await?;
            }
            _ if !volume.is_attached_to(server) => return Ok(()),
            _ => {}
        }
        match servers::get(&self.session, server).await {
            Err(error) if error.is_missing() => return Ok(()),
            answer => drop(answer?),
        }
        if volume.status != VolumeStatus::Detaching {
            servers::detach_volume(&self.session, server, id).await?;
        }
        let wanted = server.to_owned();
        let done = move |volume: &Volume| match volume.status {
            VolumeStatus::Available | VolumeStatus::Error => true,
            VolumeStatus::InUse => !volume.is_attached_to(&wanted),
            _ => false,
        };
        match self.wait(id, CHANGED_WITHIN, "available", done).await {
            Err(CloudError::Api(error)) if error.is_missing() => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Grows a volume to that many GiB and waits for it; one that is as large already is success.
    pub(super) async fn grow(&self, id: &str, size: u64) -> Result<Volume, CloudError> {
        let volume = volumes::get(&self.session, id).await?;
        if volume.size >= size && volume.status != VolumeStatus::Extending {
            return Ok(volume);
        }
        if volume.status != VolumeStatus::Extending {
            volumes::extend(&self.session, id, size).await?;
        }
        let done = |volume: &Volume| match volume.status {
            VolumeStatus::ErrorExtending | VolumeStatus::Error => true,
            VolumeStatus::Extending => false,
            _ => volume.size >= size,
        };
        let volume = self.wait(id, CHANGED_WITHIN, "larger", done).await?;
        if volume.size >= size {
            return Ok(volume);
        }
        Err(CloudError::State { volume: volume.id, status: volume.status, expected: "larger" })
    }

    /// Looks at a volume, more and more seldom, until it is `done`.
    async fn wait(
        &self,
        id: &str,
        within: Duration,
        expected: &'static str,
        done: impl Fn(&Volume) -> bool,
    ) -> Result<Volume, CloudError> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(250);
        loop {
            let volume = volumes::get(&self.session, id).await?;
            if done(&volume) {
                return Ok(volume);
            }
            if begun.elapsed() + pause > within {
                return Err(CloudError::TooSlow {
                    volume: volume.id,
                    status: volume.status,
                    expected,
                    after: within,
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(Duration::from_secs(2));
        }
    }
}

/// What is written to a volume, besides its cluster.
pub(super) fn metadata(claim: &crate::cluster::Key, volume: &str, policy: &str) -> BTreeMap<String, String> {
    [
        (RECLAIM_POLICY, policy),
        ("csi.storage.k8s.io/pvc/name", &claim.name),
        ("csi.storage.k8s.io/pvc/namespace", &claim.namespace),
        ("csi.storage.k8s.io/pv/name", volume),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}
