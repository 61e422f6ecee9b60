//! Sealed bundles and who had them.

use ake_api_client::ClusterId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Store, StoreError, parsed, raise_changes};

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
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            raise_changes(&mut transaction).await?;
            let old: Option<(String, Vec<u8>)> =
                sqlx::query_as("SELECT claim, ciphertext FROM bundles WHERE cluster = ? AND role = ?")
                    .bind(&id)
                    .bind(role)
                    .fetch_optional(&mut *transaction)
                    .await?;
            if let Some((old_claim, old_ciphertext)) = old {
                if bool::from(old_claim.as_bytes().ct_eq(digest.as_bytes()))
                    && old_ciphertext == ciphertext.as_bytes()
                {
                    return Ok(false);
                }
                sqlx::query("DELETE FROM redeemed WHERE claim = ?")
                    .bind(old_claim)
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query("DELETE FROM bundles WHERE cluster = ? AND role = ?")
                    .bind(&id)
                    .bind(role)
                    .execute(&mut *transaction)
                    .await?;
            }
            sqlx::query("INSERT INTO bundles (cluster, role, claim, ciphertext) VALUES (?, ?, ?, ?)")
                .bind(&id)
                .bind(role)
                .bind(&digest)
                .bind(ciphertext.as_bytes())
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
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
        let row: Option<(String, String, String, Vec<u8>)> =
            sqlx::query_as("SELECT cluster, role, claim, ciphertext FROM bundles WHERE claim = ?")
                .bind(&digest)
                .fetch_optional(&self.pool)
                .await?;
        match row {
            Some((cluster, role, stored, ciphertext))
                if bool::from(stored.as_bytes().ct_eq(digest.as_bytes())) =>
            {
                Ok(Some(BundleRecord {
                    cluster: parsed("bundles.cluster", &cluster, "a UUID")?,
                    role,
                    ciphertext: String::from_utf8(ciphertext).map_err(|_| StoreError::Column {
                        column: "bundles.ciphertext",
                        value: "bytes".to_owned(),
                        expected: "text",
                    })?,
                }))
            }
            _ => Ok(None),
        }
    }

    /// Keeps that a server has the bundle of a claim now. False if it had it before.
    pub async fn redeem(&self, cluster: ClusterId, claim: &str, server: &str) -> Result<bool, StoreError> {
        let done = self.retried(|| async {
            sqlx::query("INSERT INTO redeemed (claim, server, cluster) VALUES (?, ?, ?)")
                .bind(digest(claim))
                .bind(server)
                .bind(cluster.to_string())
                .execute(&self.pool)
                .await?;
            Ok(())
        });
        match done.await {
            Ok(()) => Ok(true),
            Err(StoreError::Taken(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// SHA-256, as hexadecimal digits.
fn digest(claim: &str) -> String {
    Sha256::digest(claim.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
