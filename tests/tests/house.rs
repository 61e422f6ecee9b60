//! The rules of the house that a compiler does not know: which package may depend on which, who may name
//! which crate, how long a file may be, what a committed file may not hold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file that git tracks.
fn tracked() -> Vec<String> {
    let out = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().split('\0').filter(|f| !f.is_empty()).map(Into::into).collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_default()
}

#[test]
fn packages_depend_only_along_the_arrows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = [
        ("openstack-client", vec![]),
        ("lb-driver", vec![]),
        ("ake-api-client", vec![]),
        ("ake-api", vec!["openstack-client", "lb-driver", "ake-api-client"]),
        ("ake-xdp", vec!["lb-driver"]),
        ("cloud-provider", vec!["openstack-client", "ake-api-client"]),
        ("ake-heat", vec!["openstack-client", "ake-api-client"]),
        ("ake-bigip", vec![]),
        ("ake-fuzz", vec![]),
        ("ake-lab", vec![]),
        ("scenarios", vec!["ake-lab"]),
    ]
    .into_iter()
    .map(|(package, uses)| (package, uses.into_iter().collect()))
    .collect();
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(ours, allowed.keys().copied().collect(), "every package of the workspace has its arrows here");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            // A package's tests may use what its code may not.
            let development = dependency["kind"] == "dev";
            assert!(
                development || !ours.contains(on) || allowed[name].contains(on),
                "{name} must not depend on {on}"
            );
        }
    }
}

/// `(crate, folders whose files may name it)`
const NAMES: &[(&str, &[&str])] = &[
    ("kube", &["cloud-provider/src/cluster/"]),
    ("osauth", &["openstack/src/"]),
    ("rtnetlink", &["cloud-provider/src/agent/", "lb-driver/xdp/"]),
    ("aya", &["lb-driver/xdp/"]),
    ("sqlx", &["api/src/"]),
];

#[test]
fn a_crate_is_named_only_where_it_is_at_home() {
    for file in tracked().iter().filter(|f| f.ends_with(".rs")) {
        let text = read(file);
        for (name, homes) in NAMES {
            let named = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.match_indices(&format!("{name}::")).any(|(at, _)| {
                    !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                })
            });
            assert!(
                !named || homes.iter().any(|home| file.starts_with(home)) || file.ends_with("tests/house.rs"),
                "{file} names {name}, whose home is {homes:?}"
            );
        }
    }
}

#[test]
fn unsafe_stands_in_the_maps_file_alone() {
    for file in tracked().iter().filter(|f| f.ends_with(".rs") && *f != "tests/tests/house.rs") {
        let uses = read(file).lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn")
        });
        assert!(!uses || file == "lb-driver/xdp/src/maps.rs", "{file} has an unsafe block");
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    let long: Vec<_> = tracked()
        .into_iter()
        .filter(|f| [".rs", ".py", ".c", ".h", ".go"].iter().any(|end| f.ends_with(end)))
        .map(|f| (read(&f).lines().count(), f))
        .filter(|(lines, _)| *lines > 450)
        .collect();
    assert!(long.is_empty(), "split by what they do: {long:?}");
}

#[test]
fn nothing_unfinished_is_committed() {
    let marks = ["todo!(", "unimplemented!(", "FIX\u{4d}E", "TO\u{44}O", "#[ignore"];
    for file in tracked().iter().filter(|f| [".rs", ".py", ".c", ".sh"].iter().any(|e| f.ends_with(e))) {
        if file.ends_with("tests/house.rs") {
            continue;
        }
        for (number, line) in read(file).lines().enumerate() {
            assert!(
                !marks.iter().any(|mark| line.contains(mark)),
                "{file}:{}: unfinished: {line}",
                number + 1
            );
        }
    }
}
