//! The changes, one after the other, and what of the connections must stay through each.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ake_lab::{Lab, balancers::Balancer};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::Watch;
use crate::{
    cluster::{Cluster, items},
    proofs::{fixture, reachable, target},
    report::Report,
    tenant::Tenant,
    wait_for,
};

/// Connections to the Service with policy Cluster, and to the one with policy Local.
const CONNECTIONS: [usize; 2] = [800, 200];
/// Seconds that a node that leaves keeps its connections.
const DRAIN: &str = "20";
/// Services of others that come and go.
const OTHERS: usize = 50;
/// Ports of each of their addresses.
const PORTS: usize = 10;
/// Put on a node that is about to be removed.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler=soon:NoSchedule";

/// The lab's pair and the cluster behind it.
struct Walk<'a, 'lab> {
    lab: &'lab Lab,
    cluster: &'a Cluster<'lab>,
    tenant: &'a Tenant<'lab>,
    /// The balancer that VRRP prefers, and the other one.
    pair: [&'static Balancer; 2],
}

/// Walks through all changes with a cluster of two workers; it has two again afterwards.
pub fn walk<'lab>(cluster: &Cluster<'lab>, tenant: &Tenant<'lab>, report: &mut Report) -> Result<()> {
    let lab = cluster.lab;
    let [first, second] = lab.balancers() else { bail!("the lab {:?}: expected two balancers", lab.name()) };
    let walk = Walk { lab, cluster, tenant, pair: [first, second] };
    let workers = cluster.ready_nodes()?;
    ensure!(workers.len() == 2, "expected two workers, there are {workers:?}");
    walk.serve(report)?;

    let mut watch = walk.open("1,000 connections", report)?;
    walk.node_joins(&mut watch, report)?;
    walk.programs(&mut watch, report)?;
    walk.others(&mut watch, report)?;
    walk.failovers(&mut watch, report)?;
    walk.crash(&mut watch, report)?;
    watch.close()?;

    walk.untold(report)?;

    let mut watch = walk.open("1,000 connections over three workers", report)?;
    walk.node_leaves(&mut watch, report)?;
    watch.close()
}

