//! Getting a token, by osauth, and learning what it is worth.
//!
//! osauth makes the token; whose it is and which catalog comes with it is asked from Keystone with the token
//! itself, because osauth keeps both to itself. A token that was handed to us takes the second step only:
//! osauth's token login would exchange it for another one, which Keystone refuses for tokens of a trust.

use std::{error::Error as StdError, time::Duration};

use osauth::{
    AuthType, ErrorKind,
    common::IdOrName,
    identity::{ApplicationCredential, Password},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    config::{Auth, CloudConfig, Identifier},
    error::{Error, LoginError},
    fault,
    service::Service,
    tokens::{ACCESS_RULES_HEADER, CatalogRoot, TokenInfo, TokenRoot},
};

/// A token and what came with it.
pub(crate) struct Login {
    pub(crate) token: SecretString,
    pub(crate) project_id: String,
    pub(crate) user_id: String,
    pub(crate) info: TokenInfo,
}

impl Login {
    /// Whether it is good for that long.
    pub(crate) fn lasts(&self, time: Duration) -> bool {
        let left = self.info.expires_at.duration_since(jiff::Timestamp::now());
        left > jiff::SignedDuration::try_from(time).unwrap_or(jiff::SignedDuration::ZERO)
    }

    /// Whether calls may be refused because of access rules.
    pub(crate) fn has_access_rules(&self) -> bool {
        self.info.application_credential.as_ref().is_some_and(|credential| credential.access_rules.is_some())
    }

