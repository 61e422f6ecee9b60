//! `ake-api` as it is shipped, in front of a pair of BIG-IPs that `ake-bigip` stands in for, through HTTPS alone. Needs
//! `ake-bigip` built (`cargo build -p ake-bigip`).

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::Value;

use crate::common::{Ended, PROGRAM, eventually, example, free_port, kept_in, serve};

pub(crate) const CLUSTER: &str = "11111111-1111-1111-1111-111111111111";
pub(crate) const PORT: &str = "99999999-9999-9999-9999-999999999991";
pub(crate) const NODE: &str = "192.168.77.20";

/// The pair, as an operator reaches it.
pub(crate) struct Pair {
    program: Option<(Ended, ChildStdin, BufReader<ChildStdout>)>,
    ports: [u16; 2],
    folder: PathBuf,
    client: Option<Client>,
}

impl Pair {
    pub(crate) fn new(folder: &Path) -> Self {
        std::fs::create_dir(folder.join("disks")).unwrap();
        let ports = [free_port(), free_port()];
        let mut pair = Self { program: None, ports, folder: folder.to_owned(), client: None };
        pair.start();
        let ca = Certificate::from_pem(&std::fs::read(folder.join("bigip-ca.crt")).unwrap()).unwrap();
        let client = Client::builder().add_root_certificate(ca).use_rustls_tls().no_proxy();
        pair.client = Some(client.build().unwrap());
        pair
    }

    fn start(&mut self) {
        let program = PathBuf::from(PROGRAM).with_file_name("ake-bigip");
        assert!(program.exists(), "{}: expected the stand-in: cargo build -p ake-bigip", program.display());
        let [one, two] = self.ports.map(|port| format!("127.0.0.1:{port}"));
        let mut child = Command::new(program)
            .args(["--listen", &one, "--peer-listen", &two, "--user", "ake", "--password", "secret"])
            .arg("--ca")
            .arg(self.folder.join("bigip-ca.crt"))
            .arg("--disks")
            .arg(self.folder.join("disks"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        self.program = Some((Ended(child), told, BufReader::new(said)));
        for _ in 0..2 {
            assert!(self.line().starts_with("https://"));
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.program.as_mut().unwrap().2.read_line(&mut line).unwrap();
        line
    }

    /// What monitors say of an address from now on.
    pub(crate) fn monitors_say(&mut self, word: &str, address: &str) {
        writeln!(self.program.as_mut().unwrap().1, "{word} {address}").unwrap();
        assert_eq!(self.line(), "done\n");
    }

    /// The power goes and comes back.
    pub(crate) fn restart(&mut self) {
        self.program = None;
        self.start();
    }

    fn urls(&self) -> [String; 2] {
        self.ports.map(|port| format!("https://127.0.0.1:{port}"))
    }

    pub(crate) async fn ask(&self, unit: usize, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}/mgmt/tm/{path}", self.urls()[unit]);
        let request = self.client.as_ref().unwrap().request(method, &url).basic_auth("ake", Some("secret"));
        let answer = request.json(&body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{url}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(0, Method::POST, path, body).await
    }

    /// What a unit has in a partition, in the form in which it shows it.
    pub(crate) async fn has(&self, unit: usize, collection: &str, partition: &str) -> Vec<Value> {
        let path = format!("{collection}?$filter=partition+eq+{partition}&expandSubcollections=true");
        let list = self.ask(unit, Method::GET, &path, Value::Null).await;
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Everything of others.
    pub(crate) async fn theirs(&self, unit: usize) -> Vec<Vec<Value>> {
        let mut all = Vec::new();
        for collection in ["ltm/virtual", "ltm/virtual-address", "ltm/pool", "ltm/node"] {
            all.push(self.has(unit, collection, "Common").await);
        }
        all
    }
}

/// The service, as a tenant reaches it.
pub(crate) struct Api {
    pub(crate) program: Ended,
    config: PathBuf,
    pub(crate) client: Client,
    pub(crate) url: String,
}

impl Api {
    pub(crate) async fn start(folder: &Path, keystone: &str, pair: &Pair) -> Self {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        for (name, text) in [
            ("api.crt", own.pem()),
            ("api.key", key.serialize_pem()),
            ("keystone-password", "secret\n".to_owned()),
            ("bigip-password", "secret\n".to_owned()),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let port = free_port();
        let changes = [
            ("0.0.0.0:9511", format!("127.0.0.1:{port}")),
            ("127.0.0.1:9510", "127.0.0.1:0".to_owned()),
            ("http://192.0.2.2:5000/v3", keystone.to_owned()),
            ("reconcile_seconds = 300", "reconcile_seconds = 1".to_owned()),
            ("driver = \"xdp\"", "driver = \"bigip\"".to_owned()),
            ("[\"https://192.168.77.2:9512\"]", format!("{:?}", pair.urls())),
            ("balancer-ca.crt", "bigip-ca.crt".to_owned()),
            ("certificate = \"/etc/ake/balancer-client.crt\"\n", String::new()),
            ("key = \"/etc/ake/balancer-client.key\"\n", String::new()),
            ("# username = \"ake\"", "username = \"ake\"".to_owned()),
            ("# password_file = \"/etc/ake/bigip", "password_file = \"/etc/ake/bigip".to_owned()),
            ("# sync_group = ", "sync_group = ".to_owned()),
        ];
        let program = serve(folder, "api", &example(changes.into_iter().chain(kept_in(folder))));
        let config = folder.join("api.toml");
        let ca = Certificate::from_pem(own.pem().as_bytes()).unwrap();
        let client = Client::builder().add_root_certificate(ca).use_rustls_tls().no_proxy().build().unwrap();
        let url = format!("https://127.0.0.1:{port}");
        let api = Self { program, config, client, url };
        eventually("the service answers", async || {
            api.client.get(format!("{}/healthz", api.url)).send().await.ok()
        })
        .await;
        api
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let url = format!("{}/v1/clusters/{CLUSTER}{path}", self.url);
        let request = self.client.request(method, url).header("X-Auth-Token", "alice:demo:member");
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap_or_default())
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        let (status, said) = self.ask(Method::PUT, path, body).await;
        assert_eq!(status, 200, "{path} {said}");
        said
    }

    pub(crate) async fn delete(&self, path: &str) {
        let (status, said) = self.ask(Method::DELETE, path, Value::Null).await;
        assert_eq!(status, 204, "{path} {said}");
    }

    pub(crate) async fn state(&self) -> Value {
        self.ask(Method::GET, "", Value::Null).await.1
    }

    /// Waits until a load balancer is on the device.
    pub(crate) async fn applied(&self, name: &str) {
        eventually(&format!("{name} is applied"), async || {
            (self.state().await["load_balancers"][name]["applied"] == true).then_some(())
        })
        .await;
    }

    pub(crate) fn says(&self, command: &str) -> String {
        let said = Command::new(PROGRAM).args([command, "--config"]).arg(&self.config).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    }
}
