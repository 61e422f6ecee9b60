//! What is secret of a cluster is found nowhere but on its own nodes: the application credential that it acts by,
//! its authority's key and every other key and token of its nodes.
//!
//! Looks at the cluster `neighbour`, which `path.rs` leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use scenarios::{api::Api, output, raw, stacks::run, tenant::Tenant};
use serde_json::Value;

/// What is looked for, by how it may be written down; and what each is.
type Markers = BTreeMap<String, String>;

/// A text as it stands, and as it stands in the base64 of something longer, wherever it begins there.
fn spellings(text: &str) -> BTreeSet<String> {
    let within = (0..3).map(|shift| {
        let padded = [&vec![b'-'; shift], text.as_bytes()].concat();
        let encoded = BASE64.encode(&padded);
        // What shares a group of four with its surroundings is not known.
        let (from, to) = (if shift == 0 { 0 } else { 4 }, padded.len() / 3 * 4);
        encoded[from..to].to_owned()
    });
    within.chain([text.to_owned()]).collect()
}

/// The secrets in a file of a node: private keys, tokens, the credential's secret.
fn secrets(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in text.split("-----BEGIN ").skip(1) {
        let (kind, body) = part.split_once("-----\n").unwrap_or_default();
        if kind.ends_with("PRIVATE KEY") {
            // The first line begins with what all keys of a kind share; 12 bytes of the key follow.
            found.extend(body.lines().take(2).map(ToOwned::to_owned));
        }
    }
    for line in text.lines() {
        let line = line.trim().trim_start_matches('"').trim_end_matches([',', '"']);
        let value = |key: &str| line.strip_prefix(key).map(|v| v.trim_start_matches([' ', '=', '"', ':']));
        if let Some(data) = value("client-key-data") {
            let decoded = BASE64.decode(data).unwrap_or_default();
            found.extend(secrets(file, &String::from_utf8_lossy(&decoded)));
            found.push(data.to_owned());
        }
        found.extend(value("application-credential-secret").map(ToOwned::to_owned));
        found.extend(value("token\"").map(ToOwned::to_owned));
        if file.ends_with("tokens.csv") {
            found.extend(line.split(',').next().map(ToOwned::to_owned));
        }
    }
    found
}

/// Every secret that lies in `/etc` of a node.
fn of_node(lab: &ake_lab::Lab, node: &str, markers: &mut Markers) -> Result<usize> {
    let list = "grep -rlE 'PRIVATE KEY|key-data|secret|token|ake-bootstrap' /etc/kubernetes /etc/ake";
    let files = output_of(lab, node, list)?;
    let before = markers.len();
    for file in files.lines().filter(|file| !file.ends_with("node.json") && !file.contains("/manifests/")) {
        for secret in secrets(file, &output_of(lab, node, &format!("cat {file}"))?) {
            ensure!(secret.len() >= 16, "{node}:{file}: {secret:?} is too short to be looked for");
            for spelling in spellings(&secret) {
                markers.insert(spelling, format!("{node}:{file}"));
            }
        }
    }
    Ok(markers.len() - before)
}

fn output_of(lab: &ake_lab::Lab, node: &str, line: &str) -> Result<String> {
    let out = lab.exec(node, &["sh", "-c", line])?;
    ensure!(out.status.success(), "{node}: {line}: {}", scenarios::complaint(&out));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Everything that Heat's API says of a project's stacks, nested ones too.
fn everything_of_heat(api: &Api<'_>) -> Result<String> {
    let mut paths = vec!["/stacks?show_nested=true".to_owned()];
    let stacks = api.get("orchestration", &paths[0])?;
    for stack in stacks["stacks"].as_array().context("stacks")? {
        let (name, id) = (stack["stack_name"].as_str(), stack["id"].as_str());
        let base = format!("/stacks/{}/{}", name.context("a name")?, id.context("an id")?);
        for part in ["", "/environment", "/template", "/files", "/outputs", "/resources", "/events"] {
            paths.push(format!("{base}{part}"));
        }
        for list in ["outputs", "resources", "events"] {
            let rows = api.get("orchestration", &format!("{base}/{list}"))?;
            for row in rows[list].as_array().context("a list")? {
                let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
                match list {
                    "outputs" => paths.push(format!("{base}/outputs/{}", text("output_key"))),
                    "resources" => paths.push(format!("{base}/resources/{}", text("resource_name"))),
                    _ => paths.push(format!(
                        "{base}/resources/{}/events/{}",
                        text("resource_name"),
                        text("id")
                    )),
                }
            }
        }
    }
    ensure!(paths.len() > 60, "Heat has only {} things to say of a cluster", paths.len());
    api.texts("orchestration", &paths)
}

/// What the stock client prints, as a person asks.
fn as_people_ask(tenant: &Tenant<'_>, stack: &str) -> Result<String> {
    let lines = ["show", "output show --all", "event list --nested-depth 5", "resource list -n 5"];
    let more = ["failures list --long", "environment show", "template show", "file list"];
    let mut text = String::new();
    for line in lines.iter().chain(&more) {
        let words: Vec<_> = ["stack"].into_iter().chain(line.split(' ')).chain([stack]).collect();
        text.push_str(&tenant.openstack(&words)?);
    }
    Ok(text)
}

/// Every row of every table of every database, as text.
const DUMP: &str = "
import glob, sqlite3, sys
for path in sorted(sys.argv[1:]):
    for line in sqlite3.connect(f'file:{path}?mode=ro', uri=True).iterdump():
        print(path.rsplit('/', 1)[1], line)
";

fn databases(lab: &ake_lab::Lab) -> Result<String> {
    let folder = lab.dirs().openstack().join("data/sqlite");
    let mut paths = vec![lab.dirs().ake().join("api/api.sqlite")];
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.contains(".db") && !name.ends_with("-wal") && !name.ends_with("-shm") {
            paths.push(path);
        }
    }
    ensure!(paths.iter().any(|path| path.ends_with("heat.db")), "no heat.db in {}", folder.display());
    output(Command::new(lab.programs().services.join("bin/python")).args(["-c", DUMP]).args(paths))
}

