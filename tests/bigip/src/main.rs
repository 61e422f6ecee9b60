//! The program `ake-bigip`: the stand-in on a port, or a pair on two, for other programs.
//!
//! It says where it listens, a URL a line. What has no command on the device it is told on standard input, a line
//! each, answered by `done`: `down ADDRESS` and `up ADDRESS` are what its monitors say from then on.

use std::{io::Write, net::SocketAddr, path::PathBuf};

use ake_bigip::{Device, Identity, Options, Served};
use clap::Parser;
use tokio::io::{AsyncBufReadExt, BufReader};

/// A stand-in for a BIG-IP's iControl REST; runs until it is ended.
#[derive(Parser)]
#[command(name = "ake-bigip", version)]
struct Arguments {
    /// Address and port; port 0 for one that is free.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The same of a second unit: the two are a pair, of which the first one is active.
    #[arg(long)]
    peer_listen: Option<SocketAddr>,
    /// The user that may log in.
    #[arg(long, default_value = "admin")]
    user: String,
    /// The user's password.
    #[arg(long, default_value = "admin")]
    password: String,
    /// File to which the certificate is written, as PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Folder that keeps what is saved, and the certificate, for the next start.
    #[arg(long)]
    disks: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, peer_listen, user, password, ca, disks } = Arguments::parse();
    let host = listen.ip().to_string();
    let identity = match &disks {
        Some(folder) => Identity::kept(folder, &host)?,
        None => Identity::fresh(&host)?,
    };
    if let Some(path) = ca {
        std::fs::write(path, &identity.certificate)?;
    }
    let options = Options { user, password, disks, ..Options::default() };
    let units = match peer_listen {
        None => vec![(Device::new(options), listen)],
        Some(peer) => {
            let (one, two) = Device::pair(options);
            vec![(one, listen), (two, peer)]
        }
    };
    let device = units[0].0.clone();
    let mut served = Vec::new();
    for (unit, listen) in units {
        unit.boot()?;
        served.push(Served::start_as(unit, listen, &identity).await?);
    }
    for one in &served {
        say(&one.url)?;
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split_once(' ') {
            Some(("down", address)) => device.set_healthy(address, false),
            Some(("up", address)) => device.set_healthy(address, true),
            _ => anyhow::bail!("{line:?}: expected down ADDRESS or up ADDRESS"),
        }
        say("done")?;
    }
    for one in served {
        one.wait().await;
    }
    Ok(())
}

/// Whoever started it reads this.
fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}
