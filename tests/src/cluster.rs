//! A cluster as its tenant sees it: through kubectl, from the client behind the router.

use std::{net::IpAddr, path::PathBuf, process::Command, time::Duration};

use ake_lab::Lab;
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{output, raw, tenant::Tenant, wait_for};

/// Where kubectl is patient for a single call.
const CALL: &str = "--request-timeout=60s";

/// One cluster.
pub struct Cluster<'a> {
    /// The lab that it is in.
    pub lab: &'a Lab,
    /// Its stack's name.
    pub stack: String,
    /// The cluster's id, which is its root stack's.
    pub id: String,
    kubeconfig: PathBuf,
}

impl<'a> Cluster<'a> {
    /// A cluster from its stack's public outputs and the tenant's own key.
    pub fn of(lab: &'a Lab, tenant: &Tenant<'a>, stack: &str) -> Result<Self> {
        let encoded = |file: &str| -> Result<String> {
            let path = tenant.home().join(file);
            output(Command::new("base64").arg("-w0").arg(path))
        };
        let shown = tenant.json(&["stack", "show", stack])?;
        let id = shown["id"].as_str().context("stack without id")?.to_owned();
        let outputs = shown["outputs"].as_array().context("stack without outputs")?;
        let find = |key: &str| -> Result<String> {
            outputs
                .iter()
                .find(|o| o["output_key"] == key)
                .and_then(|o| o["output_value"].as_str())
                .map(ToOwned::to_owned)
                .with_context(|| format!("stack {stack} has no output {key}"))
        };
        std::fs::write(tenant.home().join("ca.crt"), find("ca")?)?;
        std::fs::write(tenant.home().join("admin.crt"), find("admin_certificate")?)?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": stack,
            "clusters": [{"name": stack, "cluster": {
                "server": find("api_url")?, "certificate-authority-data": encoded("ca.crt")?}}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": encoded("admin.crt")?, "client-key-data": encoded("admin.key")?}}],
            "contexts": [{"name": stack, "context": {"cluster": stack, "user": "admin"}}],
        });
        let kubeconfig = tenant.home().join(format!("{stack}.kubeconfig"));
        std::fs::write(&kubeconfig, config.to_string())?;
        Ok(Self { lab, stack: stack.to_owned(), id, kubeconfig })
    }

    /// The kubeconfig's path.
    #[must_use]
    pub fn kubeconfig(&self) -> &PathBuf {
        &self.kubeconfig
    }

    /// kubectl with these words.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.lab.client("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg(CALL).args(words);
        command
    }

    /// What kubectl prints.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        output(&mut self.command(words))
    }

    /// What kubectl reads, as JSON.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let text = output(self.command(&["get"]).args(words).args(["-o", "json"]))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.with_manifest("apply", manifest)
    }

    /// Deletes what a manifest names and waits until it is gone.
    pub fn remove(&self, manifest: &str) -> Result<()> {
        self.with_manifest("delete", manifest)
    }

    fn with_manifest(&self, verb: &str, manifest: &str) -> Result<()> {
        let file =
            tempfile::Builder::new().suffix(".yaml").tempfile_in(self.lab.dirs().state.join("tenants"))?;
        std::fs::write(file.path(), manifest)?;
        let path = file.path().display().to_string();
        output(&mut self.command(&[verb, "-f", &path])).map(drop)
    }

    /// Names of nodes that are Ready.
    pub fn ready_nodes(&self) -> Result<Vec<String>> {
        let nodes = self.get(&["nodes"])?;
        let ready = |node: &&Value| {
            node["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        };
        Ok(items(&nodes)
            .iter()
            .filter(ready)
            .filter_map(|node| node["metadata"]["name"].as_str().map(ToOwned::to_owned))
            .collect())
    }

    /// Waits until a Deployment has all of its pods.
    pub fn rolled_out(&self, what: &str) -> Result<()> {
        let mut command = self.lab.client("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["rollout", "status", what, "--timeout=300s"]);
        output(&mut command).map(drop)
    }

    /// The VIP of a Service, once it has one.
    pub fn vip(&self, service: &str) -> Result<IpAddr> {
        wait_for(&format!("a VIP of Service {service}"), Duration::from_secs(240), || {
            let service = self.get(&["service", service])?;
            let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(ToOwned::to_owned);
            Ok(ip.map(|ip| ip.parse()).transpose()?)
        })
        .map_err(|error| error.context(self.kubectl(&["describe", "service", service]).unwrap_or_default()))
    }

    /// Pods with this label, as `(name, node, pod address)`.
    pub fn pods(&self, label: &str) -> Result<Vec<(String, String, String)>> {
        let pods = self.get(&["pods", "-l", label])?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(items(&pods)
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| {
                (
                    text(&pod["metadata"]["name"]),
                    text(&pod["spec"]["nodeName"]),
                    text(&pod["status"]["podIP"]),
                )
            })
            .collect())
    }

    /// Runs a shell line in a pod.
    pub fn in_pod(&self, pod: &str, line: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "--", "sh", "-c", line])
    }

    /// `ake-probe` in the client's namespace; what it measured.
    pub fn probe<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T> {
        probe(self.lab, words)
    }

    /// Runs a command in one of the cluster's machines.
    pub fn exec(&self, server: &str, line: &str) -> Result<String> {
        let out = self.lab.exec(server, &["sh", "-c", line])?;
        if !out.status.success() {
            bail!("{server}: {line}: {}", crate::complaint(&out));
        }
        Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    }

    /// Whether a command in one of the cluster's machines succeeds.
    pub fn succeeds(&self, server: &str, line: &str) -> Result<bool> {
        Ok(self.lab.exec(server, &["sh", "-c", line])?.status.success())
    }

    /// What a person looks at first where the cluster does not answer: nodes, pods, the latest warnings, and what the
    /// balancers say of members. What cannot be read says why in its place.
    #[must_use]
    pub fn as_it_is(&self) -> String {
        let or_why = |found: Result<String>| found.unwrap_or_else(|error| format!("{error:#}"));
        let nodes = or_why(self.kubectl(&["get", "nodes,pods,services", "-A", "-o", "wide"]));
        let warnings = ["get", "events", "-A", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"];
        let warnings = or_why(self.kubectl(&warnings));
        let warnings: Vec<_> = warnings.lines().rev().take(20).collect();
        let balancers = self.lab.balancers().iter();
        let members =
            balancers.map(|one| or_why(self.lab.status_of(one).map(|status| format!("{status:#}"))));
        let members: Vec<_> = members.collect();
        format!(
            "{nodes}\nlatest warnings first:\n{}\nbalancers:\n{}",
            warnings.join("\n"),
            members.join("\n")
        )
    }

    /// Warnings that an object's Events tell, newest last.
    pub fn warnings(&self, kind: &str, name: &str) -> Result<Vec<String>> {
        let selector = format!("involvedObject.kind={kind},involvedObject.name={name},type=Warning");
        let events = self.get(&["events", "--field-selector", &selector])?;
        Ok(items(&events).iter().filter_map(|e| e["message"].as_str().map(ToOwned::to_owned)).collect())
    }
}

/// The items of a list.
#[must_use]
pub fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// `ake-probe` in the client's namespace; what it measured.
pub fn probe<T: DeserializeOwned>(lab: &Lab, words: &[&str]) -> Result<T> {
    let text = output(probe_command(lab)?.args(words))?;
    serde_json::from_str(&text).with_context(|| format!("ake-probe {}: {text}", words.join(" ")))
}

/// `ake-probe` in the client's namespace, to be started.
pub fn probe_command(lab: &Lab) -> Result<Command> {
    Ok(lab.client(lab.built("ake-probe")?))
}

/// A command's status alone.
pub fn status(command: &mut Command) -> Result<bool> {
    Ok(raw(command)?.status.success())
}
