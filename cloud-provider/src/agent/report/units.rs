//! What systemd says of this node's units.

use std::collections::BTreeMap;

use crate::agent::config::Role;

/// Attempts to run a program that is not there before it is taken for a broken image.
const EXEC_FAILURES: u32 = 2;

/// Exit status that systemd gives a process whose program could not be executed.
const EXIT_EXEC: &str = "203";

/// What the units of a node amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All are active.
    Up,
    /// Some are not yet.
    Waiting(String),
    /// One will never be.
    Broken(String),
}

/// Units that must be active, in the order in which a fault in one explains those after it.
#[must_use]
pub(super) fn of_role(role: Role) -> &'static [&'static str] {
    match role {
        Role::Master => &[
            "ake-join.service",
            "etcd.service",
            "kube-apiserver.service",
            "kube-controller-manager.service",
            "kube-scheduler.service",
            "ake-addons.service",
            "ake-node-agent-network.service",
            "ake-api-vip.service",
            "ake-cloud-controller-manager.service",
        ],
        Role::Worker => &[
            "ake-join.service",
            "containerd.service",
            "ake-node-agent-network.service",
            "ake-node-agent-csi.service",
            "kubelet.service",
            "kube-proxy.service",
        ],
    }
}

/// Asks systemd.
pub(super) async fn verdict(units: &[&str]) -> Verdict {
    let mut arguments =
        vec!["show", "--property=Id,LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus"];
    arguments.extend(units);
    judge(units, &super::output("systemctl", &arguments).await)
}

fn judge(units: &[&str], text: &str) -> Verdict {
    let shown: BTreeMap<&str, BTreeMap<&str, &str>> = text
        .split("\n\n")
        .map(|block| block.lines().filter_map(|line| line.split_once('=')).collect::<BTreeMap<_, _>>())
        .filter_map(|unit| Some((*unit.get("Id")?, unit)))
        .collect();
    let mut waiting = vec![];
    for name in units {
        let Some(unit) = shown.get(name) else {
            waiting.push(format!("systemd does not tell of {name}"));
            continue;
        };
        let of = |key: &str| unit.get(key).copied().unwrap_or_default();
        if matches!(of("LoadState"), "not-found" | "bad-setting" | "masked" | "error") {
            return Verdict::Broken(format!("{name} cannot be loaded ({})", of("LoadState")));
        }
        if of("ActiveState") == "failed" {
            return Verdict::Broken(format!(
                "{name} failed ({}, exit status {})",
                of("Result"),
                of("ExecMainStatus")
            ));
        }
        let restarts: u32 = of("NRestarts").parse().unwrap_or(0);
        if of("ActiveState") == "active" {
            continue;
        }
        if of("ExecMainStatus") == EXIT_EXEC && restarts >= EXEC_FAILURES {
            return Verdict::Broken(format!("the program of {name} cannot be executed"));
        }
        let restarted = if restarts > 0 { format!(", restarted {restarts} times") } else { String::new() };
        waiting.push(format!("{name} is {} ({}{restarted})", of("ActiveState"), of("SubState")));
    }
    if waiting.is_empty() { Verdict::Up } else { Verdict::Waiting(waiting.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(name: &str, active: &str, more: &str) -> String {
        format!("Result=exit-code\n{more}Id={name}\nLoadState=loaded\nActiveState={active}\nSubState=x\n")
    }

    #[test]
    fn units_are_up_when_all_are_active() {
        let text = [show("a.service", "active", ""), show("b.service", "active", "NRestarts=3\n")].join("\n");
        assert_eq!(judge(&["a.service", "b.service"], &text), Verdict::Up);
        let Verdict::Waiting(what) = judge(&["a.service", "c.service"], &text) else { panic!("up") };
        assert!(what.contains("c.service"));
    }

    #[test]
    fn a_unit_that_is_on_its_way_is_waited_for() {
        let text = show("a.service", "activating", "NRestarts=7\nExecMainStatus=1\n");
        let Verdict::Waiting(what) = judge(&["a.service"], &text) else { panic!("not waited") };
        assert_eq!(what, "a.service is activating (x, restarted 7 times)");
    }

    #[test]
    fn what_will_never_be_is_told_at_once() {
        for (text, word) in [
            (show("a.service", "failed", "ExecMainStatus=1\n"), "failed (exit-code, exit status 1)"),
            (show("a.service", "activating", "NRestarts=2\nExecMainStatus=203\n"), "cannot be executed"),
            ("Id=a.service\nLoadState=not-found\nActiveState=inactive\n".to_owned(), "cannot be loaded"),
        ] {
            let Verdict::Broken(why) = judge(&["a.service"], &text) else { panic!("{text}") };
            assert!(why.contains("a.service") && why.contains(word), "{why}");
        }
    }

    #[test]
    fn every_unit_is_one_of_the_images() {
        let image =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/root/usr/lib/systemd/system");
        for unit in of_role(Role::Master).iter().chain(of_role(Role::Worker)) {
            assert!(*unit == "containerd.service" || image.join(unit).exists(), "{unit}");
        }
    }
}
