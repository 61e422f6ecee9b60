//! Which Kubernetes writes for a cluster.

use ake_api_client::{ClusterId, ClusterState, KubernetesRequest};

use super::{Guards, Service};
use crate::{
    decide::access::Caller,
    refusal::{Kind, Refusal},
};

impl Service {
    /// Takes the owner's word for which Kubernetes a cluster is, whatever another one has there. No application
    /// credential may say so: it is copied with the rest of a cloud.conf.
    pub async fn put_kubernetes(
        &self,
        caller: &Caller,
        id: ClusterId,
        guards: &Guards,
        request: &KubernetesRequest,
    ) -> Result<(ClusterState, String), Refusal> {
        let _lock = self.lock(id).await;
        let record = self.load_for(caller, id).await?.record;
        if caller.credential.is_some() {
            let message = format!(
                "cluster {id}: its Kubernetes is named by the project's own login; expected that, and not an application \
                 credential, which a copied cloud.conf has as well"
            );
            return Err(Refusal::new(Kind::Forbidden, message));
        }
        guards.admit(&record)?;
        if record.deleting {
            let message = format!("kubernetes: cluster {id} is being deleted and takes nothing new");
            return Err(Refusal::new(Kind::Deleting, message));
        }
        if record.kubernetes != request.uid {
            self.store.save_kubernetes(&record, request.uid).await?;
            self.devices.feed().touch(id);
            let text =
                |uid: Option<_>| uid.map_or_else(|| "none".to_owned(), |uid: uuid::Uuid| uid.to_string());
            let (before, now) = (text(record.kubernetes), text(request.uid));
            tracing::warn!(cluster = %id, before, now, "is another Kubernetes now, by its owner's word");
        }
        self.get(caller, id).await
    }
}
