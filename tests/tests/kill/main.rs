//! The controller manager is killed before and after each step that it takes; the one that comes after it brings to its
//! end whatever was begun, and leaves nothing over. `make e2e-kill` runs it, on a lab of its own, and prints a line for each
//! death: the step, the moment, the seconds from the death until all was in order, and what that was.
//!
//! A new kind of step does not compile without a [`Way`] to it. `SHARD=i/n` runs a part, `STEP=name` one kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod inventory;
mod nodes;
mod services;
mod volumes;

use std::time::{Duration, Instant};

use ake_lab::Lab;
use anyhow::{Context as _, Result, ensure};
use cloud_provider::steps::Kind;
use scenarios::{
    cluster::Cluster,
    report::Report,
    stacks::run,
    tenant::{Tenant, Wish},
    wait_for,
};
use serde_json::Value;

/// The cluster, and the machines with its controller manager and its pods.
const STACK: &str = "kill";
const MASTER: &str = "kill-master-0";
const WORKER: &str = "kill-worker-0";
const UNIT: &str = "ake-cloud-controller-manager";

/// The only place where the controller manager may write.
const FOLDER: &str = "/run/ake-kill";

/// In which stands at which moment of which step it dies; it takes the file with it.
const FILE: &str = "/run/ake-kill/told";

/// The longest that a step, or what follows a death, may take on a busy computer.
const PATIENCE: Duration = Duration::from_secs(120);

/// How the controller manager is brought to take a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Of a Service.
    Service(services::Way),
    /// Of a Node.
    Node(nodes::Way),
    /// Of a volume.
    Volume(volumes::Way),
}

fn way(kind: Kind) -> Way {
    match kind {
        Kind::AddFinalizer
        | Kind::PutAddress
        | Kind::PutPool
        | Kind::PutLoadBalancer
        | Kind::AddRule
        | Kind::SetStatus => Way::Service(services::Way::Made),
        Kind::DeleteLoadBalancer
        | Kind::DeleteAddress
        | Kind::DeletePool
        | Kind::RemoveRule
        | Kind::RemoveFinalizer => Way::Service(services::Way::Deleted),
        Kind::PutNodePort => Way::Node(nodes::Way::PairsLost),
        Kind::SetNodeAddresses => Way::Node(nodes::Way::Misaddressed),
        Kind::InitializeNode => Way::Node(nodes::Way::New),
        Kind::MarkNodeShutdown => Way::Node(nodes::Way::ServerOff),
        Kind::UnmarkNodeShutdown => Way::Node(nodes::Way::Back),
        Kind::DeleteNode => Way::Node(nodes::Way::ServerGone),
        Kind::CreateVolume | Kind::CreatePersistentVolume => Way::Volume(volumes::Way::Claimed),
        Kind::MarkPersistentVolume | Kind::MarkAttachment | Kind::AttachVolume | Kind::SetAttached => {
            Way::Volume(volumes::Way::Attached)
        }
        Kind::DetachVolume | Kind::UnmarkAttachment => Way::Volume(volumes::Way::Detached),
        Kind::GrowVolume | Kind::SetCapacity | Kind::HandToNode => Way::Volume(volumes::Way::Grown),
        Kind::DeleteVolume | Kind::DeletePersistentVolume | Kind::DropFinalizers => {
            Way::Volume(volumes::Way::Released)
        }
        Kind::DropAttacherFinalizer => Way::Volume(volumes::Way::ObjectDeleted),
    }
}

/// What being in order means there.
fn what(way: Way) -> &'static str {
    match way {
        Way::Service(services::Way::Made) => {
            "one address, pool, load balancer (applied) and rule; one finalizer; the status has its VIP"
        }
        Way::Service(services::Way::Deleted) => {
            "no address, pool, load balancer or rule of it; the Service is gone"
        }
        Way::Node(nodes::Way::PairsLost) => "the port's address pairs are back",
        Way::Node(nodes::Way::Misaddressed) => "the Node has its server's addresses",
        Way::Node(nodes::Way::New) => "the Node has lost the taint",
        Way::Node(nodes::Way::ServerOff) => "the Node has the taint",
        Way::Node(nodes::Way::Back) => "the Node has lost the taint of a server that is off",
        Way::Node(nodes::Way::ServerGone) => "the Node is gone",
        Way::Volume(volumes::Way::Claimed) => "one volume in Cinder; the claim is bound to it",
        Way::Volume(volumes::Way::Attached) => {
            "one volume, attached once; VolumeAttachment says so, one finalizer"
        }
        Way::Volume(volumes::Way::Detached) => "one volume, available; the VolumeAttachment is gone",
        Way::Volume(volumes::Way::Grown) => {
            "one volume, of 2 GiB; its PersistentVolume says so; kubelet is asked once"
        }
        Way::Volume(volumes::Way::Released) => "no volume in Cinder; claim and PersistentVolume are gone",
        Way::Volume(volumes::Way::ObjectDeleted) => "the PersistentVolume is gone",
    }
}

