//! Several writers at once: deadlocks, and what may be there once.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::*;
use crate::decide::{
    blocks::{VipRange, next_block},
    quota::{Quota, Quotas, Resource, Usage},
    ranges::{Span, pod_range},
};

on_both!(
    writers_that_choose_at_once_choose_differently,
    changes_at_once_are_kept_once_each,
    the_last_of_a_quota_is_taken_once,
);

/// Instances of the service are connections of their own; so are these.
async fn stores(house: &House, count: usize) -> Vec<Store> {
    let mut all = vec![house.open().await];
    for _ in 1..count {
        all.push(house.open().await);
    }
    all
}

/// Each writer registers clusters and takes blocks, as fast as it can: no range overlaps another.
async fn writers_that_choose_at_once_choose_differently(house: House) {
    const WRITERS: u128 = 6;
    const CLUSTERS: u128 = 4;
    let stores = stores(&house, usize::try_from(WRITERS).unwrap()).await;
    let range = VipRange {
        first: "203.0.113.0".parse().unwrap(),
        last: "203.0.113.255".parse().unwrap(),
        prefix: 28,
    };
    let work = stores.iter().zip(0..).map(|(store, writer): (_, u128)| async move {
        for n in 0..CLUSTERS {
            let cluster = record(writer * 100 + n, "0.0.0.0/0");
            let pool = "10.240.0.0/12".parse().unwrap();
            store
                .register(&cluster, |taken| Ok((pod_range("n", pool, 18, taken)?, None)))
                .await
                .unwrap()
                .unwrap();
            let new = NewBlock {
                cluster: cluster.id,
                network: "v".into(),
                subnet: "s".into(),
                origin: Origin::Neutron,
            };
            // there are 16 blocks for 24 clusters
            match store.intend_block(&new, |owned| next_block(range, owned, &[])).await.unwrap() {
                Ok(block) => store.settle_block(&block, Some("port")).await.unwrap(),
                Err(refusal) => assert!(refusal.message.contains("16 of 16"), "{refusal}"),
            }
        }
    });
    futures::future::join_all(work).await;
    let clusters = stores[0].clusters(None).await.unwrap();
    assert_eq!(clusters.len(), 24);
    let blocks: Vec<IpNetwork> = clusters.iter().flat_map(|c| c.blocks.clone()).collect();
    assert_eq!(blocks.len(), 16);
    for ranges in [blocks, clusters.iter().map(|c| c.pod_range).collect()] {
        for (i, one) in ranges.iter().enumerate() {
            assert!(ranges.iter().skip(i + 1).all(|other| !Span::of(*one).overlaps(Span::of(*other))));
        }
    }
}

