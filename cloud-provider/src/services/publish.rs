//! Writes to Services: the finalizer and the status.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::view::{FINALIZER, ServiceView};
use crate::cluster::{Cluster, Error, Index, Key};

/// How often a write that met another is tried again.
const TRIES: u32 = 5;

/// Writes to Services, each only to the one of that UID.
pub struct Pen {
    /// Kubernetes.
    pub cluster: Cluster,
    /// Is told what writes have returned.
    pub services: Index<Service, ServiceView>,
}

impl Pen {
    /// Adds or removes our finalizer on the Service as it stands now, if it is still that one.
    pub async fn set_finalizer(&self, key: &Key, uid: &str, wanted: bool) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let Some(found) = self.read(key, uid).await? else { return Ok(()) };
            let mut finalizers = found.metadata.finalizers.unwrap_or_default();
            if finalizers.iter().any(|name| name == FINALIZER) == wanted {
                return Ok(());
            }
            if wanted {
                finalizers.push(FINALIZER.to_owned());
            } else {
                finalizers.retain(|name| name != FINALIZER);
            }
            // The list is written whole, so the write carries the version that was read.
            let patch = json!({ "metadata": {
                "finalizers": finalizers,
                "resourceVersion": found.metadata.resource_version,
                "uid": uid,
            }});
            match self.cluster.merge::<Service>(key.namespace(), &key.name, &patch).await {
                Ok(written) => {
                    self.services.absorb(written);
                    return Ok(());
                }
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells the addresses; none takes them away.
    pub async fn set_status(&self, key: &Key, uid: &str, addresses: &[IpAddr]) -> Result<(), Error> {
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).collect();
        let ingress = if ingress.is_empty() { json!(null) } else { json!(ingress) };
        // A Service that was deleted and made anew by the same name is another one.
        let patch =
            json!({ "metadata": { "uid": uid }, "status": { "loadBalancer": { "ingress": ingress } } });
        match self.cluster.merge_status::<Service>(key.namespace(), &key.name, &patch).await {
            Ok(written) => {
                self.services.absorb(written);
                Ok(())
            }
            Err(error @ Error::Unreachable { .. }) => Err(error),
            Err(error) => match self.read(key, uid).await? {
                None => Ok(()),
                Some(_) => Err(error),
            },
        }
    }

    /// The Service as it stands now, if it is still that one.
    async fn read(&self, key: &Key, uid: &str) -> Result<Option<Service>, Error> {
        let found = self.cluster.get::<Service>(key.namespace(), &key.name).await?;
        Ok(found.filter(|found| found.metadata.uid.as_deref() == Some(uid)))
    }
}
