//! Which Kubernetes a cluster is, as its row has it.

use ake_api_client::KubernetesId;

use super::{super::*, House, record, register, with_address};

on_both!(one_kubernetes_is_the_clusters_and_two_at_once_are_not, a_row_of_before_has_none);

async fn one_kubernetes_is_the_clusters_and_two_at_once_are_not(house: House) {
    let cluster = record(1, "10.240.0.0/16");
    let (one, other) = (house.open().await, house.open().await);
    register(&one, &cluster).await.unwrap();
    let before = one.load(cluster.id).await.unwrap().unwrap();
    let change = |number| Change { kubernetes: Some(KubernetesId::from_u128(number)), ..Change::default() };
    let version = one.version().await.unwrap();
    assert!(one.save(&before, change(7)).await.unwrap());
    // Both have read that there is none.
    assert!(matches!(other.save(&before, change(8)).await, Err(StoreError::Race(_))));
    let after = other.load(cluster.id).await.unwrap().unwrap();
    assert_eq!(after.record.kubernetes, Some(KubernetesId::from_u128(7)));
    assert!(after.record.revision > before.record.revision);
    assert_eq!(one.version().await.unwrap(), version, "no balancer has to know");
    assert!(!one.save(&after, change(7)).await.unwrap(), "it is kept already");
    // A write that speaks for none leaves it.
    let wanted = with_address();
    one.save(&after, Change { wanted: Some(&wanted), ..Change::default() }).await.unwrap();
    assert_eq!(one.load(cluster.id).await.unwrap().unwrap().record.kubernetes, after.record.kubernetes);
}

async fn a_row_of_before_has_none(house: House) {
    let (cluster, store) = (record(1, "10.240.0.0/16"), house.open().await);
    register(&store, &cluster).await.unwrap();
    let before = store.brief(cluster.id).await.unwrap().unwrap();
    assert_eq!(before.kubernetes, None);
    let named = Some(KubernetesId::from_u128(7));
    store.save_kubernetes(&before, named).await.unwrap();
    assert!(matches!(store.save_kubernetes(&before, None).await, Err(StoreError::Race(_))));
    let after = store.brief(cluster.id).await.unwrap().unwrap();
    assert_eq!(after.kubernetes, named);
    store.save_kubernetes(&after, None).await.unwrap();
    assert_eq!(store.brief(cluster.id).await.unwrap().unwrap().kubernetes, None);
}
