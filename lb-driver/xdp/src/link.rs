//! The interface that the data plane is attached to.

use std::{net::IpAddr, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use lb_driver::model::MacAddr;
use netlink_packet_route::{
    address::AddressAttribute,
    link::{InfoKind, LinkAttribute, LinkInfo},
};
use rtnetlink::MulticastGroup;
use tokio_util::sync::CancellationToken;

/// Addresses are looked at this often also without news of them.
const ADDRESSES: Duration = Duration::from_secs(1);

/// An interface, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its own address.
    pub mac: MacAddr,
    /// What it is, where it is virtual: `veth`, `bond`, `vlan`...
    pub kind: Option<String>,
}

/// Why an interface does not serve.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No netlink.
    #[error("netlink: {0}")]
    Netlink(std::io::Error),
    /// No such interface, most of the time.
    #[error("interface {name}: {cause}")]
    Get {
        /// Its name.
        name: String,
        /// Why.
        cause: rtnetlink::Error,
    },
    /// The host's addresses are not told.
    #[error("addresses of this host: {0}")]
    Addresses(rtnetlink::Error),
    /// It has no Ethernet address.
    #[error("interface {name}: expected one with an Ethernet address")]
    NoMac {
        /// Its name.
        name: String,
    },
}

/// Whether this host has one of some addresses now.
pub async fn present(addresses: &[IpAddr]) -> Result<bool, LinkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Netlink)?;
    let connection = tokio::spawn(connection);
    let has = has(&handle, addresses).await.map_err(LinkError::Addresses);
    connection.abort();
    has
}

/// Tells whether this host has one of some addresses: first as it is, then whenever that changes.
pub async fn presence(
    addresses: Vec<IpAddr>,
    tell: impl Fn(bool),
    stop: CancellationToken,
) -> Result<(), LinkError> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, mut news) =
        rtnetlink::new_multicast_connection(&groups).map_err(LinkError::Netlink)?;
    let connection = tokio::spawn(connection);
    let mut known = None;
    loop {
        // All addresses, and not the one of the news: news may be lost.
        let has = has(&handle, &addresses).await.map_err(LinkError::Addresses)?;
        if known.replace(has) != Some(has) {
            tell(has);
        }
        let woken = stop.run_until_cancelled(tokio::time::timeout(ADDRESSES, news.next())).await;
        match woken {
            Some(Ok(None)) | None => break,
            Some(_) => {}
        }
    }
    connection.abort();
    Ok(())
}

async fn has(handle: &rtnetlink::Handle, addresses: &[IpAddr]) -> Result<bool, rtnetlink::Error> {
    let mut found = handle.address().get().execute();
    let mut has = false;
    while let Some(message) = found.try_next().await? {
        has |= message.attributes.iter().any(|attribute| match attribute {
            AddressAttribute::Address(address) | AddressAttribute::Local(address) => {
                addresses.contains(address)
            }
            _ => false,
        });
    }
    Ok(has)
}

/// Looks an interface up by its name.
pub async fn find(name: &str) -> Result<Interface, LinkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Netlink)?;
    let connection = tokio::spawn(connection);
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    connection.abort();
    let no_mac = || LinkError::NoMac { name: name.to_owned() };
    let link = found.map_err(|cause| LinkError::Get { name: name.to_owned(), cause })?.ok_or_else(no_mac)?;
    let mut mac = None;
    let mut kind = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => {
                mac = <[u8; 6]>::try_from(&bytes[..]).ok().and_then(|bytes| MacAddr::new(bytes).ok());
            }
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(InfoKind::Veth) => Some("veth".to_owned()),
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Ok(Interface { name: name.to_owned(), index: link.header.index, mac: mac.ok_or_else(no_mac)?, kind })
}
