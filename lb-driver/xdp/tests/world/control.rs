//! The writer's side: certificates, configuration, the API, and a state to begin with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::NonZeroU16,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lb_driver::{
    diff::diff,
    driver::{Driver as _, Status},
    model::{Affinity, Check, Endpoint, LoadBalancer, Member, Owner, Pool, Protocol, State, Version},
    vendor::xdp::{Settings, XdpDriver},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use super::{BALANCER, BALANCER2, PORT, STATIONS, VIP, VIP6, World};

/// Certificates of the API's both ends.
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) server: (String, String),
    pub(crate) server2: (String, String),
    pub(crate) client: (String, String),
    /// Of somebody between both, on a loopback address.
    pub(crate) proxy: (String, String),
}

pub(crate) fn certificates() -> Certificates {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = |name: &str, usage| {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &ca).unwrap().pem(), key.serialize_pem())
    };
    Certificates {
        ca: ca.pem(),
        server: leaf(BALANCER, ExtendedKeyUsagePurpose::ServerAuth),
        server2: leaf(BALANCER2, ExtendedKeyUsagePurpose::ServerAuth),
        client: leaf("ake-api", ExtendedKeyUsagePurpose::ClientAuth),
        proxy: leaf("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth),
    }
}

/// The writer's side.
pub(crate) struct Api<'a> {
    world: &'a World,
    driver: XdpDriver,
}

impl<'a> Api<'a> {
    pub(crate) fn new(world: &'a World, ca: &Certificates, client: &Certificates) -> Self {
        Self::of(world, BALANCER, ca, client)
    }

    /// As [`new`](Self::new), of the balancer at an address.
    pub(crate) fn of(world: &'a World, address: &str, ca: &Certificates, client: &Certificates) -> Self {
        let settings = Settings {
            url: format!("https://{address}:9512"),
            ca: ca.ca.clone().into(),
            certificate: client.client.0.clone().into(),
            key: client.client.1.clone().into(),
            timeout: Duration::from_secs(30),
        };
        Self { world, driver: XdpDriver::new(&settings).unwrap() }
    }

    /// A call from the router's namespace: the balancer's own would not pass its wire.
    pub(crate) fn call<T: Send>(&self, work: impl AsyncFnOnce(&XdpDriver) -> T + Send) -> T {
        self.world.inside("router", || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work(&self.driver))
        })
    }

    pub(crate) fn apply(&self, wanted: &State) {
        self.call(async |driver| {
            let changes = diff(wanted, &driver.read().await.unwrap());
            driver.apply(wanted, &changes).await.unwrap();
            assert_eq!(diff(wanted, &driver.read().await.unwrap()), []);
        });
    }

    pub(crate) fn status(&self) -> Status {
        self.call(async |driver| driver.status().await.unwrap())
    }
}

pub(crate) fn write_config(world: &World, certificates: &Certificates) -> PathBuf {
    write_config_of(world, certificates, "balancer", "")
}

/// Checks that wait for an answer through pauses of the test itself.
pub(crate) fn patient(config: &Path, timeout_ms: u32) {
    let text = fs::read_to_string(config).unwrap();
    assert!(text.contains("timeout_ms = 200"), "{text}");
    fs::write(config, text.replace("timeout_ms = 200", &format!("timeout_ms = {timeout_ms}"))).unwrap();
}

/// The configuration of one of the balancers, with something more at its end.
pub(crate) fn write_config_of(
    world: &World,
    certificates: &Certificates,
    station: &str,
    more: &str,
) -> PathBuf {
    let folder = world.folder.path();
    let (address, server) = match station {
        "balancer2" => (BALANCER2, &certificates.server2),
        _ => (BALANCER, &certificates.server),
    };
    for (name, text) in [
        (format!("{station}.crt"), &server.0),
        (format!("{station}.key"), &server.1),
        ("clients.crt".to_owned(), &certificates.ca),
        ("peer.crt".to_owned(), &certificates.client.0),
        ("peer.key".to_owned(), &certificates.client.1),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    let folder = folder.display();
    let text = format!(
        r#"
        interface = "eth0"
        listen = "{address}:9512"
        metrics = "127.0.0.1:9513"
        state = "{folder}/{station}.json"
        socket = "{folder}/{station}.sock"
        pins = "{folder}/{station}-pins"
        [tls]
        certificate = "{folder}/{station}.crt"
        key = "{folder}/{station}.key"
        client_ca = "{folder}/clients.crt"
        [check]
        period_ms = 100
        timeout_ms = 200
        rise = 1
        fall = 2
        [limits]
        flows = 16384
        {more}
        "#
    );
    let file = world.folder.path().join(format!("{station}.toml"));
    fs::write(&file, text).unwrap();
    file
}

pub(crate) fn owner(object: &str) -> Owner {
    Owner::new("project", "cluster", object).unwrap()
}

pub(crate) fn wanted() -> State {
    let port = NonZeroU16::new(PORT).unwrap();
    let member = |(name, address, _, mac): (&str, &str, &str, &str)| {
        let (address, mac) = (address.parse().unwrap(), Some(mac.parse().unwrap()));
        (name.to_owned(), Member { address, mac, weight: 1, draining: false })
    };
    let balancer = |vip: &str| LoadBalancer {
        vip: vip.parse().unwrap(),
        listeners: BTreeMap::from([(Endpoint { protocol: Protocol::Tcp, port }, owner("nodes"))]),
        source_ranges: BTreeSet::new(),
        affinity: Affinity::None,
    };
    let members = STATIONS.into_iter().filter(|station| station.0.starts_with('m')).map(member).collect();
    State {
        version: Version { epoch: 1, number: 1 },
        pools: BTreeMap::from([(
            owner("nodes"),
            Pool { members, checks: BTreeSet::from([Check::Tcp { port }]) },
        )]),
        load_balancers: BTreeMap::from([(owner("four"), balancer(VIP)), (owner("six"), balancer(VIP6))]),
    }
}

/// Runs one of the program's commands on the balancer's host, as root; what it said.
pub(crate) fn run_program(world: &World, command: &str, config: &Path) -> Result<String, String> {
    let balancer = world.namespace("balancer");
    let output = Command::new("ip")
        .args(["netns", "exec", &balancer, env!("CARGO_BIN_EXE_ake-xdp"), command, "--config"])
        .arg(config)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    Ok(String::from_utf8(output.stdout).unwrap())
}

pub(crate) fn metric(world: &World, line: &str) -> String {
    let text = world.inside("balancer", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            reqwest::get("http://127.0.0.1:9513/metrics").await.unwrap().text().await.unwrap()
        })
    });
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.unwrap_or_else(|| panic!("{line} in {text}")).trim().to_owned()
}
