//! `make e2e-flows`: a lab with two balancers, a cluster, a thousand open connections, and every change that may happen to
//! nodes, balancers and Services.

use std::process::ExitCode;

use ake_lab::Lab;
use anyhow::Result;
use clap::{Parser, builder::FalseyValueParser};
use scenarios::{
    flows, measure,
    report::Report,
    tenant::{Tenant, Wish},
};

/// The stack is called so.
const STACK: &str = "flows";

#[derive(Parser)]
#[command(
    about = "Brings a lab up, makes a cluster in it, and counts what of 1,000 open connections is lost by changes of nodes, \
             balancers and Services"
)]
struct Arguments {
    /// Name of the lab; one that runs is used, and stays
    #[arg(long, env = "AKE_LAB", default_value = "e2e-flows")]
    name: String,
    /// Leave the lab and the cluster when all is over
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::new("e2e-flows");
    let found = Lab::attach(&arguments.name).is_ok();
    let walked = run(&arguments, found, &mut report);
    if let Err(error) = &walked {
        report.say(&format!("FAILED: {error:#}"));
    }
    let ended = if found || arguments.keep { Ok(()) } else { Lab::down(&arguments.name) };
    if let Err(error) = &ended {
        report.say(&format!("FAILED: {error:#}"));
    }
    let held = report.close();
    if walked.is_ok() && ended.is_ok() && held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &Arguments, found: bool, report: &mut Report) -> Result<()> {
    let lab = report.stage("a cloud on this machine, and AKE installed by its operator", |report| {
        if found {
            return Lab::attach(&arguments.name);
        }
        Lab::up(&arguments.name, &mut |line| report.say(&format!("   {line}")))
    })?;
    let tenant = Tenant::new(&lab, "demo")?;
    let cluster = report.stage("openstack stack create makes a cluster", |report| {
        let cluster = match tenant.status(STACK)? {
            Some(_) => tenant.finish(STACK)?,
            None => {
                // Neutron's default quota has no room for a rule of each Service.
                let parameters = vec![("service_ports".to_owned(), "open".to_owned())];
                tenant.create(&Wish { parameters, ..Wish::of(STACK, 2) }, report)?
            }
        };
        measure::ready(&cluster, 2)?;
        Ok(cluster)
    })?;
    flows::walk(&cluster, &tenant, report)
}
