//! Carries out a step.

use super::{
    super::{
        Context, Error,
        finalizers::change_finalizers,
        view::{ATTACHER_FINALIZER, PROVISIONER_FINALIZER, PersistentView},
    },
    plan::Step,
};
use crate::{
    cluster::Key,
    services::claim,
    steps::{self, Kind},
};
use ake_api_client::{ClusterState, KubernetesId, how_to_be_let_in};
use k8s_openapi::api::core::v1::PersistentVolume;

pub(super) async fn apply(
    context: &Context,
    key: &Key,
    volume: &PersistentView,
    step: Step,
) -> Result<(), Error> {
    match step {
        Step::DeleteVolume => {
            claimed(context).await?;
            Ok(steps::take(Kind::DeleteVolume, context.cloud.delete(&volume.handle)).await?)
        }
        Step::DeleteObject => {
            let gone = context.cluster.delete::<PersistentVolume>(None, &key.name, Some(&volume.uid));
            Ok(steps::take(Kind::DeletePersistentVolume, gone).await?)
        }
        Step::DropFinalizers => {
            let gone = [ATTACHER_FINALIZER, PROVISIONER_FINALIZER];
            let dropped = change_finalizers(context, &key.name, Some(&volume.uid), |all| {
                all.retain(|f| !gone.contains(&f.as_str()))
            });
            steps::take(Kind::DropFinalizers, dropped).await
        }
        Step::DropAttacherFinalizer => {
            let dropped = change_finalizers(context, &key.name, Some(&volume.uid), |all| {
                all.retain(|f| f != ATTACHER_FINALIZER)
            });
            steps::take(Kind::DropAttacherFinalizer, dropped).await
        }
    }
}

/// Lets a volume go once ake-api knows the cluster as this Kubernetes: a PersistentVolume that was copied from another one
/// names a volume that is in use.
async fn claimed(context: &Context) -> Result<(), Error> {
    let cloud = &context.whole;
    let answer = cloud.api.cluster(cloud.cluster_id).await;
    match (judge(cloud.kubernetes, answer.as_ref().map(|(state, _)| state))?, answer) {
        (Verdict::Claim, Ok((mut state, mut etag))) => {
            Ok(claim::take(cloud, &context.leadership, &mut state, &mut etag).await.map_err(Box::new)?)
        }
        _ => Ok(()),
    }
}

/// What is to be done before a volume goes.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Go,
    /// ake-api is told that the cluster is this Kubernetes.
    Claim,
}

/// Decides by ake-api's `answer` whether the Kubernetes `own` may delete volumes of the cluster. What holds for Services
/// holds here: nothing is taken from another one, and its place only once nothing of its Services is left. Where ake-api
/// knows none and has something for Services, the one whose they are says so by itself.
fn judge(own: KubernetesId, answer: Result<&ClusterState, &ake_api_client::Error>) -> Result<Verdict, Error> {
    let state = match answer {
        Ok(state) => state,
        // Nobody has registered it, so it is nobody else's.
        Err(error) if error.is_not_found() => return Ok(Verdict::Go),
        Err(error) => {
            let message = format!("ake-api does not say which Kubernetes the cluster is: {error}");
            return Err(Error::Refused(message));
        }
    };
    let (id, known) = (state.cluster.id, state.cluster.kubernetes);
    if known == Some(own) {
        return Ok(Verdict::Go);
    }
    let Some(left) = claim::left(state) else { return Ok(Verdict::Claim) };
    let whose = match known {
        Some(other) => {
            format!("is Kubernetes {other} (the UID of its namespace kube-system), which has {left} there")
        }
        None => format!("has {left}, and was not told yet of which Kubernetes that is"),
    };
    Err(Error::Refused(format!(
        "the volume stays: cluster {id} at ake-api {whose}, and this one is {own}. {}",
        how_to_be_let_in(id, own)
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known(kubernetes: Option<u128>, address: &str) -> ClusterState {
        let state = json!({
            "cluster": {"id": "11111111-1111-1111-1111-111111111111", "name": "demo", "project": "p", "network": "n",
                        "deleting": false, "pod_range": "10.240.0.0/16", "vip_blocks": [], "check_sources": [],
                        "kubernetes": kubernetes.map(KubernetesId::from_u128)},
            "addresses": {address: {"address": "203.0.113.17"}}, "pools": {}, "load_balancers": {}, "node_ports": {},
            "lease_transitions": 0,
        });
        serde_json::from_value(state).unwrap()
    }

    #[test]
    fn a_volume_goes_where_the_cluster_is_this_kubernetes_or_may_become_it() {
        let own = KubernetesId::from_u128(7);
        for (kubernetes, address, expected) in [
            (Some(7), "svc-1", Some(Verdict::Go)),
            (Some(8), "svc-1", None),
            (Some(8), "kept-0123456789ab-ipv4", None),
            (Some(8), "api", Some(Verdict::Claim)),
            (None, "svc-1", None),
            (None, "api", Some(Verdict::Claim)),
        ] {
            let said = judge(own, Ok(&known(kubernetes, address)));
            let why = format!("{kubernetes:?} {address}: {said:?}");
            let Some(expected) = expected else {
                let text = said.unwrap_err().to_string();
                let other = kubernetes.map(|other| KubernetesId::from_u128(other).to_string());
                for word in [address, &own.to_string(), "PUT /v1/clusters/", "cluster-id", "the volume stays"]
                {
                    assert!(text.contains(word), "{word}: {text}");
                }
                assert!(other.is_none_or(|other| text.contains(&other)), "{text}");
                continue;
            };
            assert_eq!(said.unwrap(), expected, "{why}");
        }
    }

    #[test]
    fn a_volume_stays_where_ake_api_does_not_tell_and_goes_where_it_knows_no_such_cluster() {
        let own = KubernetesId::from_u128(7);
        let silent =
            ake_api_client::Error::Unreachable { url: "https://api".into(), reason: "no route".into() };
        let text = judge(own, Err(&silent)).unwrap_err().to_string();
        assert!(text.contains("no route"), "{text}");
        let refused = |status: u16, code: &str| ake_api_client::Error::Refused {
            method: http::Method::GET,
            path: String::new(),
            status: http::StatusCode::from_u16(status).unwrap(),
            problem: Box::new(serde_json::from_value(json!({"code": code, "message": code})).unwrap()),
            retry_after: None,
        };
        assert!(judge(own, Err(&refused(503, "unavailable"))).is_err());
        assert_eq!(judge(own, Err(&refused(404, "not-found"))).unwrap(), Verdict::Go);
    }
}
