//! Sealing a bundle, so that whoever stores it cannot read it.

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::authority::{self, random_bytes};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] authority::Error),
    /// The key is of no use.
    #[error("claim key: expected {KEY_LEN} bytes in base64")]
    Key,
    /// The cipher refused.
    #[error("the bundle cannot be sealed")]
    Cipher,
}

/// A new key, base64.
pub fn new_key() -> Result<String, Error> {
    Ok(BASE64_STANDARD.encode(random_bytes::<KEY_LEN>()?))
}

/// What binds a bundle to its cluster and role.
#[must_use]
pub fn context(cluster: &str, role: &str) -> String {
    format!("ake-bundle-v1:{cluster}:{role}")
}

/// base64 of a fresh nonce, then the ciphertext and its tag (AES-256-GCM).
pub fn seal(key: &str, context: &str, plain: &[u8]) -> Result<String, Error> {
    let key = BASE64_STANDARD.decode(key).map_err(|_| Error::Key)?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).map_err(|_| Error::Key)?);
    let nonce = random_bytes::<NONCE_LEN>()?;
    let mut sealed = plain.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(context.as_bytes()),
        &mut sealed,
    )
    .map_err(|_| Error::Cipher)?;
    Ok(BASE64_STANDARD.encode([nonce.as_slice(), &sealed].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(key: &str, context: &str, sealed: &str) -> Option<Vec<u8>> {
        let key = BASE64_STANDARD.decode(key).unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
        let sealed = BASE64_STANDARD.decode(sealed).unwrap();
        let (nonce, rest) = sealed.split_at(NONCE_LEN);
        let mut rest = rest.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
        key.open_in_place(nonce, Aad::from(context.as_bytes()), &mut rest).ok().map(|plain| plain.to_vec())
    }

    #[test]
    fn only_the_same_key_cluster_and_role_open_it() {
        let (key, other) = (new_key().unwrap(), new_key().unwrap());
        let here = context("11111111-1111-1111-1111-111111111111", "master");
        let sealed = seal(&key, &here, b"secret").unwrap();
        assert_eq!(open(&key, &here, &sealed).unwrap(), b"secret");
        assert!(open(&other, &here, &sealed).is_none());
        let role = context("11111111-1111-1111-1111-111111111111", "worker");
        assert!(open(&key, &role, &sealed).is_none());
    }

    #[test]
    fn no_two_are_alike() {
        let key = new_key().unwrap();
        assert_ne!(seal(&key, "a", b"x").unwrap(), seal(&key, "a", b"x").unwrap());
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(matches!(seal("c2hvcnQ=", "a", b"x"), Err(Error::Key)));
    }
}
