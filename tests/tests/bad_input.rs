//! What is said of what cannot be: by the stack, by the program; and that nothing is left of it. (Properties are in
//! resources.rs, what a running cluster is told in bad_cluster.rs.)

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use ake_lab::Lab;
use anyhow::{Context, Result, ensure};
use scenarios::{
    api::Api,
    checkout, complaint, raw,
    report::Report,
    stacks::{create, new_id, refusal, says, utc, with_project},
    tenant::{Credential, Tenant, Wish},
};
use serde_json::{Value, json};

/// What is wrong with a machine is said within this time.
const MACHINE: Duration = Duration::from_secs(450);

/// Whoever takes the whole VIP range is alone.
static VIP_RANGE: RwLock<()> = RwLock::new(());

/// What a stack says of a credential, which it must not repeat.
fn refused(lab: &Lab, tenant: &Tenant<'_>, given: &[&str], bad: &Credential, words: &[&str]) -> Result<()> {
    let Credential { id, secret } = bad;
    let (id_given, secret_given) = (format!("id={id}"), format!("secret={secret}"));
    let given = [given, &[&id_given, &secret_given]].concat();
    let said = refusal(lab, tenant, "credentials.yaml", &given)?;
    says(&said, &["application_credential_id (hidden parameter id)", "expected"])?;
    says(&said, words)?;
    ensure!(!said.contains(secret) && !said.contains(id), "a hidden parameter is in: {said}");
    Ok(())
}

#[test]
fn a_credential_that_cannot_be_is_refused_before_any_machine_is_made() {
    let _shared = VIP_RANGE.read().unwrap_or_else(PoisonError::into_inner);
    with_project("bad-credential", |lab, tenant| {
        let report = &mut Report::new("bad-credential");
        create(lab, tenant, "one", "vip.yaml", &[])?;
        let cluster = format!("cluster={}", tenant.stack_output("one", "cluster")?);
        let csr = format!("csr={}", tenant.signing_request(report)?);
        let given = [cluster.as_str(), csr.as_str()];
        let rules = checkout().join("templates/access-rules.json").display().to_string();

        // Keystone refuses one that is over before it is made, and a busy machine starts its client slowly.
        let soon = SystemTime::now() + Duration::from_secs(20);
        let made = tenant.json(&[
            "application",
            "credential",
            "create",
            "--access-rules",
            &rules,
            "--expiration",
            &utc(soon)?,
            "short",
        ])?;
        let text = |key: &str| made[key].as_str().map(ToOwned::to_owned).context("a new credential");
        let expired = Credential { id: text("ID")?, secret: text("Secret")? };

        let mut some: Vec<Value> = serde_json::from_str(&fs::read_to_string(&rules)?)?;
        some.retain(|rule| !(rule["method"] == "POST" && rule["path"] == "/**v3/**volumes"));
        let lacking = tenant.credential_with("lacking", &serde_json::to_string(&some)?, report)?;
        refused(
            lab,
            tenant,
            &given,
            &lacking,
            &["no access rule for POST /**v3/**volumes of service block-storage"],
        )?;

        let mut wrong = lacking;
        wrong.secret = "marker-of-a-wrong-secret".to_owned();
        refused(lab, tenant, &given, &wrong, &["Keystone refuses", "secret is in hidden parameter secret"])?;

        std::thread::sleep(
            soon.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(1),
        );
        refused(lab, tenant, &given, &expired, &["Keystone refuses", "has not expired"])?;
        tenant.remove("one")
    });
}

