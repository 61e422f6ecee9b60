//! One question to one target.

use std::{error::Error as _, io, net::SocketAddr, time::Duration};

use lb_driver::model;
use tokio::{net::TcpStream, time::timeout};

use super::Target;
use crate::{config::Check, probe};

/// Asks one target.
pub(super) struct Asker {
    pub(super) target: Target,
    pub(super) client: reqwest::Client,
    /// Of a member whose VIP is checked.
    pub(super) mark: Option<u32>,
    /// How long an answer may take.
    pub(super) patience: Duration,
}

/// Why a target is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unwell {
    /// In words for people.
    pub(super) reason: String,
    /// What it says of the machine.
    pub(super) sign: Sign,
}

/// Whether a machine is there, by a check that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It refused, or answered badly, or took a connection and then said nothing.
    Life,
    /// Nothing came back at all: it may be gone.
    Silence,
    /// There was too little time for an answer, or nothing was asked.
    Nothing,
}

impl Unwell {
    pub(super) fn silent(reason: String) -> Self {
        Self { reason, sign: Sign::Silence }
    }
}

impl From<String> for Unwell {
    fn from(reason: String) -> Self {
        Self { reason, sign: Sign::Life }
    }
}

/// How long a connection may take to come about: a little less than an answer may take in all, so that a machine that is gone
/// is told from one that is slow.
pub(super) fn connecting(settings: &Check) -> Duration {
    settings.timeout() * 9 / 10
}

impl Asker {
    /// Waits for an answer until `patience` is over, which is short for a `new` target.
    pub(super) async fn ask(&self, patience: Duration, new: bool) -> Result<(), Unwell> {
        let sign = match self.target.check {
            _ if patience < self.patience => Sign::Nothing,
            // By then there would be no connection still under way: somebody has taken it.
            model::Check::Http { .. } => Sign::Life,
            _ => Sign::Silence,
        };
        timeout(patience, self.once(new)).await.map_err(|_| self.late(new, sign))?
    }

    fn late(&self, new: bool, sign: Sign) -> Unwell {
        // To a new target the same words each time: a longer wait alone is no news.
        let within = if new { "yet".to_owned() } else { format!("within {} ms", self.patience.as_millis()) };
        Unwell { reason: format!("no answer from {} {within}", self.target), sign }
    }

    async fn once(&self, new: bool) -> Result<(), Unwell> {
        let target = &self.target;
        match &target.check {
            model::Check::Vip { vip, port } => {
                let reason = || "this balancer has no means to check VIPs".to_owned();
                let mark = self.mark.ok_or_else(|| Unwell { reason: reason(), sign: Sign::Nothing })?;
                let vip = SocketAddr::new(*vip, port.get());
                probe::connect(vip, mark).await.map_err(|e| failure(&e, target))
            }
            model::Check::Tcp { .. } => {
                TcpStream::connect(target.socket()).await.map(drop).map_err(|e| failure(&e, target))
            }
            model::Check::Http { .. } => {
                let answer = self.client.get(target.to_string()).send().await.map_err(|error| {
                    if error.is_connect() && error.is_timeout() {
                        return self.late(new, Sign::Silence);
                    }
                    let mut source = error.source();
                    while let Some(cause) = source {
                        if let Some(io) = cause.downcast_ref::<io::Error>() {
                            return failure(io, target);
                        }
                        source = cause.source();
                    }
                    format!("GET {target}: {error}").into()
                })?;
                let status = answer.status();
                if status.is_success() {
                    return Ok(());
                }
                Err(format!("GET {target} answered {}, expected 200 to 299", status.as_u16()).into())
            }
        }
    }
}

fn failure(error: &io::Error, target: &Target) -> Unwell {
    let socket = match &target.check {
        model::Check::Vip { .. } => target.to_string(),
        _ => target.socket().to_string(),
    };
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("connection refused on {socket}").into(),
        io::ErrorKind::HostUnreachable => {
            Unwell::silent(format!("no route to {socket}: nobody has its address"))
        }
        io::ErrorKind::NetworkUnreachable => Unwell::silent(format!("no route to {socket}")),
        io::ErrorKind::TimedOut => Unwell::silent(format!("{socket}: {error}")),
        io::ErrorKind::ConnectionReset => format!("connection reset by {socket}").into(),
        _ => format!("{socket}: {error}").into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn reasons_name_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let port = address.port().try_into().unwrap();
        let asker = |check| Asker {
            target: Target { address: address.ip(), check },
            client: reqwest::Client::new(),
            mark: None,
            patience: PATIENCE,
        };
        let tcp = asker(model::Check::Tcp { port });
        assert_eq!(tcp.ask(PATIENCE, false).await, Ok(()));
        drop(listener);
        let refused = Err(format!("connection refused on {address}").into());
        assert_eq!(tcp.ask(PATIENCE, false).await, refused);
        let http = asker(model::Check::Http { port, path: "/healthz".to_owned() });
        assert_eq!(http.ask(PATIENCE, false).await, refused);

        let listener = std::net::TcpListener::bind(address).unwrap();
        std::thread::spawn(move || {
            for status in ["503 Service Unavailable", "204 No Content"] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .unwrap();
            }
        });
        let unwell = Err(format!("GET http://{address}/healthz answered 503, expected 200 to 299").into());
        assert_eq!(http.ask(PATIENCE, false).await, unwell);
        assert_eq!(http.ask(PATIENCE, false).await, Ok(()));
    }

    #[tokio::test]
    async fn whoever_takes_a_connection_is_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let check =
            model::Check::Http { port: address.port().try_into().unwrap(), path: "/healthz".to_owned() };
        let target = Target { address: address.ip(), check };
        let asker = Asker { target, client: reqwest::Client::new(), mark: None, patience: PATIENCE };
        let unwell = asker.ask(PATIENCE, false).await.unwrap_err();
        assert_eq!(unwell.reason, format!("no answer from http://{address}/healthz within 500 ms"));
        assert_eq!(unwell.sign, Sign::Life);
        for (patience, sign) in [(PATIENCE, Sign::Life), (PATIENCE / 4, Sign::Nothing)] {
            let unwell = asker.ask(patience, true).await.unwrap_err();
            assert_eq!(unwell.reason, format!("no answer from http://{address}/healthz yet"));
            assert_eq!(unwell.sign, sign, "within {patience:?}");
        }
    }
}