/// What of `markers` is in the files of these folders: file and what it is.
fn found(markers: &Markers, folders: &[&Path]) -> Result<BTreeSet<(String, String)>> {
    let patterns = tempfile::NamedTempFile::new()?;
    fs::write(patterns.path(), markers.keys().map(|m| format!("{m}\n")).collect::<String>())?;
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["-raoHF", "-f"]).arg(patterns.path()).args(folders);
    let out = raw(&mut grep)?;
    ensure!(out.status.code().is_some_and(|code| code < 2), "{}", scenarios::complaint(&out));
    Ok(String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, marker)| (file.to_owned(), markers.get(marker).cloned().unwrap_or_default()))
        .collect())
}

#[test]
fn a_clusters_secrets_are_on_its_nodes_alone() {
    run(|lab| {
        let tenant = Tenant::new(lab, "neighbour")?;
        let admin = Tenant::new(lab, "admin")?;
        let mut markers = Markers::new();
        let master = of_node(lab, "neighbour-master-0", &mut markers)?;
        let worker = of_node(lab, "neighbour-worker-0", &mut markers)?;
        ensure!(master >= 50 && worker >= 10, "{master} and {worker} spellings of secrets on the nodes");

        let harvest = tempfile::tempdir()?;
        let keep = |name: &str, text: &str| fs::write(harvest.path().join(name), text);
        keep("heat", &everything_of_heat(tenant.api()?)?)?;
        keep("client", &as_people_ask(&tenant, "neighbour")?)?;
        keep("servers", &admin.api()?.texts("compute", &["/servers/detail?all_tenants=1".to_owned()])?)?;
        keep("databases", &databases(lab)?)?;
        for node in ["neighbour-master-0", "neighbour-worker-0"] {
            let logs =
                "journalctl --no-pager -o cat; find /var/log -type f ! -path '*/journal/*' -exec cat {} +";
            keep(node, &output_of(lab, node, logs)?)?;
        }
        let logs = lab.dirs().log();
        let (sqlite, ours) = (lab.dirs().openstack().join("data/sqlite"), lab.dirs().ake().join("api"));
        let everywhere = [harvest.path(), logs.as_path(), sqlite.as_path(), ours.as_path()];
        let leaks = found(&markers, &everywhere)?;
        ensure!(leaks.is_empty(), "found outside of the nodes: {leaks:#?}");

        // The search finds what is public, in clear and within base64.
        let node: Value =
            serde_json::from_str(&output_of(lab, "neighbour-worker-0", "cat /etc/ake/node.json")?)?;
        let claim = |key: &str| node["claim"][key].as_str().map(ToOwned::to_owned).context("a claim");
        let ca = output_of(lab, "neighbour-worker-0", "cat /etc/kubernetes/pki/ca.crt")?;
        let mut public = Markers::new();
        public.insert(ca.lines().nth(1).context("a certificate")?.to_owned(), "CA".to_owned());
        public.extend(spellings(&claim("id")?).into_iter().map(|spelling| (spelling, "claim".to_owned())));
        let seen = found(&public, &[harvest.path()])?;
        for (file, what) in [("heat", "CA"), ("client", "CA"), ("databases", "claim")] {
            let wanted = (harvest.path().join(file).display().to_string(), what.to_owned());
            ensure!(seen.contains(&wanted), "the search does not find the {what} in {file}: {seen:?}");
        }

        // A claim's key opens what ake-api keeps, so ake-api must not have it.
        let keys =
            spellings(&claim("key")?).into_iter().map(|spelling| (spelling, "key".to_owned())).collect();
        let held = found(&keys, &[ours.as_path(), lab.log("ake-api").as_path()])?;
        ensure!(held.is_empty(), "ake-api has the key of a claim: {held:?}");
        Ok(())
    });
}

#[test]
fn user_data_carries_the_claim_and_nothing_else_that_is_secret() {
    run(|lab| {
        let expected = [
            "api",
            "claim",
            "cluster",
            "cluster_dns",
            "cluster_name",
            "control_plane",
            "metadata",
            "name",
            "pod_ranges",
            "role",
            "security_group",
            "service_ranges",
            "signal",
            "vip_blocks",
        ];
        for server in ["neighbour-master-0", "neighbour-worker-0"] {
            let node: Value = serde_json::from_str(&output_of(lab, server, "cat /etc/ake/node.json")?)?;
            let keys: Vec<_> = node.as_object().context("node.json")?.keys().map(String::as_str).collect();
            ensure!(keys == expected, "{server}: node.json has {keys:?}");
            let claim: Vec<_> =
                node["claim"].as_object().context("claim")?.keys().map(String::as_str).collect();
            ensure!(claim == ["id", "key"], "{server}: a claim has {claim:?}");
            let drive = output_of(lab, server, "cat /var/lib/cloud/instance/user-data.txt")?;
            let files = drive.matches("- path:").count();
            ensure!(
                files == 1 && drive.contains("/etc/ake/node.json"),
                "{server}: user_data writes {files} files"
            );
        }
        Ok(())
    });
}
