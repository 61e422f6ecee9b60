//! What the tests of the program share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ake-api");

/// Nothing takes so long; what is asserted is what happens, not when.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the test `name`, which calls this, again in namespaces of its own, of the network and of the mounts that hold pinned maps;
/// there the story is told.
pub(crate) fn apart(name: &str, story: impl Future<Output = ()>) {
    const INSIDE: &str = "AKE_APART";
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(story);
    }
    let done = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(done.success());
}

/// A port of the loopback that nobody has now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until there is something to be seen.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: it does not happen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A program that ends with its owner.
pub(crate) struct Ended(pub(crate) Child);

impl Ended {
    pub(crate) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The example's configuration with each of these texts, which all stand in it, changed to another.
pub(crate) fn example<'a>(changes: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let example = Command::new(PROGRAM).arg("example-config").output().unwrap().stdout;
    changes.into_iter().fold(String::from_utf8(example).unwrap(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, &to)
    })
}

/// Changes that have the program keep all that it reads and writes in a folder.
pub(crate) fn kept_in(folder: &Path) -> [(&'static str, String); 3] {
    ["/etc/ake/", "/var/lib/ake/", "/var/log/ake/"].map(|path| (path, format!("{}/", folder.display())))
}

/// Changes that have it use the files of [`certificates`], by the names that they have in the folder.
pub(crate) fn certified() -> [(&'static str, String); 5] {
    [
        ("ake/api.crt", "ake/own.crt"),
        ("ake/api.key", "ake/own.key"),
        ("ake/balancer-ca.crt", "ake/ca.crt"),
        ("ake/balancer-client.crt", "ake/own.crt"),
        ("ake/balancer-client.key", "ake/own.key"),
    ]
    .map(|(from, to)| (from, to.to_owned()))
}

/// The program with a configuration, which stands in the folder as `NAME.toml` then, and its log as `NAME.log`.
pub(crate) fn serve(folder: &Path, name: &str, config: &str) -> Ended {
    let file = folder.join(format!("{name}.toml"));
    std::fs::write(&file, config).unwrap();
    let log = std::fs::File::options().create(true).append(true).open(folder.join(format!("{name}.log")));
    let child = Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(file)
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(log.unwrap())
        .spawn();
    Ended(child.unwrap())
}

/// Runs a command of words without blanks.
pub(crate) fn run(command: &str) {
    let mut words = command.split(' ');
    assert!(Command::new(words.next().unwrap()).args(words).status().unwrap().success(), "{command}");
}

/// `ca.crt`, and `own.crt` with `own.key` of it, for the loopback.
pub(crate) fn certificates(folder: &Path) {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (name, text) in [("ca.crt", issuer.pem()), ("own.crt", leaf.pem()), ("own.key", key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// `ake-xdp` on eth0 as it is shipped, at https://127.0.0.1:9512, with more of its configuration behind what is needed.
pub(crate) fn balancer(folder: &Path, more: &str) -> Ended {
    let own = PathBuf::from(PROGRAM);
    let program = own.with_file_name("ake-xdp");
    assert!(
        program.exists(),
        "{}: expected the balancer's program: cargo build -p ake-xdp",
        program.display()
    );
    let here = folder.display();
    let text = format!(
        "interface = \"eth0\"\nlisten = \"127.0.0.1:9512\"\nstate = \"{here}/state.json\"\nsocket = \"{here}/show.sock\"\n\
         pins = \"{here}/pins\"\n\
         [tls]\ncertificate = \"{here}/own.crt\"\nkey = \"{here}/own.key\"\nclient_ca = \"{here}/ca.crt\"\n\
         [limits]\nflows = 1024\n{more}"
    );
    std::fs::write(folder.join("xdp.toml"), text).unwrap();
    Ended(Command::new(program).args(["serve", "--config"]).arg(folder.join("xdp.toml")).spawn().unwrap())
}
