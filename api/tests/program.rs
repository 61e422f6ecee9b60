//! The program itself: it starts without a cloud, serves TLS, ends when asked, and names what is wrong.

#[cfg(test)]
mod program {
    use std::{
        path::Path,
        process::{Child, Command, Output, Stdio},
        time::{Duration, Instant},
    };

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    const PROGRAM: &str = env!("CARGO_BIN_EXE_ake-api");

    /// A folder with certificates and a configuration that names a cloud and a balancer where nobody answers.
    fn site(folder: &Path, port: u16) -> String {
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
        let here = format!("{}/", folder.display());
        let example = Command::new(PROGRAM).arg("example-config").output().unwrap().stdout;
        let text = String::from_utf8(example)
            .unwrap()
            .replace("0.0.0.0:9511", &format!("127.0.0.1:{port}"))
            .replace("127.0.0.1:9510", "127.0.0.1:0")
            .replace("http://192.0.2.2:5000/v3", "http://127.0.0.1:9/v3")
            .replace("https://192.168.77.2:9512", "https://127.0.0.1:9");
        ["/etc/ake/", "/var/lib/ake/", "/var/log/ake/"]
            .iter()
            .fold(text, |text, path| text.replace(path, &here))
    }

    fn run(arguments: &[&str], config: &Path) -> Output {
        Command::new(PROGRAM).args(arguments).arg("--config").arg(config).output().unwrap()
    }

    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            // it may have ended already
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    async fn it_serves_without_a_cloud_and_ends_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = folder.path().join("api.toml");
        std::fs::write(&config, site(folder.path(), port)).unwrap();
        let checked = run(&["check-config"], &config);
        assert!(checked.status.success(), "{checked:?}");

        let child = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Ended(child);
        let ca = std::fs::read(folder.path().join("balancer-ca.crt")).unwrap();
        let http = reqwest::Client::builder()
            .add_root_certificate(reqwest::Certificate::from_pem(&ca).unwrap())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        let url = format!("https://127.0.0.1:{port}");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match http.get(format!("{url}/healthz")).send().await {
                Ok(answer) if answer.status() == 200 => break,
                answer => assert!(Instant::now() < deadline, "{answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let versions: serde_json::Value = http.get(&url).send().await.unwrap().json().await.unwrap();
        assert_eq!(versions["versions"][0]["links"][0]["href"], format!("{url}/v1/"));
        let answer = http.get(format!("{url}/v1/clusters")).header("X-Auth-Token", "x").send().await.unwrap();
        assert_eq!(answer.status(), 503);
        let problem: serde_json::Value = answer.json().await.unwrap();
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("127.0.0.1:9") && problem["code"] == "unavailable", "{message}");

        let asked = Instant::now();
        assert!(Command::new("kill").arg(child.0.id().to_string()).status().unwrap().success());
        let status = loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                break status;
            }
            assert!(asked.elapsed() < Duration::from_secs(20), "it does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
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
