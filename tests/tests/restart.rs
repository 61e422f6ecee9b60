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
    time::Duration,
};

use ake_lab::Lab;
use anyhow::{Context, Result, ensure};
use scenarios::{
    cluster::{Cluster, items, probe_command},
    proofs::{fixture, target},
    stacks::run,
    tenant::Tenant,
    traffic::Flow,
    wait_for,
};
use serde_json::Value;

/// The lab's drift period, of the controller manager and of ake-api.
const DRIFT: Duration = Duration::from_secs(15);
/// How long a restarted program may take until its first look.
const START: Duration = Duration::from_secs(6);
/// The longest silence that datagrams may meet. A connection that lost one sends it again after a time of its own,
/// so it may wait for longer, but never ends.
const GAP: f64 = 1.0;
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
        wait_for("a pod with a volume", Duration::from_secs(120), || {
            let pods = cluster.get(&["pods", "-l", "app=data", "--field-selector=status.phase=Running"])?;
            Ok((!items(&pods).is_empty()).then_some(()))
        })?;
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
        // Whatever follows from the volume is done.
        sleep(DRIFT);

        let version = lab.balancer_status()?["version"].clone();
        let kept = lab.dirs().ake().join("xdp/state.json");
        let state = (fs::read(&kept)?, fs::metadata(&kept)?.modified()?);
        let logs = Logs::open(lab, &cluster)?;

        lab.restart("ake-xdp")?;
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
        let after = (fs::read(&kept)?, fs::metadata(&kept)?.modified()?);
        if lab.balancer_status()?["version"] != version || after != state {
            writes.push(format!("balancer: version was {version}, is {}", lab.balancer_status()?["version"]));
        }
        let tcp = tcp.into_iter().map(Running::end).collect::<Result<Vec<_>>>()?;
        let udp = udp.end()?;
        cluster.remove(&fixture("data.yaml")?)?;
        println!("writes: {}; longest silence: {:.2} s; connections: {tcp:?}", writes.len(), udp.longest);

        ensure!(writes.is_empty(), "written after a restart with nothing changed:\n{}", writes.join("\n"));
        ensure!(!version.is_null(), "the balancer tells no version");
        ensure!(udp.broken.is_none() && udp.longest <= GAP && udp.answers > 500, "datagrams: {udp:?}");
        for flow in tcp {
            ensure!(flow.broken.is_none() && flow.answers > 500, "a connection: {flow:?}");
        }
        Ok(())
    });
}
