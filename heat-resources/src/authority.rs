//! A cluster's keys: its certificate authority, the key of its service accounts, the nodes' first token.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use ring::rand::{SecureRandom, SystemRandom};

/// A day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long the authority is good for, and the nodes' certificates with it: a bundle may be opened by a node
/// that is added years later.
const AUTHORITY_DAYS: u32 = 3650;

/// How long the tenant's own certificate is good for; an update with a new request renews it.
const ADMIN_DAYS: u32 = 365;

/// Clocks may differ by so much.
const SKEW: Duration = Duration::from_secs(3600);

/// The group whose members may do everything.
const ADMINISTRATORS: &str = "system:masters";

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system gave no random bytes.
    #[error("no random numbers")]
    Random,
    /// Keys or certificates could not be made.
    #[error("certificates of the cluster: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The tenant's request cannot be signed.
    #[error("admin_csr: {0}: expected a certificate signing request in PEM, as `openssl req -new` writes it")]
    Request(String),
}

/// What is kept encrypted by Heat between the steps.
const CA_CERTIFICATE: &str = "ca_certificate";
const CA_KEY: &str = "ca_key";
const SERVICE_ACCOUNT_KEY: &str = "service_account_key";
const BOOTSTRAP_TOKEN: &str = "bootstrap_token";

/// The keys.
pub struct Authority {
    certificate: String,
    key: String,
    service_account: KeyPair,
    bootstrap_token: String,
}

/// A key and its certificate, PEM.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key, PKCS #8.
    pub key: String,
}

impl Authority {
    /// New keys for the cluster of that name.
    pub fn generate(cluster: &str) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = parameters(&format!("ake {cluster}"), None, AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
            service_account: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            bootstrap_token: random()?,
        })
    }

    /// The keys that were kept, if all were.
    pub fn restore(kept: &BTreeMap<String, String>) -> Result<Option<Self>, Error> {
        let part = |name: &str| kept.get(name).filter(|value| !value.is_empty()).cloned();
        let (Some(certificate), Some(key), Some(service_account), Some(bootstrap_token)) =
            (part(CA_CERTIFICATE), part(CA_KEY), part(SERVICE_ACCOUNT_KEY), part(BOOTSTRAP_TOKEN))
        else {
            return Ok(None);
        };
        let service_account = KeyPair::from_pem(&service_account)?;
        Ok(Some(Self { certificate, key, service_account, bootstrap_token }))
    }

    /// What [`Authority::restore`] takes.
    #[must_use]
    pub fn keep(&self) -> BTreeMap<String, String> {
        [
            (CA_CERTIFICATE, self.certificate.clone()),
            (CA_KEY, self.key.clone()),
            (SERVICE_ACCOUNT_KEY, self.service_account.serialize_pem()),
            (BOOTSTRAP_TOKEN, self.bootstrap_token.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's key, PEM.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key that tokens of service accounts are signed with, PEM.
    #[must_use]
    pub fn service_account_key(&self) -> String {
        self.service_account.serialize_pem()
    }

    /// The key that they are verified with, PEM.
    #[must_use]
    pub fn service_account_public(&self) -> String {
        self.service_account.public_key_pem()
    }

    /// The token that new nodes ask for certificates with.
    #[must_use]
    pub fn bootstrap_token(&self) -> &str {
        &self.bootstrap_token
    }

    /// A key and a client's certificate.
    pub fn client(&self, name: &str, group: Option<&str>) -> Result<Pair, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = client(name, group, AUTHORITY_DAYS).signed_by(&key, &self.issuer()?)?;
        Ok(Pair { cert: certificate.pem(), key: key.serialize_pem() })
    }

    /// A certificate for the tenant's key, that of an administrator. Of the request only the key and the
    /// common name are taken.
    pub fn sign(&self, request: &str) -> Result<String, Error> {
        let wrong = |e: rcgen::Error| Error::Request(e.to_string().to_lowercase());
        let parsed = CertificateSigningRequestParams::from_pem(request.trim()).map_err(wrong)?;
        let name = match parsed.params.distinguished_name.get(&DnType::CommonName) {
            Some(rcgen::DnValue::Utf8String(name)) => name.clone(),
            Some(rcgen::DnValue::PrintableString(name)) => name.to_string(),
            _ => return Err(Error::Request("its subject has no common name".to_owned())),
        };
        if name.starts_with("system:") {
            return Err(Error::Request(format!("common name {name} is one of Kubernetes' own")));
        }
        let params = client(&name, Some(ADMINISTRATORS), ADMIN_DAYS);
        Ok(params.signed_by(&parsed.public_key, &self.issuer()?).map_err(wrong)?.pem())
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Error> {
        Ok(Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?)
    }
}

/// 32 random bytes as text of `A-Z a-z 0-9 _ -`.
pub fn random() -> Result<String, Error> {
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random_bytes::<32>()?))
}

/// Random bytes.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

fn client(name: &str, group: Option<&str>, days: u32) -> CertificateParams {
    let mut params = parameters(name, group, days);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

fn parameters(name: &str, group: Option<&str>, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + DAY * days).into();
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn kept_keys_are_the_same_keys() {
        let made = Authority::generate("demo").unwrap();
        let kept = made.keep();
        let restored = Authority::restore(&kept).unwrap().unwrap();
        assert_eq!(restored.keep(), kept);
        assert_eq!(restored.service_account_public(), made.service_account_public());
    }

    #[test]
    fn without_one_of_the_keys_none_are_restored() {
        let mut kept = Authority::generate("demo").unwrap().keep();
        kept.remove(CA_KEY);
        assert!(Authority::restore(&kept).unwrap().is_none());
    }

    #[test]
    fn the_tenants_request_is_signed() {
        let authority = Authority::generate("demo").unwrap();
        let pem = authority.sign(&request("alice")).unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
        assert_ne!(pem, authority.certificate());
    }

    #[test]
    fn what_is_no_request_is_refused_by_name() {
        let authority = Authority::generate("demo").unwrap();
        for text in ["", "hello", authority.certificate()] {
            let error = authority.sign(text).unwrap_err().to_string();
            assert!(error.starts_with("admin_csr: ") && error.contains("openssl req"), "{error}");
        }
        let error = authority.sign(&request("system:kube-proxy")).unwrap_err().to_string();
        assert!(error.contains("system:kube-proxy"), "{error}");
    }
}
