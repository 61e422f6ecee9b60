//! The services' configuration: the templates in `etc`, filled in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::install::{Programs, sources};
use super::{HOST, PASSWORD, Project, REGION, auth_url};
use crate::Dirs;

/// Directories that the services expect to find.
const DIRECTORIES: [&str; 12] = [
    "data/sqlite",
    "data/locks",
    "data/keystone/fernet",
    "data/keystone/credential",
    "data/glance/images",
    "data/glance/staging",
    "data/glance/tasks",
    "data/cinder/coord",
    "data/cinder/volumes",
    "data/nova",
    "data/neutron",
    "data/placement",
];

/// Writes every service's configuration and makes the directories that they name.
pub fn write(dirs: &Dirs, programs: &Programs) -> Result<()> {
    for directory in DIRECTORIES {
        make(&dirs.openstack().join(directory))?;
    }
    for directory in ["data/keystone/fernet", "data/keystone/credential"] {
        let path = dirs.openstack().join(directory);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot protect {}", path.display()))?;
    }
    for directory in [dirs.log(), dirs.run(), plugins(dirs)] {
        make(&directory)?;
    }
    for project in super::PROJECTS {
        let name = project.name;
        let template = sources().join(format!("etc/{name}.conf"));
        let text =
            fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
        let text = fill(&text, &|word| value(dirs, programs, word))
            .with_context(|| format!("in {}", template.display()))?;
        let to = file(dirs, name);
        if let Some(parent) = to.parent() {
            make(parent)?;
        }
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
    }
    // Nova reads it beside its configuration, wherever the setting points
    let paste = dirs.openstack().join("etc/nova/api-paste.ini");
    let stock = programs.services.join("etc/nova/api-paste.ini");
    fs::copy(&stock, &paste).with_context(|| format!("cannot copy {}", stock.display()))?;
    Ok(())
}

/// The configuration file of one project.
pub fn file(dirs: &Dirs, project: &str) -> std::path::PathBuf {
    let name = if project == "glance" { "glance-api" } else { project };
    dirs.openstack().join(format!("etc/{project}/{name}.conf"))
}

/// The directory that Heat searches for plugins.
pub fn plugins(dirs: &Dirs) -> std::path::PathBuf {
    dirs.openstack().join("heat-plugins")
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// Replaces every `{{words}}` of a template.
fn fill(template: &str, value: &dyn Fn(&[&str]) -> Option<String>) -> Result<String> {
    let mut text = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((words, after)) = after.split_once("}}") else {
            bail!("\"{{{{\" without \"}}}}\"");
        };
        let list: Vec<&str> = words.split_whitespace().collect();
        let Some(value) = value(&list) else {
            bail!("{{{{{words}}}}}: no such value");
        };
        text.push_str(before);
        text.push_str(&value);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// What a template's words stand for.
fn value(dirs: &Dirs, programs: &Programs, words: &[&str]) -> Option<String> {
    let path = |path: std::path::PathBuf| path.display().to_string();
    Some(match words {
        ["state"] => path(dirs.openstack()),
        ["etc"] => path(dirs.openstack().join("etc")),
        ["log"] => path(dirs.log()),
        ["venv"] => path(programs.services.clone()),
        ["hook"] => super::services::hook(dirs),
        ["plugins"] => path(plugins(dirs).join("ake_heat/plugin")),
        ["host"] => HOST.to_owned(),
        ["region"] => REGION.to_owned(),
        ["password"] => PASSWORD.to_owned(),
        ["url", project] => Project::named(project)?.url(),
        ["database", name] => format!(
            "connection = sqlite:///{}?timeout=60\nsqlite_synchronous = false",
            dirs.openstack().join(format!("data/sqlite/{name}.db")).display()
        ),
        ["user", name] => user(name),
        // which calls an application credential's access rules admit is decided by the service type
        ["tokens", name, kind] => format!(
            "{}\nwww_authenticate_uri = {}\nservice_type = {kind}\nservice_token_roles = service\n\
             service_token_roles_required = true",
            user(name),
            auth_url(),
        ),
        _ => return None,
    })
}

/// How a service logs in as a user of its own.
fn user(name: &str) -> String {
    format!(
        "auth_type = password\nauth_url = {}\nproject_domain_id = default\nuser_domain_id = default\n\
         project_name = service\nusername = {name}\npassword = {PASSWORD}\nregion_name = {REGION}",
        auth_url()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs() -> Programs {
        Programs { services: "/venv".into(), client: "/client".into(), uv: "/uv".into() }
    }

    #[test]
    fn templates_are_filled_whole() {
        let dirs = Dirs::in_dirs("t", Path::new("/home"), Path::new("/cache")).unwrap();
        for project in super::super::PROJECTS {
            let template = sources().join(format!("etc/{}.conf", project.name));
            let text =
                fill(&fs::read_to_string(template).unwrap(), &|words| value(&dirs, &programs(), words))
                    .unwrap();
            assert!(!text.contains("{{") && text.contains("/home/t/"), "{text}");
        }
    }

    /// Every key that a template sets, and those that stand for several.
    fn keys(text: &str) -> impl Iterator<Item = &str> {
        text.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key)
    }

    #[test]
    fn every_setting_stands_in_the_reference_with_its_reason() {
        let dirs = Dirs::in_dirs("t", Path::new("/home"), Path::new("/cache")).unwrap();
        let page = sources().join("../../../docs/reference/stand-ins.md");
        let page = fs::read_to_string(page).unwrap();
        for project in super::super::PROJECTS {
            let template = sources().join(format!("etc/{}.conf", project.name));
            let text = fs::read_to_string(template).unwrap();
            let text = fill(&text, &|words| value(&dirs, &programs(), words)).unwrap();
            for key in keys(&text) {
                assert!(page.contains(&format!("`{key}`")), "{}: {key} is not explained", project.name);
            }
        }
    }

    #[test]
    fn an_unknown_word_is_named() {
        let error = fill("a {{no such}} b", &|_| None).unwrap_err();
        assert_eq!(error.to_string(), "{{no such}}: no such value");
        assert!(fill("a {{b", &|_| None).is_err());
    }
}
