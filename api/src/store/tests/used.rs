//! What is counted, where it was not counted before.

use ake_api_client::{Affinity, Listener, LoadBalancerRequest, Protocol};
use sqlx::Executor;

use super::*;
use crate::decide::{
    quota::{Quota, Quotas, Resource, Usage},
    wanted::{Note, WantedMember, WantedPool},
};

on_both!(
    an_older_database_is_counted,
    a_lowered_quota_takes_nothing_away,
    instances_of_before_register_and_forget_beside_this_one,
);

fn wanted() -> Wanted {
    let member = |n: u8| WantedMember {
        address: [192, 168, 77, n].into(),
        mac: "fa:16:3e:00:00:01".into(),
        port: "p".into(),
        weight: 1,
        draining: false,
    };
    let members = (0..3).map(|n| (format!("n{n}"), member(n))).collect();
    let listener = |port| Listener { protocol: Protocol::Tcp, port, pool: "nodes".into() };
    let balancer = |ports: &[u16]| LoadBalancerRequest {
        address: "api".into(),
        listeners: ports.iter().copied().map(listener).collect(),
        source_ranges: vec![],
        affinity: Affinity::None,
    };
    Wanted {
        pools: [
            ("nodes".to_owned(), WantedPool { checks: vec![], members }),
            ("members".to_owned(), WantedPool::default()),
        ]
        .into(),
        load_balancers: [("one".to_owned(), balancer(&[80, 443])), ("two".to_owned(), balancer(&[22]))]
            .into(),
        notes: [("api".to_owned(), Note { retained: true, about: None })].into(),
        ..with_address()
    }
}

async fn with_something(house: &House) -> (Store, ClusterRecord) {
    let store = house.open().await;
    let cluster = record(1, "10.240.0.0/16");
    register(&store, &cluster).await.unwrap();
    register(&store, &record(2, "10.241.0.0/16")).await.unwrap();
    let loaded = store.load(cluster.id).await.unwrap().unwrap();
    store.save(&loaded, Change { wanted: Some(&wanted()), ..Change::default() }).await.unwrap();
    (store, cluster)
}

async fn an_older_database_is_counted(house: House) {
    let (store, _) = with_something(&house).await;
    let before = store.usage("p").await.unwrap();
    let step = match store.flavour {
        Flavour::Sqlite => include_str!("../../../migrations/sqlite/0004_used.sql"),
        Flavour::MariaDb => include_str!("../../../migrations/mariadb/0003_used.sql"),
    };
    store.pool.execute("DROP TABLE used").await.unwrap();
    store.pool.execute(step).await.unwrap();
    let after = store.usage("p").await.unwrap();
    assert_eq!(after, before);
    let counts = Resource::ALL.map(|resource| after.get(resource));
    assert_eq!(counts, [2, 1, 2, 3, 2, 3, 1]);
}

async fn instances_of_before_register_and_forget_beside_this_one(house: House) {
    let (store, cluster) = with_something(&house).await;
    store.pool.execute("DELETE FROM used").await.unwrap();
    for usage in [store.usage("p").await.unwrap(), store.usages().await.unwrap()["p"].clone()] {
        assert_eq!(Resource::ALL.map(|resource| usage.get(resource)), [2, 0, 0, 0, 0, 0, 0]);
    }
    let loaded = store.load(cluster.id).await.unwrap().unwrap();
    let mut fewer = loaded.wanted.clone();
    fewer.load_balancers.remove("two");
    store.save(&loaded, Change { wanted: Some(&fewer), ..Change::default() }).await.unwrap();
    let usage = store.usage("p").await.unwrap();
    assert_eq!(Resource::ALL.map(|resource| usage.get(resource)), [2, 1, 2, 3, 1, 2, 1]);
    // as they forget
    for table in ["objects", "clusters"] {
        let column = if table == "clusters" { "id" } else { "cluster" };
        let id = cluster.id;
        store.pool.execute(format!("DELETE FROM {table} WHERE {column} = '{id}'").as_str()).await.unwrap();
    }
    let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM used").fetch_one(&store.pool).await.unwrap();
    assert_eq!(left, 0);
}

async fn a_lowered_quota_takes_nothing_away(house: House) {
    let (store, cluster) = with_something(&house).await;
    let none = Quota { members: Some(0), listeners: Some(0), ..Quota::default() };
    let store = store.with_quotas(Quotas { general: none, ..Quotas::default() });
    let loaded = store.load(cluster.id).await.unwrap().unwrap();
    let mut fewer = loaded.wanted.clone();
    fewer.load_balancers.remove("two");
    assert!(store.save(&loaded, Change { wanted: Some(&fewer), ..Change::default() }).await.unwrap());
    let loaded = store.load(cluster.id).await.unwrap().unwrap();
    let refused = store.save(&loaded, Change { wanted: Some(&wanted()), ..Change::default() }).await;
    let Err(StoreError::Quota(refusal)) = refused else { panic!("{refused:?}") };
    assert!(refusal.message.contains("quota listeners: 2 of 0"), "{refusal}");
    assert_eq!(store.load(cluster.id).await.unwrap().unwrap(), loaded, "the refused write left nothing");
    assert_eq!(store.usages().await.unwrap()["p"], store.usage("p").await.unwrap());
    assert_eq!(Usage::of(&fewer).get(Resource::Listeners), 2);
}
