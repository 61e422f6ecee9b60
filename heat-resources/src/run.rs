//! One step of a resource's life: observe, plan, apply, until nothing is left to do.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use openstack_client::{
    CloudConfig, LoginError, Session,
    config::{Auth, CredentialId},
};

use crate::{
    access_rules,
    authority::{self, Authority},
    bundle::{self, Claims},
    config::{self, Config},
    document::{Answer, Request, Verb},
    plan::{Invalid, Reclaim, Resource, Step},
    resources::{
        self, Any,
        credentials::{self, CLAIMS, CREDENTIAL_ID, CREDENTIAL_SECRET},
    },
    world::{self, World},
};

/// Looks at the world in one call; a plan that still has steps then does not come to an end.
const ROUNDS: u32 = 4;

/// Seconds for which a step that is refused for now is tried again.
const PATIENCE_S: f64 = 120.0;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request.
    #[error(transparent)]
    Request(#[from] resources::Error),
    /// A value.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The operator's configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// OpenStack or ake-api, while doing a step.
    #[error("{step}: {reason}")]
    Step {
        /// What was done.
        step: String,
        /// What it said.
        reason: Box<world::Error>,
    },
    /// OpenStack or ake-api, while looking.
    #[error(transparent)]
    World(Box<world::Error>),
    /// The cluster's keys.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// The nodes' bundles.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// A wait that took too long.
    #[error("gave up after {waited} s: {reason}")]
    TooLong {
        /// How long it was.
        waited: u64,
        /// What was waited for.
        reason: String,
    },
    /// The resource is not as it should be.
    #[error("{0}")]
    Missing(String),
    /// What was written is not what is read.
    #[error("ake-api does not keep what it is given: {0}")]
    Unsettled(String),
    /// The tenant's application credential.
    #[error("{field} (hidden parameter {parameter}): {reason}")]
    Credential {
        /// The property.
        field: &'static str,
        /// The parameter that it names.
        parameter: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// Our own list of calls.
    #[error("access-rules.json: {0}")]
    AccessRules(#[from] serde_json::Error),
}

impl From<world::Error> for Error {
    fn from(error: world::Error) -> Self {
        Self::World(Box::new(error))
    }
}

/// Does what a request asks for.
pub async fn run(config: &Config, request: &Request) -> Result<Answer, Error> {
    match resources::parse(request)? {
        Any::Planned(resource) => {
            let world = World::connect(config, &request.cloud).await?;
            planned(&world, resource.as_ref(), request).await.or_else(|error| patient(error, request))
        }
        Any::Credentials(properties) => keys(config, &properties, request).await,
    }
}

/// What failed for now is tried again later.
fn patient(error: Error, request: &Request) -> Result<Answer, Error> {
    let (Error::Step { reason, .. } | Error::World(reason)) = &error else { return Err(error) };
    let deleting = matches!(request.verb, Verb::Delete | Verb::CheckDelete);
    match again(reason, deleting, request.waited) {
        Some(again) => Ok(Answer { again, ..Answer::default() }),
        None => Err(error),
    }
}

async fn planned(
    world: &World,
    resource: &(dyn Resource + Send + Sync),
    request: &Request,
) -> Result<Answer, Error> {
    let cluster = resource.cluster();
    let deleting = matches!(request.verb, Verb::Delete | Verb::CheckDelete);
    let wide = deleting && resource.outlives_servers();
    if request.verb == Verb::LiveState {
        let seen = world.observe(cluster, false, false).await?;
        return match resource.missing(&seen) {
            Some(what) => Err(Error::Missing(what)),
            None => {
                Ok(Answer { done: true, attributes: Some(resource.attributes(&seen)), ..Answer::default() })
            }
        };
    }
    let mut event = None;
    let mut left = Vec::new();
    let mut refused = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut seen = world.observe(cluster, request.verb.begins() && round == 0, wide).await?;
        for volume in &mut seen.volumes {
            if let Some(why) = refused.get(&volume.id) {
                volume.reclaim = Reclaim::Refused(String::clone(why));
            }
        }
        let plan = if deleting { resource.unwanted(&seen) } else { resource.wanted(&seen)? };
        event = plan.event.or(event);
        if let Some(wait) = plan.wait {
            let waited = request.waited.max(0.0) as u64;
            if Duration::from_secs(waited) >= wait.limit {
                return Err(Error::TooLong { waited, reason: wait.reason });
            }
            return Ok(Answer { again: wait.again.as_secs() as u32, event, ..Answer::default() });
        }
        if plan.steps.is_empty() {
            let attributes = (!deleting).then(|| resource.attributes(&seen));
            return Ok(Answer { done: true, attributes, event, ..Answer::default() });
        }
        for step in &plan.steps {
            match (apply(world, cluster, step).await, step) {
                (Err(Error::Step { reason, .. }), Step::DeleteVolume(id)) if reason.is_invalid() => {
                    refused.insert(id.clone(), reason.to_string());
                }
                (done, _) => done?,
            }
        }
        left = plan.steps;
    }
    Err(Error::Unsettled(left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
}

/// Seconds after which a step that failed is worth another try. A removal waits for whatever is in its way; anything
/// else for a service that asks for patience, but not for one that does not answer: whoever waits for a stack shall
/// be told.
fn again(reason: &world::Error, deleting: bool, waited: f64) -> Option<u32> {
    if waited >= PATIENCE_S {
        return None;
    }
    let asked = reason.asks_again().or((deleting && reason.is_passing()).then_some(Duration::from_secs(2)))?;
    u32::try_from(asked.as_secs().max(1)).ok()
}

async fn apply(world: &World, cluster: ake_api_client::ClusterId, step: &Step) -> Result<(), Error> {
    world
        .apply(cluster, step)
        .await
        .map_err(|reason| Error::Step { step: step.to_string(), reason: Box::new(reason) })
}

async fn keys(
    config: &Config,
    properties: &credentials::Properties,
    request: &Request,
) -> Result<Answer, Error> {
    let done = Answer { done: true, ..Answer::default() };
    if !matches!(request.verb, Verb::Create | Verb::Update) {
        // The bundles go with the cluster, the keys with Heat's data.
        return Ok(done);
    }
    let authority = match Authority::restore(&request.secrets)? {
        Some(kept) => kept,
        None => Authority::generate(&properties.name)?,
    };
    let certificate = authority.sign(&properties.admin_csr)?;
    let world = World::connect(config, &request.cloud).await?;
    let cloud = bundle::Cloud {
        auth_url: request.cloud.auth_url.clone(),
        region: request.cloud.region.clone().unwrap_or_default(),
        application_credential_id: hidden(request, CREDENTIAL_ID, &properties.application_credential_id)?,
        application_credential_secret: hidden(
            request,
            CREDENTIAL_SECRET,
            &properties.application_credential_secret,
        )?,
        ca: config.cloud_ca()?,
    };
    verify(config, properties, request, &cloud).await?;
    let claims = match request.secrets.get(CLAIMS) {
        Some(kept) => serde_json::from_str(kept).map_err(bundle::Error::from)?,
        None => Claims::generate()?,
    };
    let begun = Instant::now();
    for (role, sealed) in bundle::bundles(properties.cluster, &authority, &claims, &cloud)? {
        let step = Step::PutBundle(role, sealed);
        // In this run: a later one would know neither the keys nor the claims.
        while let Err(error) = apply(&world, properties.cluster, &step).await {
            let Error::Step { reason, .. } = &error else { return Err(error) };
            let Some(again) = again(reason, false, PATIENCE_S / 2.0 + begun.elapsed().as_secs_f64()) else {
                return Err(error);
            };
            tokio::time::sleep(Duration::from_secs(again.into())).await;
        }
    }
    let mut secrets: BTreeMap<String, String> = authority.keep();
    secrets.insert(CLAIMS.to_owned(), serde_json::to_string(&claims).map_err(bundle::Error::from)?);
    Ok(Answer {
        attributes: Some(credentials::attributes(authority.certificate(), &certificate)),
        secrets,
        ..done
    })
}

fn hidden(request: &Request, field: &'static str, parameter: &str) -> Result<String, Error> {
    let value = request.hidden.get(field).map(|value| value.trim()).unwrap_or_default();
    if value.is_empty() {
        let reason = "is empty: expected a value of `openstack application credential create`".to_owned();
        return Err(Error::Credential { field, parameter: parameter.to_owned(), reason });
    }
    Ok(value.to_owned())
}

/// Logs in as the cluster will, and looks at what the credential allows.
async fn verify(
    config: &Config,
    properties: &credentials::Properties,
    request: &Request,
    cloud: &bundle::Cloud,
) -> Result<(), Error> {
    let wrong = |reason: String| Error::Credential {
        field: CREDENTIAL_ID,
        parameter: properties.application_credential_id.clone(),
        reason,
    };
    let mut login = CloudConfig::new(
        &cloud.auth_url,
        Auth::ApplicationCredential {
            id: CredentialId::Id(cloud.application_credential_id.clone()),
            secret: cloud.application_credential_secret.clone().into(),
        },
    );
    login.region.clone_from(&request.cloud.region);
    login.ca_file.clone_from(&config.cloud_ca_file);
    let session = match Session::connect(&login).await {
        Ok(session) => session,
        Err(openstack_client::Error::Login(LoginError::ApplicationCredentialRefused { message, .. })) => {
            return Err(wrong(format!(
                "Keystone refuses the application credential ({}): expected one that exists, has not expired, and \
                 whose secret is in hidden parameter {}",
                // The parameter is hidden: its value does not belong into a fault.
                message.trim_end_matches('.').replace(&cloud.application_credential_id, "(its id)"),
                properties.application_credential_secret,
            )));
        }
        Err(error) => return Err(wrong(error.to_string())),
    };
    let info = session.whoami();
    let project = &request.cloud.project_id;
    if session.project_id() != *project {
        let reason =
            format!("is of project {}: expected one of the stack's project, {project}", session.project_id());
        return Err(wrong(reason));
    }
    let required = access_rules::required()?;
    let rules = info.application_credential.and_then(|credential| credential.access_rules);
    if let Some(missing) = rules.as_deref().and_then(|rules| access_rules::first_missing(rules, &required)) {
        return Err(wrong(format!(
            "has no access rule for {} {} of service {}: expected the rules of templates/access-rules.json",
            missing.method, missing.path, missing.service,
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ake_api_client::{Error as ApiError, Problem};

    use super::*;

    fn refused(status: u16, code: &str, retry_after: Option<u64>) -> world::Error {
        world::Error::Api(ApiError::Refused {
            method: "PUT".parse().unwrap(),
            path: "/clusters/x".to_owned(),
            status: status.try_into().unwrap(),
            problem: Box::new(Problem { code: code.to_owned(), message: String::new(), field: None }),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    #[test]
    fn who_asks_for_patience_is_asked_again_and_who_is_silent_is_told_of() {
        let silent =
            || world::Error::Api(ApiError::Unreachable { url: String::new(), reason: String::new() });
        for (reason, deleting, waited, expected) in [
            (refused(503, "unavailable", None), false, 0.0, Some(2)),
            (refused(503, "unavailable", Some(7)), false, 60.0, Some(7)),
            (refused(429, "busy", Some(0)), false, 0.0, Some(1)),
            (refused(503, "unavailable", None), false, 120.0, None),
            (refused(409, "conflict", None), false, 0.0, None),
            (refused(409, "conflict", None), true, 0.0, Some(2)),
            (refused(400, "invalid", None), true, 0.0, None),
            (silent(), false, 0.0, None),
            (silent(), true, 0.0, Some(2)),
        ] {
            assert_eq!(again(&reason, deleting, waited), expected, "{reason} {deleting} {waited}");
        }
    }
}
