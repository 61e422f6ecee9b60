//! A small network in namespaces: client - router - switch - balancer and two members. Everything has a name of
//! its own and goes when the value goes, also when the test fails.
#![allow(dead_code, reason = "no test uses everything")]

pub(crate) mod control;
pub(crate) mod pair;

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::chown, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub(crate) const VIP: &str = "203.0.113.17";
pub(crate) const VIP6: &str = "2001:db8:113::17";
pub(crate) const BALANCER: &str = "192.168.77.2";
pub(crate) const BALANCER2: &str = "192.168.77.3";
/// Folders of the balancers' pins.
const PINS: [&str; 2] = ["balancer-pins", "balancer2-pins"];
const NOBODY: u32 = 65_534;
/// Of both members.
pub(crate) const PORT: u16 = 8080;

/// Namespace, address, IPv6 address and MAC address of each station on the switch.
pub(crate) const STATIONS: [(&str, &str, &str, &str); 5] = [
    ("router", "192.168.77.1", "fd00:77::1", "fa:16:3e:00:00:01"),
    ("balancer", BALANCER, "fd00:77::2", "fa:16:3e:00:00:02"),
    ("balancer2", BALANCER2, "fd00:77::3", "fa:16:3e:00:00:03"),
    ("m1", "192.168.77.21", "fd00:77::21", "fa:16:3e:00:00:21"),
    ("m2", "192.168.77.22", "fd00:77::22", "fa:16:3e:00:00:22"),
];

pub(crate) struct World {
    prefix: String,
    namespaces: Vec<String>,
    pub(crate) folder: tempfile::TempDir,
    /// Tests of one file take turns: whoever starts a program beside a copy that is being written keeps it from running.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl World {
    pub(crate) fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        // as `ake-xdp prepare` leaves it
        for pins in PINS {
            let pins = folder.path().join(pins);
            ake_xdp::pins::prepare(&pins).unwrap();
            chown(&pins, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let prefix = format!("ake-xdp-{}", std::process::id());
        let mut world = Self { prefix, namespaces: Vec::new(), folder, _turn: turn };
        for name in ["client", "switch"].into_iter().chain(STATIONS.map(|station| station.0)) {
            let namespace = world.namespace(name);
            run(&format!("ip netns add {namespace}"));
            world.namespaces.push(namespace);
            world.ip(name, "link set lo up");
            // without it, addresses are no addresses for their first seconds
            world.inside(name, || fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap());
        }
        world.ip("switch", "link add br0 type bridge mcast_snooping 0");
        world.ip("switch", "link set br0 up");
        for (name, v4, v6, mac) in STATIONS {
            let peer = world.namespace("switch");
            world.ip(name, &format!("link add eth0 address {mac} type veth peer name {name} netns {peer}"));
            world.ip("switch", &format!("link set {name} master br0 up"));
            world.ip(name, &format!("address add {v4}/24 dev eth0"));
            world.ip(name, &format!("address add {v6}/64 dev eth0 nodad"));
            world.ip(name, "link set eth0 up");
            if name != "router" {
                world.ip(name, "route add default via 192.168.77.1");
                world.ip(name, "route add default via fd00:77::1");
            }
        }
        let peer = world.namespace("router");
        world.ip("client", &format!("link add eth0 type veth peer name clients netns {peer}"));
        for (name, link, host) in [("client", "eth0", 2), ("router", "clients", 1)] {
            world.ip(name, &format!("address add 198.51.100.{host}/24 dev {link}"));
            world.ip(name, &format!("address add 2001:db8:51::{host}/64 dev {link} nodad"));
            world.ip(name, &format!("link set {link} up"));
        }
        world.ip("client", "route add default via 198.51.100.1");
        world.ip("client", "route add default via 2001:db8:51::1");
        world.ip("router", "route add 203.0.113.0/24 via 192.168.77.2");
        world.ip("router", "route add 2001:db8:113::/112 via fd00:77::2");
        world.inside("router", || {
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
            }
        });
        for member in ["m1", "m2"] {
            world.ip(member, &format!("address add {VIP}/32 dev lo"));
            world.ip(member, &format!("address add {VIP6}/128 dev lo nodad"));
            world.inside(member, || {
                fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").unwrap();
                fs::write("/proc/sys/net/ipv4/conf/all/arp_announce", "2").unwrap();
            });
        }
        world
    }

    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn ip(&self, name: &str, arguments: &str) {
        let family = if arguments.contains("::") { "-6" } else { "" };
        run(&format!("ip {family} -netns {} {arguments}", self.namespace(name)));
    }

    /// Runs code in a namespace: what sockets it opens stay there.
    pub(crate) fn inside<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(Path::new("/run/netns").join(self.namespace(name))).unwrap();
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A server on every address of a member. To "who" it answers with its name, to "much" with [`MUCH`]
    /// bytes, to "take" and as many bytes with its name.
    pub(crate) fn serve(&self, member: &'static str) -> Server {
        self.serve_at(member, "::")
    }

    /// As [`serve`](Self::serve), on one address alone.
    pub(crate) fn serve_at(&self, member: &'static str, address: &str) -> Server {
        let listener = self.inside(member, || TcpListener::bind((address, PORT)).unwrap());
        Server::start(member, listener)
    }

