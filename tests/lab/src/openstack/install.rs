//! Virtual environments from lock files with hashes, kept in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::Dirs;
use crate::shell;

/// Says that a virtual environment is whole.
const DONE: &str = ".done";

/// The folder of this package that holds what is not Rust.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("openstack")
}

/// Where the programs of the lab's OpenStack are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The virtual environment of the services.
    pub services: PathBuf,
    /// The virtual environment of the stock command line.
    pub client: PathBuf,
    /// The installer, which installs Heat's plugin, too.
    pub uv: PathBuf,
}

impl Programs {
    /// Finds them in the cache, and installs what is not there.
    pub fn install(dirs: &Dirs, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        if let Some(programs) = Self::installed(dirs)? {
            return Ok(programs);
        }
        let _one_at_a_time = lock(dirs)?;
        let installer = environment(dirs, "installer", progress, |env| {
            let pip = env.join("bin/python");
            shell::run(
                Command::new(pip)
                    .args([
                        "-m",
                        "pip",
                        "install",
                        "-q",
                        "--disable-pip-version-check",
                        "--require-hashes",
                        "-r",
                    ])
                    .arg(sources().join("installer.lock")),
            )
        })?;
        let uv = installer.join("bin/uv");
        let mut install = |name: &str| {
            environment(dirs, name, progress, |env| {
                shell::run(
                    Command::new(&uv)
                        .args(["pip", "install", "-q", "--require-hashes", "--python"])
                        .arg(env.join("bin/python"))
                        .arg("-r")
                        .arg(sources().join(format!("{name}.lock"))),
                )
            })
        };
        Ok(Self { services: install("requirements")?, client: install("client")?, uv })
    }

    /// What is in the cache, if all of it is.
    fn installed(dirs: &Dirs) -> Result<Option<Self>> {
        let mut whole = Vec::new();
        for name in ["requirements", "client", "installer"] {
            let env = place(dirs, name)?;
            if !env.join(DONE).exists() {
                return Ok(None);
            }
            whole.push(env);
        }
        let [services, client, installer] = &whole[..] else { return Ok(None) };
        Ok(Some(Self { services: services.clone(), client: client.clone(), uv: installer.join("bin/uv") }))
    }
}

/// Keeps another lab from making the same thing in the cache; ends when it is dropped.
pub fn lock(dirs: &Dirs) -> Result<fs::File> {
    fs::create_dir_all(&dirs.cache).with_context(|| format!("cannot make {}", dirs.cache.display()))?;
    let path = dirs.cache.join("lab.lock");
    let file = fs::File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// The folder of one lock file's virtual environment.
fn place(dirs: &Dirs, name: &str) -> Result<PathBuf> {
    let lock = sources().join(format!("{name}.lock"));
    let content = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    Ok(dirs.cache.join(format!("venv-{name}-{}", digest([content.as_slice()]))))
}

/// The virtual environment of one lock file: its folder is named after the lock's content, and a mark inside
/// says that it is whole.
fn environment(
    dirs: &Dirs,
    name: &str,
    progress: &mut dyn FnMut(&str),
    fill: impl FnOnce(&Path) -> Result<String>,
) -> Result<PathBuf> {
    let lock = sources().join(format!("{name}.lock"));
    let env = place(dirs, name)?;
    let done = env.join(DONE);
    if done.exists() {
        return Ok(env);
    }
    progress(&format!("installing {} into {}", lock.display(), env.display()));
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&env)).context(
        "the lab's OpenStack needs Python 3.11 or 3.12 with the module venv (Debian: apt-get install python3-venv)",
    )?;
    fill(&env).with_context(|| format!("cannot install {}", lock.display()))?;
    fs::write(&done, b"").with_context(|| format!("cannot write {}", done.display()))?;
    Ok(env)
}

/// Twelve digits that stand for some contents.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_locked_with_a_hash() {
        for name in ["requirements", "client", "installer"] {
            let lock = fs::read_to_string(sources().join(format!("{name}.lock"))).unwrap();
            for requirement in lock.lines().filter(|line| !line.starts_with([' ', '#'])) {
                assert!(requirement.contains("==") && requirement.ends_with('\\'), "{name}: {requirement}");
            }
        }
    }

    #[test]
    fn a_digest_tells_where_one_part_ends() {
        assert_ne!(digest([&b"ab"[..], b"c"]), digest([&b"a"[..], b"bc"]));
        assert_eq!(digest([&b"ab"[..]]).len(), 12);
    }
}
