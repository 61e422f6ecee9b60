//! The program `ake-bigip`: the stand-in on a port, for clients of others.

use std::{io::Write, net::SocketAddr, path::PathBuf};

use ake_bigip::{Device, Options, Served};
use clap::Parser;

/// A stand-in for a BIG-IP's iControl REST; runs until it is ended.
#[derive(Parser)]
#[command(name = "ake-bigip", version)]
struct Arguments {
    /// Address and port; port 0 for one that is free.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The user that may log in.
    #[arg(long, default_value = "admin")]
    user: String,
    /// The user's password.
    #[arg(long, default_value = "admin")]
    password: String,
    /// File to which the certificate is written, as PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, user, password, ca } = Arguments::parse();
    let served = Served::start(Device::new(Options { user, password }), listen).await?;
    if let Some(path) = ca {
        std::fs::write(path, &served.ca)?;
    }
    // whoever started it reads where it listens
    let mut out = std::io::stdout();
    writeln!(out, "{}", served.url)?;
    out.flush()?;
    served.wait().await;
    Ok(())
}
