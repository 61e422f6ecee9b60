//! `make bench`: packets, other balancers, large clusters, and sizes and times of a cluster on a lab of its own,
//! written to `docs/reference/performance.md`.

use std::{process::ExitCode, time::Instant};

use ake_lab::Lab;
use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use scenarios::{
    apart, balancers, checkout,
    measure::{self, Row, quantiles_of, spread_of},
    packets,
    page::{self, Section},
    report::Report,
    scale,
    tenant::{Tenant, Wish},
};

#[derive(Parser)]
#[command(
    about = "Measures packets, other balancers, large clusters, and a cluster on a lab of its own, and writes docs/reference/performance.md"
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
    /// Requests through ake-xdp, HAProxy and nftables; without a lab
    Balancers,
    /// 1,000 Services on 1,000 nodes that are objects; without a lab
    Scale,
    /// 10,000 Services on 5,000 such nodes; without a lab
    Many,
    /// Times, memory and sizes of a cluster
    Cluster,
}

/// Parts that are measured apart: as an argument, what measures it, and its section.
type Apart = (Part, &'static str, fn() -> Result<Vec<Row>>, fn(Vec<Row>) -> Section);
const APART: [Apart; 3] = [
    (Part::Balancers, "balancers", balancers::measure, balancers::section),
    (Part::Scale, "scale", scale::measure, scale::section),
    (Part::Many, "many", scale::measure_many, scale::many_section),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if apart::is_apart() {
        return match measure_apart(arguments.only) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let mut report = Report::new("bench");
    let wants = |part| arguments.only.is_none_or(|only| only == part);
    // What cannot be measured keeps nothing else from it.
    let mut failed = false;
    let mut take = |report: &mut Report, section: Result<Section>| {
        if let Err(error) = section.and_then(|section| page::write(&checkout(), &section)) {
            report.say(&format!("FAILED: {error:#}"));
            failed = true;
        }
    };
    if wants(Part::Packets) {
        let section = report.stage("packets", |_| packets::measure());
        take(&mut report, section);
    }
    for (part, name, _, section) in APART.iter().filter(|(part, ..)| wants(*part)) {
        let rows = report.stage(name, |_| {
            if *part != Part::Balancers {
                apart::allow_neighbours()?;
            }
            apart::measure(name)
        });
        take(&mut report, rows.map(section));
    }
    if wants(Part::Cluster) {
        let rows = run(&arguments, &mut report);
        let ended = Lab::down("bench");
        take(&mut report, rows.map(|rows| Section { title: "A cluster", text: CLUSTER, rows }));
        if let Err(error) = ended {
            take(&mut report, Err(error));
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Measures a part in the namespaces that this program was started in; what came out goes to standard output.
fn measure_apart(part: Option<Part>) -> Result<()> {
    let found = APART.iter().find(|(known, ..)| Some(*known) == part);
    let (.., measure, _) = found.context("--only: expected a part that is measured apart")?;
    apart::begin()?;
    println!("{}", serde_json::to_string(&measure()?)?);
    Ok(())
}

const CLUSTER: &str = "On two shared cores with everything (OpenStack, three machines, the balancer) on one computer. Programs are of the \
                       development profile, without optimisation. A Service's clock begins when a client starts to log in to the API \
                       server with it.";

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
                quantiles_of(&times),
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
