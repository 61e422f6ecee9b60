//! A restart with nothing changed writes nothing, anywhere, and flows go on.
//!
//! Restarts every program of AKE under the cluster `neighbour`, which `path.rs` leaves, and reads what the services
//! themselves noted of writes over two whole drift periods. It looks at everybody's writes, so nothing may run beside it.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, SystemTime},
};

use ake_lab::{Lab, balancers::Balancer};
use anyhow::{Context, Result, ensure};
use scenarios::{
    cluster::{Cluster, items, probe_command},
    output,
    proofs::{fixture, target},
    stacks::{run, without_health},
    tenant::Tenant,
    traffic::Flow,
    wait_for,
};
use serde_json::Value;

/// The lab's drift period, of the controller manager and of ake-api.
const DRIFT: Duration = Duration::from_secs(8);
/// How long a restarted program may take until its first look.
const START: Duration = Duration::from_secs(6);
/// The most datagrams in a row that may find no answer, of 50 in a second. A connection that lost one sends it again after a
/// time of its own, so it may wait for longer, but never ends.
const GAP: u32 = 50;
/// How long a cluster may take until nothing is written any more.
const SETTLED: Duration = Duration::from_secs(180);
const MASTER: &str = "neighbour-master-0";
const WORKER: &str = "neighbour-worker-0";
const OPENSTACK: [&str; 7] = ["keystone", "placement", "nova", "heat", "neutron", "cinder", "glance"];

/// A log, read from where it ended when it was opened.
struct Tail {
    path: PathBuf,
    from: u64,
}

impl Tail {
    fn of(path: PathBuf) -> Result<Self> {
        let from = fs::metadata(&path).with_context(|| path.display().to_string())?.len();
        Ok(Self { path, from })
    }

    fn lines(&self) -> Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text.lines().map(ToOwned::to_owned).collect())
    }
}

/// A flow through a VIP that runs beside the work.
struct Running {
    child: Child,
    stop: PathBuf,
}

impl Running {
    fn start(lab: &Lab, name: &str, words: &[&str]) -> Result<Self> {
        let stop = lab.dirs().state.join("tenants").join(format!("stop-{name}"));
        let _ = fs::remove_file(&stop);
        let mut command = probe_command(lab)?;
        command.arg("flow").args(words).args(["--seconds", "300", "--rate", "50", "--until"]).arg(&stop);
        Ok(Self { child: command.stdout(Stdio::piped()).spawn()?, stop })
    }

    fn end(self) -> Result<Flow> {
        fs::write(&self.stop, "")?;
        let out = self.child.wait_with_output()?;
        fs::remove_file(&self.stop)?;
        serde_json::from_slice(&out.stdout).context("a flow that did not report")
    }
}

/// A write of one of AKE's programs, from a line of an OpenStack service's record of requests.
fn openstack_write(line: &str) -> bool {
    let mut words = line.split(' ').skip(4);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let agent = line.rsplit(' ').next().unwrap_or_default();
    agent.starts_with("ake-") && !matches!(method, "GET" | "HEAD") && path != "/v3/auth/tokens"
}

/// A write of one of AKE's programs, from a line of the API server's audit log; or one that tells that kubelet
/// noticed a restart of the CSI node service.
fn kubernetes_write(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let user = entry["user"]["username"].as_str().unwrap_or_default();
    let resource = entry["objectRef"]["resource"].as_str().unwrap_or_default();
    let counts = match resource {
        "leases" | "tokenreviews" | "subjectaccessreviews" => false,
        "csinodes" => true,
        _ => user.starts_with("ake-"),
    };
    let name = entry["objectRef"]["name"].as_str().unwrap_or_default();
    counts.then(|| format!("{user} {} {resource} {name}", entry["verb"].as_str().unwrap_or_default()))
}

/// Where every write is noted.
struct Logs<'a> {
    cluster: &'a Cluster<'a>,
    openstack: Vec<(&'static str, Tail)>,
    api: Tail,
    kubernetes: u64,
}

impl<'a> Logs<'a> {
    fn open(lab: &Lab, cluster: &'a Cluster<'a>) -> Result<Self> {
        let openstack = OPENSTACK.iter().map(|name| Ok((*name, Tail::of(lab.access_log(name))?)));
        Ok(Self {
            cluster,
            openstack: openstack.collect::<Result<_>>()?,
            api: Tail::of(lab.dirs().log().join("ake-api-audit.jsonl"))?,
            kubernetes: cluster.exec(MASTER, "wc -c < /var/log/kube-audit.log")?.trim().parse()?,
        })
    }

