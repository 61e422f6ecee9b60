//! The interface that the data plane is attached to.

use futures::TryStreamExt as _;
use lb_driver::model::MacAddr;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};

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
    /// It has no Ethernet address.
    #[error("interface {name}: expected one with an Ethernet address")]
    NoMac {
        /// Its name.
        name: String,
    },
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
