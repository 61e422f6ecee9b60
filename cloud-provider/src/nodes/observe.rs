//! Servers, as far as Nodes need to know them.

use std::net::IpAddr;

use openstack_client::{
    Error, Session,
    servers::{self, Filter, Server, ServerStatus},
};

/// What a server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// It runs, or is about to, or nobody knows.
    Running,
    /// It is switched off.
    Shutoff,
    /// It is not there any more.
    Gone,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The cluster that it is marked with.
    pub cluster: Option<String>,
    /// Its own addresses, in the order of its networks' names.
    pub internal: Vec<IpAddr>,
    /// Floating and declared ones.
    pub external: Vec<IpAddr>,
    /// Its availability zone.
    pub zone: Option<String>,
    /// Its flavor's name.
    pub flavor: Option<String>,
    /// What it is doing.
    pub state: ServerState,
}

impl From<Server> for ServerView {
    fn from(server: Server) -> Self {
        let all = || server.addresses.values().flatten();
        let is_floating = |kind: &Option<String>| kind.as_deref() == Some("floating");
        let internal = all().filter(|address| !is_floating(&address.kind)).map(|address| address.addr);
        let floating = all().filter(|address| is_floating(&address.kind)).map(|address| address.addr);
        let declared =
            [&server.access_ipv4, &server.access_ipv6].into_iter().filter_map(|text| text.parse().ok());
        Self {
            internal: internal.collect(),
            external: floating.chain(declared).collect(),
            state: match server.status {
                ServerStatus::Shutoff => ServerState::Shutoff,
                ServerStatus::Deleted => ServerState::Gone,
                _ => ServerState::Running,
            },
            flavor: server.flavor.name().map(ToOwned::to_owned),
            cluster: server.metadata.get("ake-cluster").cloned(),
            zone: server.availability_zone.filter(|zone| !zone.is_empty()),
            id: server.id,
            name: server.name,
        }
    }
}

/// All servers of the project.
pub async fn all(session: &Session) -> Result<Vec<ServerView>, Error> {
    let servers = servers::list(session, &Filter::default()).await?;
    Ok(servers.into_iter().map(ServerView::from).collect())
}

/// What one server is doing, asked by its id: a list that lacks it would prove nothing.
pub async fn state(session: &Session, id: &str) -> Result<ServerState, Error> {
    match servers::get(session, id).await {
        Ok(server) => Ok(ServerView::from(server).state),
        Err(error) if error.is_missing() => Ok(ServerState::Gone),
        Err(error) => Err(error),
    }
}
