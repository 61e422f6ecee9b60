//! Reading and writing the kernel's links, addresses and routes. Plain structs outside, netlink inside.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::LinkAttribute,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol},
};
use rtnetlink::{Handle, RouteMessageBuilder};

/// Routes that are ours carry it: no other is ever touched. Named `ake` in the image's rt_protos.
pub const PROTOCOL: u8 = 107;

/// Index of `lo`, the same in every network namespace.
const LOOPBACK: u32 = 1;

/// A call to the kernel failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {reason}")]
pub struct Error {
    /// What was done.
    pub doing: String,
    /// What the kernel said.
    pub reason: String,
}

/// The link to the provider network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// Its addresses, with the prefixes that are on the link.
    pub addresses: Vec<IpNetwork>,
}

/// A route to another node's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub to: IpNetwork,
    /// By which node.
    pub via: IpAddr,
    /// Out of which link.
    pub link: u32,
}

/// A connection to the kernel.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens one; its work is done by a task of this runtime.
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| failed("open netlink", &error))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The link that the default route of `address`' family leaves by; none without such a route.
    pub async fn uplink(&self, family_of: IpAddr) -> Result<Option<Uplink>, Error> {
        let default = self
            .dump(family_of)
            .await?
            .into_iter()
            .filter(|route| route.header.destination_prefix_length == 0)
            .filter_map(|route| Some((priority(&route), output(&route)?)))
            .min();
        let Some((_, index)) = default else { return Ok(None) };
        let mut links = self.handle.link().get().match_index(index).execute();
        let link = links.try_next().await.map_err(|error| failed("read link", &error))?;
        let Some(link) = link else { return Ok(None) };
        let mut uplink = Uplink { index, name: String::new(), mtu: 1500, addresses: vec![] };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => uplink.name = name,
                LinkAttribute::Mtu(mtu) => uplink.mtu = mtu,
                _ => {}
            }
        }
        uplink.addresses = self.addresses(index).await?.iter().filter_map(local).collect();
        Ok(Some(uplink))
    }

    /// Our routes of both families.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        let mut ours = vec![];
        for family in [IpAddr::from([0, 0, 0, 0]), IpAddr::from([0_u16; 8])] {
            let routes = self.dump(family).await?;
            let routes =
                routes.iter().filter(|route| route.header.protocol == RouteProtocol::Other(PROTOCOL));
            ours.extend(routes.filter_map(parse));
        }
        ours.sort_unstable();
        Ok(ours)
    }

    /// Adds a route, or replaces the one to the same network.
    pub async fn put_route(&self, route: &Route) -> Result<(), Error> {
        let doing = format!("add route to {} via {}", route.to, route.via);
        let message = build(route, &doing)?;
        self.handle.route().add(message).replace().execute().await.map_err(|error| failed(&doing, &error))
    }

    /// Removes a route of ours.
    pub async fn remove_route(&self, route: &Route) -> Result<(), Error> {
        let doing = format!("remove route to {} via {}", route.to, route.via);
        let message = build(route, &doing)?;
        self.handle.route().del(message).execute().await.map_err(|error| failed(&doing, &error))
    }

    /// Whether `lo` has the address.
    pub async fn loopback_has(&self, address: IpAddr) -> Result<bool, Error> {
        Ok(self.addresses(LOOPBACK).await?.iter().filter_map(local).any(|network| network.ip() == address))
    }

    /// Puts an address on `lo`, as a host's.
    pub async fn add_to_loopback(&self, address: IpAddr) -> Result<(), Error> {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let request = self.handle.address().add(LOOPBACK, address, prefix);
        request.execute().await.map_err(|error| failed(&format!("add {address} to lo"), &error))
    }

    /// Takes an address off `lo`.
    pub async fn remove_from_loopback(&self, address: IpAddr) -> Result<(), Error> {
        let doing = format!("remove {address} from lo");
        for message in self.addresses(LOOPBACK).await? {
            if local(&message).is_some_and(|network| network.ip() == address) {
                let request = self.handle.address().del(message);
                request.execute().await.map_err(|error| failed(&doing, &error))?;
            }
        }
        Ok(())
    }

    async fn addresses(&self, link: u32) -> Result<Vec<AddressMessage>, Error> {
        let request = self.handle.address().get().set_link_index_filter(link);
        request.execute().try_collect().await.map_err(|error| failed("read addresses", &error))
    }

    /// The main table.
    async fn dump(&self, family_of: IpAddr) -> Result<Vec<RouteMessage>, Error> {
        let filter = match family_of {
            IpAddr::V4(_) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            IpAddr::V6(_) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        };
        let mut all: Vec<RouteMessage> = self
            .handle
            .route()
            .get(filter)
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("read routes", &error))?;
        all.retain(|route| route.header.table == RouteHeader::RT_TABLE_MAIN);
        Ok(all)
    }
}

fn failed(doing: &str, error: &dyn std::fmt::Display) -> Error {
    Error { doing: doing.to_owned(), reason: error.to_string() }
}

fn build(route: &Route, doing: &str) -> Result<RouteMessage, Error> {
    Ok(RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.to.ip(), route.to.prefix())
        .map_err(|error| failed(doing, &error))?
        .gateway(route.via)
        .map_err(|error| failed(doing, &error))?
        .output_interface(route.link)
        .protocol(RouteProtocol::Other(PROTOCOL))
        .build())
}

fn parse(message: &RouteMessage) -> Option<Route> {
    let to = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })?;
    let via = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    })?;
    let to = IpNetwork::new(to, message.header.destination_prefix_length).ok()?;
    Some(Route { to, via, link: output(message)? })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn output(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn priority(message: &RouteMessage) -> u32 {
    let found = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    found.unwrap_or(0)
}

/// An address with its prefix. IPv4 names the link's own end apart from the other one's, IPv6 does not.
fn local(message: &AddressMessage) -> Option<IpNetwork> {
    let attributes = message.attributes.iter();
    let own = attributes.clone().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = own.or_else(|| {
        attributes.clone().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    IpNetwork::new(address, message.header.prefix_len).ok()
}
