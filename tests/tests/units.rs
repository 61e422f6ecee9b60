//! What systemd thinks of the units, and whether the programs know the words that units start them with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// The units that run AKE's programs on operators' hosts.
const UNITS: &[&str] = &["api/systemd/ake-api.service", "lb-driver/xdp/systemd/ake-xdp.service"];

/// The commands of a unit: key, program, words.
fn commands(unit: &str) -> Vec<(String, String, Vec<String>)> {
    let text = fs::read_to_string(scenarios::checkout().join(unit)).unwrap();
    let commands = text.lines().filter(|line| line.starts_with("Exec")).map(|line| {
        let (key, command) = line.split_once('=').unwrap();
        let mut words = command.trim_start_matches(['+', '-', '!', '@', ':']).split_whitespace();
        let program = words.next().unwrap().to_owned();
        (key.to_owned(), program, words.map(ToOwned::to_owned).collect())
    });
    commands.collect()
}

/// systemd's own targets, the units, and something executable wherever they name a program.
fn root(folder: &Path) {
    let units = folder.join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    for entry in fs::read_dir("/usr/lib/systemd/system").expect("systemd's own units") {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "target") {
            fs::copy(&path, units.join(path.file_name().unwrap())).unwrap();
        }
    }
    for unit in UNITS {
        let from = scenarios::checkout().join(unit);
        fs::copy(&from, units.join(from.file_name().unwrap())).unwrap();
        for program in commands(unit).into_iter().map(|(_, program, _)| program).collect::<BTreeSet<_>>() {
            let path = folder.join(program.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

fn verify(root: &Path, unit: &str) -> String {
    let name = Path::new(unit).file_name().unwrap();
    let done = Command::new("systemd-analyze")
        .arg("verify")
        .arg(format!("--root={}", root.display()))
        .arg(name)
        .output()
        .expect("systemd-analyze, of Debian's systemd");
    String::from_utf8(done.stderr).unwrap()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let folder = tempfile::tempdir().unwrap();
    root(folder.path());
    for unit in UNITS {
        assert_eq!(verify(folder.path(), unit), "", "{unit}");
    }
    // it would have said so
    let unit = folder.path().join("usr/lib/systemd/system/ake-api.service");
    let text = fs::read_to_string(&unit).unwrap().replace("NoNewPrivileges", "NoNewPrivilege");
    fs::write(&unit, text).unwrap();
    assert!(verify(folder.path(), UNITS[0]).contains("NoNewPrivilege"));
}

#[test]
fn programs_know_the_words_that_units_start_them_with() {
    let mut known = 0;
    for unit in UNITS {
        for (key, program, words) in commands(unit) {
            // of what is started in another namespace, the program itself
            let (program, words) = match words.iter().position(|word| word.starts_with("/usr/bin/")) {
                Some(at) => (words[at].clone(), words[at + 1..].to_vec()),
                None => (program, words),
            };
            let Some(name) = program.strip_prefix("/usr/bin/") else { continue };
            let help =
                Command::new(ake_lab::built(name).unwrap()).args(&words).arg("--help").output().unwrap();
            assert!(help.status.success(), "{unit}: {key}={program} {words:?}: {help:?}");
            let without: Vec<_> = words.iter().filter(|word| word.starts_with("--")).collect();
            let text = String::from_utf8(help.stdout).unwrap();
            assert!(without.iter().all(|flag| text.contains(flag.as_str())), "{unit}: {without:?}: {text}");
            known += 1;
        }
    }
    assert_eq!(known, 6);
}
