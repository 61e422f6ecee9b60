//! `ake-node-agent api-vip`: a master has the API server's VIP on `lo` while its own API server is ready.
//!
//! It is no address of any link, and answers no ARP. When the program ends, the address stays: a restart must not
//! break connections. The balancer's own check takes a master out that does not serve.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    api::{self, ApiServer},
    netlink::{self, Netlink},
};

/// Failures in a row after which the API server counts as not ready.
const PATIENCE: u32 = 2;

/// Why the VIP cannot be kept at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error(transparent)]
    Kubeconfig(#[from] api::Error),
    /// Netlink cannot be opened.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
}

/// What is looked at, and how often.
#[derive(Debug, Clone)]
pub struct Options {
    /// A kubeconfig for the API server of this machine.
    pub kubeconfig: PathBuf,
    /// The address.
    pub vip: IpAddr,
    /// The period between looks.
    pub period: Duration,
}

/// Keeps the address until told to stop.
pub async fn run(options: &Options, stop: &CancellationToken) -> Result<(), Error> {
    let api = ApiServer::from_kubeconfig(&options.kubeconfig)?;
    let netlink = Netlink::open()?;
    let mut health = Health::default();
    loop {
        let answer = api.ready().await;
        if let Err(error) = &answer {
            tracing::debug!(%error, "not ready");
        }
        if let Err(error) = keep(&netlink, options.vip, health.take(answer.is_ok())).await {
            tracing::warn!("{error}; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(options.period) => {}
        }
    }
}

async fn keep(netlink: &Netlink, vip: IpAddr, wanted: Option<bool>) -> Result<(), netlink::Error> {
    let Some(wanted) = wanted else { return Ok(()) };
    match (wanted, netlink.loopback_has(vip).await?) {
        (true, false) => {
            tracing::info!(%vip, "the API server is ready, the VIP is taken");
            netlink.add_to_loopback(vip).await
        }
        (false, true) => {
            tracing::warn!(%vip, "the API server is not ready, the VIP is given up");
            netlink.remove_from_loopback(vip).await
        }
        _ => Ok(()),
    }
}

/// One good answer is enough to serve, one bad one is not enough to stop.
#[derive(Debug, Default)]
struct Health {
    failures: u32,
}

impl Health {
    /// Whether the address is wanted; none while that is open.
    fn take(&mut self, ready: bool) -> Option<bool> {
        self.failures = if ready { 0 } else { self.failures.saturating_add(1) };
        match self.failures {
            0 => Some(true),
            failures if failures >= PATIENCE => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_answer_is_no_reason_to_give_the_address_up() {
        let mut health = Health::default();
        let answers = [false, false, true, false, true, false, false, false];
        let wanted: Vec<_> = answers.into_iter().map(|ready| health.take(ready)).collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(wanted, [None, no, yes, None, yes, None, no, no]);
    }
}
