//! What is read anew while the service runs: certificates, those that clients see and those that balancers see, when
//! their files change or on SIGHUP; and the trail's file on SIGHUP. Connections that stand are kept.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    device::{self, Renewed},
    http::App,
    serve,
};

/// How often files are compared with what is in use.
const PERIOD: Duration = Duration::from_secs(10);

/// What a set of files held when it was taken in.
type Print = Vec<[u8; 32]>;

/// Sets up the balancers' drivers so that they can be set up anew.
pub fn renewed(config: &Config) -> anyhow::Result<BTreeMap<String, Arc<Renewed>>> {
    let drivers = device::drivers(config)?;
    Ok(drivers.into_iter().map(|(url, driver)| (url, Arc::new(Renewed::new(driver)))).collect())
}

/// Reads anew what may change while the service runs.
pub struct Reload {
    /// The configuration that names the files.
    pub config: Arc<Config>,
    /// What new connections are met with.
    pub tls: Arc<ArcSwap<ServerConfig>>,
    /// The balancers.
    pub drivers: BTreeMap<String, Arc<Renewed>>,
    /// Has the trail.
    pub app: Arc<App>,
    /// Notified by SIGHUP.
    pub asked: Arc<Notify>,
}

impl Reload {
    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let (mut own, mut shown) = (self.print_of("tls."), self.print_of("device."));
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = self.asked.notified() => true,
                () = tokio::time::sleep(PERIOD) => false,
            };
            if asked {
                self.reopen();
            }
            let (own_now, shown_now) = (self.print_of("tls."), self.print_of("device."));
            // what does not serve is tried, and told, again each period
            if own_now != own && self.take_own() {
                own = own_now;
            }
            if shown_now != shown && self.take_shown() {
                shown = shown_now;
            }
        }
    }

    fn print_of(&self, keys: &str) -> Print {
        let files = self.config.files();
        let files = files.iter().filter(|(key, _)| key.starts_with(keys));
        files.map(|(_, file)| digest(file)).collect()
    }

    fn reopen(&self) {
        let reopened = self.app.audit.reopen(&self.config.audit_log);
        self.app.metrics.reloaded("audit-log", reopened.is_ok());
        match reopened {
            Ok(()) => tracing::info!("the audit log was opened anew"),
            Err(error) => {
                tracing::error!(%error, "the audit log cannot be opened anew; the old one is written on");
            }
        }
    }

    /// A certificate and a key that do not fit together are half a change: the old ones stay until they do.
    fn take_own(&self) -> bool {
        let taken = serve::tls(&self.config.tls);
        self.app.metrics.reloaded("certificate", taken.is_ok());
        match taken {
            Ok(tls) => {
                self.tls.store(Arc::new(tls));
                tracing::info!(certificate = %self.config.tls.certificate.display(), "new certificate in use");
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the new certificate does not serve; the old one stays in use");
                false
            }
        }
    }

    fn take_shown(&self) -> bool {
        let made = device::drivers(&self.config);
        self.app.metrics.reloaded("balancers", made.is_ok());
        match made {
            Ok(drivers) => {
                for (url, driver) in drivers {
                    if let Some(renewed) = self.drivers.get(&url) {
                        // what was begun may take a while, and nobody waits for it
                        tokio::spawn(renewed.renew(driver));
                    }
                }
                tracing::info!("new certificates for balancers in use");
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    error,
                    "the new certificates for balancers do not serve; the old ones stay in use"
                );
                false
            }
        }
    }
}

/// What a file holds; one that cannot be read counts as empty.
fn digest(file: &Path) -> [u8; 32] {
    Sha256::digest(std::fs::read(file).unwrap_or_default()).into()
}
