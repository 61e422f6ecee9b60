//! AKE's own services in the lab: certificates, configuration, and the real programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::lab::Lab;
use crate::openstack::{HOST, PASSWORD, REGION, admin, auth_url};
use crate::{Dirs, detached, shell};

/// Where `ake-api` listens.
pub const API_URL: &str = "https://192.0.2.2:9511";
/// Where the balancer is managed.
pub const BALANCER_URL: &str = "https://192.168.77.2:9512";
/// The balancer's address on the provider network.
const BALANCER: &str = "192.168.77.2";
/// How long a service may take until it listens.
const START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// One of AKE's services.
struct Service {
    name: &'static str,
    netns: &'static str,
    /// Where it listens.
    address: &'static str,
    /// What it answers without a login when it is well; it is enough for others that they listen.
    health: Option<&'static str>,
    /// How it is started; the path of its configuration follows.
    words: &'static [&'static str],
    config: &'static str,
}

const SERVICES: [Service; 2] = [
    Service {
        name: "ake-xdp",
        netns: "balancer",
        address: "192.168.77.2:9512",
        health: None,
        words: &["serve", "--config"],
        config: "xdp.toml",
    },
    Service {
        name: "ake-api",
        netns: "control",
        address: "192.0.2.2:9511",
        health: Some("https://192.0.2.2:9511/healthz"),
        words: &["serve", "--config"],
        config: "api.toml",
    },
];

/// The names of AKE's services.
pub fn names() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|service| service.name)
}

/// The CA of `ake-api`'s certificate.
pub fn ca_file(dirs: &Dirs) -> PathBuf {
    dirs.ake().join("ca.pem")
}

/// The configuration file of `ake-api`.
pub fn api_config(dirs: &Dirs) -> PathBuf {
    dirs.ake().join("api.toml")
}

/// Writes certificates and configuration, and copies the programs so that a build changes nothing in a running lab.
pub fn configure(lab: &Lab) -> Result<()> {
    let dirs = lab.dirs();
    for folder in [dirs.ake(), dirs.ake().join("api"), dirs.ake().join("xdp")] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    certificates(&dirs.ake())?;
    let folder = dirs.ake().display().to_string();
    let fill = |text: &str| {
        text.replace("{{folder}}", &folder)
            .replace("{{log}}", &dirs.log().display().to_string())
            .replace("{{auth}}", &auth_url())
            .replace("{{password}}", PASSWORD)
            .replace("{{region}}", REGION)
    };
    for (name, template) in [
        ("api.toml", include_str!("../ake/api.toml")),
        ("xdp.toml", include_str!("../ake/xdp.toml")),
        ("heat.toml", include_str!("../ake/heat.toml")),
    ] {
        let path = dirs.ake().join(name);
        fs::write(&path, fill(template)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for service in &SERVICES {
        let from = lab.built(service.name)?;
        fs::copy(&from, program(dirs, service)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

fn program(dirs: &Dirs, service: &Service) -> PathBuf {
    dirs.state.join("bin").join(service.name)
}

/// Starts AKE's services, the balancer first.
pub fn start(lab: &Lab, progress: &mut dyn FnMut(&str)) -> Result<()> {
    for service in &SERVICES {
        launch(lab, service)?;
        progress(&format!("{} answers at {}", service.name, service.address));
    }
    Ok(())
}

/// Starts one of AKE's services.
pub fn start_one(lab: &Lab, name: &str) -> Result<()> {
    match SERVICES.iter().find(|service| service.name == name) {
        Some(service) => launch(lab, service),
        None => bail!("{name:?}: expected one of {}", crate::services().collect::<Vec<_>>().join(", ")),
    }
}

fn launch(lab: &Lab, service: &Service) -> Result<()> {
    let config = lab.dirs().ake().join(service.config).display().to_string();
    let program = program(lab.dirs(), service);
    detached::start(
        lab.cage(),
        service.netns,
        service.name,
        &program,
        &[service.words, &[&config]].concat(),
    )?;
    let deadline = Instant::now() + START;
    let ca = fs::read(ca_file(lab.dirs()))?;
    let answers = async || match service.health {
        Some(url) => healthy(&ca, url).await,
        None => Ok(tokio::net::TcpStream::connect(service.address).await.is_ok()),
    };
    while !admin::in_netns(lab.cage(), service.netns, answers)? {
        let runs = detached::pid(lab.cage(), service.name).is_some();
        if !runs || Instant::now() > deadline {
            let log = lab.log(service.name);
            let said = fs::read(&log).unwrap_or_default();
            bail!(
                "{} {}: see {}\n{}",
                service.name,
                if runs { "does not answer" } else { "ended at once" },
                log.display(),
                shell::tail(&String::from_utf8_lossy(&said), 1500)
            );
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether a service says that it is well.
async fn healthy(ca: &[u8], url: &str) -> Result<bool> {
    let ca = reqwest::Certificate::from_pem(ca)?;
    let http = reqwest::Client::builder().no_proxy().add_root_certificate(ca).build()?;
    Ok(http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()))
}

/// An authority that signs the lab's certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str, file: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        fs::write(file, certificate.pem()).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { issuer: Issuer::new(params, key) })
    }

    /// Writes NAME.pem and NAME.key.
    fn sign(
        &self,
        folder: &Path,
        name: &str,
        common: &str,
        address: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        if let Some(address) = address {
            params.subject_alt_names.push(SanType::IpAddress(address.parse()?));
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }
}

/// One authority for `ake-api`'s users, one for the two ends of the balancer's management connection.
fn certificates(folder: &Path) -> Result<()> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let users = Authority::new("AKE lab", &folder.join("ca.pem"))?;
    users.sign(folder, "api", "ake-api", Some(HOST), ServerAuth)?;
    let device = Authority::new("AKE lab balancer", &folder.join("device-ca.pem"))?;
    device.sign(folder, "device-server", "ake-xdp", Some(BALANCER), ServerAuth)?;
    device.sign(folder, "device-client", "ake-api", None, ClientAuth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path()).unwrap();
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "api.key",
                "api.pem",
                "ca.pem",
                "device-ca.pem",
                "device-client.key",
                "device-client.pem",
                "device-server.key",
                "device-server.pem"
            ]
        );
        for name in names {
            let text = fs::read_to_string(folder.path().join(&name)).unwrap();
            assert!(text.starts_with("-----BEGIN "), "{name}");
        }
    }
}
