//! A lab as tests and the command line see it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::balancers::Balancers;
use crate::cage::{self, Cage};
use crate::openstack::admin::{self, Admin};
use crate::openstack::install::Programs;
use crate::openstack::services::Services;
use crate::openstack::{self, Project, bake, cloud, configure, operator};
use crate::{Dirs, ake, detached, machine, metadata, network};

/// How much of a lab is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The network and OpenStack, as an operator finds them who has not heard of AKE.
    Cloud,
    /// The same with AKE in it.
    Ake,
}

/// A running lab.
#[derive(Debug, Clone)]
pub struct Lab {
    dirs: Dirs,
    cage: Cage,
    programs: Programs,
}

impl Lab {
    /// Starts a lab from nothing; one of that name that runs or was left behind is ended first.
    pub fn up(name: &str, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::start(name, Extent::Ake, Balancers::Two, progress)
    }

    /// As [`Lab::up`], or less of it.
    pub fn start(
        name: &str,
        extent: Extent,
        balancers: Balancers,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let dirs = Dirs::of(name)?;
        let own = built("ake-lab")?;
        if extent == Extent::Ake {
            for program in ["ake-api", "ake-xdp", "ake-heat"] {
                built(program)?;
            }
        }
        let programs = Programs::install(&dirs, progress)?;
        down(&dirs)?;
        fs::create_dir_all(&dirs.state).with_context(|| format!("cannot make {}", dirs.state.display()))?;
        cage::install(&dirs, &own)?;
        let cage = Cage::create(&dirs)?;
        let lab = Self { dirs, cage, programs };
        if extent == Extent::Ake {
            operator::image(&lab)?;
        }
        network::up(&lab.cage, balancers)?;
        progress("the lab's network is up");
        configure::write(&lab.dirs, &lab.programs)?;
        lab.services().place()?;
        if extent == Extent::Ake {
            ake::configure(&lab, balancers)?;
            operator::plugin(&lab, progress)?;
        }
        bake::start(&lab.services(), progress)?;
        metadata::start(&lab.cage)?;
        if extent == Extent::Ake {
            operator::cloud(&lab, progress)?;
            ake::start(&lab, progress)?;
        }
        progress(&format!("the lab {:?} is up", lab.name()));
        Ok(lab)
    }

    /// The running lab of that name.
    pub fn attach(name: &str) -> Result<Self> {
        let dirs = Dirs::of(name)?;
        let cage = Cage::running(&dirs)?;
        let programs = Programs::install(&dirs, &mut |_| ())?;
        Ok(Self { dirs, cage, programs })
    }

    /// Ends the lab of that name and removes everything of it. Right at any time, also after a crash.
    pub fn down(name: &str) -> Result<()> {
        down(&Dirs::of(name)?)
    }

    /// The names of the labs that have a state directory, and whether they run.
    pub fn list() -> Result<Vec<(String, bool)>> {
        let home = crate::paths::home();
        let entries = match fs::read_dir(&home) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot read {}", home.display()))?,
        };
        let mut labs = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let runs = Cage::attach(&Dirs::of(&name)?)?.is_some();
            labs.push((name, runs));
        }
        labs.sort();
        Ok(labs)
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.dirs.name
    }

    /// The lab's directories.
    pub fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// The cage that holds the lab.
    pub fn cage(&self) -> &Cage {
        &self.cage
    }

    /// The lab's OpenStack programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The lab's OpenStack services.
    pub fn services(&self) -> Services<'_> {
        Services { dirs: &self.dirs, cage: &self.cage, programs: &self.programs }
    }

    /// A program in one of the lab's network namespaces (`switch`, `router`, `balancer`, `balancer2`, `client`,
    /// `control`).
    pub fn command(&self, netns: &str, program: impl AsRef<OsStr>) -> Command {
        self.cage.command(Some(netns), program)
    }

    /// A program on the client's machine, where `openstack` and `kubectl` are installed.
    pub fn client(&self, program: impl AsRef<OsStr>) -> Command {
        // `env` finds the program by the path that it is given
        let mut command = self.command("client", "env");
        command.arg(format!("PATH={}", self.client_path())).arg(program);
        command
    }

    /// As [`Lab::client`], with the login of a tenant (or of `admin`) in its environment.
    pub fn client_as(&self, user: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.client(program);
        command.envs(openstack::login(user));
        command
    }

    /// The stock command line with the login of a tenant; the caller adds what to do.
    pub fn tenant(&self, user: &str) -> Command {
        self.client_as(user, "openstack")
    }

    /// Runs a command on a server, by name or id, and gives what it said.
    pub fn exec(&self, server: &str, words: &[&str]) -> Result<Output> {
        machine::output(&self.cage, server, &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    /// Makes a project with a user of the same name (password `secret`) who has the role `member` alone.
    pub fn new_project(&self, name: &str) -> Result<()> {
        admin::in_netns(&self.cage, "control", async || cloud::tenant(&Admin::login().await?, name).await)
    }

    /// Ends and starts one of AKE's services or an OpenStack project, and returns when it answers again.
    pub fn restart(&self, service: &str) -> Result<()> {
        if let Some(project) = Project::named(service) {
            return self.services().restart(*project);
        }
        detached::stop(&self.cage, &[service])?;
        ake::start_one(self, service)
    }

    /// Replaces the program of `ake-api` or of a balancer by the one that was built, and restarts the service.
    pub fn upgrade(&self, service: &str) -> Result<()> {
        ake::upgrade(self, service)
    }

    /// Ends a service as a crash would.
    pub fn kill(&self, service: &str) -> Result<()> {
        detached::signal(&self.cage, service, "KILL")
    }

    /// Ends a service properly; [`Lab::restart`] brings it back.
    pub fn stop(&self, service: &str) -> Result<()> {
        detached::stop(&self.cage, &[service])
    }

    /// The process of a service by the cage's numbers, if it runs.
    pub fn pid(&self, service: &str) -> Option<String> {
        detached::pid(&self.cage, service)
    }

    /// The log of a service.
    pub fn log(&self, service: &str) -> PathBuf {
        self.dirs.log().join(format!("{service}.log"))
    }

    /// A service's record of the requests that it answered: time, source, user, project, method, path, status, agent.
    pub fn access_log(&self, service: &str) -> PathBuf {
        self.dirs.log().join(format!("{service}.access"))
    }

    /// One of the programs that were built with this one.
    pub fn built(&self, program: &str) -> Result<PathBuf> {
        built(program)
    }

    /// One of `ake-api`'s commands for operators, on the control host.
    pub fn operator(&self, words: &[&str]) -> Command {
        let mut command = self.command("control", self.dirs.state.join("bin/ake-api"));
        command.args(words).arg("--config").arg(ake::api_config(&self.dirs));
        command
    }

    fn client_path(&self) -> String {
        format!(
            "{}:{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.programs.client.join("bin").display(),
            self.dirs.cache.join("kubernetes").display()
        )
    }
}

fn down(dirs: &Dirs) -> Result<()> {
    cage::destroy(dirs)?;
    match fs::remove_dir_all(&dirs.state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dirs.state.display()))
        }
        _ => Ok(()),
    }
}

/// A program beside the running one; tests lie a folder deeper.
pub fn built(program: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let mut folder = own.parent().unwrap_or(Path::new("."));
    if folder.ends_with("deps") {
        folder = folder.parent().unwrap_or(folder);
    }
    let path = folder.join(program);
    if !path.exists() {
        bail!("no {program} in {}: \"cargo build --workspace\" makes it", folder.display());
    }
    Ok(path)
}
