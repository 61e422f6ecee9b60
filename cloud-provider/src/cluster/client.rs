//! A connection to the API server: plain calls, each with a deadline and without hidden repetitions.

use std::{fmt::Debug, future::Future, path::Path, time::Duration};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{
        ConfigMap, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
    },
    discovery::v1::EndpointSlice,
    storage::v1::{CSIDriver, CSINode, StorageClass, VolumeAttachment},
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::calls;

/// Longest wait for one answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// The name under which writes are filed in `managedFields`.
const FIELD_MANAGER: &str = "ake-cloud-controller-manager";

/// Why a call to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The API server said no.
    #[error("{verb} {kind} {name}: {message}")]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name, with its namespace if it has one.
        name: String,
        /// HTTP status.
        code: u16,
        /// For programs, as in `AlreadyExists`.
        reason: String,
        /// For people.
        message: String,
    },
    /// There was no answer, or none that can be read.
    #[error("{verb} {kind} {name}: {reason}")]
    Unreachable {
        /// What was asked.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name, with its namespace if it has one.
        name: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    fn code(&self) -> u16 {
        match self {
            Self::Refused { code, .. } => *code,
            _ => 0,
        }
    }

    /// Whether the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// Whether the object is another one by now, or has changed since it was read.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == 409 && !self.is_already_exists()
    }

    /// Whether an object of that name is there already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == "AlreadyExists")
    }
}

/// A kind of object that this program reads or writes.
pub trait Object:
    kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The path to objects of this kind, in one namespace or everywhere.
    fn api(client: &Client, namespace: Option<&str>) -> Api<Self>;
}

macro_rules! objects {
    (namespaced: $($namespaced:ty),* ; whole: $($whole:ty),* ;) => {
        $(impl Object for $namespaced {
            fn api(client: &Client, namespace: Option<&str>) -> Api<Self> {
                match namespace {
                    Some(namespace) => Api::namespaced(client.clone(), namespace),
                    None => Api::all(client.clone()),
                }
            }
        })*
        $(impl Object for $whole {
            fn api(client: &Client, _: Option<&str>) -> Api<Self> {
                Api::all(client.clone())
            }
        })*
    };
}

objects! {
    namespaced: ConfigMap, EndpointSlice, Event, Lease, PersistentVolumeClaim, Pod, Secret, Service;
    whole: CSIDriver, CSINode, Namespace, Node, PersistentVolume, StorageClass, VolumeAttachment;
}

/// Which objects of a kind are meant.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// In one namespace; everywhere if there is none.
    pub namespace: Option<String>,
    /// As in `app=web`.
    pub labels: Option<String>,
    /// As in `metadata.name=web`.
    pub fields: Option<String>,
}

/// A connection to the API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    /// Connects as the kubeconfig says; without one, as a pod does.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, Error> {
        let path = kubeconfig.map_or_else(|| "(in cluster)".to_owned(), |path| path.display().to_string());
        let bad = |reason: String| Error::Kubeconfig { path: path.clone(), reason };
        let mut config = match kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(|e| bad(e.to_string()))?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .map_err(|e| bad(e.to_string()))?
            }
            None => Config::incluster().map_err(|e| bad(format!("{e} (give --kubeconfig outside a pod)")))?,
        };
        // It would repeat a POST, and sleep longer than a Lease lives.
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(5));
        let host = config.cluster_url.authority().map_or("", |authority| authority.as_str()).into();
        let builder = ClientBuilder::try_from(config).map_err(|e| bad(e.to_string()))?;
        Ok(Self { client: builder.with_layer(&calls::Count { host }).build() })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Reads one object; none if it is not there.
    pub async fn get<K: Object>(&self, namespace: Option<&str>, name: &str) -> Result<Option<K>, Error> {
        let call = async { K::api(&self.client, namespace).get(name).await };
        match bounded::<K, _>("get", namespace, name, call).await {
            Err(error) if error.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Reads all objects that are selected, page by page.
    pub async fn list<K: Object>(&self, selector: &Selector) -> Result<Vec<K>, Error> {
        let api = K::api(&self.client, selector.namespace.as_deref());
        let mut params = ListParams::default().limit(500);
        params.label_selector.clone_from(&selector.labels);
        params.field_selector.clone_from(&selector.fields);
        let mut items = Vec::new();
        loop {
            let page = bounded::<K, _>("list", selector.namespace.as_deref(), "", api.list(&params)).await?;
            items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(items),
            }
        }
    }

    /// Creates an object, in the namespace that stands in it.
    pub async fn create<K: Object>(&self, object: &K) -> Result<K, Error> {
        let (namespace, name) = place(object);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let call = async { K::api(&self.client, namespace).create(&params, object).await };
        bounded::<K, _>("create", namespace, &name, call).await
    }

    /// Changes parts of an object (JSON merge patch). A `metadata.resourceVersion` or `metadata.uid` in
    /// it is a precondition.
    pub async fn merge<K: Object>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<K, Error> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let call = async { K::api(&self.client, namespace).patch(name, &params, &Patch::Merge(patch)).await };
        bounded::<K, _>("patch", namespace, name, call).await
    }

    /// As [`Cluster::merge`], for an object's status.
    pub async fn merge_status<K: Object>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<K, Error> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let call =
            async { K::api(&self.client, namespace).patch_status(name, &params, &Patch::Merge(patch)).await };
        bounded::<K, _>("patch status of", namespace, name, call).await
    }

    /// Writes a whole object; refused if it has changed since it was read.
    pub async fn replace<K: Object>(&self, object: &K) -> Result<K, Error> {
        let (namespace, name) = place(object);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let call = async { K::api(&self.client, namespace).replace(&name, &params, object).await };
        bounded::<K, _>("update", namespace, &name, call).await
    }

    /// As [`Cluster::replace`], for an object's status.
    pub async fn replace_status<K: Object>(&self, object: &K) -> Result<K, Error> {
        let (namespace, name) = place(object);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let call = async { K::api(&self.client, namespace).replace_status(&name, &params, object).await };
        bounded::<K, _>("update status of", namespace, &name, call).await
    }

    /// Deletes an object; with `uid`, only if it is still that one. Gone already is success.
    pub async fn delete<K: Object>(
        &self,
        namespace: Option<&str>,
        name: &str,
        uid: Option<&str>,
    ) -> Result<(), Error> {
        let preconditions =
            uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let call = async { K::api(&self.client, namespace).delete(name, &params).await };
        match bounded::<K, _>("delete", namespace, name, call).await {
            Err(error) if error.is_not_found() => Ok(()),
            answer => answer.map(drop),
        }
    }
}

fn place<K: Object>(object: &K) -> (Option<&str>, String) {
    (object.meta().namespace.as_deref(), object.meta().name.clone().unwrap_or_default())
}

/// Awaits one answer within the deadline and puts its failure into words.
async fn bounded<K: Object, T>(
    verb: &'static str,
    namespace: Option<&str>,
    name: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    let kind = K::kind(&()).into_owned();
    let name = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(Error::Refused {
            verb,
            kind,
            name,
            code: status.code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        }),
        Ok(Err(error)) => Err(Error::Unreachable { verb, kind, name, reason: innermost(&error) }),
        Err(_) => {
            Err(Error::Unreachable { verb, kind, name, reason: format!("no answer within {DEADLINE:?}") })
        }
    }
}

/// The cause at the bottom, which says most.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
