//! `AKE::Cluster::Credentials`: the cluster's keys, and the nodes' bundles.

use ake_api_client::ClusterId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::schema::{Attribute, Property, Reference, ResourceType, Type, cluster_property};

/// Its name in templates.
pub const NAME: &str = "AKE::Cluster::Credentials";

/// The property that names the parameter with the application credential's id.
pub const CREDENTIAL_ID: &str = "application_credential_id";

/// The property that names the parameter with its secret.
pub const CREDENTIAL_SECRET: &str = "application_credential_secret";

/// The sealed attribute with the nodes' claims.
pub const CLAIMS: &str = "claims";

/// Its properties.
#[derive(Debug, Clone, Deserialize)]
pub struct Properties {
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's name, as its certificates say it.
    pub name: String,
    /// The tenant's request.
    pub admin_csr: String,
    /// Name of a hidden parameter.
    pub application_credential_id: String,
    /// Name of a hidden parameter.
    pub application_credential_secret: String,
}

/// What Heat is told of it.
#[must_use]
pub fn schema() -> ResourceType {
    ResourceType {
        name: NAME,
        description: "The cluster's certificate authority, the key of its service accounts, and its nodes' first \
            token. It signs the tenant's request for an administrator's certificate, and gives ake-api one sealed \
            bundle for each role of nodes. No secret is a property or an open attribute: properties name hidden \
            parameters of the root stack, and what is kept is kept encrypted. It stands in the root stack.",
        reference: Reference::Own,
        properties: vec![
            cluster_property(),
            Property::new("name", Type::String, "The cluster's name, as its certificates say it.")
                .required()
                .length(1, 40),
            Property::new(
                "admin_csr",
                Type::String,
                "A certificate signing request, PEM. Its key and common name get an administrator's certificate. \
                 A changed request gets a new certificate.",
            )
            .required()
            .updatable()
            .pattern("\\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----[\\s\\S]+-----END (NEW )?CERTIFICATE REQUEST-----\\s*"),
            Property::new(
                CREDENTIAL_ID,
                Type::String,
                "Name of the hidden parameter with the id of the application credential that the cluster acts as. \
                 When the parameter's value changes, new bundles are made.",
            )
            .required()
            .updatable()
            .hidden_parameter(),
            Property::new(CREDENTIAL_SECRET, Type::String, "Name of the hidden parameter with its secret.")
                .required()
                .updatable()
                .hidden_parameter(),
        ],
        attributes: vec![
            Attribute::new("ca", Type::String, "The certificate of the cluster's authority, PEM."),
            Attribute::new("admin_certificate", Type::String, "The certificate signed for `admin_csr`, PEM."),
            Attribute::new(
                CLAIMS,
                Type::Map,
                "What nodes redeem at ake-api for their bundle, by role. Worthless to whoever has no address of a \
                 node of the cluster and the role.",
            )
            .sealed(),
        ],
    }
}

/// The attributes that everybody may see.
#[must_use]
pub fn attributes(ca: &str, admin_certificate: &str) -> Map<String, Value> {
    [("ca", json!(ca)), ("admin_certificate", json!(admin_certificate))]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}
