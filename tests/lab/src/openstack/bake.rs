//! The empty cloud: databases and what the cloud's administrator puts into them, made once per version of
//! everything that has a part in it, kept in the cache, and unpacked in a moment for each new lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result};

use super::configure;
use super::install::{digest, lock, sources};
use super::services::Services;
use super::{PASSWORD, PROJECTS, Project, REGION, admin, auth_url, cloud};
use crate::shell;

/// This package's own part in a baked state.
const CODE: [&str; 3] = [include_str!("bake.rs"), include_str!("cloud.rs"), include_str!("mod.rs")];

/// Where the baked state of this version is.
fn archive(services: &Services<'_>) -> Result<PathBuf> {
    let mut parts = CODE.map(|text| text.as_bytes().to_vec()).to_vec();
    let mut names: Vec<PathBuf> = ["requirements.lock", "serve.py", "schema.py"].map(PathBuf::from).to_vec();
    for folder in ["etc", "standins"] {
        for entry in fs::read_dir(sources().join(folder))? {
            names.push(Path::new(folder).join(entry?.file_name()));
        }
    }
    names.retain(|name| sources().join(name).is_file());
    names.sort();
    for name in names {
        let path = sources().join(&name);
        parts.push(name.into_os_string().into_encoded_bytes());
        parts.push(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let hash = digest(parts.iter().map(Vec::as_slice));
    Ok(services.dirs.cache.join(format!("openstack-{hash}.tar.gz")))
}

/// Starts OpenStack with the state of an empty cloud, from the cache or from nothing.
pub fn start(services: &Services<'_>, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let archive = archive(services)?;
    if !archive.exists() {
        let _one_at_a_time = lock(services.dirs)?;
        if !archive.exists() {
            progress("no baked state of this version: making OpenStack's databases");
            create(services, progress)?;
            keep(services, &archive)?;
            progress(&format!("kept the empty cloud as {}", archive.display()));
            return Ok(());
        }
    }
    shell::run(Command::new("tar").arg("xzSf").arg(&archive).arg("-C").arg(services.dirs.openstack()))?;
    progress("the empty cloud is unpacked; starting OpenStack");
    services.launch(&PROJECTS)?;
    progress("OpenStack listens");
    services.warm()?;
    progress("every OpenStack API has answered");
    Ok(())
}

/// Databases, Keystone's content, and then all that an administrator makes by the APIs.
fn create(services: &Services<'_>, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let chains = Mutex::new(chains(services).into_iter());
    let next = || chains.lock().map_or(None, |mut chains| chains.next());
    let work = || -> Result<()> {
        while let Some(chain) = next() {
            for (program, args) in chain {
                shell::run(services.python(&program).args(args))?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work()?;
        other.join().map_err(|_| anyhow::anyhow!("a thread that made databases panicked"))?
    })?;
    let schema = services.dirs.openstack().join("lib/schema.py");
    shell::run(services.python("python").arg(&schema).arg("tune").args(databases(services)))?;
    progress("databases are made; registering users and the catalog");
    let (keystone, others): (Vec<Project>, Vec<Project>) =
        PROJECTS.iter().partition(|project| project.name == "keystone");
    services.launch(&keystone)?;
    admin::in_netns(services.cage, "control", cloud::register)?;
    progress("starting the other services");
    services.launch(&others)?;
    admin::in_netns(services.cage, "control", cloud::furnish)?;
    services.warm()?;
    progress("every OpenStack API has answered");
    Ok(())
}

/// Saves the state of a running cloud: each database as of one moment, and Keystone's keys.
fn keep(services: &Services<'_>, archive: &Path) -> Result<()> {
    let dirs = services.dirs;
    let copy = dirs.state.join("bake");
    let databases_copy = copy.join("data/sqlite");
    fs::create_dir_all(&databases_copy)?;
    fs::create_dir_all(copy.join("data/keystone"))?;
    let schema = dirs.openstack().join("lib/schema.py");
    shell::run(
        services.python("python").arg(schema).arg("copy").arg(&databases_copy).args(databases(services)),
    )?;
    let keys = dirs.openstack().join("data/keystone");
    shell::run(
        Command::new("cp")
            .arg("-a")
            .args(["fernet", "credential"].map(|name| keys.join(name)))
            .arg(copy.join("data/keystone")),
    )?;
    // nova-compute asks for the identity that it once wrote
    let identity = dirs.openstack().join("data/nova/compute_id");
    if identity.exists() {
        fs::create_dir_all(copy.join("data/nova"))?;
        fs::copy(&identity, copy.join("data/nova/compute_id"))?;
    }
    let part = archive.with_extension(format!("part-{}", std::process::id()));
    shell::run(Command::new("tar").arg("czSf").arg(&part).arg("-C").arg(&copy).arg("data"))?;
    fs::rename(&part, archive).with_context(|| format!("cannot make {}", archive.display()))?;
    fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()))
}

fn databases(services: &Services<'_>) -> Vec<PathBuf> {
    let folder = services.dirs.openstack().join("data/sqlite");
    PROJECTS.iter().flat_map(|project| project.databases).map(|name| folder.join(name)).collect()
}

/// The projects' own commands that make their databases; the chains are independent of each other.
fn chains(services: &Services<'_>) -> Vec<Vec<(String, Vec<String>)>> {
    let config = |project: &str| {
        ["--config-file".to_owned(), configure::file(services.dirs, project).display().to_string()]
    };
    let with = |project: &str, args: &[&str]| -> Vec<String> {
        config(project).into_iter().chain(args.iter().map(|arg| (*arg).to_owned())).collect()
    };
    let step = |program: &str, args: Vec<String>| (program.to_owned(), args);
    let url = auth_url();
    let owner = ["--keystone-user", "root", "--keystone-group", "root"];
    let keystone = |args: &[&str]| step("keystone-manage", with("keystone", args));
    let nova = |args: &[&str]| step("nova-manage", with("nova", args));
    let [_, neutron] = config("neutron");
    let schema = services.dirs.openstack().join("lib/schema.py").display().to_string();
    vec![
        vec![step("python", vec![schema, "neutron".to_owned(), neutron])],
        vec![
            keystone(&["db_sync"]),
            keystone(&[&["fernet_setup"][..], &owner].concat()),
            keystone(&[&["credential_setup"][..], &owner].concat()),
            keystone(&[
                "bootstrap",
                "--bootstrap-password",
                PASSWORD,
                "--bootstrap-region-id",
                REGION,
                "--bootstrap-admin-url",
                &url,
                "--bootstrap-public-url",
                &url,
                "--bootstrap-internal-url",
                &url,
            ]),
        ],
        vec![
            nova(&["api_db", "sync"]),
            // the cells' addresses are templates, so that a state can be unpacked anywhere
            nova(&["cell_v2", "map_cell0", "--database_connection", "{scheme}:////{path}.cell0?{query}"]),
            nova(&[
                "cell_v2",
                "create_cell",
                "--name",
                "cell1",
                "--transport-url",
                "lab:///",
                "--database_connection",
                "{scheme}:////{path}?{query}",
            ]),
            nova(&["db", "sync"]),
        ],
        vec![step("placement-manage", with("placement", &["db", "sync"]))],
        vec![step("cinder-manage", with("cinder", &["db", "sync"]))],
        vec![step("heat-manage", with("heat", &["db_sync"]))],
        vec![step("glance-manage", with("glance", &["db_sync"]))],
    ]
}
