//! MAC addresses of members that a state does not tell: from the kernel's neighbour table, which is asked to keep them.
//!
//! The kernel resolves and probes what is "managed" (Linux 5.16) by itself, and says what became of it. Packets to
//! members never wait for that: a member whose address is not known is down.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use lb_driver::model::MacAddr;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::link::Interface;

/// What is known of members' addresses.
pub type Macs = BTreeMap<IpAddr, MacAddr>;

/// The table is read this often also without news of it.
const LOOK: Duration = Duration::from_secs(1);
/// News that come in a row are read together.
const PAUSE: Duration = Duration::from_millis(20);

/// Why neighbours are not known.
#[derive(Debug, thiserror::Error)]
pub enum NeighboursError {
    /// No netlink.
    #[error("netlink: {0}")]
    Netlink(io::Error),
    /// The table cannot be read or written.
    #[error("neighbours: {0}")]
    Table(#[from] rtnetlink::Error),
}

/// One neighbour.
struct Entry {
    mac: Option<MacAddr>,
    managed: bool,
}

/// What the kernel knows now.
pub async fn known(interface: &Interface) -> Result<Macs, NeighboursError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(NeighboursError::Netlink)?;
    let connection = tokio::spawn(connection);
    let table = read(&handle, interface.index).await;
    connection.abort();
    Ok(table?.into_iter().filter_map(|(address, entry)| Some((address, entry.mac?))).collect())
}

/// Asks for the addresses in `asked`, and tells of changes, until `stop`.
pub async fn follow(
    interface: Interface,
    mut asked: watch::Receiver<BTreeSet<IpAddr>>,
    told: watch::Sender<Macs>,
    stop: CancellationToken,
) -> Result<(), NeighboursError> {
    let (connection, handle, mut news) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Neigh]).map_err(NeighboursError::Netlink)?;
    let connection = tokio::spawn(connection);
    let mut held = BTreeSet::new();
    while !stop.is_cancelled() {
        let wanted = asked.borrow_and_update().clone();
        let table = read(&handle, interface.index).await?;
        for address in wanted.iter().filter(|address| table.get(*address).is_none_or(|entry| !entry.managed))
        {
            if let Err(error) = manage(&handle, interface.index, *address).await {
                tracing::warn!(%address, %error, "asking for the MAC address");
            }
        }
        for address in held.difference(&wanted) {
            let mut gone = handle.neighbours().add(interface.index, *address);
            // It may be gone already.
            let _ = handle.neighbours().del(gone.message_mut().clone()).execute().await;
        }
        held = wanted.clone();
        let of = |address: &IpAddr| Some((*address, table.get(address)?.mac?));
        let macs: Macs = wanted.iter().filter_map(of).collect();
        told.send_if_modified(|told| {
            let other = *told != macs;
            *told = macs;
            other
        });
        tokio::select! {
            () = stop.cancelled() => break,
            changed = asked.changed() => if changed.is_err() { break },
            _ = tokio::time::timeout(LOOK, news.next()) => {
                tokio::time::sleep(PAUSE).await;
                while let Ok(Some(_)) = tokio::time::timeout(Duration::ZERO, news.next()).await {}
            }
        }
    }
    connection.abort();
    Ok(())
}

async fn read(handle: &Handle, interface: u32) -> Result<BTreeMap<IpAddr, Entry>, rtnetlink::Error> {
    let mut found = handle.neighbours().get().execute();
    let mut table = BTreeMap::new();
    while let Some(message) = found.try_next().await? {
        if message.header.ifindex == interface
            && let Some((address, entry)) = entry(&message)
        {
            table.insert(address, entry);
        }
    }
    Ok(table)
}

fn entry(message: &NeighbourMessage) -> Option<(IpAddr, Entry)> {
    let mut address = None;
    let mut entry = Entry { mac: None, managed: false };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::from(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::from(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                entry.mac = <[u8; 6]>::try_from(&bytes[..]).ok().and_then(|bytes| MacAddr::new(bytes).ok());
            }
            NeighbourAttribute::ExtFlags(flags) => entry.managed = flags.contains(NeighbourExtFlags::Managed),
            _ => {}
        }
    }
    let resolved = !matches!(
        message.header.state,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
    );
    entry.mac = entry.mac.filter(|_| resolved);
    Some((address?, entry))
}

async fn manage(handle: &Handle, interface: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
    let mut add = handle.neighbours().add(interface, address).state(NeighbourState::None).replace();
    add.message_mut().attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    add.execute().await
}
