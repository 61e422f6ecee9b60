//! The resource types, each with its schema and its decisions.

pub mod cleanup;
pub mod credentials;
pub mod load_balancer;
pub mod member;
pub mod registration;
pub mod vip;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{document::Request, plan::Resource, schema::ResourceType};

/// A resource of a request.
pub enum Any {
    /// One whose life is decided by what is observed.
    Planned(Box<dyn Resource + Send + Sync>),
    /// The cluster's keys, which have a life of their own.
    Credentials(credentials::Properties),
}

/// A request that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No type of ours.
    #[error("type: {0}: expected one of {1}")]
    UnknownType(String, String),
    /// A property is missing or of the wrong kind.
    #[error("properties of {kind}: {reason}")]
    Properties {
        /// The type's name.
        kind: String,
        /// What the reader said.
        reason: String,
    },
}

/// Every type that there is.
#[must_use]
pub fn types() -> Vec<ResourceType> {
    vec![
        registration::schema(),
        credentials::schema(),
        cleanup::schema(),
        vip::schema(),
        load_balancer::schema(),
        member::schema(),
    ]
}

/// The resource that a request is about.
pub fn parse(request: &Request) -> Result<Any, Error> {
    let properties = &request.properties;
    let kind = request.kind.as_str();
    let planned: Box<dyn Resource + Send + Sync> = match kind {
        registration::NAME => Box::new(registration::Registration {
            id: request.stack.root_id,
            properties: read(kind, properties)?,
        }),
        vip::NAME => Box::new(read::<vip::Vip>(kind, properties)?),
        load_balancer::NAME => Box::new(read::<load_balancer::Properties>(kind, properties)?),
        member::NAME => Box::new(read::<member::Properties>(kind, properties)?),
        cleanup::NAME => Box::new(read::<cleanup::Properties>(kind, properties)?),
        credentials::NAME => return Ok(Any::Credentials(read(kind, properties)?)),
        other => {
            let known = types().iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownType(other.to_owned(), known));
        }
    };
    Ok(Any::Planned(planned))
}

fn read<T: DeserializeOwned>(kind: &str, properties: &Map<String, Value>) -> Result<T, Error> {
    serde_json::from_value(Value::Object(properties.clone()))
        .map_err(|e| Error::Properties { kind: kind.to_owned(), reason: e.to_string() })
}

#[cfg(test)]
mod tests;
