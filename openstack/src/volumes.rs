//! Cinder: volumes.

use std::collections::BTreeMap;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Error, Service, Session, page};

/// Since 3.42 a volume can grow while it is attached.
const WITH_ONLINE_EXTEND: &str = "3.42";

/// A volume.
#[derive(Debug, Clone, Deserialize)]
pub struct Volume {
    /// Its UUID.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// In GiB.
    pub size: u64,
    /// What state it is in.
    pub status: VolumeStatus,
    /// Its type.
    #[serde(default)]
    pub volume_type: Option<String>,
    /// Its availability zone.
    #[serde(default)]
    pub availability_zone: Option<String>,
    /// What its owner wrote to it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The servers that have it.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// When it was made, in UTC without saying so.
    #[serde(default)]
    pub created_at: Option<String>,
}

impl Volume {
    /// Its name, empty if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Whether the server has it.
    #[must_use]
    pub fn is_attached_to(&self, server: &str) -> bool {
        self.attachments.iter().any(|attachment| attachment.server_id == server)
    }
}

/// States of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum VolumeStatus {
    /// Being made.
    Creating,
    /// Nobody has it.
    Available,
    /// Promised to a server.
    Reserved,
    /// On its way to a server.
    Attaching,
    /// A server has it.
    InUse,
    /// On its way from a server.
    Detaching,
    /// Growing.
    Extending,
    /// Going.
    Deleting,
    /// Broken.
    Error,
    /// Broken while it was going.
    ErrorDeleting,
    /// Broken while it was growing.
    ErrorExtending,
    /// Any other.
    Other(String),
}

impl From<String> for VolumeStatus {
    fn from(word: String) -> Self {
        match word.as_str() {
            "creating" => Self::Creating,
            "available" => Self::Available,
            "reserved" => Self::Reserved,
            "attaching" => Self::Attaching,
            "in-use" => Self::InUse,
            "detaching" => Self::Detaching,
            "extending" => Self::Extending,
            "deleting" => Self::Deleting,
            "error" => Self::Error,
            "error_deleting" => Self::ErrorDeleting,
            "error_extending" => Self::ErrorExtending,
            _ => Self::Other(word),
        }
    }
}

impl std::fmt::Display for VolumeStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::Reserved => "reserved",
            Self::Attaching => "attaching",
            Self::InUse => "in-use",
            Self::Detaching => "detaching",
            Self::Extending => "extending",
            Self::Deleting => "deleting",
            Self::Error => "error",
            Self::ErrorDeleting => "error_deleting",
            Self::ErrorExtending => "error_extending",
            Self::Other(word) => word,
        })
    }
}

/// That a server has a volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    /// The server.
    #[serde(default)]
    pub server_id: String,
    /// Where Nova believes it shows up; not to be trusted.
    #[serde(default)]
    pub device: Option<String>,
}

/// Which volumes to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// With this name.
    pub name: Option<String>,
    /// With all of this metadata.
    pub metadata: BTreeMap<String, String>,
}

/// A volume to be made.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// In GiB.
    pub size: u64,
    /// Its type; the cloud's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    /// Its availability zone; the cloud's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// What to write to it.
    pub metadata: BTreeMap<String, String>,
}

/// Makes a volume. It is done when the volume is `available`.
pub async fn create(session: &Session, volume: &NewVolume) -> Result<Volume, Error> {
    session
        .call(Service::BlockStorage, Method::POST, "create volume", "/volumes")
        .about(&volume.name)
        .body(json!({ "volume": volume }))
        .fetch("volume")
        .await
}

/// One volume.
pub async fn get(session: &Session, id: &str) -> Result<Volume, Error> {
    session
        .call(Service::BlockStorage, Method::GET, "get volume", format!("/volumes/{id}"))
        .about(id)
        .fetch("volume")
        .await
}

/// All volumes of our project that pass the filter. The filter is applied here as well: Cinder's own can be
/// restricted by the operator (`resource_query_filters`), and is then ignored without a word.
pub async fn list(session: &Session, filter: &Filter) -> Result<Vec<Volume>, Error> {
    let mut call = session.call(Service::BlockStorage, Method::GET, "list volumes", "/volumes/detail");
    if let Some(name) = &filter.name {
        call = call.query("name", name);
    }
    if !filter.metadata.is_empty() {
        // A Python literal: that is what Cinder reads.
        let pairs: Vec<_> = filter
            .metadata
            .iter()
            .map(|(key, value)| format!("{}: {}", python(key), python(value)))
            .collect();
        call = call.query("metadata", format!("{{{}}}", pairs.join(", ")));
    }
    let mut volumes: Vec<Volume> = page::collect(call, "volumes").await?;
    volumes.retain(|volume| {
        filter.name.as_ref().is_none_or(|name| volume.name() == name)
            && filter.metadata.iter().all(|(key, value)| volume.metadata.get(key) == Some(value))
    });
    Ok(volumes)
}

/// A string as Python writes it.
fn python(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Begins to delete a volume; one that is gone already is success.
pub async fn delete(session: &Session, id: &str) -> Result<(), Error> {
    session
        .call(Service::BlockStorage, Method::DELETE, "delete volume", format!("/volumes/{id}"))
        .about(id)
        .send_unless_missing()
        .await
}

/// Begins to grow a volume to `size` GiB, attached or not.
pub async fn extend(session: &Session, id: &str, size: u64) -> Result<(), Error> {
    session
        .call(Service::BlockStorage, Method::POST, "extend volume", format!("/volumes/{id}/action"))
        .about(format!("{id} to {size} GiB"))
        .microversion(WITH_ONLINE_EXTEND)
        .body(json!({"os-extend": {"new_size": size}}))
        .send()
        .await
        .map(drop)
}

/// Adds to what is written to a volume; keys of the same name are replaced.
pub async fn add_metadata(
    session: &Session,
    id: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error> {
    session
        .call(Service::BlockStorage, Method::POST, "write volume metadata", format!("/volumes/{id}/metadata"))
        .about(id)
        .body(json!({ "metadata": metadata }))
        .send()
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_are_kept() {
        let volume: Volume = serde_json::from_value(
            json!({"id": "v", "size": 1, "status": "awaiting-transfer", "name": null}),
        )
        .unwrap();
        assert_eq!(volume.status.to_string(), "awaiting-transfer");
        assert_eq!(volume.name(), "");
    }

    #[test]
    fn python_literals() {
        assert_eq!(python(r"a'b\c"), r"'a\'b\\c'");
    }
}