    /// Answers datagrams to the VIP with themselves, for as long as the test lasts.
    pub(crate) fn echo(&self, member: &'static str) {
        let socket = self.inside(member, || UdpSocket::bind((VIP, PORT)).unwrap());
        thread::spawn(move || {
            let mut datagram = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&datagram[..length], from);
            }
        });
    }

    pub(crate) fn connect(&self, vip: &str) -> std::io::Result<Client> {
        self.connect_within(vip, Duration::from_secs(10))
    }

    /// Whether nobody answers; a repetition of the first packet is not waited for.
    pub(crate) fn is_silent(&self, vip: &str) -> bool {
        self.connect_within(vip, Duration::from_millis(300)).is_err()
    }

    fn connect_within(&self, vip: &str, time: Duration) -> std::io::Result<Client> {
        self.connect_from("client", vip, time)
    }

    /// As [`connect`](Self::connect), from one of the other stations.
    pub(crate) fn connect_from(&self, name: &str, vip: &str, time: Duration) -> std::io::Result<Client> {
        let address = SocketAddr::new(vip.parse::<IpAddr>().unwrap(), PORT);
        let stream = self.inside(name, move || TcpStream::connect_timeout(&address, time))?;
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Bytes to and from a station, as its port of the switch counts them.
    pub(crate) fn bytes(&self, station: &'static str) -> (u64, u64) {
        let port = self.namespace("switch");
        let output =
            Command::new("ip").args(["-netns", &port, "-s", "-j", "link", "show", station]).output().unwrap();
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |way: &str| links[0]["stats64"][way]["bytes"].as_u64().unwrap();
        (count("tx"), count("rx"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
        for pins in PINS {
            let _ = umount2(&self.folder.path().join(pins), MntFlags::MNT_DETACH);
        }
    }
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Who answers.
    pub(crate) fn who(&mut self) -> std::io::Result<String> {
        self.stream.get_mut().write_all(b"who\n")?;
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// A long request: who took it.
    pub(crate) fn take(&mut self) -> std::io::Result<String> {
        let stream = self.stream.get_mut();
        stream.write_all(b"take\n")?;
        stream.write_all(&vec![b'.'; MUCH as usize])?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Bytes of a long answer.
    pub(crate) fn much(mut self) -> u64 {
        self.stream.get_mut().write_all(b"much\n").unwrap();
        std::io::copy(&mut self.stream, &mut std::io::sink()).unwrap()
    }
}

/// A long request and its long answer are this long.
pub(crate) const MUCH: u64 = 4 << 20;

/// A server in a member; it refuses connections once this goes.
pub(crate) struct Server {
    listener: TcpListener,
    worker: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(name: &'static str, listener: TcpListener) -> Self {
        let accepting = listener.try_clone().unwrap();
        let worker = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                thread::spawn(move || answer(name, stream));
            }
        });
        Self { listener, worker: Some(worker) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        use nix::sys::socket::{Shutdown, shutdown};
        use std::os::fd::AsRawFd as _;
        // ends the accept that the worker waits in
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        let _ = self.worker.take().map(thread::JoinHandle::join);
    }
}

fn answer(name: &str, stream: TcpStream) {
    let mut writing = stream.try_clone().unwrap();
    let mut reading = BufReader::new(stream);
    let mut line = String::new();
    while reading.read_line(&mut line).is_ok_and(|length| length > 0) {
        let done = match line.trim_end() {
            "take" => {
                let taken = std::io::copy(&mut (&mut reading).take(MUCH), &mut std::io::sink());
                taken.and_then(|_| writeln!(writing, "{name}"))
            }
            "much" => {
                let _ = writing.write_all(&vec![b'.'; MUCH as usize]);
                return;
            }
            _ => writeln!(writing, "{name}"),
        };
        if done.is_err() {
            return;
        }
        line.clear();
    }
}

/// The program itself, in the balancer's namespace.
pub(crate) struct Balancer {
    child: Child,
    log: PathBuf,
}

impl Balancer {
    pub(crate) fn start(world: &World, config: &Path) -> Self {
        Self::start_on(world, "balancer", config)
    }

    /// As [`start`](Self::start), on one of the balancers' hosts.
    pub(crate) fn start_on(world: &World, station: &str, config: &Path) -> Self {
        let log = world.folder.path().join(format!("{station}.log"));
        // as the unit starts it: somebody with these capabilities and no others
        let folder = world.folder.path();
        let program = folder.join("ake-xdp");
        if !program.exists() {
            fs::copy(env!("CARGO_BIN_EXE_ake-xdp"), &program).unwrap();
            chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let capabilities = capabilities();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &world.namespace(station), "setpriv", "--clear-groups"])
            .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
            .args(
                ["--inh-caps", "--ambient-caps", "--bounding-set"].map(|set| format!("{set}={capabilities}")),
            )
            .arg(&program)
            .args(["serve", "--config"])
            .arg(config)
            .stderr(File::create(&log).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let said = || fs::read_to_string(&log).unwrap();
        eventually("ake-xdp is ready", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "ake-xdp ended: {}", said());
            said().contains("ready")
        });
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// As a crash would.
    pub(crate) fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As systemd would.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}, signal {:?}: {}", status.signal(), self.log());
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The unit's, as setpriv takes them.
fn capabilities() -> String {
    let unit = include_str!("../../systemd/ake-xdp.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
    let names = line.split_whitespace().map(|name| name.trim_start_matches("CAP_").to_lowercase());
    names.fold("-all".to_owned(), |all, name| format!("{all},+{name}"))
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
