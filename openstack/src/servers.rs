//! Nova: servers and the volumes attached to them.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use crate::{Error, Service, Session, page};

/// Since 2.47 a server tells its flavor's name itself. No later one is asked for: older clouds then still serve.
const WITH_FLAVOR: &str = "2.47";

/// A server.
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    /// Its UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What state it is in.
    pub status: ServerStatus,
    /// The project it belongs to.
    #[serde(default)]
    pub tenant_id: String,
    /// Its addresses by network name.
    #[serde(default)]
    pub addresses: BTreeMap<String, Vec<ServerAddress>>,
    /// What its owner wrote to it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Its flavor.
    #[serde(default)]
    pub flavor: Flavor,
    /// Its availability zone; empty while it is not placed.
    #[serde(default, rename = "OS-EXT-AZ:availability_zone")]
    pub availability_zone: Option<String>,
    /// Why it is in error.
    #[serde(default)]
    pub fault: Option<ServerFault>,
    /// An IPv4 address that its owner declared.
    #[serde(default, rename = "accessIPv4")]
    pub access_ipv4: String,
    /// An IPv6 address that its owner declared.
    #[serde(default, rename = "accessIPv6")]
    pub access_ipv6: String,
    /// What Nova is doing with it.
    #[serde(default, rename = "OS-EXT-STS:task_state")]
    pub task_state: Option<String>,
}

/// States of a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum ServerStatus {
    /// Running.
    Active,
    /// Being made.
    Build,
    /// Switched off.
    Shutoff,
    /// Broken; see its fault.
    Error,
    /// Gone.
    Deleted,
    /// Any other.
    Other(String),
}

impl From<String> for ServerStatus {
    fn from(word: String) -> Self {
        match word.as_str() {
            "ACTIVE" => Self::Active,
            "BUILD" => Self::Build,
            "SHUTOFF" => Self::Shutoff,
            "ERROR" => Self::Error,
            "DELETED" | "SOFT_DELETED" => Self::Deleted,
            _ => Self::Other(word),
        }
    }
}

/// An address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerAddress {
    /// The address.
    pub addr: std::net::IpAddr,
    /// `fixed` or `floating`.
    #[serde(default, rename = "OS-EXT-IPS:type")]
    pub kind: Option<String>,
}

/// A server's flavor.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Flavor {
    /// Its name when the server was made.
    #[serde(default)]
    pub original_name: Option<String>,
    /// Its id, with clouds that do not tell the name.
    #[serde(default)]
    pub id: Option<String>,
}

impl Flavor {
    /// Its name, or its id.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.original_name.as_deref().or(self.id.as_deref())
    }
}

/// Why a server is in error.
#[derive(Debug, Clone, Deserialize)]
pub struct ServerFault {
    /// Nova's words.
    #[serde(default)]
    pub message: String,
}

/// Which servers to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// A regular expression for the name, in the dialect of Nova's database; see [`exact_name`].
    pub name: Option<String>,
    /// Only those that carry all of this metadata. Nova has no such filter for tenants: it is applied here.
    pub metadata: BTreeMap<String, String>,
}

/// The regular expression that only `name` itself matches.
#[must_use]
pub fn exact_name(name: &str) -> String {
    let mut pattern = String::from("^");
    for c in name.chars() {
        if !(c.is_alphanumeric() || matches!(c, '-' | '_')) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('$');
    pattern
}

/// One server.
pub async fn get(session: &Session, id: &str) -> Result<Server, Error> {
    session
        .call(Service::Compute, Method::GET, "get server", format!("/servers/{id}"))
        .about(id)
        .microversion(WITH_FLAVOR)
        .fetch("server")
        .await
}

/// All servers of our project that pass the filter.
pub async fn list(session: &Session, filter: &Filter) -> Result<Vec<Server>, Error> {
    let mut call = session
        .call(Service::Compute, Method::GET, "list servers", "/servers/detail")
        .microversion(WITH_FLAVOR);
    if let Some(name) = &filter.name {
        call = call.query("name", name);
    }
    let mut servers: Vec<Server> = page::collect(call, "servers").await?;
    servers
        .retain(|server| filter.metadata.iter().all(|(key, value)| server.metadata.get(key) == Some(value)));
    Ok(servers)
}

/// A volume attached to a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VolumeAttachment {
    /// The volume.
    #[serde(rename = "volumeId")]
    pub volume_id: String,
    /// The server.
    #[serde(default, rename = "serverId")]
    pub server_id: String,
    /// Where Nova believes it shows up; not to be trusted.
    #[serde(default)]
    pub device: Option<String>,
}

/// The volumes attached to a server.
pub async fn volume_attachments(session: &Session, server: &str) -> Result<Vec<VolumeAttachment>, Error> {
    let path = format!("/servers/{server}/os-volume_attachments");
    let call = session.call(Service::Compute, Method::GET, "list volume attachments", path).about(server);
    call.fetch("volumeAttachments").await
}

/// Begins to attach a volume. It is done when the volume is `in-use`.
pub async fn attach_volume(session: &Session, server: &str, volume: &str) -> Result<VolumeAttachment, Error> {
    session
        .call(
            Service::Compute,
            Method::POST,
            "attach volume",
            format!("/servers/{server}/os-volume_attachments"),
        )
        .about(format!("{volume} to server {server}"))
        .body(json!({"volumeAttachment": {"volumeId": volume}}))
        .fetch("volumeAttachment")
        .await
}

/// Begins to detach a volume; one that is not attached is success. It is done when the volume is `available`.
pub async fn detach_volume(session: &Session, server: &str, volume: &str) -> Result<(), Error> {
    let path = format!("/servers/{server}/os-volume_attachments/{volume}");
    session
        .call(Service::Compute, Method::DELETE, "detach volume", path)
        .about(format!("{volume} from server {server}"))
        .send_unless_missing()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_and_missing_fields_are_read() {
        let server: Server = serde_json::from_value(json!({
            "id": "1", "name": "n", "status": "HARD_REBOOT", "OS-EXT-AZ:availability_zone": "",
            "addresses": {"provider": [{"addr": "fd00:77::5", "version": 6, "OS-EXT-IPS:type": "fixed"}]},
            "flavor": {"original_name": "m1.node", "vcpus": 2}, "new_field": [1]
        }))
        .unwrap();
        assert_eq!(server.status, ServerStatus::Other("HARD_REBOOT".into()));
        assert_eq!(server.flavor.name(), Some("m1.node"));
    }

    #[test]
    fn names_become_patterns() {
        assert_eq!(exact_name("demo-worker-0"), "^demo-worker-0$");
        assert_eq!(exact_name("a.b"), "^a\\.b$");
    }
}