#[test]
fn an_exhausted_vip_range_names_the_range_and_its_use() {
    let _alone = VIP_RANGE.write().unwrap_or_else(PoisonError::into_inner);
    with_project("exhausted", |lab, tenant| {
        let (admin, api) = (Api::of(lab, "admin")?, tenant.api()?);
        let port = somebody_elses(&admin)?;
        let mut made = Vec::new();
        let refusal_of_the_api = loop {
            let id = new_id();
            let wish = json!({"name": format!("filler-{}", made.len()), "network": "provider"});
            let said = api.call("PUT", "ake", &format!("/v1/clusters/{id}"), Some(&wish))?;
            if !said.granted() {
                break said;
            }
            made.push(id);
        };
        let stack = refusal(lab, tenant, "vip.yaml", &[]);
        for id in &made {
            let said = api.call("DELETE", "ake", &format!("/v1/clusters/{id}"), None)?;
            ensure!(said.granted(), "DELETE of cluster {id}: {}", said.body);
        }
        let said = admin.call("DELETE", "network", &format!("/v2.0/ports/{port}"), None)?;
        ensure!(said.granted(), "DELETE of port {port}: {}", said.body);
        ensure!(made.len() == LEFT, "{} clusters fit into {LEFT} blocks", made.len());
        let words =
            ["203.0.113.16-203.0.113.239", "/28", " of 14 are in use", "not AKE's", "can widen the range"];
        ensure!(refusal_of_the_api.body["code"] == "exhausted", "{}", refusal_of_the_api.body);
        says(&refusal_of_the_api.body.to_string(), &words)?;
        says(&stack?, &words)
    });
}

/// Blocks that the test leaves to be taken by clusters.
const LEFT: usize = 2;

/// A port of somebody else's, with an address in every free block but [`LEFT`]. (A cluster's two ports with all their
/// addresses are seconds of work for Neutron.)
fn somebody_elses(admin: &Api<'_>) -> Result<String> {
    let networks = admin.get("network", "/v2.0/networks?name=ake-vips")?;
    let network = networks["networks"][0]["id"].as_str().context("network ake-vips")?.to_owned();
    let ports = admin.get("network", &format!("/v2.0/ports?network_id={network}"))?;
    let mut used = BTreeSet::new();
    for port in ports["ports"].as_array().into_iter().flatten() {
        for fixed in port["fixed_ips"].as_array().into_iter().flatten() {
            let address = fixed["ip_address"].as_str().context("an address")?;
            used.extend(
                address.strip_prefix("203.0.113.").map(str::parse::<u8>).transpose()?.map(|last| last / 16),
            );
        }
    }
    let free: Vec<_> = (1..15).filter(|block| !used.contains(block)).skip(LEFT).collect();
    ensure!(!free.is_empty(), "the VIP range has not more than {LEFT} free blocks");
    let fixed: Vec<_> =
        free.iter().map(|block| json!({"ip_address": format!("203.0.113.{}", block * 16 + 7)})).collect();
    let wish = json!({"port": {"network_id": network, "name": "somebody-elses", "fixed_ips": fixed}});
    let said = admin.call("POST", "network", "/v2.0/ports", Some(&wish))?;
    Ok(said.body["port"]["id"].as_str().with_context(|| said.body.to_string())?.to_owned())
}

/// A file of a broken layer over the image's own; goes with the value.
struct BrokenImage {
    layer: tempfile::TempDir,
    image: PathBuf,
}

impl BrokenImage {
    /// An image whose program `program` cannot be executed.
    fn of(lab: &Lab, program: &str) -> Result<Self> {
        let layer = tempfile::tempdir()?;
        fs::set_permissions(layer.path(), fs::Permissions::from_mode(0o755))?;
        let path = layer.path().join(program);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, "half of a download")?;
        let cache = &lab.dirs().cache;
        let layers = fs::read_to_string(cache.join("image/layers"))?;
        let hash = format!("broken-{}", std::process::id());
        let image = cache.join(format!("image-{hash}"));
        fs::create_dir_all(&image)?;
        fs::write(image.join("layers"), format!("{}\n{layers}", layer.path().display()))?;
        Ok(Self { layer, image })
    }

    fn hash(&self) -> String {
        let name = self.image.file_name().unwrap_or_default().to_string_lossy();
        name.trim_start_matches("image-").to_owned()
    }
}

impl Drop for BrokenImage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.image);
        let _ = fs::remove_dir_all(self.layer.path());
    }
}

