//! The suite that every driver passes, for the driver of `ake-xdp` and the program as it is shipped. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod fault_proxy;
mod world;

use std::{collections::BTreeMap, fs, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use fault_proxy::Proxy;
use lb_driver::{
    conformance::{self, Deed, Device, Fault, Outcome},
    driver::{Driver, DriverError},
    model::Endpoint,
    vendor::xdp::{Settings, XdpDriver},
};
use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use world::{
    BALANCER, Balancer, World,
    control::{Certificates, certificates, write_config},
};

/// The program, behind the proxy.
struct Xdp<'a> {
    world: &'a World,
    config: PathBuf,
    certificates: &'a Certificates,
    proxy: Proxy,
    program: Option<Balancer>,
}

impl Xdp<'_> {
    fn start(&mut self) {
        self.program = Some(Balancer::start(self.world, &self.config));
    }

    fn done<'a, T: Send + 'a>(answer: T) -> Deed<'a, T> {
        Box::pin(async { Ok(answer) })
    }
}

impl Device for Xdp<'_> {
    fn driver(&self) -> Result<Box<dyn Driver>, DriverError> {
        let (certificate, key) = self.certificates.client.clone();
        let driver = XdpDriver::new(&Settings {
            url: format!("https://{}", self.proxy.address),
            ca: self.certificates.ca.clone().into(),
            certificate: certificate.into(),
            key: key.into(),
            timeout: Duration::from_secs(10),
        })?;
        Ok(Box::new(driver))
    }

    fn clean(&mut self) -> Deed<'_, ()> {
        self.proxy.inject(None);
        if let Some(program) = self.program.take() {
            program.stop();
        }
        let _ = fs::remove_file(self.world.folder.path().join("state.json"));
        self.start();
        Self::done(())
    }

    fn put_foreign<'a>(&'a mut self, _: &'a str, _: IpAddr, _: Endpoint) -> Deed<'a, Outcome> {
        Self::done(Outcome::NotOfThisDevice("all that it holds is its one writer's"))
    }

    fn foreign(&mut self) -> Deed<'_, BTreeMap<String, String>> {
        Self::done(BTreeMap::new())
    }

    fn inject(&mut self, fault: Fault) -> Deed<'_, Outcome> {
        match fault {
            Fault::Reboot => {
                if let Some(program) = self.program.take() {
                    program.crash();
                }
            }
            Fault::SessionExpired => {
                return Box::pin(async {
                    self.proxy.disconnect().await;
                    Ok(Outcome::Done)
                });
            }
            other => self.proxy.inject(Some(other)),
        }
        Self::done(Outcome::Done)
    }

    fn heal(&mut self) -> Deed<'_, ()> {
        self.proxy.inject(None);
        if self.program.is_none() {
            self.start();
        }
        Self::done(())
    }

    fn writes(&mut self) -> Deed<'_, u64> {
        Self::done(self.proxy.writes())
    }
}

#[test]
fn its_driver_passes_the_suite_of_all_drivers() {
    let world = World::new();
    let certificates = certificates();
    let config = write_config(&world, &certificates);
    let report = world.inside("router", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pem = [certificates.client.0.as_bytes(), b"\n", certificates.client.1.as_bytes()].concat();
            let client = reqwest::Client::builder()
                .add_root_certificate(reqwest::Certificate::from_pem(certificates.ca.as_bytes()).unwrap())
                .tls_built_in_root_certs(false)
                .use_rustls_tls()
                .identity(reqwest::Identity::from_pem(&pem).unwrap())
                .no_proxy()
                .build()
                .unwrap();
            let chain = vec![CertificateDer::from_pem_slice(certificates.proxy.0.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(certificates.proxy.1.as_bytes()).unwrap();
            let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
            let proxy = Proxy::start(format!("https://{BALANCER}:9512"), client, tls).await;
            let mut device = Xdp { world: &world, config, certificates: &certificates, proxy, program: None };
            conformance::run(&mut device).await
        })
    });
    let report = report.unwrap_or_else(|problem| panic!("{problem}"));
    let others = report.not_of_this_device.keys().copied().collect::<Vec<_>>();
    assert_eq!(others, ["somebody else's object in the way is named"], "{report:?}");
    assert_eq!(report.held.len(), 10, "{report:?}");
}
