//! The certificates that a master signs for itself with the cluster's CA.

use std::net::IpAddr;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{
    bundle::{MasterBundle, Pair},
    config::NodeConfig,
};

/// Years that a certificate is good for. A node is replaced, not renewed in place.
const YEARS: i16 = 10;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA of the bundle cannot sign.
    #[error("the cluster's CA cannot be used: {0}")]
    Ca(rcgen::Error),
    /// One certificate could not be made.
    #[error("certificate of {subject}: {source}")]
    Certificate {
        /// Its common name.
        subject: String,
        /// What the library said.
        source: rcgen::Error,
    },
}

/// Everything that a master signs for itself.
#[derive(Clone)]
pub struct MasterKeys {
    /// What the API server serves with.
    pub apiserver: Pair,
    /// What the API server calls kubelets with.
    pub kubelet_client: Pair,
    /// What etcd members speak to each other with.
    pub etcd_peer: Pair,
    /// An administrator on the master itself.
    pub admin: Pair,
    /// kube-controller-manager.
    pub controller_manager: Pair,
    /// kube-scheduler.
    pub scheduler: Pair,
    /// The cloud controller manager.
    pub cloud_controller_manager: Pair,
    /// The node agent.
    pub node_agent: Pair,
}

impl MasterKeys {
    /// Makes new keys and signs them with the CA of the bundle; `addresses` are this machine's own.
    pub fn mint(
        config: &NodeConfig,
        addresses: &[IpAddr],
        bundle: &MasterBundle,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let key = KeyPair::from_pem(&bundle.ca_key).map_err(Error::Ca)?;
        let ca = Issuer::from_ca_cert_pem(&bundle.ca_cert, key).map_err(Error::Ca)?;
        let client = |name: &str, group: Option<&str>| sign(&ca, name, group, Usage::Client, now);
        Ok(Self {
            apiserver: sign(
                &ca,
                "kube-apiserver",
                None,
                Usage::Server(server_names(config, addresses)),
                now,
            )?,
            kubelet_client: client("kube-apiserver-kubelet-client", None)?,
            etcd_peer: sign(&ca, PEER_NAME, None, Usage::Peer(own_names(config)), now)?,
            admin: client("ake-admin", Some("system:masters"))?,
            controller_manager: client("system:kube-controller-manager", None)?,
            scheduler: client("system:kube-scheduler", None)?,
            cloud_controller_manager: client("ake-cloud-controller-manager", None)?,
            node_agent: client("ake-node-agent", Some("ake:node-agents"))?,
        })
    }
}

/// Common name that etcd members accept from each other: the CA also signs others.
pub const PEER_NAME: &str = "etcd-peer";

enum Usage {
    Client,
    Server(Vec<SanType>),
    Peer(Vec<SanType>),
}

fn sign(
    ca: &Issuer<'_, KeyPair>,
    name: &str,
    group: Option<&str>,
    usage: Usage,
    now: Timestamp,
) -> Result<Pair, Error> {
    let failed = |source| Error::Certificate { subject: name.to_owned(), source };
    let mut subject = DistinguishedName::new();
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let (purposes, names) = match usage {
        Usage::Client => (vec![ExtendedKeyUsagePurpose::ClientAuth], vec![]),
        Usage::Server(names) => (vec![ExtendedKeyUsagePurpose::ServerAuth], names),
        Usage::Peer(names) => {
            (vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth], names)
        }
    };
    params.extended_key_usages = purposes;
    params.subject_alt_names = names;
    // Clocks differ: a day of grace behind.
    let today = now.to_zoned(TimeZone::UTC).date();
    let from = today.saturating_sub(1.day());
    let day = |date: jiff::civil::Date, year: i16| {
        rcgen::date_time_ymd(year.into(), date.month().unsigned_abs(), date.day().unsigned_abs().min(28))
    };
    params.not_before =
        rcgen::date_time_ymd(from.year().into(), from.month().unsigned_abs(), from.day().unsigned_abs());
    params.not_after = day(today, today.year() + YEARS);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, ca).map_err(failed)?;
    Ok(Pair { cert: certificate.pem(), key: key.serialize_pem() })
}

