//! The steps by which an operator brings AKE to an existing cloud: run with the stock client, and shown as one
//! would type them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, mpsc};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{PASSWORD, REGION, configure};
use crate::lab::Lab;
use crate::{ake, shell};

/// The image that nodes boot from.
pub const IMAGE: &str = "ake-node";

/// Commands that build on each other; chains do not.
type Chain = Vec<Vec<String>>;

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
    run(lab, chains(&hash, &file.display().to_string()), progress)
}

fn chains(hash: &str, file: &str) -> Vec<Chain> {
    let words = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    let url = ake::API_URL;
    let mut catalog = vec![words("service create --name ake --description Kubernetes ake")];
    for interface in ["public", "internal", "admin"] {
        catalog.push(words(&format!("endpoint create --region {REGION} ake {interface} {url}")));
    }
    vec![
        catalog,
        vec![
            words(&format!("user create --domain default --password {PASSWORD} ake")),
            words("role add --user ake --project service service"),
        ],
        vec![
            words("network create --project service --no-share --provider-network-type local ake-vips"),
            words(
                "subnet create --project service --network ake-vips --subnet-range 203.0.113.0/24 \
                 --gateway none --no-dhcp ake-vips-v4",
            ),
            words(
                "subnet create --project service --network ake-vips --ip-version 6 \
                 --subnet-range 2001:db8:113::/112 --gateway none --no-dhcp ake-vips-v6",
            ),
        ],
        vec![words(&format!(
            "image create --public --disk-format raw --container-format bare --property os_type=linux \
             --property os_distro=debian --property ake_image_hash={hash} --file {file} {IMAGE}"
        ))],
    ]
}

/// Runs the chains two at a time: the stock client spends its time loading itself.
fn run(lab: &Lab, chains: Vec<Chain>, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let chains = Mutex::new(chains.into_iter());
    let next = || chains.lock().map_or(None, |mut chains| chains.next());
    std::thread::scope(|scope| {
        let (say, said) = mpsc::channel::<String>();
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let say = say.clone();
                let next = &next;
                scope.spawn(move || -> Result<()> {
                    while let Some(chain) = next() {
                        for words in chain {
                            let line =
                                shell::words(std::iter::once("openstack".to_owned()).chain(words.clone()));
                            // nobody listens only when this function has panicked
                            let _ = say.send(format!("$ {line}"));
                            shell::run(lab.tenant("admin").args(&words)).with_context(|| line)?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        drop(say);
        for line in said {
            progress(&line);
        }
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread that ran an operator's steps panicked"),
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_a_whole_command() {
        let chains = chains("0123", "/f");
        let lines: Vec<String> = chains.concat().into_iter().map(shell::words).collect();
        assert!(lines.iter().all(|line| !line.contains("  ") && !line.contains('\'')), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("ake_image_hash=0123")));
    }
}
