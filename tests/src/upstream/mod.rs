//! Kubernetes' own end-to-end tests: which are run, how one is run, what came of it.

pub mod ginkgo;
pub mod suite;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{cluster::Cluster, output};
use ginkgo::{State, Verdict};

/// How long the pods of a cluster's own may take until tests begin.
const STARTUP: Duration = Duration::from_secs(180);

/// The compiled tests, and where they leave their logs.
pub struct Runner<'a> {
    /// The cluster that they run against.
    pub cluster: &'a Cluster<'a>,
    /// The folder of logs and JUnit files.
    pub results: PathBuf,
}

/// The program, and kubectl, as `tools/e2e` and `tools/image` left them in the cache.
fn program(cluster: &Cluster<'_>) -> Result<(PathBuf, PathBuf)> {
    let cache = &cluster.lab.dirs().cache;
    let (program, kubectl) = (cache.join("e2e/e2e.test"), cache.join("kubernetes/kubectl"));
    if !program.exists() {
        bail!("no {}: \"tools/e2e\" makes it", program.display());
    }
    Ok((program, kubectl))
}

impl Runner<'_> {
    /// The names of all specs that an expression selects, in alphabetical order.
    pub fn list(&self, focus: &str) -> Result<Vec<String>> {
        let (program, _) = program(self.cluster)?;
        let report = self.results.join("list.json");
        output(
            self.cluster
                .lab
                .client(program)
                .args(["--provider=skeleton", "--ginkgo.dry-run", "--ginkgo.silence-skips"])
                .arg(format!("--ginkgo.focus={focus}"))
                .arg(format!("--ginkgo.json-report={}", report.display())),
        )?;
        let mut names: Vec<_> = ginkgo::read(&report)?
            .into_iter()
            .filter(|verdict| verdict.state == State::Passed)
            .map(|verdict| verdict.spec)
            .collect();
        std::fs::remove_file(&report)?;
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Runs one spec. It stands where clients of the cluster stand: behind the router, outside of the nodes' network.
    pub fn run(&self, spec: &str) -> Result<Verdict> {
        let (program, kubectl) = program(self.cluster)?;
        let stem = self.results.join(file_name(spec));
        let (log, report) = (stem.with_extension("log"), stem.with_extension("json"));
        let file = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
        let status = self
            .cluster
            .lab
            .client(program)
            .args(["--provider=skeleton", "--ginkgo.no-color", "--ginkgo.v", "--disable-log-dump"])
            .arg(format!("--kubeconfig={}", self.cluster.kubeconfig().display()))
            .arg(format!("--kubectl-path={}", kubectl.display()))
            .arg(format!("--system-pods-startup-timeout={}s", STARTUP.as_secs()))
            .arg(format!("--ginkgo.focus={}$", ginkgo::literally(spec)))
            .arg(format!("--ginkgo.json-report={}", report.display()))
            .arg(format!("--ginkgo.junit-report={}", stem.with_extension("xml").display()))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .context("e2e.test")?;
        let verdicts = if report.exists() { ginkgo::read(&report)? } else { Vec::new() };
        let _ = std::fs::remove_file(&report);
        let own = verdicts.into_iter().find(|verdict| verdict.spec == spec || verdict.state == State::Failed);
        Ok(match own {
            Some(verdict) if verdict.state != State::Passed || status.success() => {
                Verdict { spec: spec.to_owned(), ..verdict }
            }
            _ => Verdict {
                spec: spec.to_owned(),
                state: State::Failed,
                seconds: 0.0,
                said: format!("e2e.test ended with {status}, see {}", log.display()),
            },
        })
    }

    /// Runs specs, several at a time; each verdict is told as it comes.
    pub fn run_all(
        &self,
        specs: Vec<String>,
        at_once: usize,
        mut tell: impl FnMut(&Verdict),
    ) -> Result<Vec<Verdict>> {
        let queue = Mutex::new(VecDeque::from(specs));
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..at_once.max(1) {
                let (sender, queue) = (sender.clone(), &queue);
                scope.spawn(move || {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(spec) = next else { return };
                        if sender.send(self.run(&spec)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut verdicts = Vec::new();
            for verdict in receiver {
                let verdict = verdict?;
                tell(&verdict);
                verdicts.push(verdict);
            }
            Ok(verdicts)
        })
    }
}

/// A spec's name as the name of a file: what is common to all is left out.
#[must_use]
pub fn file_name(spec: &str) -> String {
    let mut words = String::new();
    for letter in spec.replace("[sig-network]", "").chars() {
        match letter {
            c if c.is_ascii_alphanumeric() || c == '=' => words.push(c),
            _ if words.ends_with('-') || words.is_empty() => {}
            _ => words.push('-'),
        }
    }
    words.trim_end_matches('-').to_owned()
}

/// Names of specs that passed before, one a line in a file of the folder of results.
pub struct Passed(PathBuf);

impl Passed {
    /// The file of a folder.
    #[must_use]
    pub fn of(results: &Path) -> Self {
        Self(results.join("passed"))
    }

    /// What it holds; nothing if it is not there.
    #[must_use]
    pub fn read(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Notes one more.
    pub fn note(&self, spec: &str) -> Result<()> {
        let mut all = self.read();
        all.push(spec.to_owned());
        std::fs::write(&self.0, all.join("\n") + "\n").with_context(|| self.0.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_have_no_signs() {
        assert_eq!(
            file_name("[sig-network] LoadBalancers [Slow] with externalTrafficPolicy=Local [LinuxOnly]"),
            "LoadBalancers-Slow-with-externalTrafficPolicy=Local-LinuxOnly"
        );
    }

    #[test]
    fn what_passed_is_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let passed = Passed::of(folder.path());
        assert!(passed.read().is_empty());
        passed.note("a b").unwrap();
        passed.note("c").unwrap();
        assert_eq!(Passed::of(folder.path()).read(), ["a b", "c"]);
    }
}
