//! `ake-heat`: run by the Heat plugin of the same wheel.

use std::{io::Read, path::PathBuf, process::ExitCode};

use ake_heat::{
    config::{Config, VARIABLE},
    document::Request,
    markdown, resources, run,
};
use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "The work behind AKE's Heat resources")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print every resource type, for the plugin.
    Schema {
        /// Print it as the reference page.
        #[arg(long)]
        markdown: bool,
    },
    /// Do one step: a request in JSON on standard input, an answer on standard output.
    Run,
}

fn main() -> ExitCode {
    match work(&Arguments::parse().command) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // One line: it becomes the fault of a stack.
            eprintln!("{}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn work(command: &Command) -> anyhow::Result<String> {
    match command {
        Command::Schema { markdown: true } => Ok(markdown::page(&resources::types())),
        Command::Schema { markdown: false } => Ok(serde_json::to_string(&resources::types())?),
        Command::Run => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input")?;
            let request: Request = serde_json::from_str(&text).context("request")?;
            let config = Config::load(std::env::var_os(VARIABLE).map(PathBuf::from).as_deref())?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let answer = runtime.block_on(run::run(&config, &request))?;
            Ok(serde_json::to_string(&answer)?)
        }
    }
}
