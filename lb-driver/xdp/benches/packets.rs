//! Nanoseconds per packet, by `BPF_PROG_TEST_RUN`, of the data plane as it is shipped and of a program that only
//! rewrites the MAC addresses, the least that a balancer must do. Both in turns, so that what else the machine does
//! hits both; ratios are of neighbouring rounds. Needs root. Prints one line of JSON per row. A word as argument: only
//! rows whose name has it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement fails by panicking"
)]

#[path = "../tests/packets/frames.rs"]
#[allow(dead_code, reason = "tests use all of it")]
mod frames;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
};

use ake_xdp::{
    config::Limits,
    maps::DataPlane,
    plan::{self, Book, Standing, Tables},
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, ProgramArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use frames::{ACK, Frame, OWN, SYN};
use lb_driver::model::{
    Affinity, Endpoint, LoadBalancer, MacAddr, Member, Owner, Pool, Protocol, State, Version,
};

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));
const FOUR: &str = "TCP established, 1 flow";
const SIX: &str = "TCP established over IPv6, 1 flow";
const VIPS: u32 = 1000;
const MEMBERS: u16 = 100;
const FLOWS: u32 = 200_000;
/// Short turns, many of them: a turn that another process interrupted stands out.
const ROUNDS: usize = 151;
const TURN: u32 = 10_000;

/// `struct source`: flows, VIPs, and whether each frame has a sequence number of its own.
#[derive(Clone, Copy)]
struct Source {
    flows: u32,
    vips: u32,
    numbers: bool,
}

impl Source {
    fn bytes(self, count: u64) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&count.to_ne_bytes());
        for (place, word) in bytes[8..].chunks_exact_mut(4).zip([self.flows, self.vips, self.numbers.into()])
        {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

struct Case {
    name: String,
    frame: Vec<u8>,
    /// What varies; none where one frame is repeated as it is.
    source: Option<Source>,
    action: u32,
    aim: Option<f64>,
}

struct Bench {
    plane: DataPlane,
    object: Ebpf,
    next: ProgramArray<MapData>,
    source: Array<MapData, [u8; 24]>,
    /// Frames so far, by case.
    counts: BTreeMap<String, u64>,
}

fn main() {
    // counters and sources are a processor's own
    let mut one = nix::sched::CpuSet::new();
    one.set(std::thread::available_parallelism().map_or(0, |count| count.get() - 1)).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one).unwrap();
    let mut bench = Bench::new();
    let word = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cases: Vec<_> = cases().into_iter().filter(|case| case.name.contains(&word)).collect();
    for case in &cases {
        bench.warm(case);
    }
    let mut taken = vec![(Vec::new(), Vec::new()); cases.len()];
    for _ in 0..ROUNDS {
        for (case, (limits, ours)) in cases.iter().zip(&mut taken) {
            limits.push(bench.limit(case));
            ours.push(bench.ours(case));
        }
    }
    let ratios = |of: &[f64], to: &[f64]| of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<_>>();
    for (case, (limits, ours)) in cases.iter().zip(&taken) {
        row(&case.name, ours, "ns", None);
        row(&format!("{}, in limits", case.name), &ratios(ours, limits), "x", case.aim);
    }
    let all = |many| {
        let of_it = cases.iter().zip(&taken).filter(|(case, _)| case.source.is_some() == many);
        of_it.flat_map(|(_, (limits, _))| limits.clone()).collect::<Vec<_>>()
    };
    row("the limit: MAC addresses alone", &all(false), "ns", None);
    row("the limit, with a source of many flows before it", &all(true), "ns", None);
    let find = |name: &str| cases.iter().position(|case| case.name == name).map(|place| &taken[place].1);
    if let (Some(four), Some(six)) = (find(FOUR), find(SIX)) {
        row("TCP established over IPv6, 1 flow, in those over IPv4", &ratios(six, four), "x", Some(1.2));
    }
}

fn row(what: &str, values: &[f64], unit: &str, aim: Option<f64>) {
    if values.is_empty() {
        return;
    }
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let [least, middle, most] = [0, values.len() / 2, values.len() - 1].map(|place| values[place]);
    println!(
        "{}",
        serde_json::json!({
            "what": what, "unit": unit, "least": least, "middle": middle, "most": most,
            "times": values.len(), "aim": aim,
        })
    );
}

