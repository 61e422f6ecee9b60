//! What happens to a Node that is not ready, by what its server is doing.

use std::collections::BTreeSet;

use super::{
    observe::{ServerState, ServerView},
    plan::Step,
    view::NodeView,
};

/// What to do to a Node by whether it is ready and what its server is doing. `may_delete`: its server was seen
/// gone twice, and the guards agree.
#[must_use]
pub fn step(name: &str, node: &NodeView, server: Option<&ServerState>, may_delete: bool) -> Option<Step> {
    let name = name.to_owned();
    if node.ready {
        return node.shutdown.then_some(Step::UnmarkShutdown { node: name });
    }
    match server? {
        ServerState::Gone if may_delete && !node.deleting => {
            Some(Step::Delete { node: name, uid: node.uid.clone() })
        }
        ServerState::Shutoff if !node.shutdown => Some(Step::MarkShutdown { node: name }),
        _ => None,
    }
}

/// What the project's list of servers says of some that were asked for by their ids and not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// It shows others of the cluster and none of them: they are gone.
    BearsOut,
    /// It shows no server of the cluster: it may be another project's, or nobody's.
    ShowsNothing,
    /// It shows one of them: whoever did not find it looked at another project, or at nothing.
    Contradicts,
}

impl List {
    /// Reads the list. `known`: ids of the servers of all Nodes; `gone`: those that were not found.
    #[must_use]
    pub fn read(
        servers: &[ServerView],
        cluster: &str,
        known: &BTreeSet<String>,
        gone: &BTreeSet<String>,
    ) -> Self {
        let is_ours =
            |server: &ServerView| server.cluster.as_deref() == Some(cluster) || known.contains(&server.id);
        if servers.iter().any(|server| gone.contains(&server.id)) {
            return Self::Contradicts;
        }
        if servers.iter().any(is_ours) { Self::BearsOut } else { Self::ShowsNothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_by_table() {
        let view = |ready, shutdown| NodeView { ready, shutdown, uid: "u".into(), ..NodeView::default() };
        let (gone, off, runs) = (ServerState::Gone, ServerState::Shutoff, ServerState::Running);
        for (node, server, may_delete, kind) in [
            (view(true, false), None, false, None),
            (view(true, true), None, false, Some("unmark_node_shutdown")),
            (view(true, false), Some(&gone), true, None),
            (view(false, false), Some(&gone), false, None),
            (view(false, false), Some(&gone), true, Some("delete_node")),
            (view(false, false), Some(&off), false, Some("mark_node_shutdown")),
            (view(false, true), Some(&off), false, None),
            (view(false, false), Some(&runs), true, None),
            (view(false, false), None, true, None),
        ] {
            let step = step("n", &node, server, may_delete);
            let said = step.as_ref().map(|step| step.kind().name());
            assert_eq!(said, kind, "{node:?} {server:?} {may_delete}");
        }
    }

    #[test]
    fn a_server_that_is_listed_is_not_gone_whatever_was_said_of_it_a_moment_ago() {
        let server = |id: &str, cluster: Option<&str>| ServerView {
            id: id.into(),
            name: id.into(),
            cluster: cluster.map(Into::into),
            internal: Vec::new(),
            external: Vec::new(),
            zone: None,
            flavor: None,
            state: ServerState::Running,
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let (known, gone) = (ids(&["a", "b"]), ids(&["b"]));
        for (listed, expected) in [
            (vec![], List::ShowsNothing),
            (vec![server("x", None)], List::ShowsNothing),
            (vec![server("x", Some("theirs"))], List::ShowsNothing),
            (vec![server("x", Some("ours"))], List::BearsOut),
            (vec![server("a", None)], List::BearsOut),
            (vec![server("b", Some("ours"))], List::Contradicts),
            (vec![server("a", None), server("b", None)], List::Contradicts),
        ] {
            assert_eq!(List::read(&listed, "ours", &known, &gone), expected, "{listed:?}");
        }
    }
}