/// Writers that change one cluster each load it anew when another was faster; nothing that was answered is lost.
async fn changes_at_once_are_kept_once_each(house: House) {
    let stores = stores(&house, 4).await;
    let cluster = record(1, "10.240.0.0/16");
    register(&stores[0], &cluster).await.unwrap();
    let work = stores.iter().zip(0..).map(|(store, writer): (_, u8)| async move {
        for n in 0..5_u8 {
            loop {
                let loaded = store.load(ClusterId::from_u128(1)).await.unwrap().unwrap();
                let mut wanted = loaded.wanted.clone();
                wanted.addresses.insert(format!("a-{writer}-{n}"), [203, 0, 113, writer * 16 + n].into());
                match store.save(&loaded, Change { wanted: Some(&wanted), ..Change::default() }).await {
                    Ok(changed) => break assert!(changed),
                    Err(StoreError::Race(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    futures::future::join_all(work).await;
    let loaded = stores[0].load(cluster.id).await.unwrap().unwrap();
    let distinct: BTreeSet<_> = loaded.wanted.addresses.values().collect();
    assert_eq!((loaded.wanted.addresses.len(), distinct.len(), loaded.record.revision), (20, 20, 21));
}

/// Instances that each write for a cluster of the project, as fast as they can, come to the quota together, not beyond.
async fn the_last_of_a_quota_is_taken_once(house: House) {
    const WRITERS: u8 = 6;
    let general = Quota { addresses: Some(20), clusters: Some(i64::from(WRITERS)), ..Quota::default() };
    let quotas = Quotas { general, ..Quotas::default() };
    let stores = stores(&house, usize::from(WRITERS)).await;
    let stores: Vec<Store> = stores.into_iter().map(|store| store.with_quotas(quotas.clone())).collect();
    let work = stores.iter().zip(0..WRITERS).map(async |(store, writer)| {
        let cluster = record(u128::from(writer) + 1, &format!("10.{writer}.0.0/16"));
        register(store, &cluster).await.unwrap();
        let mut kept = 0_u64;
        for n in 0..10_u8 {
            let loaded = store.load(cluster.id).await.unwrap().unwrap();
            let mut wanted = loaded.wanted.clone();
            wanted.addresses.insert(format!("a-{n}"), [203, 0, writer, n].into());
            match store.save(&loaded, Change { wanted: Some(&wanted), ..Change::default() }).await {
                Ok(changed) => kept += u64::from(changed),
                Err(StoreError::Quota(refusal)) => assert!(refusal.message.contains("20 of 20"), "{refusal}"),
                Err(error) => panic!("{error}"),
            }
        }
        kept
    });
    let kept: u64 = futures::future::join_all(work).await.into_iter().sum();
    let one_more = record(99, "10.99.0.0/16");
    let refused = stores[0].register(&one_more, |_| Ok((one_more.pod_range, None))).await;
    assert!(matches!(refused, Err(StoreError::Quota(_))), "{refused:?}");
    assert!(stores[0].load(one_more.id).await.unwrap().is_none());
    let usage = stores[0].usage("p").await.unwrap();
    assert_eq!(
        (kept, usage.get(Resource::Addresses), usage.get(Resource::Clusters)),
        (20, 20, u64::from(WRITERS))
    );
    assert_eq!(stores[0].usages().await.unwrap()["p"], usage);
    // what is counted beside them is what there is
    let (_, all) = stores[0].load_all().await.unwrap();
    assert_eq!(all.iter().map(|loaded| Usage::of(&loaded.wanted)).sum::<Usage>(), usage);
    for loaded in &all {
        stores[0].forget(loaded.record.id).await.unwrap();
    }
    assert_eq!(stores[0].usage("p").await.unwrap(), Usage::default());
}

/// Two transactions that want each other's row: MariaDB undoes one, and it is made again.
#[tokio::test]
async fn a_deadlock_is_resolved_by_trying_again() {
    let house = House::mariadb();
    let store = house.open().await;
    for (id, pods) in [(1, "10.240.0.0/16"), (2, "10.241.0.0/16")] {
        register(&store, &record(id, pods)).await.unwrap();
    }
    let (met, attempts) = (tokio::sync::Barrier::new(2), std::sync::atomic::AtomicUsize::new(0));
    let crossing = |first: u128, second: u128| {
        let (store, met, attempts) = (&store, &met, &attempts);
        let again = std::sync::atomic::AtomicBool::new(false);
        async move {
            let again = &again;
            store
                .retried(|| async move {
                    attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let mut transaction = store.begin().await?;
                    for (step, id) in [first, second].into_iter().enumerate() {
                        sqlx::query("UPDATE clusters SET name = CONCAT(name, '!') WHERE id = ?")
                            .bind(ClusterId::from_u128(id).to_string())
                            .execute(&mut *transaction)
                            .await?;
                        if step == 0 && !again.swap(true, std::sync::atomic::Ordering::SeqCst) {
                            met.wait().await;
                        }
                    }
                    Ok(transaction.commit().await?)
                })
                .await
        }
    };
    let (left, right) = tokio::join!(crossing(1, 2), crossing(2, 1));
    left.unwrap();
    right.unwrap();
    assert!(attempts.load(std::sync::atomic::Ordering::SeqCst) > 2, "there was no deadlock");
    let names: Vec<String> = store.clusters(None).await.unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["demo!!", "demo!!"]);
}
