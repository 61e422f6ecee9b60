//! A disk that is full, under SQLite, in a mount namespace of its own: needs root.

use std::{io::Write as _, path::Path, process::Command};

use super::*;
use crate::refusal::{Kind, Refusal};

const INSIDE: &str = "AKE_FULL_DISK";
const TEST: &str = "store::tests::full::a_full_disk_refuses_writes_and_loses_nothing";

/// Runs this test again where a small file system can be mounted that nobody else sees.
#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    if let Some(folder) = std::env::var_os(INSIDE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(story(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--", "sh", "-c"])
        .arg("mount -t tmpfs -o size=24m tmpfs \"$AKE_FULL_DISK\" && exec \"$@\"")
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE, folder.path())
        .status()
        .unwrap();
    assert!(done.success());
}

/// Writes ten large load balancers, so that a write that is half done would show.
async fn save(store: &Store, port: u16, prefix: &str) -> Result<(), StoreError> {
    let loaded = store.load(ClusterId::from_u128(1)).await.unwrap().unwrap();
    let mut wanted = loaded.wanted.clone();
    for n in 0..10 {
        let protocol = ake_api_client::Protocol::Tcp;
        let listener = ake_api_client::Listener { protocol, port, pool: "p".repeat(63) };
        let request = ake_api_client::LoadBalancerRequest {
            address: "api".into(),
            listeners: vec![listener; 250],
            source_ranges: vec![],
            affinity: ake_api_client::Affinity::None,
        };
        wanted.load_balancers.insert(format!("{prefix}-{n}"), request);
    }
    store.save(&loaded, Change { wanted: Some(&wanted), ..Change::default() }).await.map(drop)
}

async fn ports(store: &Store) -> BTreeSet<u16> {
    let loaded = store.load(ClusterId::from_u128(1)).await.unwrap().unwrap();
    loaded.wanted.load_balancers.values().map(|lb| lb.listeners[0].port).collect()
}

async fn story(folder: &Path) {
    let database = Database::Sqlite(folder.join("api.sqlite"));
    let store = Store::open(&database).await.unwrap();
    register(&store, &record(1, "10.240.0.0/16")).await.unwrap();
    // 20 MB in all
    for port in 1..=80 {
        save(&store, port, "same").await.unwrap();
    }
    let log = std::fs::metadata(folder.join("api.sqlite-wal")).unwrap().len();
    assert!(log < 12 << 20, "the write-ahead log has {log} bytes");

    let mut ballast = std::fs::File::create(folder.join("ballast")).unwrap();
    while ballast.write_all(&[0; 4096]).is_ok() {}
    drop(ballast);
    let (mut kept, mut refused) = (BTreeSet::from([80]), None);
    for port in 81..180 {
        match save(&store, port, &format!("new-{port}")).await {
            Ok(()) => kept.insert(port),
            Err(error) => {
                refused = Some(error);
                break;
            }
        };
    }
    let refused = refused.expect("the disk is full");
    assert!(matches!(refused, StoreError::Full(_)), "{refused}");
    let said = Refusal::from(refused);
    assert_eq!((said.kind, said.kind.status().as_u16()), (Kind::Unavailable, 503));
    assert!(said.message.contains("no room left") && said.message.contains("nothing was written"), "{said}");
    // what was answered is there, whole, and reads go on
    assert_eq!(ports(&store).await, kept);
    store.version().await.unwrap();

    std::fs::remove_file(folder.join("ballast")).unwrap();
    assert_eq!(ports(&store).await, kept);
    save(&store, 3000, "after").await.unwrap();
    kept.insert(3000);
    store.close().await;
    let again = Store::open(&database).await.unwrap();
    assert_eq!(ports(&again).await, kept);
    let check: String = sqlx::query_scalar("SELECT integrity_check FROM pragma_integrity_check")
        .fetch_one(&again.pool)
        .await
        .unwrap();
    assert_eq!(check, "ok");
}
