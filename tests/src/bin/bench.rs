//! `make bench`: packets, and sizes and times of a cluster on a lab of its own, written to
//! `docs/reference/performance.md`.

use std::{process::ExitCode, time::Instant};

use ake_lab::Lab;
use anyhow::Result;
use clap::{Parser, ValueEnum};
use scenarios::{
    checkout,
    measure::{self, Row, spread_of},
    packets,
    page::{self, Section},
    report::Report,
    tenant::{Tenant, Wish},
};

#[derive(Parser)]
#[command(
    about = "Measures packets, and a cluster on a lab of its own, and writes docs/reference/performance.md"
)]
struct Arguments {
    /// Measure this alone
    #[arg(long)]
    only: Option<Part>,
    /// How many clusters are made one after the other
    #[arg(long, default_value_t = 3)]
    clusters: u32,
    /// How many Services are made one after the other
    #[arg(long, default_value_t = 20)]
    services: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Nanoseconds per packet of the balancer; without a lab
    Packets,
    /// Times, memory and sizes of a cluster
    Cluster,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::new("bench");
    let wants = |part| arguments.only.is_none_or(|only| only == part);
    let mut measured = Ok(());
    if wants(Part::Packets) {
        let section = report.stage("packets", |_| packets::measure());
        measured = section.and_then(|section| page::write(&checkout(), &section));
    }
    if wants(Part::Cluster) {
        let section = measured.and_then(|()| run(&arguments, &mut report));
        let ended = Lab::down("bench");
        measured = section
            .and_then(|rows| page::write(&checkout(), &Section { title: "A cluster", text: CLUSTER, rows }));
        measured = measured.and(ended);
    }
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.say(&format!("FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

const CLUSTER: &str = "On two shared cores with everything (OpenStack, three machines, the balancer) on one computer. Programs are of the \
                       development profile, without optimisation.";

fn run(arguments: &Arguments, report: &mut Report) -> Result<Vec<Row>> {
    let lab = report.stage("a cloud on this machine", |report| {
        Lab::down("bench")?;
        Lab::up("bench", &mut |line| report.say(&format!("   {line}")))
    })?;
    let tenant = Tenant::new(&lab, "demo")?;
    let mut rows = Vec::new();
    let mut made = Vec::new();
    for number in 0..arguments.clusters {
        let stack = format!("bench-{number}");
        // A credential is bound to the first cluster that it names.
        let credential = tenant.credential(&format!("ake-{stack}"), report)?;
        let seconds = report.stage(&format!("cluster {stack}"), |report| {
            let begun = Instant::now();
            tenant.begin(&Wish::of(&stack, 2), &credential, report)?;
            measure::ready(&tenant.finish(&stack)?, 2)?;
            Ok(begun.elapsed().as_secs_f64())
        })?;
        made.push(seconds);
        // The last cluster stays for what follows.
        if number + 1 < arguments.clusters {
            tenant.delete(&stack, report)?;
        } else {
            let cluster = tenant.finish(&stack)?;
            let times =
                report.stage("Services", |_| measure::services(&cluster, &tenant, arguments.services))?;
            rows.push(Row::new(
                "Service accepted to first answer through its VIP",
                spread_of(&times, "s"),
                "1 s",
            ));
            for (program, size) in measure::memory(&cluster)? {
                rows.push(Row::new(
                    format!("resident memory of {program}"),
                    format!("{size:.1} MiB"),
                    "32 MiB",
                ));
            }
        }
    }
    rows.insert(
        0,
        Row::new("stack create to all nodes Ready (1 master, 2 workers)", spread_of(&made, "s"), "45 s"),
    );
    for (program, size) in measure::sizes(&lab)? {
        rows.push(Row::new(format!("size of {program}, stripped"), format!("{size:.1} MiB"), ""));
    }
    Ok(rows)
}
