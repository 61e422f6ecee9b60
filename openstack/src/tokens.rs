//! Tokens: whose they are and what they allow.

use http::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::{Error, Service, Session};

/// Without this header Keystone says "not found" of tokens with access rules.
pub(crate) const ACCESS_RULES_HEADER: (&str, &str) = ("OpenStack-Identity-Access-Rules", "1.0");

#[derive(Debug, Deserialize)]
pub(crate) struct TokenRoot {
    pub(crate) token: TokenInfo,
}

/// What Keystone says of a token.
#[derive(Debug, Clone, Deserialize)]
pub struct TokenInfo {
    /// Whose it is.
    pub user: User,
    /// The project that it is for; a token without scope has none.
    pub project: Option<Project>,
    /// What the user is in that project.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// When it ends.
    pub expires_at: jiff::Timestamp,
    /// The application credential that it was got with.
    #[serde(default)]
    pub application_credential: Option<ApplicationCredential>,
    /// The trust that it was got with.
    #[serde(default, rename = "OS-TRUST:trust")]
    pub trust: Option<Trust>,
    /// The services of the cloud.
    #[serde(default)]
    pub catalog: Vec<CatalogRecord>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CatalogRoot {
    pub(crate) catalog: Vec<CatalogRecord>,
}

impl TokenInfo {
    /// A token of which nothing but its catalog is known.
    pub(crate) fn of_catalog(catalog: Vec<CatalogRecord>) -> Self {
        Self {
            user: User { id: String::new(), name: String::new(), domain: None },
            project: None,
            roles: Vec::new(),
            expires_at: jiff::Timestamp::MAX,
            application_credential: None,
            trust: None,
            catalog,
        }
    }

    /// Whether the user has the role.
    #[must_use]
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.iter().any(|role| role.name.eq_ignore_ascii_case(name))
    }
}

/// A user.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The domain it is in.
    #[serde(default)]
    pub domain: Option<Domain>,
}

/// A domain.
#[derive(Debug, Clone, Deserialize)]
pub struct Domain {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A project.
#[derive(Debug, Clone, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The domain it is in.
    #[serde(default)]
    pub domain: Option<Domain>,
}

/// A role.
#[derive(Debug, Clone, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
}

/// An application credential, as a token shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct ApplicationCredential {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Whether it may not manage credentials and trusts.
    #[serde(default)]
    pub restricted: bool,
    /// The only calls that it allows; none means all, an empty list means none at all.
    #[serde(default)]
    pub access_rules: Option<Vec<AccessRule>>,
}

/// One allowed call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AccessRule {
    /// The service's type.
    pub service: String,
    /// HTTP method.
    pub method: String,
    /// Path with the endpoint's own prefix; `*`, `**` and `{name}` are wild cards.
    pub path: String,
}

/// A trust.
#[derive(Debug, Clone, Deserialize)]
pub struct Trust {
    /// Its id.
    pub id: String,
}

/// A service of the catalog.
#[derive(Debug, Clone, Deserialize)]
pub struct CatalogRecord {
    /// Its type.
    #[serde(rename = "type")]
    pub service_type: String,
    /// Where it is.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// A place where a service is.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoint {
    /// Public, internal or admin.
    pub interface: String,
    /// The region.
    #[serde(default)]
    pub region: Option<String>,
    /// The address.
    pub url: String,
}

/// Asks Keystone about somebody's token. An unknown, expired or revoked one is `None`.
pub async fn validate(session: &Session, subject: &SecretString) -> Result<Option<TokenInfo>, Error> {
    let answer = session
        .call(Service::Identity, Method::GET, "validate token", "/auth/tokens")
        .header("X-Subject-Token", subject.expose_secret())
        .header(ACCESS_RULES_HEADER.0, ACCESS_RULES_HEADER.1)
        .fetch("token")
        .await;
    match answer {
        Ok(token) => Ok(Some(token)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
