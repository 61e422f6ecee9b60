use std::collections::BTreeSet;

use ake_api_client::ClusterId;

use super::*;
use crate::decide::wanted::{ClusterRecord, Wanted};

fn record(id: u128, pods: &str) -> ClusterRecord {
    ClusterRecord {
        id: ClusterId::from_u128(id),
        name: "demo".into(),
        project: "p".into(),
        network: "n".into(),
        pod_range: pods.parse().unwrap(),
        blocks: vec![],
        deleting: false,
        revision: 1,
        lease_transitions: 0,
    }
}

async fn store(folder: &tempfile::TempDir) -> Store {
    Store::open(&folder.path().join("api.sqlite")).await.unwrap()
}

fn with_address() -> Wanted {
    Wanted { addresses: [("api".to_owned(), "203.0.113.17".parse().unwrap())].into(), ..Wanted::default() }
}

#[tokio::test]
async fn a_change_is_kept_once_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = record(1, "10.240.0.0/16");
    let first = store(&folder).await;
    first.register(&cluster).await.unwrap();
    let loaded = first.load(cluster.id).await.unwrap().unwrap();
    let wanted = with_address();
    let change = Change { wanted: Some(&wanted), lease_transitions: 3, ..Change::default() };
    assert!(first.save(&loaded, change).await.unwrap());
    let version = first.version().await.unwrap();
    first.close().await;

    let second = store(&folder).await;
    let loaded = second.load(cluster.id).await.unwrap().unwrap();
    assert_eq!((loaded.record.revision, loaded.record.lease_transitions), (2, 3));
    assert_eq!(loaded.wanted, wanted);
    assert!(!second.save(&loaded, change).await.unwrap());
    assert_eq!(second.load(cluster.id).await.unwrap().unwrap().record.revision, 2);
    assert_eq!(second.version().await.unwrap(), version);
}

#[tokio::test]
async fn a_change_on_top_of_an_older_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let cluster = record(1, "10.240.0.0/16");
    store.register(&cluster).await.unwrap();
    let old = store.load(cluster.id).await.unwrap().unwrap();
    let wanted = with_address();
    store.save(&old, Change { wanted: Some(&wanted), ..Change::default() }).await.unwrap();
    let refused = store.save(&old, Change { deleting: true, ..Change::default() }).await;
    assert!(matches!(refused, Err(StoreError::Race(_))), "{refused:?}");
}

#[tokio::test]
async fn one_pod_range_and_one_block_have_one_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    store.register(&record(1, "10.240.0.0/16")).await.unwrap();
    assert!(store.register(&record(2, "10.240.0.0/16")).await.is_err());
    store.register(&record(2, "10.241.0.0/16")).await.unwrap();
    let block = |cluster| BlockRecord {
        block: "203.0.113.16/28".parse().unwrap(),
        cluster: ClusterId::from_u128(cluster),
        network: "vips".into(),
        subnet: "s".into(),
        port: None,
    };
    store.intend_block(&block(1)).await.unwrap();
    assert!(store.intend_block(&block(2)).await.is_err());
    assert!(store.load(ClusterId::from_u128(1)).await.unwrap().unwrap().record.blocks.is_empty());
    store.reserve_block(&block(1), "port").await.unwrap();
    assert_eq!(store.load(ClusterId::from_u128(1)).await.unwrap().unwrap().record.blocks.len(), 1);
    store.abandon_block(block(1).block).await.unwrap();
    assert_eq!(store.blocks(None).await.unwrap().len(), 1, "what is reserved is not abandoned");
    store.forget(ClusterId::from_u128(1)).await.unwrap();
    store.intend_block(&block(2)).await.unwrap();
}

#[tokio::test]
async fn a_server_has_a_bundle_once_and_a_new_bundle_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let cluster = record(1, "10.240.0.0/16");
    store.register(&cluster).await.unwrap();
    let (old, new) = ("a".repeat(40), "b".repeat(40));
    assert!(store.put_bundle(cluster.id, "worker", &old, "sealed").await.unwrap());
    assert!(store.redeem(cluster.id, &old, "server").await.unwrap());
    assert!(!store.put_bundle(cluster.id, "worker", &old, "sealed").await.unwrap());
    assert!(!store.redeem(cluster.id, &old, "server").await.unwrap());
    assert!(store.put_bundle(cluster.id, "worker", &old, "sealed anew").await.unwrap());
    assert!(store.redeem(cluster.id, &old, "server").await.unwrap());
    assert!(store.put_bundle(cluster.id, "worker", &new, "sealed").await.unwrap());
    assert!(store.find_bundle(&old).await.unwrap().is_none());
    assert_eq!(store.find_bundle(&new).await.unwrap().map(|b| b.role).as_deref(), Some("worker"));
}

#[tokio::test]
async fn a_credential_stays_with_the_first_cluster_until_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let (a, b) = (record(1, "10.240.0.0/16"), record(2, "10.241.0.0/16"));
    store.register(&a).await.unwrap();
    store.register(&b).await.unwrap();
    store.bind_credential("c", a.id).await.unwrap();
    store.bind_credential("c", b.id).await.unwrap();
    assert_eq!(store.cluster_of_credential("c").await.unwrap(), Some(a.id));
    store.forget(a.id).await.unwrap();
    assert_eq!(store.cluster_of_credential("c").await.unwrap(), None);
}

#[tokio::test]
async fn pairs_are_kept_by_port() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let cluster = record(1, "10.240.0.0/16");
    store.register(&cluster).await.unwrap();
    let ours: BTreeSet<_> = ["10.240.1.0/24".parse().unwrap(), "203.0.113.16/28".parse().unwrap()].into();
    store.save_pairs(cluster.id, "p", &ours).await.unwrap();
    assert_eq!(store.load(cluster.id).await.unwrap().unwrap().pairs["p"], ours);
    store.save_pairs(cluster.id, "p", &BTreeSet::new()).await.unwrap();
    assert!(store.load(cluster.id).await.unwrap().unwrap().pairs.is_empty());
}

#[tokio::test]
async fn a_database_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(&folder).await;
    sqlx::query("PRAGMA user_version = 99").execute(&first.pool).await.unwrap();
    first.close().await;
    let refused = Store::open(&folder.path().join("api.sqlite")).await.unwrap_err();
    assert!(refused.to_string().contains("99"), "{refused}");
}