/// What all ways need.
struct Stage<'a> {
    tenant: &'a Tenant<'a>,
    cluster: &'a Cluster<'a>,
}

#[test]
fn whatever_was_begun_is_brought_to_its_end() {
    run(|lab| {
        let tenant = Tenant::new(lab, "demo")?;
        let cluster = cluster(lab, &tenant)?;
        let stage = Stage { tenant: &tenant, cluster: &cluster };
        stage.arm()?;
        let done = stage.all();
        stage.disarm()?;
        nodes::leave(&stage)?;
        done
    });
}

fn cluster<'a>(lab: &'a Lab, tenant: &Tenant<'a>) -> Result<Cluster<'a>> {
    let mut report = Report::new("kill");
    let cluster = match tenant.status(STACK)? {
        Some(_) => Cluster::of(lab, tenant, STACK)?,
        None => tenant.create(&Wish::of(STACK, 1), &mut report)?,
    };
    wait_for("a node that is Ready", PATIENCE, || Ok((cluster.ready_nodes()?.len() == 1).then_some(())))?;
    Ok(cluster)
}

/// Which part of all this run takes: the first of so many, and so on.
fn shard() -> Result<(usize, usize)> {
    let text = std::env::var("SHARD").unwrap_or_else(|_| "1/1".to_owned());
    let (part, parts) = text.split_once('/').context("SHARD: expected i/n")?;
    let (part, parts) = (part.parse()?, parts.parse()?);
    ensure!((1..=parts).contains(&part), "SHARD = {text:?}: expected i/n with 1 <= i <= n");
    Ok((part, parts))
}

/// The moments that this run is for.
fn chosen() -> Result<Vec<(&'static str, Kind)>> {
    let (part, parts) = shard()?;
    let only = std::env::var("STEP").ok();
    let kinds = Kind::ALL.iter().filter(|kind| only.as_deref().is_none_or(|name| name == kind.name()));
    let moments: Vec<_> = kinds.flat_map(|kind| [("before", *kind), ("after", *kind)]).collect();
    ensure!(!moments.is_empty(), "STEP = {only:?}: expected the name of a kind of step");
    let mine = moments.into_iter().enumerate().filter(|(index, _)| index % parts == part - 1);
    Ok(mine.map(|(_, moment)| moment).collect())
}

