//! Certificates and the audit log are taken in anew while the program runs, over real TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use common::{Ended, eventually, example, free_port, kept_in, serve};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

/// An authority, and a certificate of it for this machine's loopback.
struct Certificate {
    authority: String,
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn new(name: &str) -> Self {
        let mut authority = CertificateParams::new(vec![]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Self {
            authority: issuer.pem(),
            certificate: leaf.pem(),
            key: key.serialize_pem(),
            der: leaf.der().clone(),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        roots
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A balancer as far as TLS: it takes clients of an authority, and remembers the certificates that they showed.
struct Balancer {
    url: String,
    trusts: Arc<Mutex<Arc<ServerConfig>>>,
    shown: Arc<Mutex<Vec<CertificateDer<'static>>>>,
}

impl Balancer {
    fn config(own: &Certificate) -> Arc<ServerConfig> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(own.roots()), provider()).build().unwrap();
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own.der.clone()], key)
            .unwrap();
        Arc::new(config)
    }

    async fn start(own: &Certificate) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (trusts, shown) = (Arc::new(Mutex::new(Self::config(own))), Arc::new(Mutex::new(vec![])));
        let (now, seen) = (Arc::clone(&trusts), Arc::clone(&shown));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&now.lock().unwrap()));
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    // a client of the other authority is turned away, and comes again
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
                    seen.lock().unwrap().push(shown);
                    // it says nothing that a client could use, and may go first
                    let _ = stream
                        .write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
                        .await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { url, trusts, shown }
    }
}

/// The program in a folder of its own.
struct Program {
    child: Ended,
    folder: tempfile::TempDir,
    port: u16,
}

impl Program {
    fn start(own: &Certificate, device: &Certificate, balancer: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, metrics) = (free_port(), free_port());
        let changes = [
            ("0.0.0.0:9511", format!("127.0.0.1:{port}")),
            ("127.0.0.1:9510", format!("127.0.0.1:{metrics}")),
            ("http://192.0.2.2:5000/v3", "http://127.0.0.1:9/v3".to_owned()),
            ("https://192.168.77.2:9512", balancer.to_owned()),
        ];
        let config = example(changes.into_iter().chain(kept_in(folder.path())));
        write(&folder.path().join("keystone-password"), "secret");
        put(folder.path(), "api", own);
        put(folder.path(), "balancer-client", device);
        write(&folder.path().join("balancer-ca.crt"), &device.authority);
        let child = serve(folder.path(), "api", &config);
        Self { child, folder, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn hang_up(&self) {
        self.child.signal("-HUP");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("api.log")).unwrap()
    }

    /// A new connection; none if the program's certificate is not of this authority.
    async fn connect(&self, authority: &Certificate) -> Option<TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
    }
}

/// Whole, or not at all: the program may look at any moment.
fn write(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn put(folder: &Path, name: &str, certificate: &Certificate) {
    write(&folder.join(format!("{name}.crt")), &certificate.certificate);
    write(&folder.join(format!("{name}.key")), &certificate.key);
}

/// The status of one request on a connection that stays open.
async fn ask(stream: &mut TlsStream<TcpStream>, method: &str) -> u16 {
    let request = format!("{method} /v1/clusters HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // the answer is one JSON object behind its head
    while !answer.ends_with(b"}") {
        let mut some = [0; 4096];
        let count = stream.read(&mut some).await.unwrap();
        assert!(count > 0, "the connection was ended: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..count]);
    }
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn new_certificates_and_a_new_audit_log_are_taken_in_and_bad_ones_are_not() {
    let (first, second) = (Certificate::new("first"), Certificate::new("second"));
    let (device, device_next) = (Certificate::new("device"), Certificate::new("device next"));
    let balancer = Balancer::start(&device).await;
    let program = Program::start(&first, &device, &balancer.url);
    let mut standing = eventually("it serves", async || program.connect(&first).await).await;
    assert_eq!(ask(&mut standing, "POST").await, 405);

    // a key that does not fit is half a change: nothing is taken, and it is said
    write(&program.path("api.crt"), &second.certificate);
    program.hang_up();
    eventually("it says so", async || program.log().contains("the old one stays in use").then_some(())).await;
    let log = program.log();
    assert!(log.contains("tls.key") && log.contains("ERROR"), "{log}");
    assert!(program.connect(&first).await.is_some() && program.connect(&second).await.is_none());

    // the whole change is taken, and who is connected stays so
    put(program.folder.path(), "api", &second);
    program.hang_up();
    let mut new = eventually("the new certificate", async || program.connect(&second).await).await;
    assert!(program.connect(&first).await.is_none());
    assert_eq!((ask(&mut standing, "POST").await, ask(&mut new, "POST").await), (405, 405));

    // the audit log goes on in a new file once the old one was moved away
    let (audit, moved) = (program.path("audit.jsonl"), program.path("audit.jsonl.1"));
    std::fs::rename(&audit, &moved).unwrap();
    let lines = |path: &Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    let before = lines(&moved);
    assert_eq!(ask(&mut standing, "POST").await, 405);
    assert_eq!(lines(&moved), before + 1, "nothing is lost before it is told");
    program.hang_up();
    eventually("the new file", async || audit.exists().then_some(())).await;
    assert_eq!(ask(&mut standing, "POST").await, 405);
    assert_eq!((lines(&moved), lines(&audit)), (before + 1, 1));

    // what balancers are shown, and the authority that they are trusted by
    eventually("it asks the balancer", async || balancer.shown.lock().unwrap().last().cloned()).await;
    assert!(balancer.shown.lock().unwrap().iter().all(|shown| *shown == device.der));
    *balancer.trusts.lock().unwrap() = Balancer::config(&device_next);
    put(program.folder.path(), "balancer-client", &device_next);
    write(&program.path("balancer-ca.crt"), &device_next.authority);
    program.hang_up();
    eventually("the balancer sees the new one", async || {
        balancer.shown.lock().unwrap().last().filter(|shown| **shown == device_next.der).map(drop)
    })
    .await;
}
