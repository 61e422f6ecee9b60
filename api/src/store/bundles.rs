//! Sealed bundles and who had them.

use ake_api_client::ClusterId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Store, StoreError, parsed};

/// A bundle that is waiting for its nodes.
#[derive(Clone, PartialEq, Eq)]
pub struct BundleRecord {
    /// Whose it is.
    pub cluster: ClusterId,
    /// The role that it is for.
    pub role: String,
    /// As it was stored.
    pub ciphertext: String,
}

impl Store {
    /// Keeps a role's bundle. Another one in its place begins anew: who had the old one may have this one.
    pub async fn put_bundle(
        &self,
        cluster: ClusterId,
        role: &str,
        claim: &str,
        ciphertext: &str,
    ) -> Result<bool, StoreError> {
        let (id, digest) = (cluster.to_string(), digest(claim));
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let old: Option<(Vec<u8>, String)> =
            sqlx::query_as("SELECT claim, ciphertext FROM bundles WHERE cluster = ? AND role = ?")
                .bind(&id)
                .bind(role)
                .fetch_optional(&mut *transaction)
                .await?;
        if let Some((old_claim, old_ciphertext)) = old {
            if bool::from(old_claim.ct_eq(&digest)) && old_ciphertext == ciphertext {
                return Ok(false);
            }
            sqlx::query("DELETE FROM redeemed WHERE claim = ?")
                .bind(old_claim)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("INSERT OR REPLACE INTO bundles (cluster, role, claim, ciphertext) VALUES (?, ?, ?, ?)")
            .bind(&id)
            .bind(role)
            .bind(digest)
            .bind(ciphertext)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Whether this claim belongs to another bundle than the one of this cluster and role.
    pub async fn claim_is_taken(
        &self,
        cluster: ClusterId,
        role: &str,
        claim: &str,
    ) -> Result<bool, StoreError> {
        Ok(self.find_bundle(claim).await?.is_some_and(|found| found.cluster != cluster || found.role != role))
    }

    /// The bundle of a claim. The database finds by digest, and digests are compared in constant time: how long
    /// the answer takes says nothing about claims that exist.
    pub async fn find_bundle(&self, claim: &str) -> Result<Option<BundleRecord>, StoreError> {
        let digest = digest(claim);
        let row: Option<(String, String, Vec<u8>, String)> =
            sqlx::query_as("SELECT cluster, role, claim, ciphertext FROM bundles WHERE claim = ?")
                .bind(&digest)
                .fetch_optional(&self.pool)
                .await?;
        match row {
            Some((cluster, role, stored, ciphertext)) if bool::from(stored.ct_eq(&digest)) => {
                Ok(Some(BundleRecord {
                    cluster: parsed("bundles.cluster", &cluster, "a UUID")?,
                    role,
                    ciphertext,
                }))
            }
            _ => Ok(None),
        }
    }

    /// Keeps that a server has the bundle of a claim now. False if it had it before.
    pub async fn redeem(&self, cluster: ClusterId, claim: &str, server: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("INSERT OR IGNORE INTO redeemed (claim, server, cluster) VALUES (?, ?, ?)")
            .bind(digest(claim))
            .bind(server)
            .bind(cluster.to_string())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}

fn digest(claim: &str) -> Vec<u8> {
    Sha256::digest(claim.as_bytes()).to_vec()
}