fn cases() -> Vec<Case> {
    let vip4 = Ipv4Addr::from(0xc612_0000).to_string();
    let vip6 = "2001:db8:113::c612:0";
    let (four, six) = (Frame::v4("10.0.0.1", &vip4), Frame::v6("2001:db8:51::a00:1", vip6));
    let own = Frame::v4("10.0.0.1", "192.168.77.2");
    let one = |name: &str, frame, action, aim| Case {
        name: format!("{name}, 1 flow"),
        frame,
        source: None,
        action,
        aim,
    };
    let many = |name: &str, frame, source: Source| {
        let count = if source.flows == 0 { "ever new flows" } else { "200,000 flows" };
        Case { name: format!("{name}, {count}"), frame, source: Some(source), action: 3, aim: None }
    };
    let flows = Source { flows: FLOWS, vips: VIPS, numbers: false };
    let new = Source { flows: 0, vips: VIPS, numbers: true };
    vec![
        one("TCP established", four.tcp(1024, 80, ACK, 1), 3, Some(1.6)),
        one("UDP", four.udp(1024, 53, &[0; 18]), 3, None),
        one("TCP established over IPv6", six.tcp(1024, 80, ACK, 1), 3, None),
        one("not to a VIP", own.tcp(1024, 80, ACK, 1), 2, None),
        many("TCP established", four.tcp(1024, 80, ACK, 1), flows),
        many("UDP", four.udp(1024, 53, &[0; 18]), flows),
        many("TCP established over IPv6", six.tcp(1024, 80, ACK, 1), flows),
        Case {
            name: "SYN, on old ports".to_owned(),
            source: Some(Source { flows: 1, vips: 1, numbers: true }),
            ..many("", four.tcp(1024, 80, SYN, 1), new)
        },
        Case { aim: Some(4.0), ..many("SYN with insertion", four.tcp(1024, 80, SYN, 1), new) },
        many("SYN with insertion over IPv6", six.tcp(1024, 80, SYN, 1), new),
    ]
}

fn state() -> State {
    let owner = |object: &str| Owner::new("project", "cluster", object).unwrap();
    let mac = Some(MacAddr::new(OWN).unwrap());
    let member = |index: u16| {
        let address = IpAddr::from(Ipv4Addr::from(0xc0a8_4d00 + u32::from(index)));
        (format!("node-{index}"), Member { address, mac, weight: 1, draining: false })
    };
    let endpoint = |protocol, port| Endpoint { protocol, port: NonZeroU16::new(port).unwrap() };
    let balancer = |vip: IpAddr| LoadBalancer {
        vip,
        listeners: [endpoint(Protocol::Tcp, 80), endpoint(Protocol::Udp, 53)]
            .map(|e| (e, owner("nodes")))
            .into(),
        source_ranges: BTreeSet::new(),
        affinity: Affinity::None,
    };
    let network = u128::from("2001:db8:113::".parse::<Ipv6Addr>().unwrap());
    let mut load_balancers = BTreeMap::new();
    for index in 0xc612_0000..0xc612_0000 + VIPS {
        load_balancers.insert(owner(&format!("four-{index}")), balancer(Ipv4Addr::from(index).into()));
        let six = Ipv6Addr::from(network + u128::from(index));
        load_balancers.insert(owner(&format!("six-{index}")), balancer(six.into()));
    }
    let pool = Pool { members: (1..=MEMBERS).map(member).collect(), checks: BTreeSet::new() };
    State { version: Version::default(), pools: BTreeMap::from([(owner("nodes"), pool)]), load_balancers }
}

impl Bench {
    fn new() -> Self {
        // no flood: what is measured is insertion
        let limits = Limits { new_flows: 1 << 31, ..Limits::default() };
        let mut plane = DataPlane::load(MacAddr::new(OWN).unwrap(), &limits).expect("needs root");
        let tables = Book::new(limits, vec![]).tables(&state(), |_, _| Standing::Well).unwrap();
        for write in plan::writes(&Tables::default(), &tables) {
            plane.write(&write).unwrap();
        }
        let mut object = EbpfLoader::new().override_global("own_mac", &OWN, true).load(OBJECT).unwrap();
        for name in ["limit", "many"] {
            program(&mut object, name).load().unwrap();
        }
        let next = ProgramArray::try_from(object.take_map("next").unwrap()).unwrap();
        let source = Array::try_from(object.take_map("source").unwrap()).unwrap();
        Self { plane, object, next, source, counts: BTreeMap::new() }
    }

    fn warm(&mut self, case: &Case) {
        let (action, _) = self.run(case, false, 1);
        assert_eq!(action, case.action, "{}", case.name);
        self.run(case, false, FLOWS);
    }

    fn limit(&mut self, case: &Case) -> f64 {
        self.run(case, true, TURN).1
    }

    fn ours(&mut self, case: &Case) -> f64 {
        self.run(case, false, TURN).1
    }

    /// Runs a case so many times: the verdict, and the time of each in nanoseconds.
    fn run(&mut self, case: &Case, limit: bool, times: u32) -> (u32, f64) {
        let options = TestRunOptions { data_in: Some(&case.frame), repeat: times, ..Default::default() };
        let Some(source) = case.source else {
            let result = match limit {
                true => program(&mut self.object, "limit").test_run(options).unwrap(),
                false => self.plane.program().unwrap().test_run(options).unwrap(),
            };
            return (result.return_value, result.duration.as_nanos() as f64);
        };
        let count = self.counts.entry(case.name.clone()).or_default();
        self.source.set(0, source.bytes(*count), 0).unwrap();
        *count += if limit { 0 } else { u64::from(times) };
        let fd = match limit {
            true => program(&mut self.object, "limit").fd().unwrap().try_clone().unwrap(),
            false => self.plane.program().unwrap().fd().unwrap().try_clone().unwrap(),
        };
        self.next.set(0, &fd, 0).unwrap();
        let result = program(&mut self.object, "many").test_run(options).unwrap();
        (result.return_value, result.duration.as_nanos() as f64)
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    object.program_mut(name).unwrap().try_into().unwrap()
}
