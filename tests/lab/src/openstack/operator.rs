//! The steps by which an operator brings AKE to an existing cloud: run with the stock client, and shown as one
//! would type them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{PASSWORD, REGION, configure};
use crate::lab::Lab;
use crate::{ake, shell};

/// The image that nodes boot from.
pub const IMAGE: &str = "ake-node";

/// Makes the plugin's wheel and installs it where heat-engine will look; Heat is started afterwards.
pub fn plugin(lab: &Lab, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let program = lab.built("ake-heat")?;
    let wheels = lab.dirs().ake().join("wheel");
    fs::create_dir_all(&wheels).with_context(|| format!("cannot make {}", wheels.display()))?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    shell::run(
        Command::new(root.join("heat-resources/plugin/build-wheel"))
            .arg(program)
            .arg(&wheels)
            .env("UV", &lab.programs().uv),
    )?;
    let wheel = fs::read_dir(&wheels)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("no wheel in {}", wheels.display()))?;
    let mut install = Command::new(&lab.programs().uv);
    install
        .args(["pip", "install", "-q", "--python"])
        .arg(lab.programs().services.join("bin/python"))
        .arg("--target")
        .arg(configure::plugins(lab.dirs()))
        .arg(&wheel);
    progress(&format!("$ {}", shell::line(&install)));
    shell::run(&mut install)?;
    Ok(())
}

/// The folder of the newest baked image, and its content hash.
pub fn image(lab: &Lab) -> Result<(PathBuf, String)> {
    let link = lab.dirs().cache.join("image");
    let folder = fs::canonicalize(&link)
        .with_context(|| format!("no image of a node at {}: \"make image\" bakes it", link.display()))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(hash) = name.strip_prefix("image-") else {
        bail!("{} points to {name:?}: expected image-HASH", link.display());
    };
    Ok((folder, hash.to_owned()))
}

/// Catalog entry, service user, VIP network and image.
pub fn cloud(lab: &Lab, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let (_, hash) = image(lab)?;
    let file = lab.dirs().ake().join("ake-node.json");
    fs::create_dir_all(lab.dirs().ake())?;
    fs::write(&file, json!({"ake_image_hash": hash}).to_string())
        .with_context(|| format!("cannot write {}", file.display()))?;
    run(lab, &commands(&hash, &file.display().to_string()), progress)
}

/// What an operator types after `openstack`, line by line.
fn commands(hash: &str, file: &str) -> Vec<Vec<String>> {
    let words = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    let url = ake::API_URL;
    let mut commands = vec![words("service create --name ake --description Kubernetes ake")];
    for interface in ["public", "internal", "admin"] {
        commands.push(words(&format!("endpoint create --region {REGION} ake {interface} {url}")));
    }
    commands.extend([
        words(&format!("user create --domain default --password {PASSWORD} ake")),
        words(GRANT),
        words("network create --project service --no-share --provider-network-type local ake-vips"),
        words(
            "subnet create --project service --network ake-vips --subnet-range 203.0.113.0/24 \
             --gateway none --no-dhcp ake-vips-v4",
        ),
        words(
            "subnet create --project service --network ake-vips --ip-version 6 \
             --subnet-range 2001:db8:113::/112 --gateway none --no-dhcp ake-vips-v6",
        ),
        words(&format!(
            "image create --public --disk-format raw --container-format bare --property os_type=linux \
             --property os_distro=debian --property ake_image_hash={hash} --file {file} {IMAGE}"
        )),
    ]);
    commands
}

/// The one command that prints nothing.
const GRANT: &str = "role add --user ake --project service service";

/// Runs them in one stock client, which takes longer to start than to do any of them. Its interactive mode goes on
/// after an error and ends well, so what each command prints is counted.
fn run(lab: &Lab, commands: &[Vec<String>], progress: &mut dyn FnMut(&str)) -> Result<()> {
    let mut text = String::new();
    let mut answers = 0;
    for words in commands {
        let line = shell::words(words.clone());
        progress(&format!("$ openstack {line}"));
        if line == GRANT {
            text += &format!("{line}\n");
        } else {
            text += &format!("{line} -f json\n");
            answers += 1;
        }
    }
    let mut client = lab
        .tenant("admin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the stock client")?;
    client.stdin.take().context("the stock client has no input")?.write_all(text.as_bytes())?;
    let out = client.wait_with_output()?;
    let given: Result<Vec<serde_json::Value>, _> =
        serde_json::Deserializer::from_slice(&out.stdout).into_iter().collect();
    let given = given.map_or(0, |given| given.len());
    if given != answers {
        bail!(
            "the operator's steps: {given} of {answers} commands answered: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_a_whole_command() {
        let lines: Vec<String> = commands("0123", "/f").into_iter().map(shell::words).collect();
        assert!(lines.iter().all(|line| !line.contains("  ") && !line.contains('\'')), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("ake_image_hash=0123")));
    }
}