/// Every name that a client may know the API server by.
fn server_names(config: &NodeConfig, own: &[IpAddr]) -> Vec<SanType> {
    let mut addresses: Vec<IpAddr> = config.masters.iter().map(|master| master.address).collect();
    addresses.extend(own);
    addresses.push(config.vip);
    addresses.push(IpAddr::from([127, 0, 0, 1]));
    addresses.extend(config.service_ranges.iter().filter_map(|range| range.iter().nth(1)));
    addresses.sort();
    addresses.dedup();
    let mut names: Vec<_> = addresses.into_iter().map(SanType::IpAddress).collect();
    names.extend(dns("localhost"));
    let mut service = String::from("kubernetes");
    names.extend(dns(&service));
    for part in [".default", ".svc", ".cluster.local"] {
        service.push_str(part);
        names.extend(dns(&service));
    }
    names
}

fn own_names(config: &NodeConfig) -> Vec<SanType> {
    let own = config.own_master().map(|master| SanType::IpAddress(master.address));
    own.into_iter()
        .chain([SanType::IpAddress(IpAddr::from([127, 0, 0, 1]))])
        .chain(dns("localhost"))
        .collect()
}

fn dns(name: &str) -> Option<SanType> {
    name.try_into().ok().map(SanType::DnsName)
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::BasicConstraints;

    use super::*;
    use crate::agent::{
        bundle::Cloud,
        config::tests::{dual_stack, sample},
    };

    /// A CA as the stack makes it, in the bundle of a master.
    pub(crate) fn bundle() -> MasterBundle {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "demo");
        MasterBundle {
            ca_cert: params.self_signed(&key).unwrap().pem(),
            ca_key: key.serialize_pem(),
            service_account_key: "SAK".into(),
            service_account_public: "SAP".into(),
            bootstrap_token: "boot".into(),
            cloud: Cloud {
                auth_url: "http://192.0.2.2:5000/v3".into(),
                region: "RegionOne".into(),
                application_credential_id: "id".into(),
                application_credential_secret: "se\"cr\\et".into(),
                ca: None,
            },
        }
    }

    #[test]
    fn the_api_server_answers_to_every_name_it_is_called_by() {
        let config = NodeConfig::parse(&dual_stack("master").to_string()).unwrap();
        let names = server_names(&config, &["fd00:77::20".parse().unwrap()]);
        for address in
            ["192.168.77.20", "fd00:77::20", "203.0.113.17", "127.0.0.1", "10.96.0.1", "fd00:96::1"]
        {
            assert!(names.contains(&SanType::IpAddress(address.parse().unwrap())), "{address}");
        }
        for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc.cluster.local", "localhost"]
        {
            assert!(names.contains(&dns(name).unwrap()), "{name}");
        }
    }

    #[test]
    fn a_master_signs_what_it_needs() {
        let config = NodeConfig::parse(&sample("master").to_string()).unwrap();
        let keys =
            MasterKeys::mint(&config, &[], &bundle(), "2028-02-29T12:00:00Z".parse().unwrap()).unwrap();
        for pair in [&keys.apiserver, &keys.admin, &keys.etcd_peer, &keys.node_agent] {
            assert!(pair.cert.contains("BEGIN CERTIFICATE"));
            assert!(pair.key.contains("BEGIN PRIVATE KEY"));
        }
    }

    #[test]
    fn a_broken_ca_is_an_error() {
        let config = NodeConfig::parse(&sample("master").to_string()).unwrap();
        let mut bundle = bundle();
        bundle.ca_key = "no key".into();
        assert!(matches!(MasterKeys::mint(&config, &[], &bundle, Timestamp::now()), Err(Error::Ca(_))));
    }
}
