use std::collections::BTreeSet;

use ake_api_client::ClusterId;

use super::*;
use crate::decide::wanted::{ClusterRecord, Wanted};

pub(crate) mod mariadb;

/// A database of either kind, empty at first; the same one when it is opened again.
struct House {
    database: Database,
    _folder: tempfile::TempDir,
}

impl House {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { database: Database::Sqlite(folder.path().join("api.sqlite")), _folder: folder }
    }

    fn mariadb() -> Self {
        Self { database: Database::parse(&mariadb::fresh()).unwrap(), _folder: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Store {
        Store::open(&self.database).await.unwrap()
    }
}

/// One suite, on both databases.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod sqlite { $( #[tokio::test] async fn $test() { super::$test($crate::store::tests::House::sqlite()).await } )* }
        mod on_mariadb { $( #[tokio::test] async fn $test() { super::$test($crate::store::tests::House::mariadb()).await } )* }
    };
}

mod full;
mod kubernetes;
mod retained;
mod together;
mod used;

on_both!(
    a_change_is_kept_once_and_survives_a_restart,
    a_change_on_top_of_an_older_state_is_refused,
    a_deposed_writer_is_refused_though_its_successor_changed_nothing,
    one_pod_range_and_one_block_have_one_cluster,
    a_server_has_a_bundle_once_and_a_new_bundle_begins_anew,
    a_credential_stays_with_the_first_cluster_until_it_goes,
    pairs_are_kept_by_port,
    names_differ_by_case_and_hold_any_character,
    a_database_of_a_later_version_is_left_alone,
);

async fn register(store: &Store, cluster: &ClusterRecord) -> Result<(), StoreError> {
    let ranges = (cluster.pod_range, cluster.pod_range_v6);
    store
        .register(cluster, |taken| {
            let mut asked = [Some(ranges.0), ranges.1].into_iter().flatten();
            if asked.any(|range| taken.contains(&range)) {
                return Err(crate::refusal::Refusal::conflict("taken"));
            }
            Ok(ranges)
        })
        .await?
        .map(drop)
        .map_err(|_| StoreError::Race(cluster.id))
}

fn record(id: u128, pods: &str) -> ClusterRecord {
    ClusterRecord::new(ClusterId::from_u128(id), ["demo", "p", "n"], pods.parse().unwrap())
}

fn with_address() -> Wanted {
    Wanted { addresses: [("api".to_owned(), "203.0.113.17".parse().unwrap())].into(), ..Wanted::default() }
}

async fn a_change_is_kept_once_and_survives_a_restart(house: House) {
    let cluster = record(1, "10.240.0.0/16");
    let first = house.open().await;
    register(&first, &cluster).await.unwrap();
    let loaded = first.load(cluster.id).await.unwrap().unwrap();
    let wanted = with_address();
    let change = Change { wanted: Some(&wanted), lease_transitions: Some(3), ..Change::default() };
    assert!(first.save(&loaded, change).await.unwrap());
    let version = first.version().await.unwrap();
    first.close().await;

    let second = house.open().await;
    let loaded = second.load(cluster.id).await.unwrap().unwrap();
    assert_eq!((loaded.record.revision, loaded.record.lease_transitions), (2, 3));
    assert_eq!(loaded.wanted, wanted);
    assert!(!second.save(&loaded, change).await.unwrap());
    assert_eq!(second.load(cluster.id).await.unwrap().unwrap().record.revision, 2);
    assert_eq!(second.version().await.unwrap(), version);
}

async fn a_change_on_top_of_an_older_state_is_refused(house: House) {
    let store = house.open().await;
    let cluster = record(1, "10.240.0.0/16");
    register(&store, &cluster).await.unwrap();
    let old = store.load(cluster.id).await.unwrap().unwrap();
    let wanted = with_address();
    store.save(&old, Change { wanted: Some(&wanted), ..Change::default() }).await.unwrap();
    let refused = store.save(&old, Change { deleting: true, ..Change::default() }).await;
    assert!(matches!(refused, Err(StoreError::Race(_))), "{refused:?}");
}

async fn a_deposed_writer_is_refused_though_its_successor_changed_nothing(house: House) {
    let store = house.open().await;
    register(&store, &record(1, "10.240.0.0/16")).await.unwrap();
    let loaded = store.load(ClusterId::from_u128(1)).await.unwrap().unwrap();
    store.save(&loaded, Change { lease_transitions: Some(1), ..Change::default() }).await.unwrap();
    let wanted = with_address();
    let late = Change { wanted: Some(&wanted), lease_transitions: Some(0), ..Change::default() };
    let refused = store.save(&loaded, late).await;
    assert!(matches!(refused, Err(StoreError::Race(_))), "{refused:?}");
    let without = Change { wanted: Some(&wanted), ..Change::default() };
    assert!(store.save(&loaded, without).await.unwrap(), "a login of the project has no Lease");
}

async fn one_pod_range_and_one_block_have_one_cluster(house: House) {
    let store = house.open().await;
    register(&store, &record(1, "10.240.0.0/16")).await.unwrap();
    assert!(register(&store, &record(2, "10.240.0.0/16")).await.is_err());
    register(&store, &record(2, "10.241.0.0/16")).await.unwrap();
    let v6 = |number, pods| ClusterRecord {
        pod_range_v6: Some("fd00:240:0:100::/56".parse().unwrap()),
        ..record(number, pods)
    };
    register(&store, &v6(3, "10.242.0.0/16")).await.unwrap();
    assert!(register(&store, &v6(4, "10.243.0.0/16")).await.is_err());
    let kept = store.load(ClusterId::from_u128(3)).await.unwrap().unwrap().record;
    assert_eq!(kept.pod_range_v6, v6(3, "10.242.0.0/16").pod_range_v6);
    let new = |cluster| NewBlock {
        cluster: ClusterId::from_u128(cluster),
        network: "vips".into(),
        subnet: "s".into(),
        origin: Origin::Neutron,
    };
    let wish: ipnetwork::IpNetwork = "203.0.113.16/28".parse().unwrap();
    let choose = |owned: &[ipnetwork::IpNetwork]| match owned.contains(&wish) {
        true => Err(crate::refusal::Refusal::conflict("taken")),
        false => Ok(wish),
    };
    let block = store.intend_block(&new(1), choose).await.unwrap().unwrap();
    assert!(store.intend_block(&new(2), choose).await.unwrap().is_err());
    assert!(matches!(store.intend_block(&new(2), |_| Ok(wish)).await, Err(StoreError::Taken(_))));
    assert!(store.load(ClusterId::from_u128(1)).await.unwrap().unwrap().record.blocks.is_empty());
    store.settle_block(&block, Some("port")).await.unwrap();
    assert_eq!(store.load(ClusterId::from_u128(1)).await.unwrap().unwrap().record.blocks.len(), 1);
    store.abandon_block(wish).await.unwrap();
    let kept = store.blocks(None).await.unwrap();
    assert_eq!(
        kept,
        [BlockRecord { port: Some("port".into()), settled: true, ..block.clone() }],
        "it is not abandoned"
    );
    store.forget(ClusterId::from_u128(1)).await.unwrap();
    assert!(matches!(store.settle_block(&block, Some("port")).await, Err(StoreError::Race(_))));
    store.intend_block(&new(2), choose).await.unwrap().unwrap();
}

async fn a_server_has_a_bundle_once_and_a_new_bundle_begins_anew(house: House) {
    let store = house.open().await;
    let cluster = record(1, "10.240.0.0/16");
    register(&store, &cluster).await.unwrap();
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

async fn a_credential_stays_with_the_first_cluster_until_it_goes(house: House) {
    let store = house.open().await;
    let (a, b) = (record(1, "10.240.0.0/16"), record(2, "10.241.0.0/16"));
    register(&store, &a).await.unwrap();
    register(&store, &b).await.unwrap();
    store.bind_credential("c", a.id).await.unwrap();
    store.bind_credential("c", b.id).await.unwrap();
    assert_eq!(store.cluster_of_credential("c").await.unwrap(), Some(a.id));
    store.forget(a.id).await.unwrap();
    assert_eq!(store.cluster_of_credential("c").await.unwrap(), None);
}

async fn pairs_are_kept_by_port(house: House) {
    let store = house.open().await;
    let cluster = record(1, "10.240.0.0/16");
    register(&store, &cluster).await.unwrap();
    let ours: BTreeSet<_> = ["10.240.1.0/24".parse().unwrap(), "203.0.113.16/28".parse().unwrap()].into();
    store.save_pairs(cluster.id, "p", &ours).await.unwrap();
    assert_eq!(store.load(cluster.id).await.unwrap().unwrap().pairs["p"], ours);
    store.save_pairs(cluster.id, "p", &BTreeSet::new()).await.unwrap();
    assert!(store.load(cluster.id).await.unwrap().unwrap().pairs.is_empty());
}

async fn names_differ_by_case_and_hold_any_character(house: House) {
    let store = house.open().await;
    let mut cluster = record(1, "10.240.0.0/16");
    cluster.name = "Überfluß 🚢 'x' \\ \"".into();
    register(&store, &cluster).await.unwrap();
    let mut other = record(2, "10.241.0.0/16");
    other.project = "P".into();
    register(&store, &other).await.unwrap();
    let found = store.clusters(Some("p")).await.unwrap();
    assert_eq!(found.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), [cluster.name.as_str()]);
    store.rename(other.id, &"ß".repeat(255)).await.unwrap();
    assert_eq!(store.clusters(None).await.unwrap().len(), 2);
}

async fn a_database_of_a_later_version_is_left_alone(house: House) {
    let first = house.open().await;
    let later = match first.flavour {
        Flavour::Sqlite => "PRAGMA user_version = 99",
        Flavour::MariaDb => "INSERT INTO schema_version (version) VALUES (99)",
    };
    sqlx::query(later).execute(&first.pool).await.unwrap();
    first.close().await;
    let refused = Store::open(&house.database).await.unwrap_err();
    assert!(refused.to_string().contains("schema 99"), "{refused}");
}

#[tokio::test]
async fn an_older_database_keeps_what_it_has() {
    let house = House::sqlite();
    let old = Store::connect(&house.database, Access::Make).await.unwrap();
    for statements in [
        include_str!("../../migrations/sqlite/0001_begin.sql"),
        "INSERT INTO clusters (id, name, project, network, pod_range) VALUES \
         ('00000000-0000-0000-0000-000000000001', 'demo', 'p', 'n', '10.240.0.0/16');
         INSERT INTO blocks VALUES ('203.0.113.16/28', '00000000-0000-0000-0000-000000000001', 0, 'v', 's', 'port');
         INSERT INTO blocks VALUES ('203.0.113.32/28', '00000000-0000-0000-0000-000000000001', 1, 'v', 's', NULL);
         INSERT INTO objects VALUES ('00000000-0000-0000-0000-000000000001', 'addresses/api', '{\"address\":\"203.0.113.17\"}');
         INSERT INTO pairs VALUES ('00000000-0000-0000-0000-000000000001', 'p1', '203.0.113.17/32');
         INSERT INTO bundles VALUES ('00000000-0000-0000-0000-000000000001', 'worker',
         x'18ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4', 'sealed');
         PRAGMA user_version = 1;",
    ] {
        sqlx::raw_sql(statements).execute(&old.pool).await.unwrap();
    }
    let refused = Store::open_to_read(&house.database).await.unwrap_err();
    assert!(refused.to_string().contains("schema 1"), "{refused}");
    old.close().await;
    let store = house.open().await;
    let loaded = store.load(ClusterId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(loaded.wanted, with_address());
    assert_eq!(loaded.record.blocks, ["203.0.113.16/28".parse().unwrap()]);
    assert_eq!(loaded.pairs.len(), 1);
    // its claim is `d`
    assert_eq!(store.find_bundle("d").await.unwrap().unwrap().ciphertext, "sealed");
    assert_eq!(store.blocks(None).await.unwrap().iter().filter(|b| b.settled).count(), 1);
    Store::open_to_read(&house.database).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_as_such() {
    let house = House::sqlite();
    let Database::Sqlite(path) = &house.database else { unreachable!() };
    std::fs::write(path, vec![b'x'; 8192]).unwrap();
    let refused = Store::open(&house.database).await.unwrap_err();
    assert!(matches!(refused, StoreError::Damaged(_)), "{refused}");
    assert!(refused.to_string().contains("ake-api rebuild"), "{refused}");
}

/// Both schemas have the same tables with the same columns.
#[tokio::test]
async fn both_databases_keep_the_same() {
    let (sqlite, mariadb) = (House::sqlite(), House::mariadb());
    let (sqlite, mariadb) = (sqlite.open().await, mariadb.open().await);
    let left: Vec<String> = sqlx::query_scalar(
        "SELECT m.name || '.' || p.name FROM sqlite_master m, pragma_table_info(m.name) p WHERE m.type = 'table' ORDER BY 1",
    )
    .fetch_all(&sqlite.pool)
    .await
    .unwrap();
    let right: Vec<String> = sqlx::query_scalar(
        "SELECT CONCAT(table_name, '.', column_name) FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name <> 'schema_version' ORDER BY 1",
    )
    .fetch_all(&mariadb.pool)
    .await
    .unwrap();
    assert_eq!(left, right);
}
