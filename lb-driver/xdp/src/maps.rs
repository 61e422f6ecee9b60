//! The data plane in the kernel: loads it, attaches it, writes its maps and reads its counters.
//!
//! A process that takes over from another one fills maps of its own and shares only flows and counters, so packets meet
//! the old data plane or the new one, whole: the kernel swaps the program at once.

use std::sync::Arc;

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuHashMap,
        PerCpuValues, RingBuf, lpm_trie::Key,
    },
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp, links::LinkError},
    util::nr_cpus,
};
use lb_driver::model::MacAddr;

use crate::{
    config::Limits,
    layout,
    memory::{self, Memory, Place},
    pins::{Pins, PinsError},
    plan::Write,
    table,
};

mod attach;
mod counters;
mod flows;
mod survive;

pub use counters::PortDrops;
pub use flows::{FlowEntry, FlowTable};

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer.bpf.o"));
const PROGRAM: &str = "ake_balancer";
/// Its switches, pinned for `stand_down`.
const CONTROL: &str = "control";
/// Enters what the other instance of a pair tells.
const HEAR: &str = "ake_hear";
/// `BPF_F_INNER_MAP`: rings of one array may have different sizes.
const INNER_MAP: u32 = 1 << 12;

/// Why the kernel does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// The object was refused.
    #[error("loading the data plane: {}", chain(.0))]
    Load(#[from] aya::EbpfError),
    /// The program was refused, or could not be attached.
    #[error("the data plane's program: {}", chain(.0))]
    Program(#[from] ProgramError),
    /// A map's write or read failed.
    #[error("map {map}: {}", chain(.cause))]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        cause: MapError,
    },
    /// The object is not the one that this program was built for.
    #[error("the data plane has no {0}")]
    Missing(&'static str),
    /// What shall survive could not be pinned, or what survived not be found.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The attachment could not be pinned.
    #[error("pinning the data plane: {0}")]
    Pin(#[from] aya::pin::PinError),
    /// The attachment that was found could not be taken over.
    #[error("taking the data plane over: {}", chain(.0))]
    Link(#[from] LinkError),
    /// There is no chance to be had.
    #[error("reading /dev/urandom: {0}")]
    Seed(std::io::Error),
    /// The number of processors is unknown.
    #[error("/sys/devices/system/cpu/possible: {0}")]
    Processors(String),
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A loaded data plane. Without pins, it is detached when this value goes.
pub struct DataPlane {
    object: Ebpf,
    pins: Option<Pins>,
    memory: Memory,
    places: Array<MapData, memory::PlaceRecord>,
    ports: Array<MapData, memory::PortRecord>,
    flows: Arc<FlowTable>,
    news: RingBuf<MapData>,
    listeners: HashMap<MapData, layout::ListenerKey, layout::Listener>,
    vips: HashMap<MapData, layout::VipKey, u32>,
    sources: LpmTrie<MapData, layout::SourceKey, u32>,
    rings: ArrayOfMaps<MapData, Array<MapData, layout::Chunk>>,
    ring_sizes: Array<MapData, u32>,
    members: Array<MapData, layout::Member>,
    listener_traffic: PerCpuArray<MapData, layout::Traffic>,
    member_flows: PerCpuArray<MapData, u64>,
    drops: PerCpuArray<MapData, u64>,
    port_drops: PerCpuHashMap<MapData, layout::PortDropKey, u64>,
    rates: PerCpuArray<MapData, layout::Rate>,
    control: Array<MapData, layout::Control>,
    no_ring: Array<MapData, layout::Chunk>,
    processors: usize,
}

impl DataPlane {
    /// Loads it for an interface with this address.
    pub fn load(own: MacAddr, limits: &Limits) -> Result<Self, MapsError> {
        Self::create(own, limits, None, false)
    }

    /// Loads it to take the flows and counters over that `pins` has. It has no part in what is attached until
    /// [`attach`](Self::attach). One of a pair tells of flows that begin.
    pub fn resume(own: MacAddr, limits: &Limits, pins: Pins, paired: bool) -> Result<Self, MapsError> {
        Self::create(own, limits, Some(pins), paired)
    }

    fn create(own: MacAddr, limits: &Limits, pins: Option<Pins>, paired: bool) -> Result<Self, MapsError> {
        let own = own.octets();
        // the program's seconds are of 2^30 ns
        let new_flows = (u64::from(limits.new_flows) << 30) / 1_000_000_000;
        // What comes is there before what it replaces goes: for a moment there is both.
        let both = |limit: u32| limit.saturating_mul(2);
        let mut loader = EbpfLoader::new();
        let (bits, seed) = (table::bits(limits), survive::seed(pins.as_ref())?);
        let survivors = survive::find(pins.as_ref(), limits)?;
        for survivor in &survivors {
            loader.map_pin_path(survivor.name, survivor.path.clone());
        }
        if let Some(pins) = &pins {
            loader.map_pin_path(CONTROL, pins.table(CONTROL));
        }
        let mut object = loader
            .override_global("own_mac", &own, true)
            .override_global("new_flows", &new_flows, true)
            .override_global("seed", &seed, true)
            .override_global("bucket_shift", &(64 - bits), true)
            .override_global("paired", &u32::from(paired), true)
            .map_max_entries("news", if paired { flows::NEWS } else { 4096 })
            .map_max_entries("listeners", both(limits.listeners))
            .map_max_entries("vips", both(limits.listeners))
            .map_max_entries("sources", both(limits.source_ranges))
            .map_max_entries("rings", limits.pools)
            .map_max_entries("ring_sizes", limits.pools)
            .map_max_entries("members", limits.members)
            .map_max_entries("flows", 1 << bits)
            .map_max_entries("flow_keys", 1 << bits)
            .map_max_entries("fragments", limits.fragments)
            .map_max_entries("port_drops", survive::port_drops(limits))
            .map_max_entries("listener_traffic", limits.listeners)
            .map_max_entries("member_flows", limits.members)
            .load(OBJECT)?;
        for name in [PROGRAM, HEAR] {
            xdp_mut(&mut object, name)?.load()?;
        }
        survive::carry(&survivors, flows::time(&object)?)?;
        let places = survive::array(pins.as_ref(), "places", limits.members)?;
        let ports = survive::array(pins.as_ref(), "ports", limits.listeners)?;
        Ok(Self {
            memory: survive::memory(&places, &ports)?,
            places,
            ports,
            pins,
            flows: Arc::new(FlowTable::take(&mut object, seed)?),
            news: take(&mut object, "news")?,
            listeners: take(&mut object, "listeners")?,
            vips: take(&mut object, "vips")?,
            sources: take(&mut object, "sources")?,
            rings: take(&mut object, "rings")?,
            ring_sizes: take(&mut object, "ring_sizes")?,
            members: take(&mut object, "members")?,
            listener_traffic: take(&mut object, "listener_traffic")?,
            member_flows: take(&mut object, "member_flows")?,
            drops: take(&mut object, "drops")?,
            port_drops: take(&mut object, "port_drops")?,
            rates: take(&mut object, "rates")?,
            control: take(&mut object, CONTROL)?,
            no_ring: ring(&[]).map_err(|cause| MapsError::Map { map: "rings", cause })?,
            processors: nr_cpus()
                .map_err(|(file, error)| MapsError::Processors(format!("{file}: {error}")))?,
            object,
        })
    }

    /// Who had which place when the tables were taken over.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Performs one write; what processors found out before it holds no more.
    pub fn write(&mut self, write: &Write) -> Result<(), MapsError> {
        self.perform(write)?;
        match write {
            Write::Member(..) | Write::CloseMember(_) | Write::Listener(..) | Write::CloseListener(..) => {
                self.control(|[_, epoch]| *epoch = epoch.wrapping_add(1))
            }
            _ => Ok(()),
        }
    }

    fn perform(&mut self, write: &Write) -> Result<(), MapsError> {
        match write {
            Write::ZeroMember(slot) => {
                let zero = self.zero(0)?;
                self.member_flows.set((*slot).into(), zero, 0).map_err(of("member_flows"))
            }
            Write::ZeroListener(id) => {
                let zero = self.zero([0; 2])?;
                self.listener_traffic.set(*id, zero, 0).map_err(of("listener_traffic"))
            }
            Write::Place(slot, place) => {
                self.places.set((*slot).into(), place.record(), 0).map_err(of("places"))
            }
            Write::Port(id, identity) => {
                self.ports.set(*id, memory::port_record(*identity), 0).map_err(of("ports"))
            }
            Write::ClosePort(id) => {
                self.ports.set(*id, memory::PortRecord::default(), 0).map_err(of("ports"))
            }
            Write::Member(slot, station) => {
                let value = layout::member(station.mac, station.well, station.generation);
                self.members.set((*slot).into(), value, 0).map_err(of("members"))
            }
            Write::CloseMember(slot) => {
                let key = u32::from(*slot);
                let mut value = self.members.get(&key, 0).map_err(of("members"))?;
                value[..8].fill(0);
                self.members.set(key, value, 0).map_err(of("members"))?;
                let record = self.places.get(&key, 0).map_err(of("places"))?;
                self.places.set(key, Place::closed(record), 0).map_err(of("places"))
            }
            Write::Ring(index, slots) => {
                let ring = ring(slots).map_err(of("rings"))?;
                self.rings.set(*index, &ring, 0).map_err(of("rings"))?;
                let size = u32::try_from(slots.len()).unwrap_or(u32::MAX);
                self.ring_sizes.set(*index, size, 0).map_err(of("ring_sizes"))
            }
            Write::CloseRing(index) => {
                self.rings.set(*index, &self.no_ring, 0).map_err(of("rings"))?;
                self.ring_sizes.set(*index, 0, 0).map_err(of("ring_sizes"))
            }
            Write::Source(acl, range) => {
                let (prefix, key) = layout::source_key(*acl, *range);
                self.sources.insert(&Key::new(prefix, key), 1, 0).map_err(of("sources"))
            }
            Write::CloseSource(acl, range) => {
                let (prefix, key) = layout::source_key(*acl, *range);
                gone(self.sources.remove(&Key::new(prefix, key))).map_err(of("sources"))
            }
            Write::Vip(vip, on_link) => {
                let flags = if *on_link { layout::VIP_ON_LINK } else { 0 };
                self.vips.insert(layout::vip_key(*vip), flags, 0).map_err(of("vips"))
            }
            Write::CloseVip(vip) => {
                gone(self.vips.remove(&layout::vip_key(*vip))).map_err(of("vips"))?;
                self.forget_drops(layout::no_listener_key(*vip))
            }
            Write::Listener(vip, endpoint, listener) => {
                let key = layout::listener_key(*vip, *endpoint);
                self.listeners.insert(key, layout::listener(listener), 0).map_err(of("listeners"))
            }
            Write::CloseListener(vip, endpoint) => {
                let key = layout::listener_key(*vip, *endpoint);
                gone(self.listeners.remove(&key)).map_err(of("listeners"))?;
                self.forget_drops(key)
            }
        }
    }

    /// Whether neighbours that ask for VIPs on the link get answers: of a pair, one instance gives them.
    pub fn set_active(&mut self, active: bool) -> Result<(), MapsError> {
        self.control(|[flags, _]| *flags = if active { 0 } else { layout::CONTROL_STANDBY })
    }

    fn control(&mut self, change: impl FnOnce(&mut layout::Control)) -> Result<(), MapsError> {
        let mut control = self.control.get(&0, 0).map_err(of("control"))?;
        change(&mut control);
        self.control.set(0, control, 0).map_err(of("control"))
    }

    /// The program itself, for those who measure it.
    pub fn program(&mut self) -> Result<&mut Xdp, MapsError> {
        program(&mut self.object)
    }

    /// Runs the program over one frame, without an interface: its verdict and what became of the frame.
    pub fn run(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>), MapsError> {
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: 1,
            ..Default::default()
        };
        let result = program(&mut self.object)?.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    fn zero<T: aya::Pod>(&self, zero: T) -> Result<PerCpuValues<T>, MapsError> {
        PerCpuValues::try_from(vec![zero; self.processors])
            .map_err(|error| MapsError::Processors(error.to_string()))
    }
}

fn of(map: &'static str) -> impl Fn(MapError) -> MapsError {
    move |cause| MapsError::Map { map, cause }
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, MapsError> {
    xdp_mut(object, PROGRAM)
}

fn xdp_mut<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, MapsError> {
    Ok(object.program_mut(name).ok_or(MapsError::Missing(name))?.try_into()?)
}

fn xdp<'a>(object: &'a Ebpf, name: &'static str) -> Result<&'a Xdp, MapsError> {
    Ok(object.program(name).ok_or(MapsError::Missing(name))?.try_into()?)
}

fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &'static str) -> Result<T, MapsError> {
    let map = object.take_map(name).ok_or(MapsError::Missing(name))?;
    map.try_into().map_err(of(name))
}

fn ring(slots: &[u16]) -> Result<Array<MapData, layout::Chunk>, MapError> {
    let chunks = layout::chunks(slots);
    let mut ring = Array::create(u32::try_from(chunks.len()).unwrap_or(u32::MAX), INNER_MAP)?;
    for (index, chunk) in (0..).zip(chunks) {
        ring.set(index, chunk, 0)?;
    }
    Ok(ring)
}

/// What shall go and is gone already, is gone.
fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
