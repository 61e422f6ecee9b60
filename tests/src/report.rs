//! Stages with their seconds, proofs with what was measured, and the transcript of both.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::Result;

/// A run that is told as it happens.
pub struct Report {
    name: String,
    started: Instant,
    transcript: String,
    proofs: Vec<Proof>,
    stages: Vec<(String, Duration)>,
}

/// One line of the table.
struct Proof {
    claim: String,
    measured: String,
    holds: bool,
}

impl Report {
    /// A report of a run of that name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            started: Instant::now(),
            transcript: String::new(),
            proofs: Vec::new(),
            stages: Vec::new(),
        }
    }

    /// A line for whoever watches, with the clock before it.
    pub fn say(&mut self, line: &str) {
        let line = format!("{:6.1} s  {line}", self.started.elapsed().as_secs_f64());
        println!("{line}");
        let _ = writeln!(self.transcript, "{line}");
    }

    /// A command as its user types it.
    pub fn command(&mut self, line: &str) {
        self.say(&format!("$ {line}"));
    }

    /// Runs one stage: its name first, its seconds afterwards. An error is given the stage's name.
    pub fn stage<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.say(&format!("== {name}"));
        let started = Instant::now();
        let done = work(self).map_err(|error| error.context(format!("stage \"{name}\"")));
        let took = started.elapsed();
        self.stages.push((name.to_owned(), took));
        let end = if done.is_ok() { "done" } else { "failed" };
        self.say(&format!("   {end} in {:.1} s", took.as_secs_f64()));
        done
    }

    /// Notes a proof: what is claimed, what was measured, whether it holds.
    pub fn proof(&mut self, claim: &str, measured: impl Into<String>, holds: bool) {
        let measured = measured.into();
        self.say(&format!("   {} {claim}: {measured}", if holds { "ok  " } else { "FAIL" }));
        self.proofs.push(Proof { claim: claim.to_owned(), measured, holds });
    }

    /// Seconds of a stage that has ended.
    #[must_use]
    pub fn seconds(&self, stage: &str) -> Option<f64> {
        self.stages.iter().find(|(name, _)| name == stage).map(|(_, took)| took.as_secs_f64())
    }

    /// Whether every proof so far holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.proofs.iter().all(|proof| proof.holds)
    }

    /// Prints the table and the closing line; whether every proof holds.
    pub fn close(&mut self) -> bool {
        let failed = self.proofs.iter().filter(|p| !p.holds).count();
        let passed = self.proofs.len() - failed;
        let width = self.proofs.iter().map(|p| p.claim.chars().count()).max().unwrap_or(0);
        let mut table = String::from("\n");
        for proof in &self.proofs {
            let mark = if proof.holds { "ok  " } else { "FAIL" };
            let _ = writeln!(table, "{mark} {:width$}  {}", proof.claim, proof.measured);
        }
        let _ = write!(table, "\n{}: {passed} passed, {failed} failed", self.name);
        println!("{table}");
        self.transcript.push_str(&table);
        self.transcript.push('\n');
        failed == 0
    }

    /// Everything that was printed.
    #[must_use]
    pub fn transcript(&self) -> &str {
        &self.transcript
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_proof_fails_the_run_and_is_counted() {
        let mut report = Report::new("demo");
        report.proof("water is wet", "yes", true);
        report.proof("stones swim", "none of 3", false);
        assert!(!report.close());
        assert!(report.transcript().ends_with("demo: 1 passed, 1 failed\n"), "{}", report.transcript());
    }

    #[test]
    fn an_error_names_its_stage() {
        let mut report = Report::new("demo");
        let error = report.stage("boil", |_| anyhow::bail!("no fire") as Result<()>).unwrap_err();
        assert_eq!(format!("{error:#}"), "stage \"boil\": no fire");
    }
}
