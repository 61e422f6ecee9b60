//! The IO: reading what plans are made from, and writing what they say.

use std::{collections::BTreeMap, time::Duration};

use ake_api_client::{Client, ClusterId};
use openstack_client::{
    ExposeSecret, Service as CloudService, Session, ports,
    volumes::{self, VolumeStatus},
};

use crate::{
    config::{self, Config},
    document::Cloud,
    plan::{ASKER, Reclaim, Seen, Service, Step, Volume},
};

/// What the metadata of a cluster's volumes is called.
const VOLUME_CLUSTER: &str = "cinder.csi.openstack.org/cluster";
const VOLUME_RECLAIM: &str = "ake.dev/reclaim-policy";

/// The tag of a cluster's ports.
const PORT_CLUSTER: &str = "ake-cluster";

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator's configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// OpenStack.
    #[error(transparent)]
    Cloud(#[from] openstack_client::Error),
    /// ake-api.
    #[error(transparent)]
    Api(#[from] ake_api_client::Error),
}

impl Error {
    /// Whether the same may be taken a little later: something else has to go first, or somebody is not there.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Config(_) => false,
            Self::Cloud(error) => error.is_passing() || error.is_conflict(),
            Self::Api(error) => error.is_passing() || error.code() == Some("conflict"),
        }
    }

    /// When whoever answered wants to be asked again, if it said that it could not do it yet.
    #[must_use]
    pub fn asks_again(&self) -> Option<Duration> {
        match self {
            Self::Api(error @ ake_api_client::Error::Refused { .. }) if error.is_passing() => {
                Some(error.retry_after().unwrap_or(Duration::from_secs(2)))
            }
            _ => None,
        }
    }

    /// Whether the cloud says that this cannot be done, now or later.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Cloud(error) if error.class() == openstack_client::Class::Invalid)
    }
}

/// Both services, as one tenant.
pub struct World {
    session: Session,
    api: Client,
    service: Service,
}

impl World {
    /// Finds the services by the tenant's token.
    pub async fn connect(config: &Config, cloud: &Cloud) -> Result<Self, Error> {
        let session = Session::from_token(
            &cloud.auth_url,
            cloud.token.clone().into(),
            cloud.region.as_deref(),
            config.cloud_ca_file.as_deref(),
        )
        .await?;
        let url = match &config.api_url {
            Some(url) => url.clone(),
            None => session.endpoint(CloudService::Ake)?,
        };
        let ca = config.api_ca()?;
        let token = session.token().await?.expose_secret().to_owned();
        let api = Client::new(&url, ca.as_ref().map(String::as_bytes), Some(Box::new(token)))?;
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { session, api, service: Service { url, ca: ca.unwrap_or_default() } })
    }

    /// What there is of a cluster; with servers and volumes only where they matter.
    pub async fn observe(
        &self,
        cluster: ClusterId,
        first: bool,
        servers_and_volumes: bool,
    ) -> Result<Seen, Error> {
        let state = match self.api.cluster(cluster).await {
            Ok((state, _)) => Some(state),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let mut seen = Seen { first, cluster: state, service: self.service.clone(), ..Seen::default() };
        if servers_and_volumes {
            seen.servers = self.servers(cluster).await?;
            seen.volumes = self.volumes(cluster).await?;
        }
        Ok(seen)
    }

    /// Does one step.
    pub async fn apply(&self, cluster: ClusterId, step: &Step) -> Result<(), Error> {
        let api = &self.api;
        match step {
            Step::PutCluster(request) => api.put_cluster(cluster, request).await.map(drop)?,
            Step::MarkDeleting => match api.mark_deleting(cluster).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            },
            Step::DeleteCluster => api.delete_cluster(cluster).await?,
            Step::PutAddress(name, request) => api.put_address(cluster, name, request).await.map(drop)?,
            Step::DeleteAddress(name) => api.delete_address(cluster, name).await?,
            Step::PutPool(name, request) => api.put_pool(cluster, name, request).await.map(drop)?,
            Step::DeletePool(name) => api.delete_pool(cluster, name).await?,
            Step::PutLoadBalancer(name, request) => {
                api.put_load_balancer(cluster, name, request).await.map(drop)?;
            }
            Step::DeleteLoadBalancer(name) => api.delete_load_balancer(cluster, name).await?,
            Step::PutMember(pool, name, request) => {
                api.put_member(cluster, pool, name, request).await.map(drop)?;
            }
            Step::DeleteMember(pool, name) => api.delete_member(cluster, pool, name).await?,
            Step::PutNodePort(port, request) => api.put_node_port(cluster, port, request).await.map(drop)?,
            Step::DeleteNodePort(port) => api.delete_node_port(cluster, port, ASKER).await?,
            Step::PutBundle(role, request) => api.put_bundle(cluster, role, request).await?,
            Step::DeleteVolume(id) => volumes::delete(&self.session, id).await?,
        }
        Ok(())
    }

    async fn servers(&self, cluster: ClusterId) -> Result<Vec<String>, Error> {
        let filter =
            ports::Filter { tags: vec![format!("{PORT_CLUSTER}={cluster}")], ..ports::Filter::default() };
        let ports = ports::list(&self.session, &filter).await?;
        let mut servers: Vec<_> = ports
            .into_iter()
            .filter(|port| port.device_owner.starts_with("compute:") && !port.device_id.is_empty())
            .map(|port| port.device_id)
            .collect();
        servers.sort();
        servers.dedup();
        Ok(servers)
    }

    async fn volumes(&self, cluster: ClusterId) -> Result<Vec<Volume>, Error> {
        let filter = volumes::Filter {
            metadata: BTreeMap::from([(VOLUME_CLUSTER.to_owned(), cluster.to_string())]),
            ..volumes::Filter::default()
        };
        let listed = volumes::list(&self.session, &filter).await?;
        Ok(listed.into_iter().map(volume).collect())
    }
}

/// Only what says Delete is ever deleted.
fn volume(volume: volumes::Volume) -> Volume {
    let reclaim = match volume.metadata.get(VOLUME_RECLAIM).map(String::as_str) {
        Some("Delete") => Reclaim::Delete,
        _ => Reclaim::Retain,
    };
    let status = match &volume.status {
        // A volume that nobody has, whatever else happened to it.
        VolumeStatus::ErrorExtending => "error".to_owned(),
        status => status.to_string(),
    };
    Volume { name: volume.name().to_owned(), id: volume.id, status, reclaim }
}