    /// The writes of AKE's programs since then.
    fn writes(&self) -> Result<Vec<String>> {
        let mut writes = Vec::new();
        for (name, record) in &self.openstack {
            let lines = record.lines()?;
            writes.extend(
                lines.iter().filter(|line| openstack_write(line)).map(|line| format!("{name}: {line}")),
            );
        }
        writes.extend(self.api.lines()?.into_iter().map(|line| format!("ake-api: {line}")));
        let noted = self
            .cluster
            .exec(MASTER, &format!("tail -c +{} /var/log/kube-audit.log", self.kubernetes + 1))?;
        // Leases are renewed all the time.
        ensure!(noted.lines().count() > 2, "the API server notes too little: {noted}");
        writes.extend(noted.lines().filter_map(kubernetes_write).map(|what| format!("Kubernetes: {what}")));
        Ok(writes)
    }
}

/// What a balancer holds: the version that it tells, and its file.
#[derive(PartialEq)]
struct Held {
    version: Value,
    state: Vec<u8>,
    written: SystemTime,
}

impl Held {
    fn of(lab: &Lab, balancer: &Balancer) -> Result<Self> {
        let version = lab.status_of(balancer)?["version"].clone();
        ensure!(!version.is_null(), "{} tells no version", balancer.name);
        let kept = balancer.state(lab.dirs());
        let of_file = || kept.display().to_string();
        let state = fs::read(&kept).with_context(of_file)?;
        Ok(Self { version, state, written: fs::metadata(&kept).with_context(of_file)?.modified()? })
    }
}

/// Restarts units of a machine, and returns when they run.
fn restart_units(cluster: &Cluster<'_>, server: &str, units: &[&str]) -> Result<()> {
    let begun = |unit: &str| cluster.exec(server, &format!("systemctl show -p MainPID --value {unit}"));
    for unit in units {
        let before = begun(unit)?;
        cluster.exec(server, &format!("systemctl restart {unit}"))?;
        ensure!(
            begun(unit)? != before && cluster.succeeds(server, &format!("systemctl -q is-active {unit}"))?,
            "{unit}"
        );
    }
    Ok(())
}

#[test]
fn a_restart_with_nothing_changed_writes_nothing_and_breaks_no_flow() {
    run(|lab| {
        let tenant = Tenant::new(lab, "neighbour")?;
        let cluster = Cluster::of(lab, &tenant, "neighbour")?;
        let logs = Logs::open(lab, &cluster)?;
        cluster.apply(&fixture("data.yaml")?)?;
        wait_for("a pod with a volume", Duration::from_secs(300), || {
            let pods = cluster.get(&["pods", "-l", "app=data", "--field-selector=status.phase=Running"])?;
            Ok((!items(&pods).is_empty()).then_some(()))
        })
        .map_err(|error| error.context(cluster.as_it_is()))?;
        // What is looked for below is seen where there is something to see.
        let writes = logs.writes()?;
        for word in ["cinder: ", "POST /v2.1/servers/", "create persistentvolumes", "patch volumeattachments"]
        {
            ensure!(
                writes.iter().any(|write| write.contains(word)),
                "no {word} among the writes: {writes:#?}"
            );
        }
        let (all, local) = (cluster.vip("web")?, cluster.vip("web-local")?);
        let tcp = [
            Running::start(lab, "all", &[&target(all, 80)])?,
            Running::start(lab, "local", &[&target(local, 80)])?,
        ];
        let udp = Running::start(lab, "udp", &[&target(all, 81), "--udp", "hostname"])?;
        let logs = wait_for(
            "a drift period without a write: what follows from the volume is done",
            SETTLED,
            || {
                let logs = Logs::open(lab, &cluster)?;
                sleep(DRIFT);
                Ok(logs.writes()?.is_empty().then_some(logs))
            },
        )?;
        let held = lab.balancers().iter().map(|one| Held::of(lab, one)).collect::<Result<Vec<_>>>()?;

        // The one on standby first, so that there is one to take over.
        for balancer in lab.balancers().iter().rev() {
            lab.restart(balancer.name)?;
        }
        restart_units(
            &cluster,
            MASTER,
            &["ake-cloud-controller-manager", "ake-node-agent-network", "ake-api-vip"],
        )?;
        restart_units(&cluster, WORKER, &["ake-node-agent-network", "ake-node-agent-csi"])?;
        // ake-api meets the balancer that came back before it is restarted itself.
        sleep(DRIFT + Duration::from_secs(1));
        lab.restart("ake-api")?;
        sleep(2 * DRIFT + START);

        let mut writes = logs.writes()?;
        for (balancer, before) in lab.balancers().iter().zip(&held) {
            let after = Held::of(lab, balancer)?;
            if after != *before {
                writes.push(format!(
                    "{}: version was {}, is {}; its file of {:?}, now of {:?}",
                    balancer.name, before.version, after.version, before.written, after.written
                ));
            }
        }
        let tcp = tcp.into_iter().map(Running::end).collect::<Result<Vec<_>>>()?;
        let udp = udp.end()?;
        cluster.remove(&fixture("data.yaml")?)?;
        println!("writes: {}; datagrams missed in a row: {}; connections: {tcp:?}", writes.len(), udp.missed);

        ensure!(
            writes.is_empty(),
            "written after a restart with nothing changed:\n{}\nEvents: {:#}",
            writes.join("\n"),
            cluster.get(&["events", "--sort-by=.metadata.creationTimestamp"])?
        );
        ensure!(udp.broken.is_none() && udp.missed <= GAP && udp.answers > 500, "datagrams: {udp:?}");
        for flow in tcp {
            ensure!(flow.broken.is_none() && flow.answers > 500, "a connection: {flow:?}");
        }
        a_lost_database_is_made_anew_and_nothing_changes(lab, &tenant, &cluster)
    });
}