impl<'lab> Walk<'_, 'lab> {
    /// A web server on both workers, and a Service of each policy.
    fn serve(&self, report: &mut Report) -> Result<()> {
        report.stage("a Deployment and Services of type LoadBalancer", |_| {
            self.cluster.apply(&fixture("web.yaml")?)?;
            for service in ["web", "web-local"] {
                let drain = format!("ake.dev/drain-seconds={DRAIN}");
                self.cluster.kubectl(&["annotate", "--overwrite", "service", service, &drain])?;
            }
            self.cluster.rolled_out("deployment/web")?;
            for service in ["web", "web-local"] {
                reachable(self.cluster, self.cluster.vip(service)?)?;
            }
            self.becomes_active(self.pair[0])
        })
    }

    fn open(&self, what: &str, report: &mut Report) -> Result<Watch<'lab>> {
        report.stage(&format!("{what} are opened"), |_| {
            let mut wishes = Vec::new();
            for (service, count) in ["web", "web-local"].into_iter().zip(CONNECTIONS) {
                wishes.push((target(self.cluster.vip(service)?, 80).parse()?, count));
            }
            Watch::open(self.lab, &wishes)
        })
    }

    /// Makes a change that may break nothing, and counts.
    fn keeps_all(
        &self,
        claim: &str,
        watch: &mut Watch<'_>,
        report: &mut Report,
        change: impl FnOnce(&mut Report) -> Result<()>,
    ) -> Result<()> {
        report.stage(claim, |report| {
            change(report)?;
            let count = watch.count()?;
            let off = watch.off_the_ring(self.active()?)?.len();
            let said = format!("{count}; the ring has {off} of them elsewhere");
            report.proof(claim, said, count.lost() == 0 && !watch.is_empty());
            Ok(())
        })
    }

    fn node_joins(&self, watch: &mut Watch<'_>, report: &mut Report) -> Result<()> {
        self.keeps_all("a worker joins", watch, report, |report| {
            self.workers(3, report)?;
            let name = self.third();
            self.rings(&format!("{name} takes flows"), |ring| slots(ring, &name) > 0)
        })
    }

    /// New processes in the place of those that run.
    fn programs(&self, watch: &mut Watch<'_>, report: &mut Report) -> Result<()> {
        let [first, second] = self.pair;
        // The program that is put in its place is the one that ran: what is met is the change of processes.
        self.keeps_all(
            "ake-xdp is restarted as an upgrade does, the one on standby first",
            watch,
            report,
            |_| {
                self.lab.upgrade(second.name)?;
                self.lab.upgrade(first.name)
            },
        )?;
        self.keeps_all("ake-api is restarted", watch, report, |_| self.lab.restart("ake-api"))
    }

    /// Services of others come, their members change, and they go.
    fn others(&self, watch: &mut Watch<'_>, report: &mut Report) -> Result<()> {
        let all = others().to_string();
        self.keeps_all(&format!("{OTHERS} other Services come"), watch, report, |_| {
            self.cluster.apply(&all)?;
            wait_for("addresses of all Services", Duration::from_secs(180), || {
                let services = self.cluster.get(&["services", "-l", "of=others"])?;
                let with =
                    |service: &&Value| service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string();
                Ok((items(&services).iter().filter(with).count() == OTHERS).then_some(()))
            })
        })?;
        self.keeps_all("members of the other Services change", watch, report, |_| {
            for replicas in [3, 1, 2] {
                self.cluster.kubectl(&["scale", "deployment/other", &format!("--replicas={replicas}")])?;
                self.cluster.rolled_out("deployment/other")?;
            }
            Ok(())
        })?;
        let claim = format!("{OTHERS} other Services go");
        self.keeps_all(&claim, watch, report, |_| self.cluster.remove(&all))
    }

    /// The active balancer's cable is pulled, and put back.
    fn failovers(&self, watch: &mut Watch<'_>, report: &mut Report) -> Result<()> {
        let [first, second] = self.pair;
        wait_for("the balancer on standby to know all flows", Duration::from_secs(90), || {
            Ok((watch.known_to(second)? == watch.len()).then_some(()))
        })?;
        let off = watch.off_the_ring(first)?.len();
        ensure!(off > 0, "the ring knows all flows: a failover would show nothing");
        self.keeps_all("the active balancer's cable is pulled, flows told", watch, report, |_| {
            self.lab.cable(first, false)?;
            self.becomes_active(second)
        })?;
        self.serves_alone(report)?;
        self.keeps_all("the cable is put back, and the first one takes over", watch, report, |_| {
            self.lab.cable(first, true)?;
            self.becomes_active(first)
        })
    }

    /// A Service that is made while one of the balancers is off answers.
    fn serves_alone(&self, report: &mut Report) -> Result<()> {
        let claim = "a Service is made while a balancer is off";
        report.stage(claim, |report| {
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "meanwhile"},
                "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
            })
            .to_string();
            let begun = Instant::now();
            self.cluster.apply(&service)?;
            let answers = self.cluster.vip("meanwhile").and_then(|vip| reachable(self.cluster, vip));
            let said = match &answers {
                Ok(()) => format!("it answers after {:.1} s", begun.elapsed().as_secs_f64()),
                Err(error) => format!("{error:#}"),
            };
            report.proof(claim, said, answers.is_ok());
            self.cluster.remove(&service)
        })
    }

    /// The active balancer's program is killed, and started again.
    fn crash(&self, watch: &mut Watch<'_>, report: &mut Report) -> Result<()> {
        let [first, second] = self.pair;
        self.keeps_all(
            "the active ake-xdp is killed (kill -9), the other takes over",
            watch,
            report,
            |_| {
                self.lab.kill(first.name)?;
                self.becomes_active(second)
            },
        )?;
        self.keeps_all("it is started again, and takes over", watch, report, |_| {
            self.lab.restart(first.name)?;
            self.becomes_active(first)
        })
    }

    fn node_leaves(&self, watch: &mut Watch<'_>, report: &mut Report) -> Result<()> {
        let name = self.third();
        self.keeps_all("a worker drains", watch, report, |report| {
            report.command(&format!("kubectl taint node {name} {LEAVING}"));
            self.cluster.kubectl(&["taint", "node", &name, LEAVING])?;
            self.rings(&format!("{name} takes no new flows"), |ring| slots(ring, &name) == 0)
        })?;
        report.stage("it leaves, and its server goes", |report| {
            self.rings(&format!("{name} is no member"), |ring| !ring.contains_key(&name))?;
            self.workers(2, report)?;
            let count = watch.count()?;
            report.proof(
                &format!("it leaves after {DRAIN} s, and its server goes"),
                format!("{count}; it may lose its own"),
                count.only_on(&name) && !watch.is_empty(),
            );
            Ok(())
        })
    }

    /// A failover between balancers that do not tell one another of flows. The third worker is out while connections are
    /// opened, and in again when the cable is pulled: a part of the ring is its own then.
    fn untold(&self, report: &mut Report) -> Result<()> {
        let [first, second] = self.pair;
        let name = self.third();
        report.stage("balancers that do not tell flows, and two workers that take some", |_| {
            self.lab.tell_flows(false)?;
            self.becomes_active(first)?;
            self.cluster.kubectl(&["taint", "node", &name, LEAVING])?;
            self.rings(&format!("{name} takes no new flows"), |ring| slots(ring, &name) == 0)
        })?;
        let mut watch = self.open("1,000 connections", report)?;
        self.keeps_all("a worker comes back", &mut watch, report, |_| {
            self.cluster.kubectl(&["taint", "node", &name, &format!("{LEAVING}-")])?;
            self.rings(&format!("{name} takes flows"), |ring| slots(ring, &name) > 0)
        })?;
        report.stage("the active balancer's cable is pulled, flows not told", |report| {
            let off = watch.off_the_ring(first)?;
            self.lab.cable(first, false)?;
            self.becomes_active(second)?;
            let count = watch.count()?;
            report.proof(
                "the active balancer's cable is pulled, flows not told",
                format!(
                    "{count}; the ring had {} of them elsewhere: some are lost, and no others",
                    off.len()
                ),
                // With none lost, the claim that telling is what keeps them would not be shown.
                count.only(&off) && count.lost() > 0 && !watch.is_empty(),
            );
            self.lab.cable(first, true)?;
            self.becomes_active(first)
        })?;
        watch.close()?;
        report.stage("balancers that tell flows again", |_| {
            self.lab.tell_flows(true)?;
            self.becomes_active(first)
        })
    }

    fn third(&self) -> String {
        format!("{}-worker-2", self.cluster.stack)
    }

    fn active(&self) -> Result<&'static Balancer> {
        let [first, _] = self.pair;
        Ok(self.lab.active_balancer()?.unwrap_or(first))
    }

    /// Waits until packets for VIPs are sent to this balancer.
    fn becomes_active(&self, balancer: &'static Balancer) -> Result<()> {
        wait_for(&format!("{} to become active", balancer.name), Duration::from_secs(30), || {
            Ok((self.lab.active_balancer()? == Some(balancer)).then_some(()))
        })
    }

    /// Has Heat make or remove workers.
    fn workers(&self, count: u32, report: &mut Report) -> Result<()> {
        let stack = self.cluster.stack.as_str();
        let parameter = format!("workers={count}");
        report.command(&format!("openstack stack update --wait --existing --parameter {parameter} {stack}"));
        self.tenant.openstack(&[
            "stack",
            "update",
            "--wait",
            "--existing",
            "--parameter",
            &parameter,
            stack,
        ])?;
        self.tenant.settled(stack, "UPDATE_COMPLETE")
    }

    /// Waits until both balancers' rings of the nodes that Services share are as wanted: slots by node.
    fn rings(&self, what: &str, wanted: impl Fn(&BTreeMap<String, u64>) -> bool) -> Result<()> {
        wait_for(what, Duration::from_secs(120), || {
            for balancer in self.pair {
                let status = self.lab.status_of(balancer)?;
                if !shared(&status, &self.cluster.id).is_some_and(|ring| wanted(&ring)) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }
}

fn slots(ring: &BTreeMap<String, u64>, node: &str) -> u64 {
    ring.get(node).copied().unwrap_or_default()
}

/// Slots by node of the pool that a cluster's Services with policy Cluster share.
fn shared(status: &Value, cluster: &str) -> Option<BTreeMap<String, u64>> {
    let end = format!("{cluster}/nodes");
    let pools = status["pools"].as_array()?;
    let pool = pools.iter().find(|pool| pool["owner"].as_str().is_some_and(|owner| owner.ends_with(&end)))?;
    let slots = |member: &Value| {
        Some((member["name"].as_str()?.to_owned(), member["slots"].as_u64().unwrap_or_default()))
    };
    Some(pool["members"].as_array()?.iter().filter_map(slots).collect())
}

/// A Deployment, and Services for it that share addresses; every second one has policy Local, and so a pool of its own.
fn others() -> Value {
    let app = json!({"app": "other"});
    let container = json!({
        "name": "other", "image": "registry.k8s.io/e2e-test-images/agnhost:2.63.0", "imagePullPolicy": "Never",
        "args": ["netexec", "--http-port=8080"],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "other"},
        "spec": {"replicas": 1, "selector": {"matchLabels": app}, "template": {
            "metadata": {"labels": app},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}},
    });
    let service = |number: usize| {
        let policy = if number.is_multiple_of(2) { "Cluster" } else { "Local" };
        let share = format!("others-{}", number / PORTS);
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("other-{number}"), "labels": {"of": "others"},
                "annotations": {"ake.dev/share": share}},
            "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": policy,
                "selector": app, "ports": [{"port": 8000 + number % PORTS, "targetPort": 8080}]},
        })
    };
    let all: Vec<Value> = std::iter::once(deployment).chain((0..OTHERS).map(service)).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": all})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_that_services_share_is_found() {
        let status = json!({"pools": [
            {"owner": "p/c/masters", "members": [{"name": "m0", "slots": 251}]},
            {"owner": "p/c/nodes", "members": [{"name": "w0", "slots": 251}, {"name": "w1", "slots": 0}]}]});
        let ring = shared(&status, "c").unwrap();
        assert_eq!(ring, BTreeMap::from([("w0".to_owned(), 251), ("w1".to_owned(), 0)]));
        assert_eq!(shared(&status, "d"), None);
    }

    #[test]
    fn services_that_share_an_address_differ_in_their_ports() {
        let list = others();
        let mut seen = std::collections::BTreeSet::new();
        for service in items(&list).iter().filter(|item| item["kind"] == "Service") {
            let share = service["metadata"]["annotations"]["ake.dev/share"].to_string();
            assert!(seen.insert((share, service["spec"]["ports"][0]["port"].to_string())));
        }
        assert_eq!(seen.len(), OTHERS);
    }
}
