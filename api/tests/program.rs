//! The program itself: it starts without a cloud, serves TLS, ends when asked, and names what is wrong.

#[cfg(test)]
mod common;
#[cfg(test)]
#[path = "../src/http/tests/imitation.rs"]
#[allow(dead_code, reason = "a part of it does")]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]
mod imitation;

#[cfg(test)]
mod program {
    use std::{
        path::Path,
        process::{Command, Output},
        sync::atomic::Ordering,
        time::Duration,
    };

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use tokio::net::TcpStream;

    use super::{
        common::{Ended, PROGRAM, eventually, example, free_port, kept_in, serve},
        imitation,
    };

    /// A folder with certificates and a configuration that names a cloud and a balancer where nobody answers.
    fn site(folder: &Path, port: u16) -> String {
        site_with(folder, port, "http://127.0.0.1:9")
    }

    /// The same with a cloud.
    fn site_with(folder: &Path, port: u16, cloud: &str) -> String {
        let mut authority = CertificateParams::new(vec![]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        for (name, text) in [
            ("api.crt", leaf.pem()),
            ("api.key", key.serialize_pem()),
            ("balancer-ca.crt", issuer.pem()),
            ("balancer-client.crt", leaf.pem()),
            ("balancer-client.key", key.serialize_pem()),
            ("keystone-password", "secret\n".to_owned()),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let changes = [
            ("0.0.0.0:9511", format!("127.0.0.1:{port}")),
            ("127.0.0.1:9510", "127.0.0.1:0".to_owned()),
            ("http://192.0.2.2:5000/v3", format!("{cloud}/v3")),
            ("https://192.168.77.2:9512", "https://127.0.0.1:9".to_owned()),
        ];
        example(changes.into_iter().chain(kept_in(folder)))
    }

    fn run(arguments: &[&str], config: &Path) -> Output {
        Command::new(PROGRAM).args(arguments).arg("--config").arg(config).output().unwrap()
    }

    /// The program once it answers, a client that trusts it, and where it is.
    async fn answers(folder: &Path, port: u16, config: &str) -> (Ended, reqwest::Client, String) {
        let child = serve(folder, "api", config);
        let ca = std::fs::read(folder.join("balancer-ca.crt")).unwrap();
        let http = reqwest::Client::builder()
            .add_root_certificate(reqwest::Certificate::from_pem(&ca).unwrap())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        let url = format!("https://127.0.0.1:{port}");
        eventually("it answers", async || {
            http.get(format!("{url}/healthz")).send().await.ok().filter(|answer| answer.status() == 200)
        })
        .await;
        (child, http, url)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_that_is_at_work_is_done_before_it_ends() {
        let (cloud, neutron) = imitation::cloud().await;
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = site_with(folder.path(), port, &cloud.uri());
        let (mut child, http, url) = answers(folder.path(), port, &config).await;
        neutron.slow.store(true, Ordering::SeqCst);
        let cluster = format!("{url}/v1/clusters/11111111-1111-1111-1111-111111111111");
        let ask =
            |request: reqwest::RequestBuilder| request.header("X-Auth-Token", "alice:demo:member").send();
        let wish = serde_json::json!({"name": "demo", "network": "net-1"});
        let write = tokio::spawn(ask(http.put(&cluster).json(&wish)));
        eventually("the write is at work", async || neutron.waits.load(Ordering::SeqCst).then_some(())).await;

        child.signal("-TERM");
        eventually("nobody new is let in", async || TcpStream::connect(("127.0.0.1", port)).await.err())
            .await;
        assert!(child.0.try_wait().unwrap().is_none() && !write.is_finished(), "it did not wait");
        neutron.slow.store(false, Ordering::SeqCst);
        let answer = write.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        let made: serde_json::Value = answer.json().await.unwrap();
        let status = eventually("it ends", async || child.0.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
        assert_eq!(neutron.reserved(), 2);

        // and the next one has it
        let (_child, http, _) = answers(folder.path(), port, &config).await;
        let found: serde_json::Value = ask(http.get(&cluster)).await.unwrap().json().await.unwrap();
        assert_eq!(found["cluster"]["vip_blocks"], made["cluster"]["vip_blocks"], "{found}");
    }

    #[tokio::test]
    async fn it_serves_without_a_cloud_and_ends_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = folder.path().join("api.toml");
        let text = site(folder.path(), port);
        std::fs::write(&config, &text).unwrap();
        let checked = run(&["check-config"], &config);
        assert!(checked.status.success(), "{checked:?}");

        let (mut child, http, url) = answers(folder.path(), port, &text).await;
        let versions: serde_json::Value = http.get(&url).send().await.unwrap().json().await.unwrap();
        assert_eq!(versions["versions"][0]["links"][0]["href"], format!("{url}/v1/"));
        let answer = http.get(format!("{url}/v1/clusters")).header("X-Auth-Token", "x").send().await.unwrap();
        assert_eq!(answer.status(), 503);
        let problem: serde_json::Value = answer.json().await.unwrap();
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("127.0.0.1:9") && problem["code"] == "unavailable", "{message}");

        child.signal("-TERM");
        let status = eventually("it ends", async || child.0.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
    }

    #[test]
    fn what_is_wrong_is_named_on_standard_error() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("api.toml");
        let good = site(folder.path(), free_port());
        for (from, to, words) in [
            ("pod_prefix = 16", "pod_prefix = 4", &["network[0].pod_prefix = 4", "expected 12"][..]),
            ("token_cache_seconds", "token_cash_seconds", &["token_cash_seconds", "unknown field"]),
            ("api.key\"", "balancer-ca.crt\"", &["tls.key", "private key"]),
            ("balancer-ca.crt\"", "nothing.crt\"", &["device.ca", "nothing.crt"]),
        ] {
            assert!(good.contains(from), "{from}");
            std::fs::write(&config, good.replacen(from, to, 1)).unwrap();
            let refused = run(&["check-config"], &config);
            let text = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success(), "{text}");
            for word in words {
                assert!(text.contains(word), "{text}\nlacks {word}");
            }
        }
        let missing = run(&["serve"], &folder.path().join("none.toml"));
        assert!(String::from_utf8_lossy(&missing.stderr).contains("none.toml"), "{missing:?}");
    }
}
