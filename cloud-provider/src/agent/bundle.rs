//! The sealed bundle of a role: what `ake-api` hands out and cannot read.

use base64::Engine;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::Deserialize;

use super::config::Role;

/// The version of the content that this program reads.
const VERSION: u32 = 1;

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was handed out is not a sealed bundle.
    #[error("bundle: {0}")]
    Malformed(String),
    /// It was sealed with another key, for another cluster or another role, or was changed.
    #[error("bundle: does not open with the claim's key as {0}")]
    Sealed(String),
    /// The content has another version.
    #[error("bundle: version is {0}, expected {VERSION}")]
    Version(u32),
}

/// How a cluster's programs log in to OpenStack.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Cloud {
    /// URL of Keystone.
    pub auth_url: String,
    /// Region of all endpoints.
    pub region: String,
    /// Id of the tenant's application credential.
    pub application_credential_id: String,
    /// Its secret.
    pub application_credential_secret: String,
    /// CA bundle of the endpoints, PEM.
    pub ca: Option<String>,
}

/// What a master gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MasterBundle {
    /// The cluster's CA, PEM.
    pub ca_cert: String,
    /// Its key, PKCS#8 PEM.
    pub ca_key: String,
    /// The key that signs service account tokens, PKCS#8 PEM.
    pub service_account_key: String,
    /// Its public half, PEM.
    pub service_account_public: String,
    /// The token that kubelets ask for their certificate with.
    pub bootstrap_token: String,
    /// How to log in to OpenStack.
    pub cloud: Cloud,
}

/// A client certificate and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key, PKCS#8.
    pub key: String,
}

/// The client certificates of a worker's programs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Clients {
    /// Of kube-proxy.
    #[serde(rename = "kube-proxy")]
    pub kube_proxy: Pair,
    /// Of the node agent.
    #[serde(rename = "ake-node-agent")]
    pub node_agent: Pair,
}

/// What a worker gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WorkerBundle {
    /// The cluster's CA, PEM.
    pub ca_cert: String,
    /// The token that kubelets ask for their certificate with.
    pub bootstrap_token: String,
    /// The client certificates of its programs.
    pub clients: Clients,
}

/// An opened bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bundle {
    /// Of a master.
    Master(Box<MasterBundle>),
    /// Of a worker.
    Worker(Box<WorkerBundle>),
}

impl Bundle {
    /// Opens a bundle: base64 of nonce, ciphertext and tag of AES-256-GCM. Cluster and role are authenticated with
    /// it, so that a bundle cannot be passed off as another's.
    pub fn open(ciphertext: &str, key: &[u8; 32], cluster: uuid::Uuid, role: Role) -> Result<Self, Error> {
        let mut bytes = base64::engine::general_purpose::STANDARD
            .decode(ciphertext.trim())
            .map_err(|error| Error::Malformed(format!("not base64: {error}")))?;
        let name = aad(cluster, role);
        let (nonce, sealed) = bytes
            .split_first_chunk_mut::<NONCE_LEN>()
            .ok_or_else(|| Error::Malformed("shorter than its nonce".into()))?;
        let key = UnboundKey::new(&AES_256_GCM, key)
            .map_err(|_| Error::Malformed("the claim's key has not 32 bytes".into()))?;
        let plain = LessSafeKey::new(key)
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name.as_bytes()), sealed)
            .map_err(|_| Error::Sealed(name.clone()))?;
        Self::parse(plain, role)
    }

    fn parse(plain: &[u8], role: Role) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        // Only the place of a fault is told: a value could be a key.
        let told = |error: serde_json::Error| {
            Error::Malformed(format!("{:?} error at {}", error.classify(), error.column()))
        };
        let found: Versioned = serde_json::from_slice(plain).map_err(told)?;
        if found.version != VERSION {
            return Err(Error::Version(found.version));
        }
        Ok(match role {
            Role::Master => Self::Master(serde_json::from_slice(plain).map_err(told)?),
            Role::Worker => Self::Worker(serde_json::from_slice(plain).map_err(told)?),
        })
    }
}

fn aad(cluster: uuid::Uuid, role: Role) -> String {
    format!("ake-bundle-v1:{cluster}:{role}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn worker() -> serde_json::Value {
        serde_json::json!({
            "version": 1, "ca_cert": "CA", "bootstrap_token": "boot",
            "clients": {"kube-proxy": {"cert": "PC", "key": "PK"}, "ake-node-agent": {"cert": "AC", "key": "AK"}}
        })
    }

    pub(crate) fn seal(plain: &str, key: &[u8; 32], cluster: uuid::Uuid, role: Role) -> String {
        let nonce = [9_u8; NONCE_LEN];
        let mut sealed = plain.as_bytes().to_vec();
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap())
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad(cluster, role).as_bytes()),
                &mut sealed,
            )
            .unwrap();
        base64::engine::general_purpose::STANDARD.encode([&nonce[..], &sealed].concat())
    }

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn what_was_sealed_opens() {
        let cluster = uuid::Uuid::from_u128(5);
        let sealed = seal(&worker().to_string(), &KEY, cluster, Role::Worker);
        let Bundle::Worker(bundle) = Bundle::open(&sealed, &KEY, cluster, Role::Worker).unwrap() else {
            panic!("a worker's bundle")
        };
        assert_eq!(bundle.clients.node_agent.key, "AK");
    }

    #[test]
    fn another_key_cluster_or_role_does_not_open_it() {
        let cluster = uuid::Uuid::from_u128(5);
        let sealed = seal(&worker().to_string(), &KEY, cluster, Role::Worker);
        for (key, cluster, role) in [
            ([8; 32], cluster, Role::Worker),
            (KEY, uuid::Uuid::from_u128(6), Role::Worker),
            (KEY, cluster, Role::Master),
        ] {
            assert!(matches!(Bundle::open(&sealed, &key, cluster, role), Err(Error::Sealed(_))));
        }
        for text in ["", "AAAA", "not base64!"] {
            assert!(Bundle::open(text, &KEY, cluster, Role::Worker).is_err());
        }
    }

    #[test]
    fn another_version_is_refused_and_no_value_is_told() {
        let cluster = uuid::Uuid::from_u128(5);
        let open = |plain: &str| {
            Bundle::open(&seal(plain, &KEY, cluster, Role::Worker), &KEY, cluster, Role::Worker)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(open(r#"{"version":2}"#), "bundle: version is 2, expected 1");
        assert!(!open(r#"{"version":1,"ca_cert":"SECRET"}"#).contains("SECRET"));
    }
}
