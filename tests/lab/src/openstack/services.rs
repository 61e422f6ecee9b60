//! The services' processes: one per project, in the namespace `control`, forked from a parent that loaded what
//! they share.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::admin::Admin;
use super::install::{Programs, sources};
use super::{HOST, PROJECTS, Project};
use crate::cage::{self, Cage};
use crate::{Dirs, detached, shell};

/// How long the services may take until they listen; a busy machine takes several times its usual 10 s.
const START: Duration = Duration::from_secs(240);
/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(50);
/// How much of a dead service's output stands in the error.
const TAIL: usize = 1500;

/// The services of one lab.
#[derive(Debug)]
pub struct Services<'a> {
    /// The lab's directories.
    pub dirs: &'a Dirs,
    /// Where they run.
    pub cage: &'a Cage,
    /// What they run.
    pub programs: &'a Programs,
}

/// The command that the stand-ins run at an event.
pub fn hook(dirs: &Dirs) -> String {
    format!("'{}' hook", cage::program(dirs).display())
}

impl Services<'_> {
    /// A program of the services' virtual environment, in the control namespace.
    pub fn python(&self, program: &str) -> Command {
        let mut command =
            self.cage.command(Some("control"), self.programs.services.join("bin").join(program));
        command
            .env("PYTHONPATH", self.dirs.openstack().join("lib/standins"))
            .env("PYTHONWARNINGS", "ignore")
            .env("AKE_HEAT_CONFIG", self.dirs.ake().join("heat.toml"));
        command
    }

    /// Copies what is Python from the sources to the lab, so that it stays what it was while the lab runs.
    pub fn place(&self) -> Result<()> {
        let lib = self.dirs.openstack().join("lib");
        fs::create_dir_all(&lib).with_context(|| format!("cannot make {}", lib.display()))?;
        shell::run(
            Command::new("cp")
                .arg("-r")
                .args(["serve.py", "schema.py", "standins"].map(|name| sources().join(name)))
                .arg(&lib),
        )?;
        Ok(())
    }

    /// Starts some projects and returns when they listen.
    pub fn launch(&self, projects: &[Project]) -> Result<()> {
        for project in projects {
            remove(&self.ready(project))?;
        }
        let out = self.dirs.log().join("launch.out");
        let file = fs::File::create(&out).with_context(|| format!("cannot write {}", out.display()))?;
        let mut command = self.python("python");
        command.arg(self.dirs.openstack().join("lib/serve.py")).arg(&self.dirs.state).arg(HOST);
        command.args(projects.iter().map(|project| format!("{}:{}", project.name, project.port)));
        let status = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .with_context(|| format!("cannot start {}", shell::line(&command)))?;
        if !status.success() {
            bail!("OpenStack did not start ({status}): see {}\n{}", out.display(), end_of(&out));
        }
        let deadline = Instant::now() + START;
        for project in projects {
            let mut looks = 0_u32;
            while !self.ready(project).exists() {
                std::thread::sleep(LOOK);
                looks += 1;
                // asking for the process costs one of its own
                let dead = looks.is_multiple_of(20) && detached::pid(self.cage, project.name).is_none();
                if dead || Instant::now() > deadline {
                    let out = self.dirs.log().join(format!("{}.out", project.name));
                    bail!(
                        "{} {}: see {} and {}.log beside it\n{}",
                        project.name,
                        if dead { "died while starting" } else { "did not start in time" },
                        out.display(),
                        project.name,
                        end_of(&out)
                    );
                }
            }
        }
        Ok(())
    }

    /// Asks every API one thing that needs a login, all at once: the first answer takes a while.
    pub fn warm(&self) -> Result<()> {
        super::admin::in_netns(self.cage, "control", async || {
            let admin = Admin::login().await?;
            let probes = PROJECTS.map(|project| admin.get(project.kind, project.probe.to_owned()));
            futures::future::try_join_all(probes).await?;
            Ok(())
        })
    }

    /// Ends some projects' processes.
    pub fn stop(&self, projects: &[Project]) -> Result<()> {
        let names: Vec<&str> = projects.iter().map(|project| project.name).collect();
        detached::stop(self.cage, &names)
    }

    /// Ends one project's process and starts it again.
    pub fn restart(&self, project: Project) -> Result<()> {
        self.stop(&[project])?;
        self.launch(&[project])
    }

    fn ready(&self, project: &Project) -> PathBuf {
        self.dirs.run().join(format!("{}.ready", project.name))
    }
}

fn remove(path: &std::path::Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn end_of(path: &std::path::Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    shell::tail(&String::from_utf8_lossy(&text), TAIL).to_owned()
}
