//! The services' own HTTP, for what tests ask so often that starting the stock client each time would be
//! most of their work, and for what no client would send.

use std::{collections::BTreeMap, io::Write, process::Stdio};

use ake_lab::Lab;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{complaint, output, tenant::Credential};

/// A login, with the catalog that came with it.
pub struct Api<'a> {
    lab: &'a Lab,
    token: String,
    project: String,
    user: String,
    catalog: BTreeMap<String, String>,
}

/// What a service answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status; 0 where there was no answer.
    pub status: u16,
    /// The body, as text where it is not JSON.
    pub body: Value,
    subject: String,
}

impl Answer {
    /// Whether the request was granted.
    #[must_use]
    pub fn granted(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl<'a> Api<'a> {
    /// The login of a project's user of the same name.
    pub fn of(lab: &'a Lab, user: &str) -> Result<Self> {
        let domain = json!({"id": "default"});
        let who = json!({"name": user, "password": "secret", "domain": domain});
        let auth = json!({
            "identity": {"methods": ["password"], "password": {"user": who}},
            "scope": {"project": {"name": user, "domain": domain}},
        });
        Self::login(lab, &auth).with_context(|| format!("login of {user}"))
    }

    /// The login by an application credential.
    pub fn with(lab: &'a Lab, credential: &Credential) -> Result<Self> {
        let which = json!({"id": credential.id, "secret": credential.secret});
        let auth =
            json!({"identity": {"methods": ["application_credential"], "application_credential": which}});
        Self::login(lab, &auth).context("login by application credential")
    }

    fn login(lab: &'a Lab, auth: &Value) -> Result<Self> {
        let url = "http://192.0.2.2:5000/v3/auth/tokens";
        let said = request(lab, "POST", url, None, Some(&json!({"auth": auth})))?;
        ensure!(said.status == 201, "{}: {}", said.status, said.body);
        let token = &said.body["token"];
        let mut catalog = BTreeMap::new();
        for service in token["catalog"].as_array().into_iter().flatten() {
            for endpoint in service["endpoints"].as_array().into_iter().flatten() {
                if let (Some(kind), Some(url), Some("public")) =
                    (service["type"].as_str(), endpoint["url"].as_str(), endpoint["interface"].as_str())
                {
                    catalog.insert(kind.to_owned(), url.trim_end_matches('/').to_owned());
                }
            }
        }
        let id = |of: &str| token[of]["id"].as_str().unwrap_or_default().to_owned();
        Ok(Self { lab, project: id("project"), user: id("user"), token: said.subject, catalog })
    }

    /// The project's id.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The user's id.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The token itself.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where a service of the catalog is.
    pub fn url(&self, service: &str) -> Result<&str> {
        self.catalog.get(service).map(String::as_str).with_context(|| format!("no {service} in the catalog"))
    }

    /// One request to a service of the catalog, whatever its answer.
    pub fn call(&self, method: &str, service: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let base = self.catalog.get(service).with_context(|| format!("no {service} in the catalog"))?;
        request(self.lab, method, &format!("{base}{path}"), Some(&self.token), body)
    }

    /// What a service has there; an error where it does not grant it.
    pub fn get(&self, service: &str, path: &str) -> Result<Value> {
        let said = self.call("GET", service, path, None)?;
        ensure!(said.granted(), "GET {service} {path}: {}: {}", said.status, said.body);
        Ok(said.body)
    }

    /// What services have at these paths, in one go; an error where one does not grant it.
    pub fn all(&self, asked: &[(&str, String)]) -> Result<Vec<Value>> {
        let urls = asked.iter().map(|(service, path)| Ok(format!("{}{path}", self.url(service)?)));
        let mut command = self.lab.client("curl");
        command.args(["-sSL", "--fail-with-body", "--fail-early", "-m", "60", "--cacert"]);
        command.arg(self.lab.dirs().ake().join("ca.pem"));
        command.args(["-H", &format!("X-Auth-Token: {}", self.token)]);
        // attachments are listed from this version on
        command.args(["-H", "OpenStack-API-Version: volume 3.27"]);
        let text = output(command.args(urls.collect::<Result<Vec<_>>>()?))?;
        let answers: Vec<Value> = serde_json::Deserializer::from_str(&text)
            .into_iter()
            .collect::<Result<_, _>>()
            .with_context(|| text.clone())?;
        ensure!(
            answers.len() == asked.len(),
            "{} answers to {} requests: {text}",
            answers.len(),
            asked.len()
        );
        Ok(answers)
    }

    /// What a service says at each of these paths, one after the other; an error if it does not grant one.
    pub fn texts(&self, service: &str, paths: &[String]) -> Result<String> {
        let base = self.catalog.get(service).with_context(|| format!("no {service} in the catalog"))?;
        let mut command = self.lab.client("curl");
        command.args(["-sSLf", "--fail-early", "-H", &format!("X-Auth-Token: {}", self.token)]);
        command.args(["-H", "X-OpenStack-Nova-API-Version: 2.90", "-w", "\n"]);
        output(command.args(paths.iter().map(|path| format!("{base}{path}"))))
    }
}

/// One request from the client's host.
pub fn request(
    lab: &Lab,
    method: &str,
    url: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer> {
    let mut command = lab.client("curl");
    command.args(["-sSL", "-m", "60", "-X", method, "-H", "Content-Type: application/json", "--cacert"]);
    command.arg(lab.dirs().ake().join("ca.pem"));
    command.args(["-w", "\n%{http_code} %header{x-subject-token}"]);
    if let Some(token) = token {
        command.args(["-H", &format!("X-Auth-Token: {token}")]);
    }
    if body.is_some() {
        command.args(["--data-binary", "@-"]);
    }
    let mut child =
        command.arg(url).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let (Some(mut input), Some(body)) = (child.stdin.take(), body) {
        input.write_all(body.to_string().as_bytes())?;
    }
    let out = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let (said, end) =
        text.rsplit_once('\n').with_context(|| format!("{method} {url}: {}", complaint(&out)))?;
    let (status, subject) = end.split_once(' ').unwrap_or((end, ""));
    let status = status.parse()?;
    let body = if status == 0 {
        Value::String(complaint(&out))
    } else {
        serde_json::from_str(said).unwrap_or_else(|_| Value::String(said.to_owned()))
    };
    Ok(Answer { status, body, subject: subject.to_owned() })
}
