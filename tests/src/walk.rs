//! The path through everything: two tenants, two clusters, every proof, and the end of one of them.

use ake_lab::Lab;
use anyhow::{Context, Result};

use crate::{
    cluster::Cluster,
    proofs::{self, Background, fixture},
    report::Report,
    tenant::{Tenant, Wish},
};

/// Walks it with the projects `demo` and `neighbour`; the neighbour's cluster stays.
pub fn path(lab: &Lab, report: &mut Report) -> Result<()> {
    let (demo, neighbour) = (Tenant::new(lab, "demo")?, Tenant::new(lab, "neighbour")?);
    let before = demo.inventory()?;

    let cluster = report.stage("openstack stack create makes a cluster", |report| {
        demo.create(&Wish::of("demo", 2), report)
    })?;
    let workers = cluster.ready_nodes()?;
    let seconds = report.seconds("openstack stack create makes a cluster").unwrap_or_default();
    report.proof(
        "stack create to all nodes Ready",
        format!("{seconds:.1} s, {workers:?}"),
        workers.len() == 2,
    );

    // The neighbour is made while the demo's Services and volumes are looked at.
    report.stage("a second project begins a cluster of its own", |report| {
        let credential = neighbour.credential("ake-neighbour", report)?;
        neighbour.begin(&Wish::of("neighbour", 1), &credential, report)
    })?;
    services(&cluster, report)?;
    report.stage("a PersistentVolumeClaim becomes a Cinder volume, and moves", |report| {
        report.command("kubectl apply -f tests/fixtures/data.yaml");
        cluster.apply(&fixture("data.yaml")?)?;
        proofs::data_moves(&cluster, report)
    })?;

    let theirs = report.stage("the second project's cluster is made", |report| {
        let theirs = neighbour.finish("neighbour")?;
        report.say(&format!("   {:?} are Ready", theirs.ready_nodes()?));
        theirs.apply(&fixture("web.yaml")?.replace("replicas: 2", "replicas: 1"))?;
        Ok(theirs)
    })?;
    neighbours(&cluster, &theirs, &neighbour, &workers, report)?;

    report.stage("a worker ends", |report| {
        let vip = cluster.vip("web-local")?;
        let victim = workers.first().context("a worker")?;
        proofs::ending_worker(&cluster, vip, victim, &demo, report)
    })?;

    report.stage("a Service goes", |report| proofs::service_goes(&cluster, report))?;

    report.stage("openstack stack delete, with a Service and a volume still there", |report| {
        let vip = theirs.vip("web")?;
        let watch = Background::start(lab, &proofs::target(vip, 80), "/hostname", 20)?;
        let deleted = demo.delete("demo", report);
        let seen = watch.end()?;
        deleted?;
        remove_credential(&demo, report)?;
        proofs::nothing_left(&demo, &before, &cluster.id, lab, report)?;
        report.proof(
            "neighbour never noticed",
            format!("{} requests during the deletion, {} lost", seen.sent, seen.lost),
            seen.sent > 0 && seen.lost == 0,
        );
        Ok(())
    })?;
    tell_how_to_go_on(&theirs, lab.name(), report);
    Ok(())
}

fn services(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
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
    })
}

fn neighbours(
    cluster: &Cluster<'_>,
    theirs: &Cluster<'_>,
    neighbour: &Tenant<'_>,
    workers: &[String],
    report: &mut Report,
) -> Result<()> {
    report.stage("pods, nodes and neighbours", |report| {
        proofs::host_gateway(cluster, report)?;
        proofs::metadata(cluster, report)?;
        let victim = theirs.vip("web")?.to_string();
        let victim6 = neighbour.ipv6_of_block("neighbour")?;
        proofs::spoofing(cluster, workers.first().context("a worker")?, &victim, &victim6, report)
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
    report.say(&format!(
        "   target/debug/ake-lab --name {name} client --user neighbour -- openstack stack list"
    ));
    report.say(&format!("   target/debug/ake-lab --name {name} down"));
}
