//! What a tenant does, with the stock clients and an ordinary login: a credential, a key, a stack.

use std::{
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

use ake_lab::Lab;
use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{api::Api, checkout, cluster::Cluster, output, report::Report};

/// Longest wait for a stack.
const PATIENCE: Duration = Duration::from_secs(900);

/// A project and its user of the same name.
pub struct Tenant<'a> {
    lab: &'a Lab,
    name: String,
    home: PathBuf,
    api: OnceLock<Api<'a>>,
    admin: OnceLock<Api<'a>>,
}

/// What a stack is made from.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Name of the stack.
    pub stack: String,
    /// Number of workers.
    pub workers: u32,
    /// Further `--parameter KEY=VALUE` of the stack; a later one wins.
    pub parameters: Vec<(String, String)>,
    /// Minutes that Heat may take.
    pub minutes: u32,
}

impl Wish {
    /// One master and so many workers.
    #[must_use]
    pub fn of(stack: &str, workers: u32) -> Self {
        Self { stack: stack.to_owned(), workers, parameters: Vec::new(), minutes: 10 }
    }
}

/// An application credential.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

impl<'a> Tenant<'a> {
    /// The tenant of that name.
    pub fn new(lab: &'a Lab, name: &str) -> Result<Self> {
        let home = lab.dirs().state.join("tenants").join(name);
        std::fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        Ok(Self { lab, name: name.to_owned(), home, api: OnceLock::new(), admin: OnceLock::new() })
    }

    /// The lab that it is in.
    #[must_use]
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// Its name, which is its project's and its user's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its files are: key, CSR, kubeconfig.
    #[must_use]
    pub fn home(&self) -> &PathBuf {
        &self.home
    }

    /// The stock command line, as this tenant.
    pub fn openstack(&self, words: &[&str]) -> Result<String> {
        output(self.lab.tenant(&self.name).args(words))
    }

