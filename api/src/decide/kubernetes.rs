//! Whether a writer speaks for the Kubernetes that a cluster is.

use ake_api_client::{KubernetesId, how_to_be_let_in, is_of_services};

use super::wanted::{ClusterRecord, Wanted};
use crate::refusal::{Kind, Refusal};

/// Who writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Writer {
    /// Heat, or a person: of no Kubernetes.
    #[default]
    Anybody,
    /// A batch's writer, with the Kubernetes that it names.
    Controller(Option<KubernetesId>),
}

impl Writer {
    /// The Kubernetes that it speaks for, where it does for one.
    #[must_use]
    pub fn kubernetes(self) -> Option<KubernetesId> {
        match self {
            Self::Controller(named) => named,
            Self::Anybody => None,
        }
    }
}

/// Lets the cluster's own Kubernetes write, and any as long as it has none. Another one takes its place once nothing of
/// Services is left.
pub fn admit(record: &ClusterRecord, wanted: &Wanted, writer: Writer) -> Result<(), Refusal> {
    let Writer::Controller(named) = writer else { return Ok(()) };
    let Some(own) = record.kubernetes.filter(|own| named != Some(*own)) else { return Ok(()) };
    let left = wanted.load_balancers.keys().chain(wanted.addresses.keys()).find(|name| is_of_services(name));
    let id = record.id;
    let message = match (named, left) {
        (Some(_), None) => return Ok(()),
        (None, _) => format!(
            "kubernetes: the writer names none, and cluster {id} is Kubernetes {own} (the UID of its namespace kube-system): \
             expected that one. A controller manager of an earlier version names none"
        ),
        (Some(named), Some(left)) => format!(
            "kubernetes: {named}: cluster {id} is Kubernetes {own} (the UID of its namespace kube-system), which has {left} \
             there among others: expected that one. {}",
            how_to_be_let_in(id, named)
        ),
    };
    Err(Refusal::new(Kind::OtherKubernetes, message).of_field("kubernetes"))
}

#[cfg(test)]
mod tests {
    use ake_api_client::ClusterId;

    use super::*;

    fn record(kubernetes: Option<u128>) -> ClusterRecord {
        ClusterRecord {
            kubernetes: kubernetes.map(KubernetesId::from_u128),
            ..ClusterRecord::new(
                ClusterId::from_u128(1),
                ["demo", "p", "n"],
                "10.240.0.0/16".parse().unwrap(),
            )
        }
    }

    fn with(addresses: &[&str]) -> Wanted {
        let all = addresses.iter().map(|name| ((*name).to_owned(), "203.0.113.17".parse().unwrap()));
        Wanted { addresses: all.collect(), ..Wanted::default() }
    }

    #[test]
    fn another_kubernetes_writes_where_nothing_of_services_is_left() {
        let (none, seven, eight) = (None, Some(7), Some(8));
        for (own, named, addresses, admitted) in [
            (none, none, &["api", "svc-1"][..], true),
            (none, seven, &["api", "svc-1"], true),
            (seven, seven, &["api", "svc-1"], true),
            (seven, eight, &["api", "svc-1"], false),
            (seven, eight, &["api", "kept-0123456789ab-ipv4"], false),
            (seven, eight, &["api", "mine", "share-of-mine"], true),
            (seven, none, &["api"], false),
        ] {
            let writer = Writer::Controller(named.map(KubernetesId::from_u128));
            let said = admit(&record(own), &with(addresses), writer);
            assert_eq!(said.is_ok(), admitted, "{own:?} {named:?} {addresses:?}: {said:?}");
            assert_eq!(admit(&record(own), &with(addresses), Writer::Anybody), Ok(()));
        }
    }

    #[test]
    fn whoever_is_refused_is_told_of_both_and_what_to_do() {
        let writer = Writer::Controller(Some(KubernetesId::from_u128(8)));
        let said = admit(&record(Some(7)), &with(&["svc-1"]), writer).unwrap_err();
        for word in ["-000000000007", "-000000000008", "svc-1", "PUT /v1/clusters/", "cluster-id"] {
            assert!(said.message.contains(word), "{word}: {}", said.message);
        }
    }
}
