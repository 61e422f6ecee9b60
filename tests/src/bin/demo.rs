//! `make demo`: a cloud on this machine, a cluster in it, every proof of what AKE promises.

use std::process::ExitCode;

use ake_lab::Lab;
use anyhow::{Context, Result};
use clap::Parser;
use scenarios::{checkout, report::Report, walk};

#[derive(Parser)]
#[command(
    about = "Brings a lab up, makes a cluster `demo` and a cluster `neighbour`, walks the path of the README \
             stage by stage, deletes `demo` and prints a table of proofs. The lab and `neighbour` stay."
)]
struct Arguments {
    /// Name of the lab; one that is there is ended first
    #[arg(long, default_value = "demo")]
    name: String,
    /// Keep the lab of that name if it runs, and leave the transcript in docs/ as it is
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::new("demo");
    let ended = run(&arguments, &mut report);
    if let Err(error) = &ended {
        report.say(&format!("FAILED: {error:#}"));
        report.say(&format!(
            "logs: ake-lab --name {0} logs; look inside: ake-lab --name {0} status, exec SERVER",
            arguments.name
        ));
    }
    let held = report.close();
    if ended.is_ok()
        && !arguments.keep
        && let Err(error) = keep_transcript(&report)
    {
        eprintln!("the transcript was not written: {error:#}");
    }
    if ended.is_ok() && held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let name = arguments.name.as_str();
    let lab = report.stage("a cloud on this machine, and AKE installed by its operator", |report| {
        if arguments.keep
            && let Ok(lab) = Lab::attach(name)
        {
            return Ok(lab);
        }
        Lab::down(name)?;
        Lab::up(name, &mut |line| report.say(&format!("   {line}")))
    })?;
    walk::path(&lab, report)
}

/// The transcript becomes the tutorial's second half; whose home it was made in is nobody's business.
fn keep_transcript(report: &Report) -> Result<()> {
    let path = checkout().join("docs/tutorials/demo.md");
    let home = std::env::var("HOME").unwrap_or_default();
    let told = match home.trim_end_matches('/') {
        "" => report.transcript().to_owned(),
        home => report.transcript().replace(&format!("{home}/"), "~/"),
    };
    let text = format!(
        "# What `make demo` prints\n\nWritten by the command itself at its last whole run. The first column is the clock. A thousand \
         open connections through changes of nodes, balancers and Services are shown by `make e2e-flows`.\n\n```text\n{told}```\n"
    );
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}
