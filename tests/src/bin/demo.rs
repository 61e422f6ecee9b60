//! `make demo`: a cloud on this machine, a cluster in it, every proof of what AKE promises.

use std::process::ExitCode;

use ake_lab::Lab;
use anyhow::{Context, Result};
use clap::Parser;
use scenarios::{
    checkout,
    cluster::Cluster,
    proofs::{self, Background, fixture},
    report::Report,
    tenant::{Tenant, Wish},
};

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
    let ended = walk(&arguments, &mut report);
    if let Err(error) = &ended {
        report.say(&format!("FAILED: {error:#}"));
        report.say(&format!("logs: ake-lab --name {0} logs; look inside: ake-lab --name {0} status, exec SERVER", arguments.name));
    }
    let held = report.close();
    if ended.is_ok() && !arguments.keep {
        if let Err(error) = keep_transcript(&report) {
            eprintln!("the transcript was not written: {error:#}");
        }
    }
    if ended.is_ok() && held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn walk(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let name = arguments.name.as_str();
    let lab = report.stage("a cloud on this machine, and AKE installed by its operator", |report| {
        if arguments.keep {
            if let Ok(lab) = Lab::attach(name) {
                return Ok(lab);
            }
        }
        Lab::down(name)?;
        Lab::up(name, &mut |line| report.say(&format!("   {line}")))
    })?;
    let (demo, neighbour) = (Tenant::new(&lab, "demo")?, Tenant::new(&lab, "neighbour")?);
    let before = demo.inventory()?;

    let cluster = report.stage("openstack stack create makes a cluster", |report| {
        demo.create(&Wish::of("demo", 2), report)
    })?;
    let workers = cluster.ready_nodes()?;
    let seconds = report.seconds("openstack stack create makes a cluster").unwrap_or_default();
    report.proof("stack create to all nodes Ready", format!("{seconds:.1} s, {workers:?}"), workers.len() == 2);

    // The neighbour is made while the demo is looked at: two clusters of two projects share everything but the name.
    let theirs = report.stage("a second project makes a cluster of its own", |report| {
        neighbour.create(&Wish::of("neighbour", 1), report)
    })?;
    theirs.apply(&fixture("web.yaml")?.replace("replicas: 2", "replicas: 1"))?;

    walk_services(&cluster, &theirs, &demo, &workers, report)?;

    report.stage("a PersistentVolumeClaim becomes a Cinder volume, and moves", |report| {
        report.command("kubectl apply -f tests/fixtures/data.yaml");
        cluster.apply(&fixture("data.yaml")?)?;
        proofs::data_moves(&cluster, report)
    })?;

    report.stage("a worker is stopped", |report| {
        let vip = cluster.vip("web")?;
        let victim = workers.first().context("a worker")?;
        proofs::stopped_worker(&cluster, vip, victim, &demo, report)
    })?;

    report.stage("a Service goes", |report| proofs::service_goes(&cluster, report))?;

    report.stage("openstack stack delete, with a Service and a volume still there", |report| {
        let vip = theirs.vip("web")?;
        let watch = Background::start(&lab, &proofs::target(vip, 80), "/hostname", 20)?;
        let deleted = demo.delete("demo", report);
        let seen = watch.end()?;
        deleted?;
        remove_credential(&demo, report)?;
        proofs::nothing_left(&demo, &before, &cluster.id, &lab, report)?;
        report.proof(
            "neighbour never noticed",
            format!("{} requests during the deletion, {} lost", seen.sent, seen.lost),
            seen.sent > 0 && seen.lost == 0,
        );
        Ok(())
    })?;
    tell_how_to_go_on(&theirs, name, report);
    Ok(())
}

fn walk_services(
    cluster: &Cluster<'_>,
    theirs: &Cluster<'_>,
    demo: &Tenant<'_>,
    workers: &[String],
    report: &mut Report,
) -> Result<()> {
    let _ = demo;
    report.stage("a Deployment and Services of type LoadBalancer", |report| {
        report.command("kubectl apply -f tests/fixtures/web.yaml");
        cluster.apply(&fixture("web.yaml")?)?;
        cluster.rolled_out("deployment/web")?;
        let (vip, local) = (cluster.vip("web")?, cluster.vip("web-local")?);
        report.say(&format!("   web is at {vip}, web-local at {local}"));
        proofs::reachable(cluster, vip)?;
        proofs::reachable(cluster, local)?;
        proofs::answers_from_vip(cluster, vip, report)?;
        proofs::past_the_balancer(cluster, vip, report)?;
        proofs::client_address(cluster, local, report)?;
        proofs::ring(cluster, local, report)
    })?;
    report.stage("pods, nodes and neighbours", |report| {
        proofs::host_gateway(cluster, report)?;
        proofs::metadata(cluster, report)?;
        let victim = theirs.vip("web")?.to_string();
        proofs::spoofing(cluster, workers.first().context("a worker")?, &victim, "2001:db8:113::1f", report)
    })?;
    report.stage("speed", |report| proofs::speed(cluster, report))
}

/// The tenant takes back the application credential that the cluster acted by.
fn remove_credential(demo: &Tenant<'_>, report: &mut Report) -> Result<()> {
    report.command("openstack application credential delete ake-demo");
    demo.openstack(&["application", "credential", "delete", "ake-demo"]).map(drop)
}

fn tell_how_to_go_on(theirs: &Cluster<'_>, name: &str, report: &mut Report) {
    let config = theirs.kubeconfig().display();
    report.say("the lab and the cluster `neighbour` are left running:");
    report.say(&format!("   target/debug/ake-lab --name {name} client -- kubectl --kubeconfig {config} get nodes,pods,services"));
    report.say(&format!("   target/debug/ake-lab --name {name} client --user neighbour -- openstack stack list"));
    report.say(&format!("   target/debug/ake-lab --name {name} down"));
}

/// The transcript becomes the tutorial's second half.
fn keep_transcript(report: &Report) -> Result<()> {
    let path = checkout().join("docs/tutorials/demo.md");
    let text = format!(
        "# What `make demo` prints\n\nWritten by the command itself at its last whole run. The first column is the clock.\n\n```text\n{}```\n",
        report.transcript()
    );
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}