#[test]
fn a_broken_image_is_told_with_the_end_of_its_journal() {
    let _shared = VIP_RANGE.read().unwrap_or_else(PoisonError::into_inner);
    with_project("broken-image", |lab, tenant| {
        let broken = BrokenImage::of(lab, "usr/bin/kube-scheduler")?;
        let file = tenant.home().join("image");
        fs::write(&file, "broken")?;
        let property = format!("ake_image_hash={}", broken.hash());
        tenant.openstack(&[
            "image",
            "create",
            "--disk-format",
            "raw",
            "--container-format",
            "bare",
            "--property",
            &property,
            "--file",
            &file.display().to_string(),
            "broken",
        ])?;
        let report = &mut Report::new("broken-image");
        let credential = tenant.credential("broken", report)?;
        let mut wish = Wish::of("broken", 0);
        wish.parameters.push(("image".to_owned(), "broken".to_owned()));
        let begun = Instant::now();
        tenant.begin(&wish, &credential, report)?;
        let failed = tenant.finish("broken").err();
        let took = begun.elapsed();
        tenant.remove("broken")?;
        tenant.openstack(&["image", "delete", "broken"])?;
        let said = format!("{:#}", failed.context("a cluster of a broken image was made")?);
        says(
            &said,
            &["broken-master-0", "kube-scheduler.service cannot be executed", "Failed at step EXEC"],
        )?;
        ensure!(took < MACHINE, "said after {} s", took.as_secs());
        Ok(())
    });
}

/// What the controller manager says of a cloud.conf, and that it ends with a failure.
fn of_cloud_conf(program: &std::path::Path, text: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("cloud.conf");
    fs::write(&path, text)?;
    let mut command = Command::new("timeout");
    command.arg("20").arg(program).arg("--cloud-config").arg(&path).args(["--kubeconfig", "/nonexistent"]);
    let out = raw(&mut command)?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(out.status.code() == Some(1), "{text}: {}: {}", out.status, complaint(&out));
    says(&said, &[&path.display().to_string()])?;
    Ok(said)
}

#[test]
fn a_broken_cloud_conf_is_told_with_line_key_value_and_expectation() {
    scenarios::stacks::run(|lab| {
        let program = lab.built("ake-cloud-controller-manager")?;
        let login = "auth-url=http://192.0.2.2:5000/v3\napplication-credential-id=a\napplication-credential-secret=marker\n";
        let cases: [(String, &[&str]); 9] = [
            ("[Global\n".into(), &["line 1", "expected ]"]),
            ("[Global]\nregion=\"RegionOne\n".into(), &["line 2", "region", "expected a closing quote"]),
            ("[Global]\n\nwhat is this\n".into(), &["line 3", "what", "expected ="]),
            (
                "[Global]\nregion=RegionOne\n".into(),
                &["[Global] auth-url is missing", "expected the URL of Keystone"],
            ),
            (
                format!("[Global]\n{}", login.replace("http://192.0.2.2:5000/v3", "keystone")),
                &["line 2", "auth-url = \"keystone\"", "expected"],
            ),
            (
                login.replace("application-credential-secret=marker\n", "").replacen("", "[Global]\n", 1),
                &["application-credential-secret is missing", "expected"],
            ),
            (
                format!("[Global]\n{login}[AKE]\ncluster-id=demo\n"),
                &["line 6", "cluster-id = \"demo\"", "expected a UUID"],
            ),
            (
                format!("[Global]\n{login}[BlockStorage]\nnode-volume-attach-limit=999\n"),
                &["line 6", "node-volume-attach-limit = \"999\"", "expected a number from 1 to 256"],
            ),
            (
                format!("[Global]\n{login}ca-file=/nonexistent/ca.pem\n"),
                &["line 5", "ca-file = \"/nonexistent/ca.pem\"", "expected"],
            ),
        ];
        for (text, words) in cases {
            let said = of_cloud_conf(&program, &text)?;
            says(&said, words)?;
            ensure!(!said.contains("marker"), "the secret is in: {said}");
        }
        // A folder in place of the file.
        let folder = tempfile::tempdir()?;
        symlink(folder.path(), folder.path().join("cloud.conf"))?;
        let out = raw(Command::new(&program).arg("--cloud-config").arg(folder.path().join("cloud.conf")))?;
        ensure!(!out.status.success(), "a folder was read");
        says(&complaint(&out), &["cloud.conf", "directory"])
    });
}