impl Stage<'_> {
    fn all(&self) -> Result<()> {
        let begun = Instant::now();
        let before = self.inventory()?;
        let chosen = chosen()?;
        let (mut slowest, mut failed) = (Duration::ZERO, Vec::new());
        println!(
            "{:24} {:6} {:>8}  in order by then; nothing left over after it",
            "step", "killed", "seconds"
        );
        for (moment, kind) in &chosen {
            let name = kind.name();
            let outcome = self.one(moment, *kind).and_then(|took| {
                self.nothing_left(&before)?;
                Ok(took)
            });
            match outcome {
                Ok(took) => {
                    slowest = slowest.max(took);
                    println!("{name:24} {moment:6} {:8.1}  {}", took.as_secs_f64(), what(way(*kind)));
                }
                Err(error) => {
                    println!("{name:24} {moment:6}        -  {error:#}");
                    failed.push(format!("{moment} {name}"));
                    // What comes next begins from where nothing is.
                    let _ = self.cluster.exec(MASTER, &format!("rm -f {FILE}"));
                    let _ = self.clear(way(*kind));
                }
            }
        }
        println!(
            "{} kinds of steps; killed {} times in {} s, the longest way back {:.1} s; {} times \
             something was missing or left over",
            Kind::ALL.len(),
            chosen.len(),
            begun.elapsed().as_secs(),
            slowest.as_secs_f64(),
            failed.len(),
        );
        ensure!(failed.is_empty(), "{}", failed.join(", "));
        let log = self.cluster.exec(MASTER, &format!("journalctl -q -u {UNIT} -g panicked || true"))?;
        ensure!(log.is_empty(), "it died by itself too: {log}");
        Ok(())
    }

    /// Dies once at that moment, and is then let be. How long it took from the death until all was in order.
    fn one(&self, moment: &str, kind: Kind) -> Result<Duration> {
        let way = way(kind);
        self.prepare(way)?;
        let before = self.starts()?;
        self.cluster.exec(MASTER, &format!("printf {moment}:{} > {FILE}", kind.name()))?;
        self.provoke(way)?;
        wait_for("its death", PATIENCE, || {
            Ok(self.cluster.succeeds(MASTER, &format!("test ! -e {FILE}"))?.then_some(()))
        })?;
        let died = Instant::now();
        wait_for("its return", PATIENCE, || Ok((self.starts()? > before).then_some(())))?;
        wait_for("all being in order", PATIENCE, || Ok(self.is_in_order(way)?.then_some(())))?;
        let took = died.elapsed();
        self.clear(way)?;
        Ok(took)
    }

    /// How often systemd has started it again.
    fn starts(&self) -> Result<u32> {
        let text = self.cluster.exec(MASTER, &format!("systemctl show -p NRestarts --value {UNIT}"))?;
        Ok(text.trim().parse()?)
    }

    /// It reads the file, looks often, and does not wait for the Lease of the one before for long.
    fn arm(&self) -> Result<()> {
        let folder = format!("/run/systemd/system/{UNIT}.service.d");
        let flags = "--drift-period=3s --node-monitor-period=1s --leader-elect-lease-duration=3s \
                     --leader-elect-renew-deadline=2s --leader-elect-retry-period=500ms";
        let text = format!(
            "[Service]\nRestartSec=100ms\nReadWritePaths={FOLDER}\nEnvironmentFile=\nEnvironment=AKE_KILL={FILE}\n\
             Environment=\"CLOUD_CONTROLLER_MANAGER_ARGS={flags}\"\n"
        );
        self.cluster.exec(
            MASTER,
            &format!(
                "mkdir -p {FOLDER} {folder} && rm -f {FILE} && printf '%s' '{text}' > {folder}/kill.conf && \
                 systemctl daemon-reload && systemctl restart {UNIT}"
            ),
        )?;
        let told = format!("tr '\\0' '\\n' < /proc/$(systemctl show -p MainPID --value {UNIT})/environ");
        wait_for("a controller manager that is told", PATIENCE, || {
            Ok(self.cluster.exec(MASTER, &told)?.contains(FILE).then_some(()))
        })
    }

    fn disarm(&self) -> Result<()> {
        let line = format!(
            "rm -rf {FOLDER} /run/systemd/system/{UNIT}.service.d && systemctl daemon-reload && systemctl restart {UNIT}"
        );
        self.cluster.exec(MASTER, &line).map(drop)
    }

    fn prepare(&self, way: Way) -> Result<()> {
        match way {
            Way::Service(way) => services::prepare(self, way),
            Way::Node(way) => nodes::prepare(self, way),
            Way::Volume(way) => volumes::prepare(self, way),
        }
    }

    fn provoke(&self, way: Way) -> Result<()> {
        match way {
            Way::Service(way) => services::provoke(self, way),
            Way::Node(way) => nodes::provoke(self, way),
            Way::Volume(way) => volumes::provoke(self, way),
        }
    }

    fn is_in_order(&self, way: Way) -> Result<bool> {
        match way {
            Way::Service(way) => services::is_in_order(self, way),
            Way::Node(way) => nodes::is_in_order(self, way),
            Way::Volume(way) => volumes::is_in_order(self, way),
        }
    }

    fn clear(&self, way: Way) -> Result<()> {
        match way {
            Way::Service(way) => services::clear(self, way),
            Way::Node(way) => nodes::clear(self, way),
            Way::Volume(way) => volumes::clear(self, way),
        }
    }

    /// All that the cluster has at ake-api.
    fn state(&self) -> Result<Value> {
        self.tenant.api()?.get("ake", &format!("/v1/clusters/{}", self.cluster.id))
    }

    fn kubectl(&self, words: &[&str]) -> Result<()> {
        self.cluster.kubectl(words).map(drop)
    }

    /// An object, if there is one of that name.
    fn find(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self.cluster.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"])?;
        if text.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
    }
}
