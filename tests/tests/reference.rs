//! The reference pages are what the programs say of themselves. `AKE_WRITE_REFERENCE=1 cargo test -p scenarios --test
//! reference` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{fmt::Write as _, process::Command};

use prometheus::core::Collector;

/// Programs with the subcommands whose help is shown.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("ake-api", &["serve", "check-config", "example-config", "show", "rebuild", "take-over"]),
    (
        "ake-xdp",
        &[
            "serve",
            "prepare",
            "detach",
            "stand-down",
            "alive",
            "check-config",
            "example-config",
            "show",
            "flows",
        ],
    ),
    ("ake-heat", &["schema", "run"]),
    ("ake-cloud-controller-manager", &[]),
    ("ake-node-agent", &["join", "network", "csi", "api-vip", "report"]),
    ("ake-lab", &["up", "down", "status", "logs", "exec", "client"]),
    ("ake-demo", &[]),
    ("ake-bench", &[]),
    ("ake-flows", &[]),
];

fn said(program: &str, words: &[&str]) -> String {
    let out = Command::new(ake_lab::built(program).unwrap())
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

/// One line of a table for each metric, by name.
fn rows<'a>(all: impl IntoIterator<Item = &'a Box<dyn Collector>>) -> String {
    let mut rows: Vec<String> = all
        .into_iter()
        .flat_map(|collector| {
            let kind = format!("{:?}", collector.collect()[0].get_field_type()).to_lowercase();
            let row = |desc: &&prometheus::core::Desc| {
                let labels: Vec<_> = desc.variable_labels.iter().map(|label| format!("`{label}`")).collect();
                let meaning = desc.help.trim_end_matches('.');
                format!("| `{}` | {kind} | {} | {meaning} |\n", desc.fq_name, labels.join(", "))
            };
            collector.desc().iter().map(row).collect::<Vec<_>>()
        })
        .collect();
    rows.sort();
    rows.concat()
}

#[test]
fn the_page_of_metrics_is_what_the_programs_register() {
    let mut page = String::from(
        "# Metrics\n\nWhat each program shows to Prometheus: everything that it registers, whether or not it has been counted yet.\n",
    );
    let api = ake_api::metrics::Metrics::new().unwrap();
    let xdp = ake_xdp::metrics::all().unwrap();
    for (program, place, rows) in [
        ("ake-api", "`/metrics` at `metrics_listen`, plain HTTP, of all projects", rows(api.all())),
        (
            "ake-cloud-controller-manager",
            "`/metrics` at `--secure-port`, for clients on the same machine; names are upstream's where upstream has one",
            rows(cloud_provider::metrics::all()),
        ),
        ("ake-xdp", "`/metrics` at `metrics`, plain HTTP; those of a pair where there is one", rows(&xdp)),
    ] {
        write!(
            page,
            "\n## {program}\n\n{place}.\n\n| name | type | labels | meaning |\n|---|---|---|---|\n{rows}"
        )
        .unwrap();
    }
    page.push_str("\n`ake-node-agent` and `ake-heat` have none: what they do is told by their logs, and by the cluster's report to Heat.\n");
    held("metrics.md", &page);
}
