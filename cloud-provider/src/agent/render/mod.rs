//! From configuration and bundle to the files of this image's units. Nothing here reads or writes anything.

mod master;
mod worker;

use std::fmt::Write;

use base64::Engine;
use serde_json::json;

pub use master::master;
pub use worker::worker;

use super::bundle::Pair;

/// Folder of Kubernetes' files.
const KUBERNETES: &str = "/etc/kubernetes";

/// How a program proves who it is to the API server.
enum Identity<'a> {
    Certificate(&'a Pair),
    Token(&'a str),
}

/// A kubeconfig. JSON, which is YAML as well.
fn kubeconfig(server: &str, ca: &str, identity: &Identity<'_>) -> String {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let user = match identity {
        Identity::Certificate(pair) => {
            json!({"client-certificate-data": encode(&pair.cert), "client-key-data": encode(&pair.key)})
        }
        Identity::Token(token) => json!({"token": token}),
    };
    pretty(&json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
        "clusters": [{"name": "cluster", "cluster": {"server": server, "certificate-authority-data": encode(ca)}}],
        "users": [{"name": "node", "user": user}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "node"}}],
    }))
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// An environment file with one variable that systemd splits at blanks.
fn arguments<'a>(variable: &str, flags: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut line = format!("{variable}=");
    for (number, (flag, value)) in flags.into_iter().enumerate() {
        let blank = if number == 0 { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(line, "{blank}--{flag}={value}");
    }
    line.push('\n');
    line
}