    /// The service's base URL from the catalog.
    pub(crate) fn endpoint(&self, service: Service, config: &CloudConfig) -> Result<String, Error> {
        let interface = config.interface.as_str();
        for wanted in service.types() {
            let found = self
                .info
                .catalog
                .iter()
                .filter(|record| record.service_type == *wanted)
                .flat_map(|record| &record.endpoints)
                .find(|endpoint| {
                    endpoint.interface == interface
                        && config
                            .region
                            .as_ref()
                            .is_none_or(|region| endpoint.region.as_ref() == Some(region))
                });
            if let Some(endpoint) = found {
                return Ok(with_version(service, &endpoint.url));
            }
        }
        Err(Error::NoEndpoint {
            wanted: service.types().join(" or "),
            interface: interface.to_owned(),
            region: config.region.clone().map_or_else(|| "any region".to_owned(), |r| format!("region {r}")),
            listed: self.info.catalog.iter().map(|r| r.service_type.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Appends the version where the catalog leaves it out.
fn with_version(service: Service, url: &str) -> String {
    let url = url.trim_end_matches('/');
    match service.version_segment() {
        Some((present, missing)) if !last_segments_contain(url, present) => format!("{url}{missing}"),
        _ => url.to_owned(),
    }
}

fn last_segments_contain(url: &str, version: &str) -> bool {
    url.rsplit_once('/').is_some_and(|(_, last)| last.starts_with(version.trim_start_matches('/')))
}

/// Keystone's base URL with `/v3` at its end.
pub(crate) fn identity_base(auth_url: &str) -> String {
    with_version(Service::Identity, auth_url)
}

/// Gets a new token and its description.
pub(crate) async fn log_in(http: &reqwest::Client, config: &CloudConfig) -> Result<Login, Error> {
    let token = match &config.auth {
        Auth::Token { token } => token.clone(),
        Auth::Password { username, user_domain, password, project, project_domain } => {
            let domain = project_domain.as_ref().map(osauth_name);
            let auth = Password::new(
                &config.auth_url,
                username.clone(),
                password.expose_secret(),
                user_domain.clone(),
            )
            .map_err(|e| invalid_auth_url(config, &e))?
            .with_project_scope(osauth_name(project), domain);
            token_of(http, config, &auth).await?
        }
        Auth::ApplicationCredential { id, secret } => {
            let auth = match id {
                crate::config::CredentialId::Id(id) => {
                    ApplicationCredential::new(&config.auth_url, id.clone(), secret.expose_secret())
                }
                crate::config::CredentialId::Name { name, user_id } => ApplicationCredential::with_user_id(
                    &config.auth_url,
                    name.clone(),
                    secret.expose_secret(),
                    user_id.clone(),
                ),
            }
            .map_err(|e| invalid_auth_url(config, &e))?;
            token_of(http, config, &auth).await?
        }
    };
    let info = match &config.auth {
        Auth::Token { .. } => handed_over(http, config, &token).await?,
        _ => describe(http, config, &token).await?,
    };
    Ok(Login {
        token,
        project_id: info.project.as_ref().map(|project| project.id.clone()).unwrap_or_default(),
        user_id: info.user.id.clone(),
        info,
    })
}

fn osauth_name(identifier: &Identifier) -> IdOrName {
    match identifier {
        Identifier::Id(id) => IdOrName::Id(id.clone()),
        Identifier::Name(name) => IdOrName::Name(name.clone()),
    }
}

fn invalid_auth_url(config: &CloudConfig, error: &osauth::Error) -> LoginError {
    LoginError::Configuration {
        field: "auth-url",
        value: config.auth_url.clone(),
        expected: format!("the URL of Keystone ({error})"),
    }
}

/// Lets osauth log in, and reads the token off the request that it signs.
async fn token_of(
    http: &reqwest::Client,
    config: &CloudConfig,
    auth: &(dyn AuthType + Sync),
) -> Result<SecretString, Error> {
    let unavailable =
        |message: String| LoginError::Unavailable { auth_url: config.auth_url.clone(), message };
    let signed = auth
        .authenticate(http, http.get(identity_base(&config.auth_url)))
        .await
        .map_err(|e| login_failed(config, &e))?;
    let request = signed.build().map_err(|e| unavailable(innermost(&e)))?;
    let token = request.headers().get("x-auth-token").and_then(|value| value.to_str().ok());
    Ok(token.ok_or_else(|| unavailable("the answer carries no token".to_owned()))?.to_owned().into())
}

fn login_failed(config: &CloudConfig, error: &osauth::Error) -> LoginError {
    let auth_url = config.auth_url.clone();
    let message = error.to_string();
    let refused = matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed | ErrorKind::AccessDenied | ErrorKind::ResourceNotFound
    );
    match (&config.auth, refused) {
        (Auth::ApplicationCredential { id, .. }, true) => {
            LoginError::ApplicationCredentialRefused { auth_url, credential: id.to_string(), message }
        }
        (Auth::Password { username, .. }, true) => {
            LoginError::PasswordRefused { auth_url, user: username.clone(), message }
        }
        _ => LoginError::Unavailable { auth_url, message },
    }
}

/// Asks Keystone about a token with that token: always allowed, whatever its access rules.
pub(crate) async fn describe(
    http: &reqwest::Client,
    config: &CloudConfig,
    token: &SecretString,
) -> Result<TokenInfo, Error> {
    let unavailable =
        |message: String| LoginError::Unavailable { auth_url: config.auth_url.clone(), message };
    let answer = http
        .get(format!("{}/auth/tokens", identity_base(&config.auth_url)))
        .header("X-Auth-Token", token.expose_secret())
        .header("X-Subject-Token", token.expose_secret())
        .header(ACCESS_RULES_HEADER.0, ACCESS_RULES_HEADER.1)
        .send()
        .await
        .map_err(|e| unavailable(innermost(&e)))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|e| unavailable(innermost(&e)))?;
    if status == http::StatusCode::UNAUTHORIZED || status == http::StatusCode::NOT_FOUND {
        let message = fault::read(&body).message;
        return Err(LoginError::TokenRefused { auth_url: config.auth_url.clone(), message }.into());
    }
    if !status.is_success() {
        return Err(unavailable(format!("{status}: {}", fault::read(&body).message)).into());
    }
    let root: TokenRoot = serde_json::from_str(&body).map_err(|e| unavailable(e.to_string()))?;
    Ok(root.token)
}

/// What can be known of a token that was handed to us. Keystone shows the catalog to everybody, but describes a
/// token of a trust to nobody but services, not even to itself: then whose it is stays unknown.
async fn handed_over(
    http: &reqwest::Client,
    config: &CloudConfig,
    token: &SecretString,
) -> Result<TokenInfo, Error> {
    let unavailable =
        |message: String| LoginError::Unavailable { auth_url: config.auth_url.clone(), message };
    let answer = http
        .get(format!("{}/auth/catalog", identity_base(&config.auth_url)))
        .header("X-Auth-Token", token.expose_secret())
        .send()
        .await
        .map_err(|e| unavailable(innermost(&e)))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|e| unavailable(innermost(&e)))?;
    if status == http::StatusCode::UNAUTHORIZED {
        let message = fault::read(&body).message;
        return Err(LoginError::TokenRefused { auth_url: config.auth_url.clone(), message }.into());
    }
    if !status.is_success() {
        return Err(unavailable(format!("{status}: {}", fault::read(&body).message)).into());
    }
    let root: CatalogRoot = serde_json::from_str(&body).map_err(|e| unavailable(e.to_string()))?;
    Ok(describe(http, config, token).await.unwrap_or_else(|_| TokenInfo::of_catalog(root.catalog)))
}

/// The cause at the bottom, which says most ("connection refused", "certificate expired").
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_added_where_they_lack() {
        for (service, url, base) in [
            (Service::Network, "http://n:9696/", "http://n:9696/v2.0"),
            (Service::Network, "http://n:9696/v2.0", "http://n:9696/v2.0"),
            (Service::Network, "http://n/networking", "http://n/networking/v2.0"),
            (Service::Compute, "http://n/compute/v2.1", "http://n/compute/v2.1"),
            (Service::BlockStorage, "http://c/v3/abc", "http://c/v3/abc"),
            (Service::Identity, "http://k:5000", "http://k:5000/v3"),
            (Service::Identity, "http://k:5000/v3/", "http://k:5000/v3"),
            (Service::Ake, "https://a:9511/", "https://a:9511"),
        ] {
            assert_eq!(with_version(service, url), base);
        }
    }
}
