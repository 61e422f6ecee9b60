//! The reference pages are what the programs say of themselves. `AKE_WRITE_REFERENCE=1 cargo test -p scenarios --test
//! reference` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{fmt::Write as _, path::PathBuf, process::Command};

/// Programs with the subcommands whose help is shown.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("ake-api", &["serve", "check-config", "example-config", "show", "rebuild", "take-over"]),
    ("ake-xdp", &["serve", "prepare", "detach", "alive", "check-config", "example-config", "show"]),
    ("ake-heat", &["schema", "run"]),
    ("ake-cloud-controller-manager", &[]),
    ("ake-node-agent", &["join", "network", "csi", "api-vip", "report"]),
    ("ake-lab", &["up", "down", "status", "logs", "exec", "client"]),
    ("ake-demo", &[]),
    ("ake-bench", &[]),
];

fn programs() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder
}

fn said(program: &str, words: &[&str]) -> String {
    let out = Command::new(programs().join(program))
        .args(words)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .output()
        .unwrap_or_else(|error| panic!("{program} (made by `make build`): {error}"));
    assert!(out.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Compares a page with what it should be, or writes it.
fn held(page: &str, wanted: &str) {
    let path = scenarios::checkout().join("docs/reference").join(page);
    if std::env::var_os("AKE_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == wanted,
        "docs/reference/{page} is not what the programs say: AKE_WRITE_REFERENCE=1 cargo test -p scenarios --test \
         reference writes it anew"
    );
}

#[test]
fn the_page_of_commands_is_their_own_help() {
    let mut page = String::from("# Commands\n\nWhat each program says with `--help`.\n");
    for (program, verbs) in PROGRAMS {
        write!(page, "\n## {program}\n\n```text\n{}\n```\n", said(program, &["--help"]).trim()).unwrap();
        for verb in *verbs {
            let help = said(program, &[verb, "--help"]);
            write!(page, "\n### {program} {verb}\n\n```text\n{}\n```\n", help.trim()).unwrap();
        }
    }
    held("commands.md", &page);
}

#[test]
fn the_page_of_configurations_is_the_programs_own_example() {
    let mut page = String::from(
        "# Configuration files\n\nThe examples that the programs print, with every key and what it means.\n",
    );
    for program in ["ake-api", "ake-xdp"] {
        let example = said(program, &["example-config"]);
        write!(page, "\n## {program}\n\n```toml\n{}\n```\n", example.trim()).unwrap();
    }
    held("configuration.md", &page);
}