    /// The same, read as JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = output(self.lab.tenant(&self.name).args(words).args(["-f", "json"]))?;
        serde_json::from_str(&text).with_context(|| format!("openstack {}: {text}", words.join(" ")))
    }

    /// The services themselves, as this tenant.
    pub fn api(&self) -> Result<&Api<'a>> {
        if let Some(api) = self.api.get() {
            return Ok(api);
        }
        let api = Api::of(self.lab, &self.name)?;
        Ok(self.api.get_or_init(|| api))
    }

    /// Makes an application credential with the access rules that a cluster needs.
    pub fn credential(&self, name: &str, report: &mut Report) -> Result<Credential> {
        let rules = checkout().join("templates/access-rules.json");
        self.credential_with(name, &rules.display().to_string(), report)
    }

    /// Makes an application credential with these access rules (a file or JSON).
    pub fn credential_with(&self, name: &str, rules: &str, report: &mut Report) -> Result<Credential> {
        report.command(&format!(
            "openstack application credential create --access-rules templates/access-rules.json {name}"
        ));
        let made = self.json(&["application", "credential", "create", "--access-rules", rules, name])?;
        let text = |key: &str| {
            made[key]
                .as_str()
                .map(ToOwned::to_owned)
                .with_context(|| format!("credential without {key}: {made}"))
        };
        Ok(Credential { id: text("ID")?, secret: text("Secret")? })
    }

    /// Makes the tenant's key and a certificate signing request; the request.
    pub fn signing_request(&self, report: &mut Report) -> Result<String> {
        let (key, request) = (self.home.join("admin.key"), self.home.join("admin.csr"));
        report
            .command("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=admin …");
        output(
            std::process::Command::new("openssl")
                .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
                .args(["-subj", "/CN=admin", "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(&request),
        )?;
        Ok(std::fs::read_to_string(request)?)
    }

    /// `openstack stack create`, without waiting.
    pub fn begin(&self, wish: &Wish, credential: &Credential, report: &mut Report) -> Result<()> {
        let request = self.signing_request(report)?;
        let template = checkout().join("templates/cluster.yaml");
        let mut parameters: Vec<(String, String)> = [
            ("network", "provider"),
            ("image", "ake-node"),
            ("flavor", "m1.node"),
            ("workers", &wish.workers.to_string()),
            ("admin_csr", &request),
            ("application_credential_id", &credential.id),
            ("application_credential_secret", &credential.secret),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (name, value) in &wish.parameters {
            parameters.retain(|(other, _)| other != name);
            parameters.push((name.clone(), value.clone()));
        }
        report.command(&format!(
            "openstack stack create -t templates/cluster.yaml --parameter network=provider … {}",
            wish.stack
        ));
        let mut command = self.lab.tenant(&self.name);
        command
            .args(["stack", "create", "-f", "json", "--timeout", &wish.minutes.to_string(), "-t"])
            .arg(template);
        for (name, value) in parameters {
            command.args(["--parameter", &format!("{name}={value}")]);
        }
        output(command.arg(&wish.stack)).map(drop)
    }

    /// Waits until a stack is made.
    pub fn finish(&self, stack: &str) -> Result<Cluster<'a>> {
        self.settled(stack, "CREATE_COMPLETE")?;
        Cluster::of(self.lab, self, stack)
    }

    /// Credential, stack, kubeconfig.
    pub fn create(&self, wish: &Wish, report: &mut Report) -> Result<Cluster<'a>> {
        let credential = self.credential(&format!("ake-{}", wish.stack), report)?;
        self.begin(wish, &credential, report)?;
        self.finish(&wish.stack)
    }

    /// A stack's status and reason; none where there is no such stack.
    pub fn status(&self, stack: &str) -> Result<Option<(String, String)>> {
        let stacks = self.api()?.get("orchestration", &format!("/stacks?name={stack}"))?;
        let text = |key: &str| stacks["stacks"][0][key].as_str().map(ToOwned::to_owned);
        Ok(text("stack_status").zip(text("stack_status_reason")))
    }

    /// Waits until a stack has a status; an error with Heat's own failures list where it fails.
    pub fn settled(&self, stack: &str, wanted: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let (status, reason) =
                self.status(stack)?.with_context(|| format!("there is no stack {stack}"))?;
            if status == wanted {
                return Ok(());
            }
            if status.ends_with("_FAILED") {
                let failures = self.failures(stack).unwrap_or_default();
                bail!("stack {stack} is {status}: {reason}\n{failures}");
            }
            if Instant::now() > end {
                bail!("stack {stack} is still {status} after {} s: {reason}", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Deletes a stack and waits until it is gone; an error with what it fails by.
    pub fn remove(&self, stack: &str) -> Result<()> {
        let api = self.api()?;
        let id = api.get("orchestration", &format!("/stacks?name={stack}"))?["stacks"][0]["id"].clone();
        let path =
            format!("/stacks/{stack}/{}", id.as_str().with_context(|| format!("there is no stack {stack}"))?);
        let said = api.call("DELETE", "orchestration", &path, None)?;
        anyhow::ensure!(said.granted(), "DELETE {path}: {}: {}", said.status, said.body);
        let end = Instant::now() + PATIENCE;
        while let Some((status, reason)) = self.status(stack)? {
            if status == "DELETE_FAILED" || Instant::now() > end {
                bail!("stack {stack} is {status}: {reason}\n{}", self.failures(stack).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// What Heat says of a stack's failures, whole.
    pub fn failures(&self, stack: &str) -> Result<String> {
        self.openstack(&["stack", "failures", "list", "--long", stack])
    }

    /// `openstack stack delete --wait`.
    pub fn delete(&self, stack: &str, report: &mut Report) -> Result<()> {
        report.command(&format!("openstack stack delete --yes --wait {stack}"));
        self.openstack(&["stack", "delete", "--yes", "--wait", stack]).map(drop)
    }

    /// An output of a stack.
    pub fn stack_output(&self, stack: &str, key: &str) -> Result<String> {
        let shown = self.json(&["stack", "output", "show", stack, key])?;
        Ok(match &shown["output_value"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// The first address of a cluster's IPv6 VIP block.
    pub fn ipv6_of_block(&self, stack: &str) -> Result<String> {
        let blocks: Vec<String> = serde_json::from_str(&self.stack_output(stack, "vip_blocks")?)?;
        let block = blocks.iter().find(|block| block.contains(':')).context("no IPv6 block")?;
        Ok(block.split('/').next().unwrap_or_default().to_owned())
    }

    /// Everything of this project that OpenStack and `ake-api` list, to itself and to the administrator: one sorted line each.
    pub fn inventory(&self) -> Result<Vec<String>> {
        let admin = match self.admin.get() {
            Some(admin) => admin,
            None => {
                let admin = Api::of(self.lab, "admin")?;
                self.admin.get_or_init(|| admin)
            }
        };
        crate::inventory::of(self.api()?, admin)
    }
}
