//! Addresses that outlived their cluster: one cluster has one at a time, and who is faster gets it.

use std::net::IpAddr;

use super::*;
use crate::decide::{
    blocks::{VipRange, adopted, next_block},
    facts::Retained,
    quota::Resource,
};

on_both!(
    a_retained_address_is_its_projects_and_no_block_takes_it,
    of_those_that_adopt_and_give_back_at_once_one_succeeds,
    what_is_retained_is_kept_with_the_decision_or_not_at_all,
);

fn kept(address: &str, project: &str) -> Retained {
    Retained {
        address: address.parse().unwrap(),
        project: project.into(),
        name: "web".into(),
        about: Some("Service default/web".into()),
        port: Some("port".into()),
        network: "vips".into(),
        subnet: "sub".into(),
        going: false,
    }
}

fn adoption(id: u128) -> NewBlock {
    let (network, subnet) = ("vips".to_owned(), String::new());
    NewBlock { cluster: ClusterId::from_u128(id), network, subnet, origin: Origin::Retained }
}

async fn a_retained_address_is_its_projects_and_no_block_takes_it(house: House) {
    let store = house.open().await;
    register(&store, &record(1, "10.240.0.0/16")).await.unwrap();
    let all = [kept("203.0.113.18", "p"), kept("2001:db8::1", "q")];
    store.retain(&all).await.unwrap();
    store.retain(&all).await.unwrap();
    assert_eq!(store.retained(Some("p")).await.unwrap(), all[..1]);
    assert_eq!(store.retained(None).await.unwrap().len(), 2);

    let range = VipRange {
        first: "203.0.113.16".parse().unwrap(),
        last: "203.0.113.47".parse().unwrap(),
        prefix: 28,
    };
    let new = NewBlock { origin: Origin::Neutron, ..adoption(1) };
    let block = store.intend_block(&new, |owned| next_block(range, owned, &[])).await.unwrap().unwrap();
    assert_eq!(block.block.to_string(), "203.0.113.32/28");

    // adopted, it stays known, and is not given back before its cluster lets go of it
    let address = all[0].address;
    let block = store.intend_block(&adoption(1), |owned| adopted(address, owned)).await.unwrap().unwrap();
    store.settle_block(&block, Some("port")).await.unwrap();
    assert_eq!(store.begin_release("p", address).await.unwrap(), Release::Adopted);
    assert_eq!(store.begin_release("q", address).await.unwrap(), Release::Missing);
    store.forget(ClusterId::from_u128(1)).await.unwrap();
    assert_eq!(store.retained(Some("p")).await.unwrap(), all[..1]);

    let going = Retained { going: true, ..all[0].clone() };
    for _ in 0..2 {
        assert_eq!(store.begin_release("p", address).await.unwrap(), Release::Going(going.clone()));
    }
    store.end_release(all[1].address).await.unwrap();
    assert_eq!(store.retained(None).await.unwrap().len(), 2, "what was not given back stays");
    store.end_release(address).await.unwrap();
    assert_eq!(store.retained(None).await.unwrap(), all[1..]);
}

async fn what_is_retained_is_kept_with_the_decision_or_not_at_all(house: House) {
    let store = house.open().await;
    let cluster = record(1, "10.240.0.0/16");
    register(&store, &cluster).await.unwrap();
    let loaded = store.load(cluster.id).await.unwrap().unwrap();
    let wanted = with_address();
    store.save(&loaded, Change { wanted: Some(&wanted), ..Change::default() }).await.unwrap();
    let (nothing, retained) = (Wanted::default(), [kept("203.0.113.17", "p")]);
    let change = Change { wanted: Some(&nothing), deleting: true, retained: &retained, ..Change::default() };
    let loaded = store.load(cluster.id).await.unwrap().unwrap();
    // somebody says something else of the cluster meanwhile
    store.rename(cluster.id, "other").await.unwrap();
    let refused = store.save(&loaded, change).await;
    assert!(matches!(refused, Err(StoreError::Race(_))), "{refused:?}");
    assert_eq!(store.retained(None).await.unwrap(), []);
    assert_eq!(store.usage("p").await.unwrap().get(Resource::Addresses), 1);
    let loaded = store.load(cluster.id).await.unwrap().unwrap();
    assert!(store.save(&loaded, change).await.unwrap());
    assert_eq!(store.retained(None).await.unwrap(), retained);
    let usage = store.usage("p").await.unwrap();
    assert_eq!((usage.get(Resource::Addresses), usage.get(Resource::Retained)), (1, 1));
}

async fn of_those_that_adopt_and_give_back_at_once_one_succeeds(house: House) {
    let stores = [house.open().await, house.open().await, house.open().await];
    for id in [1, 2] {
        register(&stores[0], &record(id, &format!("10.{}.0.0/16", 240 + id))).await.unwrap();
    }
    for n in 0..20_u8 {
        let address = IpAddr::from([203, 0, 113, 100 + n]);
        stores[0].retain(&[Retained { address, ..kept("203.0.113.1", "p") }]).await.unwrap();
        let adopt = async |store: &Store, id: u128| {
            store.intend_block(&adoption(id), |owned| adopted(address, owned)).await.unwrap().is_ok()
        };
        let release = async || stores[2].begin_release("p", address).await.unwrap() != Release::Adopted;
        let (a, b, c) = tokio::join!(adopt(&stores[0], 1), adopt(&stores[1], 2), release());
        assert_eq!([a, b, c].into_iter().filter(|done| *done).count(), 1, "{address}: {a} {b} {c}");
    }
}
