use std::{net::SocketAddr, sync::Arc};

use hyper::{Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::{TlsAcceptor, rustls};

use super::*;
use crate::agent::{bundle::tests as bundles, config::tests::sample};

/// An `ake-api` that knows one claim, and its CA.
async fn api(status: u16, ciphertext: String) -> (SocketAddr, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let Ok(connection) = acceptor.accept(connection).await else { continue };
            let ciphertext = ciphertext.clone();
            let answer = service_fn(move |request: hyper::Request<Incoming>| {
                assert_eq!(request.uri().path(), "/v1/claims/claim-1");
                let body = serde_json::json!({"ciphertext": ciphertext, "code": "forbidden", "message": "not yours"});
                let answer = Response::builder().status(status).body(body.to_string());
                std::future::ready(answer)
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                let _ = server.serve_connection(TokioIo::new(connection), answer).await;
            });
        }
    });
    (address, made.cert.pem())
}

/// A node's folder with its configuration.
fn node(role: &str, address: SocketAddr, ca: &str, seconds: u64) -> (tempfile::TempDir, Options) {
    let root = tempfile::tempdir().unwrap();
    let mut file = sample(role);
    file["api"] = serde_json::json!({"url": format!("https://{address}"), "ca": ca});
    file["control_plane"]["vip"] = "127.0.0.1".into();
    files::write(root.path(), &File::secret(config::PATH, file.to_string())).unwrap();
    let options = Options { root: root.path().to_owned(), deadline: Duration::from_secs(seconds) };
    (root, options)
}

fn sealed(role: config::Role, bundle: &serde_json::Value) -> String {
    let cluster = "11111111-2222-4333-8444-555555555555".parse().unwrap();
    bundles::seal(&bundle.to_string(), &[7; 32], cluster, role)
}

#[tokio::test]
async fn a_worker_redeems_its_claim_and_has_its_files() {
    let (address, ca) = api(200, sealed(config::Role::Worker, &bundles::worker())).await;
    let (root, options) = node("worker", address, &ca, 60);
    run(&options).await.unwrap();
    let kubelet = std::fs::read_to_string(root.path().join("etc/kubernetes/kubelet.env")).unwrap();
    assert!(kubelet.contains("--node-ip=127.0.0.1"), "{kubelet}");
    assert!(root.path().join(DONE.trim_start_matches('/')).exists());
}

#[tokio::test]
async fn a_bundle_for_another_role_is_no_good_and_leaves_nothing() {
    let (address, ca) = api(200, sealed(config::Role::Worker, &bundles::worker())).await;
    let (root, options) = node("master", address, &ca, 60);
    let error = run(&options).await.unwrap_err();
    assert!(matches!(error, Error::Bundle(_)), "{error}");
    assert!(!root.path().join("etc/kubernetes").exists());
}

#[tokio::test]
async fn a_refusal_is_told_in_the_words_of_the_service() {
    let (address, ca) = api(403, String::new()).await;
    let (_root, options) = node("worker", address, &ca, 5);
    let error = run(&options).await.unwrap_err().to_string();
    assert!(error.contains("claim-1") && error.contains("403") && error.contains("not yours"), "{error}");
}

/// It has its bundle, which nobody gets twice, and nothing is written yet but that.
#[tokio::test]
async fn a_run_that_was_cut_short_is_gone_on_with() {
    let (address, ca) = api(200, sealed(config::Role::Worker, &bundles::worker())).await;
    let (root, options) = node("worker", address, &ca, 60);
    let blocked = root.path().join("etc/kubernetes");
    std::fs::write(&blocked, "").unwrap();
    let error = run(&options).await.unwrap_err();
    assert!(matches!(error, Error::File(_)), "{error}");
    std::fs::remove_file(blocked).unwrap();

    let (second, ca) = api(409, String::new()).await;
    let mut file = sample("worker");
    file["api"] = serde_json::json!({"url": format!("https://{second}"), "ca": ca});
    file["control_plane"]["vip"] = "127.0.0.1".into();
    files::write(root.path(), &File::secret(config::PATH, file.to_string())).unwrap();
    run(&options).await.unwrap();
    assert!(root.path().join("etc/kubernetes/kubelet.env").exists());
    assert!(root.path().join(DONE.trim_start_matches('/')).exists());
    assert!(!root.path().join(KEPT.trim_start_matches('/')).exists());
}

#[tokio::test]
async fn a_second_run_does_nothing() {
    let root = tempfile::tempdir().unwrap();
    files::write(root.path(), &File::public(DONE, "")).unwrap();
    let options = Options { root: root.path().to_owned(), deadline: Duration::ZERO };
    run(&options).await.unwrap();
    assert!(!root.path().join("etc").exists());
}

#[tokio::test]
async fn a_service_that_is_down_is_named_when_the_deadline_is_over() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (root, options) = node("worker", "127.0.0.1:9".parse().unwrap(), "", 5);
    let error = run(&options).await.unwrap_err().to_string();
    assert!(error.contains("claim-1") && error.contains("https://127.0.0.1:9"), "{error}");
    assert!(!root.path().join(DONE.trim_start_matches('/')).exists());
}

#[test]
fn resolvers_are_those_that_others_can_use() {
    let text = "# c\nnameserver 192.168.77.1\nnameserver 127.0.0.53\nsearch x\nnameserver fd00:77::1\n";
    let found: Vec<_> = resolvers(text).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["192.168.77.1", "fd00:77::1"]);
}

#[test]
fn answers_do_not_come_back_to_what_is_of_this_machine_or_link() {
    for (from, to, wanted) in [
        ("192.168.77.30", "203.0.113.1", true),
        ("fd00:77::30", "fd00:96::", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("fe80::1", "fe80::2", true),
        ("::1", "fd00:96::", false),
        ("127.0.0.1", "203.0.113.1", false),
        ("fe80::1", "fd00:96::", false),
        ("169.254.3.4", "203.0.113.1", false),
        ("::", "fd00:96::", false),
    ] {
        assert_eq!(reaches(from.parse().unwrap(), to.parse().unwrap()), wanted, "{from} to {to}");
    }
}
