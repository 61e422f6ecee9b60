//! What a node gets, by role: its configuration's secrets, sealed.

use ake_api_client::{BundleRequest, ClusterId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    authority::{self, Authority},
    seal,
};

/// The roles that nodes have.
pub const ROLES: [&str; 2] = ["master", "worker"];

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Keys or certificates.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// Sealing.
    #[error(transparent)]
    Seal(#[from] seal::Error),
    /// Kept claims could not be read.
    #[error("kept claims: {0}")]
    Kept(#[from] serde_json::Error),
}

/// What a node redeems for its role's bundle, and the key that opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Hard to guess; `ake-api` knows the bundle by it.
    pub id: String,
    /// 32 bytes, base64; `ake-api` does not know it.
    pub key: String,
}

/// The claims of all roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Of masters.
    pub master: Claim,
    /// Of workers.
    pub worker: Claim,
}

impl Claims {
    /// New ones.
    pub fn generate() -> Result<Self, Error> {
        let claim = || Ok::<_, Error>(Claim { id: authority::random()?, key: seal::new_key()? });
        Ok(Self { master: claim()?, worker: claim()? })
    }
}

/// How a cluster's programs reach the cloud.
#[derive(Debug, Clone, Serialize)]
pub struct Cloud {
    /// Keystone.
    pub auth_url: String,
    /// The region; empty for the only one.
    pub region: String,
    /// The tenant's application credential.
    pub application_credential_id: String,
    /// Its secret.
    pub application_credential_secret: String,
    /// The CA that the cloud's endpoints are trusted by besides the system's, PEM.
    pub ca: Option<String>,
}

/// Both roles' bundles, sealed.
pub fn bundles(
    cluster: ClusterId,
    authority: &Authority,
    claims: &Claims,
    cloud: &Cloud,
) -> Result<[(&'static str, BundleRequest); 2], Error> {
    let sealed = |role, claim: &Claim, plain: &Value| {
        let context = seal::context(&cluster.to_string(), role);
        let ciphertext = seal::seal(&claim.key, &context, plain.to_string().as_bytes())?;
        Ok::<_, Error>((role, BundleRequest { claim: claim.id.clone(), ciphertext }))
    };
    let [master, worker] = ROLES;
    Ok([
        sealed(master, &claims.master, &of_master(authority, cloud))?,
        sealed(worker, &claims.worker, &of_worker(authority)?)?,
    ])
}

fn of_master(authority: &Authority, cloud: &Cloud) -> Value {
    json!({
        "version": 1,
        "ca_cert": authority.certificate(),
        "ca_key": authority.key(),
        "service_account_key": authority.service_account_key(),
        "service_account_public": authority.service_account_public(),
        "bootstrap_token": authority.bootstrap_token(),
        "cloud": cloud,
    })
}

fn of_worker(authority: &Authority) -> Result<Value, Error> {
    Ok(json!({
        "version": 1,
        "ca_cert": authority.certificate(),
        "bootstrap_token": authority.bootstrap_token(),
        "clients": {
            "kube-proxy": authority.client("system:kube-proxy", None)?,
            "ake-node-agent": authority.client("ake-node-agent", Some("ake:node-agents"))?,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gets_no_key_of_the_authority_and_no_way_to_the_cloud() {
        let authority = Authority::generate("demo").unwrap();
        let text = of_worker(&authority).unwrap().to_string();
        for secret in [authority.key(), &authority.service_account_key()] {
            let secret = serde_json::to_string(secret).unwrap();
            assert!(!text.contains(secret.trim_matches('"')), "{text}");
        }
        assert!(!text.contains("application_credential"));
    }

    #[test]
    fn claims_are_long_enough_for_ake_api() {
        let claims = Claims::generate().unwrap();
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for claim in [&claims.master, &claims.worker] {
            assert!((32..=128).contains(&claim.id.len()) && claim.id.chars().all(ok), "{}", claim.id);
        }
        assert_ne!(claims.master, claims.worker);
    }
}
