//! `make e2e-...`: Kubernetes' own end-to-end tests against a cluster that a tenant made in the lab.

use std::{path::PathBuf, process::ExitCode};

use ake_lab::Lab;
use anyhow::{Context, Result};
use clap::{Parser, builder::FalseyValueParser};
use scenarios::{
    checkout,
    cluster::Cluster,
    proofs,
    report::Report,
    tenant::{Tenant, Wish},
    upstream::{
        Passed, Runner,
        ginkgo::{State, Verdict},
        suite::{Shard, Suite},
    },
};

/// The lab is called so, and the stack begins so.
const NAME: &str = "e2e";

#[derive(Parser)]
#[command(
    about = "Brings a lab up, makes a cluster in it, and runs one of the suites of tests/upstream against it"
)]
struct Arguments {
    /// Name of a file in tests/upstream
    suite: String,
    /// Name of the lab; one that runs is used, and stays
    #[arg(long, env = "AKE_LAB", default_value = NAME)]
    name: String,
    /// Workers of the cluster
    #[arg(long, env = "WORKERS", default_value_t = 2)]
    workers: u32,
    /// Families of the cluster's pods and Services, its first one first: IPv4, IPv4,IPv6 or IPv6,IPv4
    #[arg(long, env = "FAMILIES", value_delimiter = ',', default_value = "IPv4,IPv6")]
    families: Vec<String>,
    /// Leave the lab and the cluster when the tests are over
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
    /// Only specs of the suite whose name has this in it
    #[arg(long, env = "FOCUS", default_value = "")]
    focus: String,
    /// Only the i-th of n parts of the suite, as i/n
    #[arg(long, env = "SHARD")]
    shard: Option<Shard>,
    /// Not again what passed the last time
    #[arg(long, env = "RESUME", value_parser = FalseyValueParser::new())]
    resume: bool,
    /// How many specs are run at a time
    #[arg(long, env = "AT_ONCE", default_value_t = 3)]
    at_once: usize,
    /// Folder of logs and JUnit files; target/e2e-SUITE if none is given
    #[arg(long)]
    results: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::new(&format!("e2e-{}", arguments.suite));
    let found = Lab::attach(&arguments.name).is_ok();
    let held = run(&arguments, found, &mut report);
    let ended = if found || arguments.keep { Ok(()) } else { Lab::down(&arguments.name) };
    match held.and_then(|held| ended.map(|()| held)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report.say(&format!("FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, found: bool, report: &mut Report) -> Result<bool> {
    let suite = Suite::read(&arguments.suite, &arguments.families.join(","))?;
    let results = match &arguments.results {
        Some(folder) => folder.clone(),
        None => checkout().join("target").join(format!("e2e-{}", arguments.suite)),
    };
    if !arguments.resume && results.exists() {
        std::fs::remove_dir_all(&results).with_context(|| results.display().to_string())?;
    }
    std::fs::create_dir_all(&results).with_context(|| results.display().to_string())?;
    let lab = report.stage("a cloud on this machine, and AKE installed by its operator", |report| {
        if found {
            return Lab::attach(&arguments.name);
        }
        Lab::up(&arguments.name, &mut |line| report.say(&format!("   {line}")))
    })?;
    let cluster = report.stage("openstack stack create makes a cluster", |report| {
        let cluster = cluster(&lab, arguments, report)?;
        scenarios::measure::ready(&cluster, arguments.workers as usize)?;
        Ok(cluster)
    })?;
    if arguments.families.len() == 2 {
        report.stage("Services of two families", |report| proofs::dual_stack(&cluster, report))?;
    }
    let runner = Runner { cluster: &cluster, results };
    let verdicts =
        report.stage("Kubernetes' own tests", |report| specs(arguments, &suite, &runner, report))?;
    Ok(close(arguments, &suite, &verdicts, &runner, report))
}

/// The cluster of an earlier run, or a new one.
fn cluster<'a>(lab: &'a Lab, arguments: &Arguments, report: &mut Report) -> Result<Cluster<'a>> {
    let tenant = Tenant::new(lab, "demo")?;
    let stack = format!("{NAME}-{}", arguments.families.join("-").to_lowercase());
    if tenant.status(&stack)?.is_some() {
        return tenant.finish(&stack);
    }
    let kubernetes = serde_json::json!({"ip_families": arguments.families}).to_string();
    let parameters = vec![("kubernetes".to_owned(), kubernetes)];
    tenant.create(&Wish { minutes: 15, parameters, ..Wish::of(&stack, arguments.workers) }, report)
}

/// Runs what is asked for; what was skipped or had passed is among the verdicts.
fn specs(
    arguments: &Arguments,
    suite: &Suite,
    runner: &Runner<'_>,
    report: &mut Report,
) -> Result<Vec<Verdict>> {
    let mut specs = runner.list(&suite.focus)?;
    anyhow::ensure!(!specs.is_empty(), "no spec fits {:?}", suite.focus);
    specs.retain(|spec| spec.contains(&arguments.focus));
    if let Some(shard) = arguments.shard {
        specs = shard.of(specs);
    }
    let (skipped, passed) = (suite.skipped(), Passed::of(&runner.results));
    let before = passed.read();
    let mut done = Vec::new();
    let mut remaining = Vec::new();
    for spec in specs {
        let known =
            |state, said: &str| Verdict { spec: spec.clone(), state, seconds: 0.0, said: said.to_owned() };
        if let Some(reason) = skipped.get(spec.as_str()) {
            done.push(known(State::Skipped, reason));
        } else if before.contains(&spec) {
            done.push(known(State::Passed, "before"));
        } else {
            remaining.push(spec);
        }
    }
    report.say(&format!("   {} specs to run, logs in {}", remaining.len(), runner.results.display()));
    for verdict in &done {
        report.say(&line(verdict));
    }
    let mut trouble = None;
    let fresh = runner.run_all(remaining, arguments.at_once, |verdict| {
        let verdict = suite.judge(verdict.clone());
        report.say(&line(&verdict));
        if verdict.state == State::Passed {
            trouble = trouble.take().or(passed.note(&verdict.spec).err());
        }
    })?;
    if let Some(error) = trouble {
        return Err(error);
    }
    done.extend(fresh.into_iter().map(|verdict| suite.judge(verdict)));
    Ok(done)
}

fn line(verdict: &Verdict) -> String {
    let mark = match verdict.state {
        State::Passed => "ok  ",
        State::Failed => "FAIL",
        State::Skipped => "skip",
    };
    let said = verdict.said.lines().next().unwrap_or_default();
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    format!("   {mark} {} ({:.1} s){said}", verdict.spec, verdict.seconds)
}

/// The closing line; whether all is well.
fn close(
    arguments: &Arguments,
    suite: &Suite,
    verdicts: &[Verdict],
    runner: &Runner<'_>,
    report: &mut Report,
) -> bool {
    let count = |state: State| verdicts.iter().filter(|verdict| verdict.state == state).count();
    let (passed, failed, skipped) = (count(State::Passed), count(State::Failed), count(State::Skipped));
    for verdict in verdicts.iter().filter(|verdict| verdict.state == State::Failed) {
        report.say(&format!("{}\n{}", line(verdict), verdict.said));
    }
    let whole = arguments.focus.is_empty() && arguments.shard.is_none();
    let families = arguments.families.join(",");
    let before = suite.passes.get(&families).copied().unwrap_or_default();
    let fell = whole && passed < before;
    if fell {
        report.say(&format!("{before} specs passed before: expected no fewer"));
    } else if whole && passed > before {
        let file = format!("tests/upstream/{}.toml", arguments.suite);
        report.say(&format!("more pass than before: set {families:?} = {passed} below [passes] in {file}"));
    }
    report.say(&format!("logs and JUnit files: {}", runner.results.display()));
    println!("\ne2e-{}: {passed} passed, {failed} failed, {skipped} skipped", arguments.suite);
    failed == 0 && !fell && report.holds()
}
