//! What Heat's side and this program say to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// A step of a resource's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Begin to make it.
    Create,
    /// Go on making it.
    CheckCreate,
    /// Begin to make it as the new properties say.
    Update,
    /// Go on with that.
    CheckUpdate,
    /// Begin to remove it.
    Delete,
    /// Go on removing it.
    CheckDelete,
    /// Change nothing, say what there is.
    LiveState,
}

impl Verb {
    /// Whether this is the first call of an action.
    #[must_use]
    pub fn begins(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Delete)
    }
}

/// What the program is asked to do.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// The step.
    pub verb: Verb,
    /// The resource type's name.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id that Heat keeps for it.
    pub resource_id: String,
    /// The stack it stands in.
    pub stack: Stack,
    /// The cloud, and who asks.
    pub cloud: Cloud,
    /// The properties as they shall be; while deleting, as they were.
    #[serde(default)]
    pub properties: Map<String, Value>,
    /// Hidden parameters' values, by the name of the property that names the parameter.
    #[serde(default)]
    pub hidden: BTreeMap<String, String>,
    /// What earlier steps had kept encrypted.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Seconds since the action began.
    #[serde(default)]
    pub waited: f64,
}

/// Where the resource stands.
#[derive(Debug, Clone, Deserialize)]
pub struct Stack {
    /// Id of its stack.
    pub id: Uuid,
    /// Name of its stack.
    pub name: String,
    /// Id of the root of its stacks.
    pub root_id: Uuid,
}

/// The cloud, and who asks.
#[derive(Clone, Deserialize)]
pub struct Cloud {
    /// Keystone.
    pub auth_url: String,
    /// The tenant's token.
    pub token: String,
    /// The region, where there are several.
    #[serde(default)]
    pub region: Option<String>,
    /// The tenant's project.
    pub project_id: String,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud").field("auth_url", &self.auth_url).finish_non_exhaustive()
    }
}

/// What the program answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Whether the action is complete.
    pub done: bool,
    /// Seconds until it is worth asking again, where it is not.
    pub again: u32,
    /// The attributes that everybody may see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Map<String, Value>>,
    /// What to keep encrypted, sealed attributes as JSON among it; what is not named stays as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Something that the stack's reader should find among its events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}
