//! `ake-lab`: starts, shows and ends a lab.

use std::process::{Command, ExitCode};
use std::time::Instant;

use ake_lab::balancers::Balancers;
use ake_lab::lab::{Extent, Lab};
use ake_lab::{Dirs, machine};
use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// A cloud on one machine: OpenStack, a provider network, a load balancer, AKE.
#[derive(Debug, Parser)]
#[command(name = "ake-lab", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Which lab; several can run side by side
    #[arg(long, global = true, default_value = "demo", env = "AKE_LAB_NAME")]
    name: String,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start a lab from nothing; one of the same name is ended first
    Up {
        /// Stop after OpenStack and the network, before an operator brings AKE
        #[arg(long)]
        bare: bool,
        /// How many load balancers it has; of two, VRRP says which one is active, and each tells the other of flows
        #[arg(long, value_enum, default_value = "2")]
        balancers: Balancers,
    },
    /// End a lab and remove everything of it, also after a crash
    Down {
        /// End every lab of this machine
        #[arg(long)]
        all: bool,
    },
    /// Say what of a lab runs
    Status,
    /// List the labs of this machine
    List,
    /// Show the log of a service, the console of a server, or what logs there are
    Logs {
        /// A service (ake-api, ake-xdp, nova, ...) or a server by name or id
        of: Option<String>,
    },
    /// Run a command on a server as root; a shell if none is given
    Exec {
        /// The server's name or id
        server: String,
        /// The command and its arguments
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Run a command on the client's machine, with a tenant's login in its environment
    Client {
        /// Whose login: a project's user, or admin
        #[arg(long, default_value = "demo")]
        user: String,
        /// The command and its arguments: openstack, kubectl, curl, ...
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Restart a service: ake-api, ake-xdp, ake-xdp2, keepalived, keepalived2, or an OpenStack project
    Restart {
        /// The service's name
        service: String,
    },
    /// What the stand-ins of hypervisor and switch call
    #[command(hide = true)]
    Hook {
        /// The event's name; its document is on standard input
        event: String,
    },
}

fn main() -> ExitCode {
    if let Some(code) = ake_lab::internal::dispatch(std::env::args_os()) {
        return code;
    }
    match act(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ake-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> Result<ExitCode> {
    let name = &arguments.name;
    match arguments.action {
        Action::Up { bare, balancers } => {
            let begin = Instant::now();
            let extent = if bare { Extent::Cloud } else { Extent::Ake };
            Lab::start(name, extent, balancers, &mut |text| {
                println!("[{:6.1} s] {text}", begin.elapsed().as_secs_f64());
            })?;
        }
        Action::Down { all: false } => Lab::down(name)?,
        Action::Down { all: true } => {
            for (lab, _) in Lab::list()? {
                Lab::down(&lab)?;
                println!("ended the lab {lab:?}");
            }
        }
        Action::Status => return status(name),
        Action::List => {
            for (lab, runs) in Lab::list()? {
                println!("{lab}  {}", if runs { "running" } else { "left behind" });
            }
        }
        Action::Logs { of } => logs(name, of.as_deref())?,
        Action::Exec { server, command } => {
            let lab = Lab::attach(name)?;
            let command = if command.is_empty() { vec!["/bin/bash".to_owned()] } else { command };
            return ended(machine::exec(lab.cage(), &server, &command)?);
        }
        Action::Client { user, command } => {
            let lab = Lab::attach(name)?;
            let (program, words) = command.split_first().context("no command")?;
            return ended(lab.client_as(&user, program).args(words).status()?);
        }
        Action::Restart { service } => Lab::attach(name)?.restart(&service)?,
        Action::Hook { event } => ake_lab::hook::run(&event)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn status(name: &str) -> Result<ExitCode> {
    let Ok(lab) = Lab::attach(name) else {
        println!("the lab {name:?} is not running");
        return Ok(ExitCode::FAILURE);
    };
    println!("the lab {name:?} is running in {}", lab.dirs().state.display());
    let mut whole = true;
    for service in ake_lab::services(lab.dirs()) {
        let pid = lab.pid(service);
        whole &= pid.is_some();
        println!("  {service:<11} {}", pid.map_or("not running".to_owned(), |pid| format!("process {pid}")));
    }
    for record in machine::list(lab.dirs())? {
        println!("  server {record}");
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn logs(name: &str, of: Option<&str>) -> Result<()> {
    let dirs = Dirs::of(name)?;
    let Some(of) = of else {
        for entry in std::fs::read_dir(dirs.log()).with_context(|| format!("no logs of a lab {name:?}"))? {
            println!("{}", entry?.path().display());
        }
        return Ok(());
    };
    let log = dirs.log().join(format!("{of}.log"));
    let path = if log.exists() { log } else { machine::console(&dirs, of)? };
    let status = Command::new("cat").arg(&path).status()?;
    if !status.success() {
        bail!("cannot show {}", path.display());
    }
    Ok(())
}

fn ended(status: std::process::ExitStatus) -> Result<ExitCode> {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code)?))
}