/// What a cluster has at ake-api, without what nothing but the database knew.
fn kept_by_others(tenant: &Tenant<'_>, cluster: &str) -> Result<Value> {
    let mut state = without_health(tenant.api()?.get("ake", &format!("/v1/clusters/{cluster}"))?);
    state["lease_transitions"] = Value::Null;
    for address in state["addresses"].as_object_mut().into_iter().flatten().map(|(_, address)| address) {
        *address = address["address"].clone();
    }
    Ok(state)
}

/// The database is gone: what the balancer holds and what Neutron has reserved is enough, and neither is written to.
fn a_lost_database_is_made_anew_and_nothing_changes(
    lab: &Lab,
    tenant: &Tenant<'_>,
    cluster: &Cluster<'_>,
) -> Result<()> {
    let before = kept_by_others(tenant, &cluster.id)?;
    let version = lab.balancer_status()?["version"].clone();
    let kept = lab.dirs().ake().join("xdp/state.json");
    let state = (fs::read(&kept)?, fs::metadata(&kept)?.modified()?);
    let vip = cluster.vip("web")?;
    let flow = Running::start(lab, "lost", &[&target(vip, 80)])?;
    let neutron = Tail::of(lab.access_log("neutron"))?;

    lab.stop("ake-api")?;
    let folder = lab.dirs().ake().join("api");
    let lost = lab.dirs().ake().join("api-lost");
    let _ = fs::remove_dir_all(&lost);
    fs::rename(&folder, &lost)?;
    fs::create_dir(&folder)?;
    let said = output(&mut lab.operator(&["rebuild", "--rehearse"]))?;
    ensure!(said.contains("nothing is kept: this was a rehearsal"), "{said}");
    let said = output(&mut lab.operator(&["rebuild"]))?;
    ensure!(said.contains(&cluster.id) && said.contains("nothing was written to them"), "{said}");
    lab.restart("ake-api")?;
    // The controller finds it, and both compare.
    sleep(2 * DRIFT + START);

    let writes: Vec<_> = neutron.lines()?.into_iter().filter(|line| openstack_write(line)).collect();
    let after = (fs::read(&kept)?, fs::metadata(&kept)?.modified()?);
    ensure!(after == state && lab.balancer_status()?["version"] == version, "the balancer was written to");
    ensure!(writes.is_empty(), "Neutron was written to:\n{}", writes.join("\n"));
    let now = kept_by_others(tenant, &cluster.id)?;
    ensure!(now == before, "another state than before:\n{before:#}\n{now:#}");
    let flow = flow.end()?;
    ensure!(flow.broken.is_none() && flow.answers > 500, "a connection: {flow:?}");
    fs::remove_dir_all(&lost)?;
    Ok(())
}
