//! AKE's own services in the lab: certificates, configuration, and the real programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::balancers::{self, BALANCERS, Balancer, Balancers};
use crate::lab::Lab;
use crate::openstack::{HOST, PASSWORD, REGION, admin, auth_url};
use crate::{Dirs, detached, shell};

/// Where `ake-api` listens.
pub const API_URL: &str = "https://192.0.2.2:9511";
/// How long a service may take until it listens.
const START: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(50);

/// One of AKE's services.
struct Service {
    name: &'static str,
    netns: &'static str,
    program: PathBuf,
    words: Vec<String>,
    ready: Ready,
}

/// How a service says that it has begun.
enum Ready {
    /// It listens at this address.
    Listens(&'static str),
    /// It answers without a login that it is well.
    Well(&'static str),
    /// It writes this file.
    Writes(PathBuf),
}

/// The services of a lab, in the order of their start.
fn services(dirs: &Dirs) -> Vec<Service> {
    let balancers = Balancers::of(dirs).list();
    let file = |path: PathBuf| path.display().to_string();
    let serve = |config: PathBuf| vec!["serve".to_owned(), "--config".to_owned(), file(config)];
    let mut services: Vec<Service> = balancers
        .iter()
        .map(|balancer| Service {
            name: balancer.name,
            netns: balancer.host,
            program: program(dirs, "ake-xdp"),
            words: serve(balancer.config(dirs)),
            ready: Ready::Listens(balancer.listen),
        })
        .collect();
    if balancers.len() == 2 {
        services.extend(balancers.iter().map(|balancer| {
            let noted = |what: &str| dirs.run().join(format!("{}.{what}", balancer.vrrp));
            let [whole, vrrp] = [noted("whole"), noted("vrrp")];
            let words = ["--vrrp", "--dont-fork", "--log-console", "--use-file"].map(ToOwned::to_owned);
            let files = [
                file(balancer.vrrp_config(dirs)),
                "--pid".to_owned(),
                file(whole),
                "--vrrp_pid".to_owned(),
                file(vrrp.clone()),
            ];
            Service {
                name: balancer.vrrp,
                netns: balancer.host,
                program: PathBuf::from("keepalived"),
                words: words.into_iter().chain(files).collect(),
                ready: Ready::Writes(vrrp),
            }
        }));
    }
    services.push(Service {
        name: "ake-api",
        netns: "control",
        program: program(dirs, "ake-api"),
        words: serve(api_config(dirs)),
        ready: Ready::Well("https://192.0.2.2:9511/healthz"),
    });
    services
}

/// The names of AKE's services in a lab.
pub fn names(dirs: &Dirs) -> Vec<&'static str> {
    services(dirs).into_iter().map(|service| service.name).collect()
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
pub fn configure(lab: &Lab, balancers: Balancers) -> Result<()> {
    let dirs = lab.dirs();
    let api = dirs.ake().join("api");
    fs::create_dir_all(&api).with_context(|| format!("cannot make {}", api.display()))?;
    certificates(&dirs.ake())?;
    let list = balancers.list();
    let sources =
        list.iter().flat_map(|b| [format!("{}/32", b.addresses[0]), format!("{}/128", b.addresses[1])]);
    let fill = |text: &str| {
        text.replace("{{folder}}", &dirs.ake().display().to_string())
            .replace("{{log}}", &dirs.log().display().to_string())
            .replace("{{auth}}", &auth_url())
            .replace("{{password}}", PASSWORD)
            .replace("{{region}}", REGION)
            .replace("{{balancers}}", &balancers::quoted(list.iter().map(Balancer::url)))
            .replace("{{check_sources}}", &balancers::quoted(sources.clone()))
    };
    for (name, template) in
        [("api.toml", include_str!("../ake/api.toml")), ("heat.toml", include_str!("../ake/heat.toml"))]
    {
        let path = dirs.ake().join(name);
        fs::write(&path, fill(template)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    balancers::configure(dirs, balancers)?;
    ["ake-xdp", "ake-api"].into_iter().try_for_each(|name| install(lab, name))
}

/// Puts a program in its place, as an upgrade does: whoever runs the one before goes on with it.
fn install(lab: &Lab, name: &str) -> Result<()> {
    let (from, place) = (lab.built(name)?, program(lab.dirs(), name));
    let new = place.with_extension("new");
    fs::copy(&from, &new).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&new, &place).with_context(|| format!("cannot write {}", place.display()))
}

/// Where one of AKE's programs lies in a lab.
pub(crate) fn program(dirs: &Dirs, name: &str) -> PathBuf {
    dirs.state.join("bin").join(name)
}

/// Starts AKE's services, the balancers first.
pub fn start(lab: &Lab, progress: &mut dyn FnMut(&str)) -> Result<()> {
    for service in services(lab.dirs()) {
        launch(lab, &service)?;
        progress(&match service.ready {
            Ready::Listens(address) => format!("{} answers at {address}", service.name),
            Ready::Well(url) => format!("{} answers at {url}", service.name),
            Ready::Writes(_) => format!("{} runs", service.name),
        });
    }
    Ok(())
}

/// Starts one of AKE's services.
pub fn start_one(lab: &Lab, name: &str) -> Result<()> {
    match services(lab.dirs()).iter().find(|service| service.name == name) {
        Some(service) => launch(lab, service),
        None => bail!("{name:?}: expected one of {}", crate::services(lab.dirs()).join(", ")),
    }
}

/// Replaces a program of a service by the one that was built, and restarts it.
pub fn upgrade(lab: &Lab, name: &str) -> Result<()> {
    match lab.balancers().iter().any(|balancer| balancer.name == name) {
        true => install(lab, "ake-xdp")?,
        false => install(lab, name)?,
    }
    lab.restart(name)
}

fn launch(lab: &Lab, service: &Service) -> Result<()> {
    if let Ready::Writes(file) = &service.ready {
        let _ = fs::remove_file(file);
    }
    let words: Vec<&str> = service.words.iter().map(String::as_str).collect();
    detached::start(lab.cage(), service.netns, service.name, &service.program, &words)?;
    let deadline = Instant::now() + START;
    let ca = fs::read(ca_file(lab.dirs()))?;
    let answers = async || match &service.ready {
        Ready::Well(url) => healthy(&ca, url).await,
        Ready::Listens(address) => Ok(tokio::net::TcpStream::connect(*address).await.is_ok()),
        Ready::Writes(file) => Ok(file.exists()),
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

/// One authority for `ake-api`'s users, one for both ends of the balancers' management connections.
fn certificates(folder: &Path) -> Result<()> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let users = Authority::new("AKE lab", &folder.join("ca.pem"))?;
    users.sign(folder, "api", "ake-api", Some(HOST), ServerAuth)?;
    let device = Authority::new("AKE lab balancer", &folder.join("device-ca.pem"))?;
    device.sign(folder, "device-xdp", "ake-xdp", Some(BALANCERS[0].addresses[0]), ServerAuth)?;
    device.sign(folder, "device-xdp2", "ake-xdp2", Some(BALANCERS[1].addresses[0]), ServerAuth)?;
    // what the balancers show one another
    device.sign(folder, "device-peer", "ake-xdp", None, ClientAuth)?;
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
                "device-peer.key",
                "device-peer.pem",
                "device-xdp.key",
                "device-xdp.pem",
                "device-xdp2.key",
                "device-xdp2.pem"
            ]
        );
        for name in names {
            let text = fs::read_to_string(folder.path().join(&name)).unwrap();
            assert!(text.starts_with("-----BEGIN "), "{name}");
        }
    }
}
