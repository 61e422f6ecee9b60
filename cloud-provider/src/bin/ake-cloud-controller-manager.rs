//! The cloud controller manager: nodes, load balancers and volumes of one cluster.

use std::process::ExitCode;

use clap::Parser;
use cloud_provider::{flags::Flags, manager};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = match EnvFilter::try_new(flags.filter()) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!(
                "--log = {:?}: expected directives such as info,cloud_provider=debug: {error}",
                flags.filter()
            );
            return ExitCode::FAILURE;
        }
    };
    // systemd's journal has its own clock and no use for colours.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();

    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    match manager::run(flags, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ake-cloud-controller-manager: {error:#}");
            ExitCode::FAILURE
        }
    }
}
